//! The `lanekeeper` command.

use std::process::ExitCode;

/// Forwarding an update takes about a hundred small allocations in the client libraries; docs/performance.md has what this
/// allocator saves.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    lanekeeper::cli::main()
}

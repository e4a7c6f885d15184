//! The `lanekeeper` command.

use std::process::ExitCode;

/// An update is about a hundred small allocations in the clients: docs/performance.md has what it makes of them.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    lanekeeper::cli::main()
}

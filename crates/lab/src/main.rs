//! The `lanekeeper-lab` command.

use std::process::ExitCode;

/// As in the `lanekeeper` binary, so that the receiver is no slower than what it judges.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    lanekeeper_lab::main()
}

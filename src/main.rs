//! The `lanekeeper` command.

use std::process::ExitCode;

fn main() -> ExitCode {
    lanekeeper::cli::main()
}

//! Commands that moved to the program `lanekeeper-lab`. For one version their old names start it.

use std::ffi::OsString;
use std::os::unix::process::CommandExt as _;
use std::path::PathBuf;
use std::process::Command;

use super::exit::Exit;
use super::process::say_error;

/// Whatever follows the command's name.
#[derive(Clone, Debug, clap::Args)]
#[command(disable_help_flag = true)]
pub struct Arguments {
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, hide = true)]
    arguments: Vec<OsString>,
}

/// Becomes `lanekeeper-lab COMMAND ARGUMENTS…`. Returns only if that cannot be started.
pub fn main(command: &str, Arguments { arguments }: &Arguments) -> Exit {
    say_error(format_args!(
        "warning: `lanekeeper {command}` is now `lanekeeper-lab {command}`; the old name will be removed in the next version"
    ));
    let name = format!("lanekeeper-lab{}", std::env::consts::EXE_SUFFIX);
    let beside = std::env::current_exe().ok().map(|program| program.with_file_name(&name));
    let program = beside.filter(|path| path.is_file()).unwrap_or_else(|| PathBuf::from(&name));
    let fault = Command::new(&program).arg(command).args(arguments).exec();
    say_error(format_args!(
        "error: cannot start {}: {fault}; install lanekeeper-lab beside lanekeeper",
        program.display()
    ));
    Exit::Other
}

//! The `lanekeeper` program that is shown, measured and crashed.

use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Prefix of all environment variables that configure the product.
const VARIABLE_PREFIX: &str = "LANEKEEPER_";

/// The `lanekeeper` beside this program, which is where cargo and the container put it; if there is none, the one on the
/// `PATH`.
///
/// # Errors
/// The path of this program is not known.
pub fn executable() -> io::Result<PathBuf> {
    let name = format!("lanekeeper{}", std::env::consts::EXE_SUFFIX);
    let beside = std::env::current_exe()?.with_file_name(&name);
    Ok(if beside.is_file() { beside } else { PathBuf::from(name) })
}

/// Starts `program` without the variables that configure the product: they are meant for the program that calls this.
/// Its output has no colour.
pub fn command(program: &Path) -> Command {
    let mut command = Command::new(program);
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with(VARIABLE_PREFIX) {
            command.env_remove(name);
        }
    }
    command.env("NO_COLOR", "1");
    command
}

/// `lanekeeper run` with this config file.
pub fn run_command(program: &Path, config: &Path) -> Command {
    let mut command = command(program);
    command.args(["run", "--config"]).arg(config);
    command
}

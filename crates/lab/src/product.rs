//! The `lanekeeper` program that is shown and measured.

use std::io;
use std::path::PathBuf;

/// The `lanekeeper` that stands beside this program, as cargo and the container put them; where none does, the one on
/// the `PATH`.
///
/// # Errors
/// The path of this program is not known.
pub fn executable() -> io::Result<PathBuf> {
    let name = format!("lanekeeper{}", std::env::consts::EXE_SUFFIX);
    let beside = std::env::current_exe()?.with_file_name(&name);
    Ok(if beside.is_file() { beside } else { PathBuf::from(name) })
}

//! The program `lanekeeper-lab`, of another package than these tests: cargo does not build it for them by itself.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

/// The directory of `lanekeeper-lab` and `lanekeeper`, both built from the tree as it is.
pub fn program_directory() -> &'static Path {
    static DIRECTORY: OnceLock<PathBuf> = OnceLock::new();
    DIRECTORY.get_or_init(|| {
        let directory = Path::new(env!("CARGO_BIN_EXE_lanekeeper")).parent().expect("it is in a directory");
        let release = directory.ends_with("release");
        let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
        let mut build = Command::new(cargo);
        build.current_dir(env!("CARGO_MANIFEST_DIR")).args([
            "build",
            "--quiet",
            "--package",
            "lanekeeper-lab",
        ]);
        build.args(["--bins", "--examples"]).args(release.then_some("--release"));
        let output = build.output().expect("cargo starts");
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "lanekeeper-lab cannot be built:\n{said}");
        directory.to_owned()
    })
}

/// The program, to be started.
pub fn lab_command() -> Command {
    Command::new(program_directory().join("lanekeeper-lab"))
}

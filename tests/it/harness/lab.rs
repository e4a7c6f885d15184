//! Programs that cargo does not build for these tests by itself: they belong to another package, or are examples.
//!
//! A plain `cargo test` has built them. After `cargo test --test it` they can be missing or old, and are built here: that
//! takes a while, since cargo then chooses other features for the dependencies.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;
use std::time::SystemTime;

const LAB: &str = "lanekeeper-lab";

/// The directory of `lanekeeper-lab` and `lanekeeper`, both built from the tree as it is.
pub fn program_directory() -> &'static Path {
    static DIRECTORY: OnceLock<PathBuf> = OnceLock::new();
    DIRECTORY.get_or_init(|| {
        let directory = directory();
        ensure_built(&directory.join(LAB), &["--package", LAB, "--bins"]);
        directory.to_owned()
    })
}

/// The program, to be started.
pub fn lab_command() -> Command {
    Command::new(program_directory().join(LAB))
}

/// An example of this package, built from the tree as it is.
pub fn example(name: &str) -> PathBuf {
    let program = directory().join("examples").join(name);
    ensure_built(&program, &["--package", "lanekeeper", "--example", name]);
    program
}

fn directory() -> &'static Path {
    Path::new(env!("CARGO_BIN_EXE_lanekeeper")).parent().expect("it is in a directory")
}

fn ensure_built(program: &Path, arguments: &[&str]) {
    let built = fs::metadata(program).and_then(|file| file.modified());
    if built.is_ok_and(|built| built >= newest_source()) {
        return;
    }
    // The `cargo` on the PATH, which is rustup's if there is one: it takes the toolchain that these tests were built with.
    let mut build = Command::new("cargo");
    build.current_dir(env!("CARGO_MANIFEST_DIR")).args(["build", "--quiet"]).args(arguments);
    if directory().ends_with("release") {
        build.arg("--release");
    }
    let output = build.output().expect("cargo starts");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "cargo build {arguments:?} failed:\n{said}");
}

/// When the youngest file that a program can be made of was changed.
fn newest_source() -> SystemTime {
    static NEWEST: OnceLock<SystemTime> = OnceLock::new();
    *NEWEST.get_or_init(|| {
        let project = Path::new(env!("CARGO_MANIFEST_DIR"));
        let mut newest = SystemTime::UNIX_EPOCH;
        let mut paths: Vec<PathBuf> =
            ["src", "crates", "examples", "config", "Cargo.lock"].map(|path| project.join(path)).into();
        while let Some(path) = paths.pop() {
            if path.is_dir() {
                let tests = path.file_name().is_some_and(|name| name == "tests" || name == "benches");
                let entries =
                    fs::read_dir(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
                paths.extend(entries.filter(|_| !tests).map(|entry| entry.expect("it can be read").path()));
            } else if let Ok(changed) = fs::metadata(&path).and_then(|file| file.modified()) {
                newest = newest.max(changed);
            }
        }
        newest
    })
}

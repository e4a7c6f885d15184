//! Commands that moved into `lanekeeper-lab`: for one version their old names start it.

use std::path::Path;
use std::process::Command;

use crate::harness::{lanekeeper_command, program_directory};

#[test]
fn old_names_start_the_new_program_with_a_warning() {
    program_directory();
    for command in ["receiver", "demo", "bench"] {
        let output = lanekeeper_command().args([command, "--help"]).output().expect("the binary starts");
        let (stdout, stderr) = (text(&output.stdout), text(&output.stderr));
        assert_eq!(output.status.code(), Some(0), "{stderr}");
        assert!(stdout.contains(&format!("Usage: lanekeeper-lab {command} ")), "{stdout}");
        let warning = format!("warning: `lanekeeper {command}` is now `lanekeeper-lab {command}`");
        assert!(stderr.starts_with(&warning), "{stderr}");
    }
}

#[test]
fn without_the_new_program_an_old_name_says_what_to_install() {
    // A program looks for the other one in its own directory: this one has none beside it.
    let directory = Path::new(env!("CARGO_TARGET_TMPDIR")).join("without-lab");
    std::fs::create_dir_all(&directory).expect("a directory can be made");
    let alone = directory.join("lanekeeper");
    let _ = std::fs::remove_file(&alone);
    std::fs::hard_link(lanekeeper_command().get_program(), &alone).expect("it is on the same disk");
    let output =
        Command::new(&alone).arg("demo").env("PATH", &directory).output().expect("the binary starts");
    let stderr = text(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{stderr}");
    assert!(stderr.contains("error: cannot start lanekeeper-lab: "), "{stderr}");
    assert!(stderr.contains("install lanekeeper-lab beside lanekeeper"), "{stderr}");
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

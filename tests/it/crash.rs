//! `lanekeeper-lab chaos` for a minute; `scripts/chaos` runs longer ones.

use std::path::Path;

use crate::harness::lab_command;

#[test]
fn nothing_is_lost_and_nothing_reordered_whatever_dies() {
    let logs = Path::new(env!("CARGO_TARGET_TMPDIR")).join("chaos");
    let mut chaos = lab_command();
    chaos.args(["chaos", "--minutes", "1", "--seed", "1", "--logs"]).arg(&logs);
    let output = chaos.output().expect("the binary starts");
    let (stdout, stderr) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    println!("{stdout}");
    assert_eq!(output.status.code(), Some(0), "{stdout}{stderr}");
    assert!(stdout.contains(" updates: lost 0, reordered 0, overlapped 0, "), "{stdout}");
}

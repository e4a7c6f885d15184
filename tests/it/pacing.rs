//! `lanekeeper-lab pacing`: that it measures what the target has seen. How well limits are kept is a matter of its figures.

use std::process::Stdio;

use crate::harness::lab_command;

#[test]
fn the_use_of_a_limit_is_measured_before_and_after_an_outage() {
    let mut pacing = lab_command();
    pacing.args(["pacing", "--rates", "20", "--headers", "ratelimit", "--processes", "1"]);
    pacing.args(["--seconds", "9", "--skip", "2", "--outage", "2", "--target", "timeout = \"4s\""]);
    let output = pacing.stdin(Stdio::null()).output().expect("the binary starts");
    let stdout = String::from_utf8(output.stdout).expect("it prints text");
    let stderr = String::from_utf8_lossy(&output.stderr);
    // 1: the goal was missed.
    assert!(matches!(output.status.code(), Some(0 | 1)), "{stdout}{stderr}");
    let rows: Vec<Vec<&str>> = stdout.lines().skip(2).map(|row| row.split(" | ").collect()).collect();
    assert_eq!(rows.len(), 2, "{stdout}{stderr}");
    for (row, phase) in rows.iter().zip(["usual", "after an outage"]) {
        assert_eq!(row[..4], ["| 20/s", "ratelimit", "1", phase]);
        let used: f64 = row[4].trim_end_matches(" %").parse().expect("a share");
        let accepted: f64 = row[6].parse().expect("a count");
        assert!((used - accepted / (20.0 * 7.0) * 100.0).abs() < 0.1, "{stdout}");
        assert!(accepted > 0.0 && used < 150.0, "{stdout}");
        assert_eq!(row[8..10], ["0", "0"], "nothing was given up or came out of order");
    }
}

//! Tests on a cluster of three RabbitMQ nodes, judged by what two targets saw that go on working when their client is gone.
//!
//! One test, since two clusters at a time are too much for a small machine: `lanekeeper-lab chaos --cluster` with the faults
//! that matter most. `scripts/chaos --cluster` runs all of them, for as long as you like, with every ledger.

#[path = "../it/harness/lab.rs"]
#[allow(dead_code, reason = "the tests on one node use all of it")]
mod lab;

use std::path::Path;

#[test]
fn nothing_is_lost_reordered_or_overlapped_when_nodes_are_cut_off_killed_and_stopped() {
    let logs = Path::new(env!("CARGO_TARGET_TMPDIR")).join("chaos-cluster");
    let mut chaos = lab::lab_command();
    chaos.args(["chaos", "--cluster", "--once", "--faults", "split,kill,freeze", "--ledger", "sqlite"]);
    chaos.args(["--seed", "1", "--logs"]).arg(&logs);
    let output = chaos.output().expect("the binary starts");
    let (stdout, stderr) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    println!("{stdout}");
    assert_eq!(output.status.code(), Some(0), "{stdout}{stderr}");
    assert!(
        stdout.contains(" updates: lost 0, reordered 0, overlapped 0, interleaved 0, outdated 0, "),
        "{stdout}"
    );
}

use serde_json::json;

use super::{Sort, text};
use crate::inspect::report::ClusterReport;

const SENTENCE: &str = "Attempt 3 at target crm failed (status 503), and the next one waits for its time.";

fn report() -> ClusterReport {
    let wait = json!({
        "cause": { "code": "retry", "attempts": 3, "failure": "status 503" },
        "sentence": SENTENCE, "ends": "the next attempt", "since_ms": 1_000, "ends_at_ms": 9_000, "needs_person": false,
    });
    let state = json!({
        "layout": 1, "partition": 3, "attached": true, "owns": true, "ownership": "claimed", "tenure": 7, "held": 5,
        "window": 100, "in_flight_max": 32, "released": 0, "records": 2, "ready": 0, "in_flight": 1, "waiting": 1,
        "target_shut": 0, "limited": 0, "take_over_wait": 0, "previous_layout": 0, "recording": 0,
        "oldest_received_at_ms": 1_000, "oldest_wait": wait,
    });
    let row = json!({
        "layout": 1, "partition": 3, "ready": 12, "consumers": 2, "drained": false, "owner": "lanekeeper-0", "state": state,
        "parked": 1,
    });
    let report = json!({
        "exchange": "updates", "at_ms": 61_000, "verdict": { "must_act": false, "reasons": [] }, "processes": [],
        "silent": [], "fault": null, "layouts": [], "partitions": [row], "targets": [], "ledger": null,
    });
    serde_json::from_value(report).expect("the form of a report")
}

#[test]
fn a_narrow_terminal_has_what_the_oldest_waits_for_in_a_line_of_its_own() {
    let partition = |width| {
        let shown = text(&report(), Sort::Name, width);
        let from = shown.find("PARTITION").expect("the partitions are shown");
        shown[from..].split("\n\n").next().expect("their lines").to_owned()
    };
    insta::assert_snapshot!(partition(Some(80)), @r"
    PARTITION OWNER            READY  HELD  OUT  WAIT PARKED    OLDEST
    l1.p003   lanekeeper-0        12     5    1     1      1        1m
      Attempt 3 at target crm failed (status 503), and the next one waits for its t…
    ");
    let wide = partition(None);
    let line = wide.lines().nth(1).expect("the partition");
    assert!(line.ends_with(SENTENCE), "{wide}");
    let silent = || {
        let mut report = report();
        let row = &mut report.partitions[0];
        (row.owner, row.owner_silent) = (None, Some("lanekeeper-1".to_owned()));
        report
    };
    let shown = text(&silent(), Sort::Name, None);
    assert!(shown.contains("l1.p003   lanekeeper-1?       12     -    -     -      1         -"), "{shown}");
    assert!(!shown.contains(SENTENCE), "who stands by knows nothing of it: {shown}");
}

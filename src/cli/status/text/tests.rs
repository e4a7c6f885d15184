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

#[test]
fn doors_have_a_section_of_their_own_with_a_line_for_each_client_and_hook() {
    assert!(!text(&report(), Sort::Name, None).contains("DOOR"), "without doors there is no section");
    let crm = json!({
        "name": "crm", "accepted": 120, "known": 3, "per_minute": 12, "pending": 2, "refused": { "full": 1, "no_id": 4 },
        "last_failure": "400 no_id: The update has no id", "last_failure_ms": 58_000,
    });
    let stripe = json!({ "name": "stripe", "is_hook": true, "refused": { "unauthorized": 2 } });
    let door = json!({
        "instance": "door-0", "process": "p", "version": "0.1.0", "started_at_ms": 1_000, "reported_at_ms": 60_000,
        "pending": 2, "pending_max": 10_000, "accepted": 120, "known": 3, "refused": { "full": 1, "no_id": 4, "unauthorized": 3 },
        "last_failure": "401 unauthorized: A token is needed", "last_failure_ms": 51_000,
        "senders": [crm, stripe], "senders_left_out": 1, "silent_ms": 700,
    });
    let gone = json!({ "instance": "door-1", "process": "q", "version": "0.1.0", "pending_max": 5, "silent_ms": 31_000 });
    let mut report = report();
    report.doors = serde_json::from_value(json!([door, gone])).expect("the form of doors");
    let shown = text(&report, Sort::Name, None);
    let from = shown.find("DOOR").expect("the doors are shown");
    insta::assert_snapshot!(shown[from..].split("\n\n").next().expect("their lines"), @r"
    DOOR                     VERSION   SINCE                        PENDING ACCEPTED  KNOWN PER MIN REFUSED  BROKER
    door-0                   0.1.0     1970-01-01T00:00:01Z      2 of 10000      120      3      12       8  connected
      client crm                                                          2      120      3      12       5  3.0 s ago: 400 no_id: The update has no id
      hook stripe                                                         0        0      0       0       2
      of nobody known, last refused 10s ago: 401 unauthorized: A token is needed
      refused in all: no_id 4, unauthorized 3, full 1
      and 1 more clients and hooks
    door-1                   0.1.0     1970-01-01T00:00:00Z          0 of 5        0      0       0       0  no report for 31s
    ");
}

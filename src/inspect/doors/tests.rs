//! Which doors are shown, and when a person must act on one.

use serde_json::json;

use super::*;
use crate::inspect::report::Answer;

fn door(instance: &str) -> ReportedDoor {
    let report = DoorReport {
        instance: instance.to_owned(),
        process: format!("process of {instance}"),
        reported_at_ms: 100_000,
        ..DoorReport::default()
    };
    ReportedDoor { report, silent_ms: Some(500), ended: false }
}

fn hook(name: &str, wrong_signatures: u64, signed_ms: Option<i64>) -> DoorSenderReport {
    DoorSenderReport {
        name: name.to_owned(),
        is_hook: true,
        wrong_signatures,
        last_signed_ms: signed_ms,
        last_failure: Some("no signature fits".to_owned()),
        last_failure_ms: Some(90_000),
        ..DoorSenderReport::default()
    }
}

fn with_hook(instance: &str, sender: DoorSenderReport) -> ReportedDoor {
    let mut door = door(instance);
    door.report.senders.push(sender);
    door
}

#[track_caller]
fn check(doors: &[ReportedDoor], expected: &[&str]) {
    assert_eq!(door_reasons(doors, true), expected);
}

#[test]
fn nobody_must_act_on_doors_that_take_updates() {
    check(&[], &[]);
    check(&[door("a"), door("b")], &[]);
    let mut starting = door("a");
    starting.report.unready = Some("waiting for the broker".to_owned());
    starting.report.unready_since_ms = Some(95_000);
    check(&[starting], &[]);
    let deaf = ReportedDoor { silent_ms: None, ..door("a") };
    check(&[deaf], &[]);
}

#[test]
fn a_door_without_reports_broker_or_confirms_is_for_a_person() {
    let silent = |name: &str| ReportedDoor { silent_ms: Some(12_000), ..door(name) };
    let one = "No report from door a: ended without a word, or without its broker. Look at the process, and at its /readyz.";
    check(&[silent("a"), door("b")], &[one]);
    assert_eq!(door_reasons(&[silent("a")], false), [""; 0], "an alarm keeps reports back");
    let many: Vec<ReportedDoor> = ["a", "b", "c", "d", "e", "f", "g"].map(silent).to_vec();
    check(&many, &[&one.replace("door a", "doors a, b, c, d, e and 2 more")]);

    let mut unconnected = door("a");
    unconnected.report.unready = Some("connection lost: refused".to_owned());
    unconnected.report.unready_since_ms = Some(80_000);
    check(
        &[unconnected],
        &["Door a is not ready: connection lost: refused. Who sends to it is answered 503."],
    );

    let mut stuck = door("a");
    stuck.report.no_confirm_since_ms = Some(80_000);
    stuck.report.pending = 3;
    let reason = "The broker has confirmed nothing to door a for over 10 s, and 3 of its updates wait: look if all queues have a leader.";
    check(std::slice::from_ref(&stuck), &[reason]);
    stuck.report.blocked = true;
    check(&[stuck], &[]);
}

#[test]
fn a_hook_that_only_gets_wrong_signatures_is_for_a_person() {
    let reason = |count: u64, hooks: &str| {
        format!(
            "The last {count} requests to {hooks} had no good signature: compare `secrets` of [[ingest.hook]] with the sender's, or \
             somebody else tries to send."
        )
    };
    check(&[with_hook("a", hook("stripe", 4, None))], &[]);
    check(&[with_hook("a", hook("stripe", 5, None))], &[&reason(5, "hook stripe")]);
    // Each door sees a part of them.
    let both = [with_hook("a", hook("stripe", 2, None)), with_hook("b", hook("stripe", 3, Some(50_000)))];
    check(&both, &[&reason(5, "hook stripe")]);
    let since = [with_hook("a", hook("stripe", 5, None)), with_hook("b", hook("stripe", 0, Some(95_000)))];
    check(&since, &[]);
    let mut old = with_hook("a", hook("stripe", 5, None));
    old.report.reported_at_ms += FAILURE_AGE_MAX_MS;
    check(&[old], &[]);
}

#[test]
fn what_was_heard_last_of_a_door_counts_whoever_heard_it() {
    let of = |silent_ms, accepted| {
        let mut heard = ReportedDoor { silent_ms, ..door("a") };
        heard.report.accepted = accepted;
        heard
    };
    let all = |answers: Vec<ReportedDoor>| -> Vec<u64> {
        all_doors(answers.into_iter()).iter().map(|door| door.report.accepted).collect()
    };
    assert_eq!(all(vec![of(Some(900), 1), of(Some(100), 2), of(None, 3)]), [2]);
    assert_eq!(all(vec![of(None, 3)]), [3]);
    let ended = ReportedDoor { ended: true, ..of(Some(5_000), 4) };
    assert_eq!(all(vec![of(Some(900), 1), ended.clone(), of(Some(100), 2)]), [0; 0]);
    assert_eq!(all(vec![ended]), [0; 0]);
    let names: Vec<String> =
        all_doors([door("b"), door("a")].into_iter()).into_iter().map(|door| door.report.instance).collect();
    assert_eq!(names, ["a", "b"]);
}

#[test]
fn doors_of_other_versions_are_understood_as_far_as_they_can_be() {
    let later = json!({
        "form": 1, "ended": false, "since": "a later version",
        "door": { "instance": "a", "process": "p", "moods": ["good"], "senders": [{ "name": "crm", "mood": "good" }] },
    });
    let read: DoorMessage = serde_json::from_value(later).expect("what is not known is passed over");
    assert_eq!((read.door.senders[0].name.as_str(), read.door.pending_max), ("crm", 0));
    let heard: ReportedDoor =
        serde_json::from_value(json!({ "instance": "a", "process": "p" })).expect("nothing else is needed");
    assert_eq!((heard.silent_ms, heard.ended), (None, false));
    let written = serde_json::to_value(door("a")).expect("plain data");
    assert_eq!(written["instance"], "a", "a report stands beside what was heard");
}

/// An answer of a process is read by programs of before and of later versions.
#[test]
fn processes_of_other_versions_answer_with_doors_or_without() {
    let mut answer = json!({
        "about": "status", "instance": "one", "process": "p", "version": "0.0.9", "started_at_ms": 1, "answered_at_ms": 2,
        "unready": null, "partitions": [], "targets": [], "ledger": null,
    });
    let of = |answer: &serde_json::Value| match serde_json::from_value(answer.clone()) {
        Ok(Answer::Status(report)) => report.doors.len(),
        other => panic!("{other:?}"),
    };
    assert_eq!(of(&answer), 0, "a program of before says nothing of doors");
    answer["doors"] = json!([door("a")]);
    answer["windows"] = json!(["what is not known is passed over, as programs of before pass over doors"]);
    assert_eq!(of(&answer), 1);
}

#[test]
fn a_report_has_a_bound_whoever_wrote_it() {
    let long = "ä".repeat(10_000);
    let codes: BTreeMap<String, u64> = (0..1_000).map(|n| (format!("code_{n}"), 1)).collect();
    let sender = DoorSenderReport {
        name: long.clone(),
        last_failure: Some(long.clone()),
        refused: codes.clone(),
        ..DoorSenderReport::default()
    };
    let report = DoorReport {
        instance: long.clone(),
        unready: Some(long),
        refused: codes,
        senders: vec![sender; 1_000],
        ..DoorReport::default()
    };
    let bounded = report.bounded();
    assert_eq!((bounded.senders.len(), bounded.senders_left_out), (64, 936));
    let bytes = serde_json::to_vec(&bounded).expect("plain data").len();
    assert!(bytes < 256 * 1024, "{bytes}");
}

#[test]
fn the_newest_failure_is_of_a_sender_or_of_nobody() {
    let mut report = with_hook("a", hook("stripe", 1, None)).report;
    assert_eq!(report.newest_failure(), Some((Some("stripe"), "no signature fits", 90_000)));
    report.last_failure = Some("401 unauthorized".to_owned());
    report.last_failure_ms = Some(91_000);
    assert_eq!(report.newest_failure(), Some((None, "401 unauthorized", 91_000)));
    let refused = BTreeMap::from([("no_key".to_owned(), 1), ("full".to_owned(), 9), ("slow".to_owned(), 0)]);
    assert_eq!(refused_words(&refused), "full 9, no_key 1");
}

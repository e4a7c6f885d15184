//! When a person must act.

use super::*;
use crate::inspect::report::{LedgerReport, ParkedReport, PartitionReport, WaitReport};
use lanekeeper_core::why::{WaitCause, Words};

fn target(state: TargetState) -> TargetReport {
    TargetReport {
        name: "crm".to_owned(),
        state,
        since_ms: (state != TargetState::Open).then_some(5),
        paused: (state == TargetState::Paused).then(|| "ada: upgrade".to_owned()),
        probe_at_ms: None,
        last_failure: Some("status 503: no backend".to_owned()),
        last_failure_ms: Some(4),
        paced: false,
        rate: None,
        limit: None,
        permit_at_ms: None,
        waiting_for_permit: 0,
        attempts_per_minute: 10,
        applied_per_minute: 7,
        latency_ms: Some((5.0, 9.0)),
    }
}

fn process(instance: &str, partitions: Vec<PartitionReport>, targets: Vec<TargetReport>) -> ProcessReport {
    ProcessReport {
        instance: instance.to_owned(),
        process: format!("process of {instance}"),
        version: "0.1.0".to_owned(),
        started_at_ms: 0,
        answered_at_ms: 0,
        unready: None,
        partitions,
        targets,
        ledger: None,
        doors: Vec::new(),
    }
}

fn state(partition: u16, owns: bool, tenure: u64) -> PartitionReport {
    PartitionReport {
        layout: 1,
        partition,
        attached: true,
        owns,
        ownership: "claimed".to_owned(),
        tenure: Some(tenure),
        held: 0,
        window: 10,
        in_flight_max: 4,
        released: 0,
        records: 0,
        ready: 0,
        in_flight: 0,
        waiting: 0,
        target_shut: 0,
        limited: 0,
        take_over_wait: 0,
        previous_layout: 0,
        recording: 0,
        oldest_received_at_ms: None,
        oldest_wait: None,
    }
}

fn row(partition: u16, ready: Option<u32>, consumers: u32) -> PartitionRow {
    PartitionRow {
        layout: 1,
        partition,
        ready,
        consumers,
        drained: false,
        pending: false,
        owner: None,
        owner_silent: None,
        state: None,
        parked: None,
    }
}

/// Two partitions, of which one process owns both, and all is well.
fn facts() -> ClusterFacts {
    ClusterFacts {
        exchange: "updates".to_owned(),
        at_ms: 10,
        has_layout: true,
        processes: vec![process(
            "a",
            vec![state(0, true, 1), state(1, true, 1)],
            vec![target(TargetState::Open)],
        )],
        silent: Vec::new(),
        fault: None,
        layouts: Vec::new(),
        rows: vec![row(0, Some(0), 1), row(1, Some(3), 1)],
    }
}

#[track_caller]
fn check(facts: ClusterFacts, expected: &[&str]) {
    let report = cluster_report(facts);
    assert_eq!(report.verdict.reasons, expected);
    assert_eq!(report.verdict.must_act, !expected.is_empty());
}

#[test]
fn nobody_must_act_while_updates_flow() {
    check(facts(), &[]);
}

#[test]
fn what_nobody_does_is_for_a_person() {
    let nobody = ClusterFacts { processes: Vec::new(), rows: vec![row(0, Some(3), 0)], ..facts() };
    check(nobody, &["No process dispatches: start `lanekeeper run`."]);
    let alarm = Some("the broker has an alarm".to_owned());
    let unasked = ClusterFacts { processes: Vec::new(), fault: alarm, ..facts() };
    check(unasked, &["Not all is known: the broker has an alarm."]);
    let never = ClusterFacts { processes: Vec::new(), has_layout: false, rows: Vec::new(), ..facts() };
    check(never, &["Exchange updates has no layout: no process has run. Start `lanekeeper run`."]);
    let rows = vec![row(0, Some(3), 0), row(1, None, 0)];
    check(
        ClusterFacts { rows, ..facts() },
        &[
            "The queue of l1.p001 does not exist: somebody has deleted it. `lanekeeper doctor` says what to do.",
            "Nobody consumes l1.p000: see which process is not ready, and why.",
        ],
    );
    check(
        ClusterFacts { silent: vec!["c".to_owned(), "b".to_owned()], ..facts() },
        &["No answer from b, c: stopped, short of CPU time, or just ended."],
    );
}

#[test]
fn a_shut_target_is_named_once_with_its_failure() {
    let mut facts = facts();
    facts.processes.push(process("b", Vec::new(), vec![target(TargetState::Shut)]));
    let report = cluster_report(facts);
    assert_eq!(
        report.verdict.reasons,
        [
            "Target crm is shut, since it failed for all records (status 503: no backend): look at the target. Its updates go on when it works again."
        ]
    );
    let [crm] = &report.targets[..] else { panic!("{:?}", report.targets) };
    assert_eq!((crm.state, crm.per_minute(), crm.by_process.len()), (TargetState::Shut, (20, 14), 2));
}

#[test]
fn a_target_that_one_process_knows_to_be_paused_is_named_with_who_and_why() {
    let mut facts = facts();
    facts.processes.push(process("b", Vec::new(), vec![target(TargetState::Paused)]));
    check(
        facts,
        &["Target crm is paused (ada: upgrade): its updates wait until `lanekeeper target resume crm`."],
    );
}

#[test]
fn an_oldest_update_that_waits_for_a_person_is_named_with_its_cause() {
    let mut facts = facts();
    let cause = WaitCause::Refused { attempts: 2, failure: "status 401".to_owned() };
    let sentence = cause.sentence(Words { target: "crm", ..Words::default() });
    facts.processes[0].partitions[1].oldest_wait = Some(WaitReport {
        sentence: sentence.clone(),
        ends: cause.ends().to_owned(),
        since_ms: None,
        ends_at_ms: None,
        needs_person: true,
        cause,
    });
    facts.processes[0].ledger = Some(LedgerReport { kind: "sqlite".to_owned(), parked: Some(parked(2)) });
    facts.processes[0].unready = Some("lease lapsed".to_owned());
    check(
        facts,
        &[
            "a is not ready: lease lapsed.",
            &format!("The oldest update of l1.p001 waits for a person: {sentence}"),
            "2 records are parked: `lanekeeper parked list` shows why.",
        ],
    );
}

fn parked(records: u64) -> ParkedReport {
    ParkedReport {
        counted_at_ms: 1_000,
        records,
        releasing: 3,
        updates: 5,
        partitions: vec![(1, 1, records)],
    }
}

#[test]
fn what_is_parked_is_shown_with_its_partition_and_what_was_released_needs_nobody() {
    let ledger = |parked| Some(LedgerReport { kind: "sqlite".to_owned(), parked });
    let mut facts_of_two = facts();
    facts_of_two.processes.push(process("b", Vec::new(), Vec::new()));
    facts_of_two.processes[0].ledger = ledger(None);
    facts_of_two.processes[1].ledger = ledger(Some(parked(2)));
    let report = cluster_report(facts_of_two);
    assert_eq!(report.partitions.iter().map(|row| row.parked).collect::<Vec<_>>(), [Some(0), Some(2)]);
    let mut released = facts();
    released.processes[0].ledger = ledger(Some(parked(0)));
    check(released, &[]);
    let mut silent = facts();
    silent.processes[0].ledger = ledger(None);
    check(silent, &["What is parked could not be counted in the last minute: look if the ledger answers."]);
}

#[test]
fn of_two_processes_that_say_that_they_own_a_partition_the_newer_tenure_counts() {
    let mut facts = facts();
    facts.processes.push(process("b", vec![state(0, true, 2), state(1, false, 9)], Vec::new()));
    let report = cluster_report(facts);
    let owners: Vec<_> = report.partitions.iter().map(|row| row.owner.as_deref()).collect();
    assert_eq!(owners, [Some("b"), Some("a")]);
}

#[test]
fn many_partitions_are_counted() {
    assert_eq!(names_of([(1, 0), (1, 1)]), "l1.p000, l1.p001");
    assert_eq!(names_of((0..9).map(|number| (2, number))), "l2.p000, l2.p001, l2.p002 and 6 more partitions");
}

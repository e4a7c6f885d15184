//! Which of several facts is the answer.

use super::*;
use crate::inspect::report::PartitionReport;

fn wait(cause: WaitCause) -> WaitReport {
    of_cause(cause, Some(1_000))
}

fn lane(layout: u32, cause: WaitCause) -> LaneReport {
    LaneReport {
        record_key: "k".to_owned(),
        layout,
        partition: 3,
        wait: wait(cause),
        update_id: "u1".to_owned(),
        update_type: None,
        target: "crm".to_owned(),
        received_at_ms: Some(500),
        published_at: None,
        released: false,
        redelivered: false,
        attempts: 1,
        behind: 0,
        past_attempts: Vec::new(),
    }
}

fn state(layout: u32, owns: bool, held: usize) -> PartitionReport {
    PartitionReport {
        layout,
        partition: 3,
        attached: true,
        owns,
        ownership: "claimed".to_owned(),
        tenure: Some(7),
        held,
        window: 10,
        in_flight_max: 4,
        released: 0,
        records: held,
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

fn row(layout: u32, ready: u32, consumers: u32) -> PartitionRow {
    PartitionRow {
        layout,
        partition: 3,
        ready: Some(ready),
        consumers,
        drained: false,
        pending: false,
        owner: None,
        owner_silent: None,
        state: None,
        parked: None,
    }
}

#[derive(Default)]
struct Case {
    rows: Vec<PartitionRow>,
    answers: Vec<(&'static str, Vec<LaneReport>, Vec<PartitionReport>)>,
    /// The partitions of layout 1 that a process owns that has not answered.
    silent: Option<(&'static str, u16)>,
    parked: Option<&'static str>,
    paused: bool,
    fault: Option<&'static str>,
    by_ports: bool,
    ledger_fault: Option<&'static str>,
}

impl Case {
    fn report(self) -> RecordReport {
        let answers = self.answers.into_iter().map(|(instance, lanes, partitions)| RecordAnswer {
            instance: instance.to_owned(),
            process: format!("process of {instance}"),
            lanes,
            unanswered: 0,
            holders: Vec::new(),
            partitions,
        });
        let silent: Vec<String> =
            self.silent.iter().map(|(instance, _)| format!("process of {instance}")).collect();
        let seen = self.silent.map(|(instance, partition)| {
            let owned = [((LayoutNumber(1), PartitionNumber(partition)), 7)].into();
            (
                format!("process of {instance}"),
                SeenProcess { instance: instance.to_owned(), admin: None, owned },
            )
        });
        let known = self.parked.is_some() || self.paused;
        let ledger = known.then(|| RecordLedgerReport {
            parked_state: self.parked.map(ToOwned::to_owned),
            paused: self.paused.then(|| "ada: merged by hand".to_owned()),
            reason: Some("rejected".to_owned()),
            parked_updates: 2,
            since_ms: Some(9),
            ..RecordLedgerReport::default()
        });
        record_report(RecordFacts {
            record_key: "k".to_owned(),
            at_ms: 2_000,
            places: self.rows.iter().map(|row| (row.layout, row.partition)).collect(),
            rows: self.rows.into_iter().map(|row| ((LayoutNumber(row.layout), PartitionNumber(3)), row)),
            answers: answers.collect(),
            seen: &seen.into_iter().collect(),
            silent: &silent,
            fault: self.fault.map(ToOwned::to_owned),
            by_ports: self.by_ports,
            ledger,
            ledger_fault: self.ledger_fault.map(ToOwned::to_owned),
        })
    }

    #[track_caller]
    fn check(self, expected: &str) {
        let report = self.report();
        assert_eq!(report.wait.cause.code(), expected, "{report:?}");
    }
}

const HELD: WaitCause = WaitCause::InFlight { attempt: 1 };

#[test]
fn what_is_held_comes_before_what_is_parked_and_that_before_what_is_ready() {
    let owner = || vec![("a", Vec::new(), vec![state(1, true, 3)])];
    let held = || vec![("a", vec![lane(1, HELD)], vec![state(1, true, 3)])];
    let rows = || vec![row(1, 5, 1)];
    Case { rows: rows(), answers: held(), parked: Some("parked"), ..Case::default() }.check("in_flight");
    Case { rows: rows(), answers: owner(), parked: Some("parked"), ..Case::default() }.check("parked");
    Case { rows: rows(), answers: owner(), parked: Some("releasing"), ..Case::default() }.check("released");
    Case { rows: rows(), answers: owner(), ..Case::default() }.check("not_handed_over");
    Case { rows: vec![row(1, 0, 1)], answers: owner(), ..Case::default() }.check("nothing");
    Case { rows: vec![row(1, 0, 0)], ..Case::default() }.check("nothing");
    Case { rows: vec![row(1, 5, 0)], ..Case::default() }.check("no_consumer");
}

#[test]
fn what_waits_in_the_older_layout_is_the_answer() {
    let behind = lane(2, WaitCause::PreviousLayout { partition: 3 });
    let answers = vec![
        ("b", vec![behind], vec![state(2, true, 1)]),
        ("a", vec![lane(1, HELD)], vec![state(1, true, 1)]),
    ];
    let report = Case { rows: vec![row(1, 0, 1), row(2, 0, 1)], answers, ..Case::default() }.report();
    assert_eq!(report.wait.cause, HELD);
    assert_eq!(report.owner.as_deref(), Some("b"), "of the current layout");
    assert_eq!(report.lanes.len(), 2);
}

#[test]
fn a_silent_owner_is_named_unless_something_better_is_known() {
    let rows = || vec![row(1, 5, 1)];
    Case { rows: rows(), silent: Some(("a", 3)), ..Case::default() }.check("owner_silent");
    Case { rows: rows(), silent: Some(("a", 3)), parked: Some("parked"), ..Case::default() }.check("parked");
    let standby = || vec![("b", Vec::new(), vec![state(1, false, 0)])];
    Case { rows: rows(), answers: standby(), silent: Some(("a", 2)), ..Case::default() }
        .check("not_handed_over");
}

#[test]
fn a_process_that_has_lost_the_partition_knows_less_than_all_others() {
    let lost = || ("a", vec![lane(1, WaitCause::Overtaken)], vec![state(1, false, 1)]);
    let rows = || vec![row(1, 0, 1)];
    let both = vec![lost(), ("b", vec![lane(1, HELD)], vec![state(1, true, 1)])];
    let report = Case { rows: rows(), answers: both, ..Case::default() }.report();
    assert_eq!((report.wait.cause, report.owner.as_deref()), (HELD, Some("b")));
    Case { rows: rows(), answers: vec![lost()], ..Case::default() }.check("overtaken");
    Case { rows: rows(), answers: vec![lost()], silent: Some(("b", 3)), ..Case::default() }
        .check("owner_silent");
}

#[test]
fn a_full_window_is_told_from_one_with_room() {
    let of = |held| {
        let answers = vec![("a", Vec::new(), vec![state(1, true, held)])];
        Case { rows: vec![row(1, 5, 1)], answers, ..Case::default() }.report().wait.sentence
    };
    assert!(of(10).contains("as many as dispatch.prefetch = 10 allows"), "{}", of(10));
    assert!(of(9).contains("holds 9, none of this record"), "{}", of(9));
}

#[test]
fn nothing_is_said_to_wait_only_if_everything_was_asked() {
    let owner = || vec![("a", Vec::new(), vec![state(1, true, 3)])];
    let rows = |ready| vec![row(1, ready, 1)];
    let ledger_fault = Some("there is no ledger lanekeeper.db");
    Case { rows: rows(0), answers: owner(), ledger_fault, ..Case::default() }.check("unknown");
    Case { rows: rows(5), answers: owner(), ledger_fault, ..Case::default() }.check("unknown");
    let fault = Some("the broker takes no publishes");
    let alarm = Case { rows: rows(7), fault, ledger_fault, ..Case::default() }.report().wait;
    assert_eq!(alarm.cause.code(), "unknown");
    assert!(alarm.sentence.contains("the broker takes no publishes"), "{}", alarm.sentence);
    Case { rows: rows(7), fault, parked: Some("parked"), ..Case::default() }.check("parked");
    Case { rows: rows(0), ..Case::default() }.check("unknown");
    let deleted = PartitionRow { ready: None, ..row(1, 0, 0) };
    Case { rows: vec![deleted], ..Case::default() }.check("queue_missing");
}

#[test]
fn during_an_alarm_nothing_is_said_to_wait_only_if_the_owner_has_answered_by_its_port() {
    let fault = Some("the broker takes no publishes");
    let case = |owns| {
        let answers = vec![("a", Vec::new(), vec![state(1, owns, 0)])];
        Case { rows: vec![row(1, 0, 1)], answers, fault, by_ports: true, ..Case::default() }
    };
    case(true).check("nothing");
    case(false).check("unknown"); // who owns it may have started during the alarm
    Case { by_ports: false, ..case(true) }.check("unknown");
}

#[test]
fn a_paused_record_is_said_to_be_paused_whatever_of_it_is_parked() {
    let owner = || vec![("a", Vec::new(), vec![state(1, true, 3)])];
    let rows = || vec![row(1, 0, 1)];
    Case { rows: rows(), answers: owner(), paused: true, ..Case::default() }.check("record_paused");
    Case { rows: rows(), answers: owner(), paused: true, parked: Some("parked"), ..Case::default() }
        .check("record_paused");
}

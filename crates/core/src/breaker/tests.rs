use super::*;
use proptest::prelude::*;

fn breaker() -> Breaker {
    Breaker::new(Arc::new(BreakerLimits {
        window: Duration::from_secs(10),
        attempts_min: 4,
        records_min: 3,
        failure_share: 0.75,
        waits: [1, 2, 4].map(Duration::from_secs).to_vec(),
    }))
}

const fn second(seconds: u64) -> Tick {
    Tick::from_micros(seconds * 1_000_000)
}

/// An attempt without duration.
fn end(breaker: &mut Breaker, at: u64, record: &str, signal: HealthSignal) -> Report {
    let record_key = RecordKey::new(record).unwrap();
    breaker.ended(second(at), AttemptEnd { record_key: &record_key, began: second(at), signal })
}

fn probe(breaker: &mut Breaker, at: u64, signal: HealthSignal) -> Report {
    let record_key = RecordKey::new("probe").unwrap();
    breaker.probe_ended(second(at), AttemptEnd { record_key: &record_key, began: second(at), signal })
}

/// One attempt a second, as two letters: its record, and how it ended: `+` works, `-` fails, `~` neither.
/// `expected`: after how many attempts the target is shut.
fn check(script: &str, expected: Option<usize>) {
    let mut breaker = breaker();
    let shut_after = script.split_whitespace().enumerate().find_map(|(number, attempt)| {
        let signal = match &attempt[1..] {
            "+" => HealthSignal::Success,
            "-" => HealthSignal::Failure,
            _ => HealthSignal::Neutral,
        };
        end(&mut breaker, number as u64, &attempt[..1], signal).trip.map(|_| number + 1)
    });
    assert_eq!(shut_after, expected, "{script}");
}

#[test]
fn a_target_is_shut_when_enough_attempts_of_enough_records_failed() {
    check("a- b- c- d-", Some(4));
    check("a- b- c-", None);
    check("a- b- a- b- a- b- a- b-", None);
    check("a- a- a- a- a- a- a- a-", None);
    check("a+ b- c- d-", Some(4));
    check("a+ b+ c- d- e- f-", None);
    check("a+ b+ c- d- e- f- g- h-", Some(8));
}

#[test]
fn what_asks_for_time_is_no_failure() {
    check("a~ b~ c~ d~ e~ f~", None);
    check("a- b~ c- d~ e- f-", Some(6));
}

#[test]
fn what_is_older_than_the_window_does_not_count() {
    check("a+ b+ x~ x~ x~ x~ x~ x~ x~ x~ x~ c- d- e- f-", Some(15));
    check("a- b- x~ x~ x~ x~ x~ x~ x~ x~ x~ x~ c- d-", None);
}

const NOT_FOUND: HealthSignal = HealthSignal::Rejection(404);

#[test]
fn one_answer_for_record_after_record_is_believed_for_fewer_than_records_min() {
    let mut breaker = breaker();
    end(&mut breaker, 0, "works", HealthSignal::Success);
    let believed: Vec<bool> = ["a", "b", "b", "c", "d", "a"]
        .map(|record| end(&mut breaker, 1, record, NOT_FOUND).believed)
        .to_vec();
    assert_eq!(believed, [true, true, true, false, false, false]);
    assert!(end(&mut breaker, 1, "e", HealthSignal::Rejection(410)).believed, "another answer");
    end(&mut breaker, 1, "works", HealthSignal::Success);
    assert!(end(&mut breaker, 2, "a", NOT_FOUND).believed, "the target has answered for another record");
}

#[test]
fn what_began_before_the_first_rejection_proves_nothing() {
    let mut breaker = breaker();
    for record in ["a", "b", "c"] {
        end(&mut breaker, 5, record, NOT_FOUND);
    }
    let record_key = RecordKey::new("slow").unwrap();
    let slow = |began| AttemptEnd { record_key: &record_key, began, signal: HealthSignal::Success };
    breaker.ended(second(6), slow(second(4)));
    assert!(!end(&mut breaker, 6, "a", NOT_FOUND).believed);
    breaker.ended(second(7), slow(second(6)));
    assert!(end(&mut breaker, 7, "a", NOT_FOUND).believed);
}

#[test]
fn doubted_answers_shut_a_busy_target_as_failures_do_and_a_quiet_one_after_the_window() {
    let mut breaker = breaker();
    let shut_after =
        (0..30_u64).find(|number| end(&mut breaker, 0, &format!("record{number}"), NOT_FOUND).trip.is_some());
    assert_eq!(shut_after, Some(7), "two are believed, and six of eight failed");
    let mut quiet = self::breaker();
    let records = ["a", "b", "c", "d"];
    let shut_by = records
        .iter()
        .zip([0, 60, 120, 180])
        .find(|(record, at)| end(&mut quiet, *at, record, NOT_FOUND).trip.is_some());
    assert_eq!(shut_by, Some((&"c", 120)), "the first one that is doubted");
    let mut slow = self::breaker();
    for record in ["a", "b", "c"] {
        end(&mut slow, 1, record, NOT_FOUND);
    }
    let record_key = RecordKey::new("slow").unwrap();
    let works = AttemptEnd { record_key: &record_key, began: Tick::ZERO, signal: HealthSignal::Success };
    slow.ended(second(14), works);
    assert_eq!(end(&mut slow, 15, "c", NOT_FOUND).trip, None, "answers that take long still succeed");
}

#[test]
fn a_probe_that_is_rejected_opens_only_what_was_not_shut_for_it() {
    let mut breaker = shut();
    assert!(breaker.grant_probe(second(1)));
    assert!(probe(&mut breaker, 1, NOT_FOUND).opened, "it has failed otherwise before");
    for number in 0..30 {
        end(&mut breaker, 2, &format!("record{number}"), NOT_FOUND);
    }
    assert!(breaker.grant_probe(second(3)));
    let report = probe(&mut breaker, 3, NOT_FOUND);
    assert!(!report.opened && !report.believed);
    assert!(breaker.grant_probe(second(9)));
    assert!(probe(&mut breaker, 9, HealthSignal::Rejection(422).of_target()).opened);
    assert!(probe(&mut breaker, 9, NOT_FOUND).believed);
}

#[test]
fn while_a_person_believes_the_target_no_rejection_is_doubted_and_each_shows_that_it_works() {
    let mut breaker = breaker();
    for number in 0..30 {
        end(&mut breaker, 0, &format!("record{number}"), NOT_FOUND);
    }
    assert_eq!(breaker.circuit(), Circuit::Shut { probe_from: second(1) });
    breaker.believe_until(second(1), second(100));
    assert_eq!(breaker.circuit(), Circuit::Shut { probe_from: second(1) }, "the probe opens it");
    assert!(breaker.grant_probe(second(1)));
    let report = probe(&mut breaker, 1, NOT_FOUND);
    assert!(report.believed && report.opened);
    for number in 0..30 {
        let report = end(&mut breaker, 99, &format!("record{number}"), NOT_FOUND);
        assert!(report.believed && report.trip.is_none(), "{number}");
    }
    let believed: Vec<bool> =
        ["a", "b", "c"].map(|record| end(&mut breaker, 100, record, NOT_FOUND).believed).to_vec();
    assert_eq!(believed, [true, true, false], "it is over, and is counted from the beginning");
}

#[test]
fn a_person_who_believes_the_target_hides_no_failure_and_the_longest_time_counts() {
    let mut breaker = breaker();
    breaker.believe_until(second(1), second(50));
    breaker.believe_until(second(1), second(20));
    breaker.believe_until(second(1), second(1));
    for record in ["a", "b", "c", "d"] {
        assert!(end(&mut breaker, 49, record, NOT_FOUND).believed);
    }
    let shut = ["a", "b", "c", "d", "e", "f", "g", "h", "i", "j", "k", "l"]
        .iter()
        .any(|record| end(&mut breaker, 49, record, HealthSignal::Failure).trip.is_some());
    assert!(shut, "other failures count as ever");
    assert!(breaker.grant_probe(second(50)));
    assert!(!probe(&mut breaker, 50, HealthSignal::Failure).opened);
}

#[test]
fn a_success_never_shuts_a_target() {
    check("a- b- c- d~ e+", None);
}

fn shut() -> Breaker {
    let mut breaker = breaker();
    for record in ["a", "b", "c", "d"] {
        end(&mut breaker, 0, record, HealthSignal::Failure);
    }
    breaker
}

#[test]
fn probes_come_one_at_a_time_with_growing_waits_and_the_first_success_opens() {
    let mut breaker = shut();
    for (asked, from) in [(0, 1), (1, 3), (3, 7), (7, 11), (11, 15)] {
        assert!(!breaker.grant_probe(Tick::from_micros(second(from).micros() - 1)), "early at {from}");
        assert_eq!(breaker.circuit(), Circuit::Shut { probe_from: second(from) }, "since {asked}");
        assert!(breaker.grant_probe(second(from)));
        assert!(!breaker.grant_probe(second(from)), "one at a time");
        assert_eq!(breaker.circuit(), Circuit::Probing);
        assert!(!probe(&mut breaker, from, HealthSignal::Failure).opened);
    }
    assert!(breaker.grant_probe(second(99)));
    assert!(probe(&mut breaker, 99, HealthSignal::Success).opened);
    assert_eq!(breaker.circuit(), Circuit::Closed);
}

#[test]
fn a_target_that_stated_wait_how_long_it_fails_is_probed_after_that() {
    let failure_for = |seconds| HealthSignal::FailureFor(Duration::from_secs(seconds));
    let mut breaker = breaker();
    for record in ["a", "b", "c", "d"] {
        end(&mut breaker, 0, record, failure_for(120));
    }
    assert_eq!(breaker.circuit(), Circuit::Shut { probe_from: second(120) });
    assert!(breaker.grant_probe(second(120)));
    probe(&mut breaker, 121, failure_for(0));
    assert_eq!(breaker.circuit(), Circuit::Shut { probe_from: second(123) }, "never sooner than by itself");
    assert!(breaker.grant_probe(second(123)));
    probe(&mut breaker, 123, failure_for(1_000_000));
    assert_eq!(breaker.circuit(), Circuit::Shut { probe_from: second(123 + 3600) });
}

#[test]
fn a_probe_that_was_not_made_may_be_made_at_once() {
    let mut breaker = shut();
    assert!(breaker.grant_probe(second(1)));
    breaker.probe_returned(second(2));
    assert!(breaker.grant_probe(second(2)));
}

#[test]
fn an_outcome_says_whether_the_target_works() {
    let failure = |cause| Failure { cause, detail: String::new() };
    let retryable = |cause, retry_after: Option<u64>| Outcome::Retryable {
        failure: failure(cause),
        retry_after: retry_after.map(Duration::from_secs),
    };
    for (outcome, expected) in [
        (Outcome::Applied, HealthSignal::Success),
        (retryable(Cause::Status(503), None), HealthSignal::Failure),
        (retryable(Cause::Status(503), Some(1)), HealthSignal::FailureFor(Duration::from_secs(1))),
        (retryable(Cause::Status(409), Some(1)), HealthSignal::Neutral),
        (retryable(Cause::Status(429), Some(1)), HealthSignal::Neutral),
        (retryable(Cause::Status(429), None), HealthSignal::Neutral),
        (retryable(Cause::Timeout, None), HealthSignal::Failure),
        (retryable(Cause::Connection, None), HealthSignal::Failure),
        (Outcome::Refused(failure(Cause::Status(401))), HealthSignal::Failure),
        (Outcome::Refused(failure(Cause::NoCredential)), HealthSignal::Failure),
        (Outcome::Rejected(failure(Cause::Status(422))), HealthSignal::Success),
        (Outcome::Rejected(failure(Cause::Status(404))), HealthSignal::Rejection(404)),
        (Outcome::Rejected(failure(Cause::Unsendable)), HealthSignal::Neutral),
        (Outcome::Conflict(failure(Cause::Status(409))), HealthSignal::Success),
    ] {
        assert_eq!(HealthSignal::of(&outcome), expected, "{outcome:?}");
    }
}

proptest! {
    /// Against a recount of everything that ended.
    #[test]
    fn it_trips_when_a_recount_says_so_and_keeps_a_bounded_number(
        attempts in prop::collection::vec((0_u64..4_000_000, 0_u8..8, 0_u8..5), 1..200),
    ) {
        let (mut breaker, mut now, mut all) = (breaker(), 0, Vec::new());
        for (later, record, drawn) in attempts {
            now += later;
            let (at, failed) = (Tick::from_micros(now), drawn > 0);
            all.push((at, record, failed));
            let within = || all.iter().filter(|(then, ..)| at.since(*then) <= Duration::from_secs(10));
            let failures = within().filter(|(.., failed)| *failed).count();
            let records: BTreeSet<u8> =
                within().filter(|(.., failed)| *failed).map(|(_, record, _)| *record).collect();
            let expected = failed && within().count() >= 4 && records.len() >= 3
                && failures * 4 >= within().count() * 3;
            let record_key = RecordKey::new(record.to_string()).unwrap();
            let signal = if failed { HealthSignal::Failure } else { HealthSignal::Success };
            let end = AttemptEnd { record_key: &record_key, began: at, signal };
            prop_assert_eq!(breaker.ended(at, end).trip.is_some(), expected);
            if expected {
                break;
            }
            let BreakerState::Closed(window) = &breaker.state else { panic!("it has not tripped") };
            prop_assert!(window.ended.len() <= ATTEMPTS_KEPT_MAX && window.failing.len() <= window.failures);
        }
    }
}

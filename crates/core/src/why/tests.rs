use std::collections::BTreeSet;
use std::fmt::Write as _;

use strum::VariantNames;

use super::*;

const WORDS: Words<'_> =
    Words { target: "crm", target_failure: Some("status 503: no backend"), limit: Some("rate_max = 50/s") };

/// One of each cause, and more where a sentence has several forms.
fn examples() -> Vec<WaitCause> {
    let failure = |text: &str| text.to_owned();
    vec![
        WaitCause::InFlight { attempt: 2 },
        WaitCause::Retry { attempts: 3, failure: failure("status 503: no backend") },
        WaitCause::Refused { attempts: 1, failure: failure("status 401: token expired") },
        WaitCause::Blocked { attempts: 1, failure: failure("status 422: no such field") },
        WaitCause::Doubted { attempts: 1, failure: failure("status 404") },
        WaitCause::Withheld,
        WaitCause::Room { in_flight: 32, in_flight_max: 32, before: 0 },
        WaitCause::Room { in_flight: 32, in_flight_max: 32, before: 1 },
        WaitCause::TargetShut { probing: false, before: 17 },
        WaitCause::TargetShut { probing: true, before: 0 },
        WaitCause::TargetPaused { before: 3 },
        WaitCause::Limit { before: 2 },
        WaitCause::TakeOver,
        WaitCause::PreviousLayout { partition: 3 },
        WaitCause::EarlierAttempt,
        WaitCause::EarlierRecording,
        WaitCause::Recording { resolution: failure("applied") },
        WaitCause::Strict { before: 1, first: Box::new(WaitCause::InFlight { attempt: 1 }) },
        WaitCause::Strict {
            before: 2,
            first: Box::new(WaitCause::Blocked { attempts: 4, failure: failure("status 409") }),
        },
        WaitCause::Claim,
        WaitCause::LeaseLapsed,
        WaitCause::HandBack,
        WaitCause::Overtaken,
        WaitCause::Parked { reason: failure("rejected, status 422: no such field") },
        WaitCause::Released,
        WaitCause::NotHandedOver { ready: 1, held: 1000, window: 1000 },
        WaitCause::NotHandedOver { ready: 7, held: 3, window: 1000 },
        WaitCause::NoConsumer { ready: 0 },
        WaitCause::OwnerSilent { owner: failure("a") },
        WaitCause::RecordPaused { pause: failure("ada: merged by hand") },
        WaitCause::LayoutPending { ready: 2 },
        WaitCause::QueueMissing,
        WaitCause::Unknown { ready: 7, reason: failure("there is no ledger lanekeeper.db") },
        WaitCause::Nothing,
    ]
}

/// What a person reads of every cause. Read it again when it changes: these are the words of the commands, the pages and the
/// API.
#[test]
fn every_cause_has_its_sentence_and_what_ends_it() {
    let mut shown = String::new();
    for cause in examples() {
        let person = if cause.needs_person() { " [a person]" } else { "" };
        let _ = write!(
            shown,
            "{}{person}\n  {}\n  ends: {}\n",
            cause.code(),
            cause.sentence(WORDS),
            cause.ends()
        );
    }
    assert_eq!(shown, include_str!("causes.txt"));
}

/// What programs read of every cause: the API, `why --json`, and the tests of pages and text, which show these examples.
#[test]
fn every_cause_as_programs_read_it() {
    let shown = examples().into_iter().map(|cause| {
        let (sentence, ends, needs_person) = (cause.sentence(WORDS), cause.ends(), cause.needs_person());
        let (since_ms, ends_at_ms) = (1_790_000_000_000_i64, None::<i64>);
        serde_json::json!({ "cause": cause, "sentence": sentence, "ends": ends, "since_ms": since_ms, "ends_at_ms": ends_at_ms, "needs_person": needs_person })
    });
    let shown = serde_json::to_string_pretty(&shown.collect::<Vec<_>>()).expect("plain data") + "\n";
    assert_eq!(shown, include_str!("causes.json"));
}

#[test]
fn there_is_an_example_of_every_cause() {
    let shown: BTreeSet<&str> = examples().iter().map(WaitCause::code).collect();
    assert_eq!(shown, WaitCause::VARIANTS.iter().copied().collect());
}

#[test]
fn the_manual_lists_every_cause() {
    let manual = include_str!("../../../../docs/operating.md");
    let (_, table) =
        manual.split_once("| `code` | the record waits for |").expect("the manual has the table");
    let rows = table.lines().skip(2).take_while(|line| line.starts_with('|'));
    let first_cells = rows.filter_map(|row| row.split('|').nth(1));
    let listed: BTreeSet<&str> = first_cells.flat_map(|cell| cell.split('`').skip(1).step_by(2)).collect();
    assert_eq!(listed, WaitCause::VARIANTS.iter().copied().collect());
}

#[test]
fn what_is_not_known_is_left_out() {
    let shut = WaitCause::TargetShut { probing: false, before: 0 };
    assert_eq!(
        shut.sentence(Words::default()),
        "Its target is shut, since it failed for all records; no record is before it in the partition."
    );
    let limit = WaitCause::Limit { before: 0 };
    assert_eq!(
        limit.sentence(Words::default()),
        "A limit of its target is used up; no record is before it in the partition."
    );
}

#[test]
fn programs_read_what_programs_write() {
    for cause in examples() {
        let written = serde_json::to_string(&cause).expect("plain data");
        assert!(written.contains(&format!("\"code\":\"{}\"", cause.code())), "{written}");
        assert_eq!(serde_json::from_str::<WaitCause>(&written).expect("what was written"), cause);
    }
}

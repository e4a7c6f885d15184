//! What the simulation is too coarse for: small histories, written out.

use std::time::Duration;

use super::*;
use crate::core::outcome::{Cause, Failure};
use crate::core::policy::FailurePolicy;
use crate::core::routes::TargetId;
use crate::core::schedule::Schedule;
use crate::core::update::{Update, UpdateId};

fn partition(in_flight_max: usize) -> Partition {
    let policy = Policy {
        schedule: Schedule::new(vec![Duration::from_secs(1)], 0.0),
        attempts_max: None,
        elapsed_max: None,
        retry_after_max: Duration::ZERO,
        rejected: FailurePolicy::DeadLetter,
        exhausted: FailurePolicy::DeadLetter,
        conflict: FailurePolicy::DeadLetter,
    };
    let number = |number| NonZeroUsize::new(number).unwrap();
    let limits = Limits { in_flight_max: number(in_flight_max), window: number(9) };
    Partition::new(limits, Arc::new(policy))
}

fn update(key: &str, id: &str) -> Arc<Update> {
    Arc::new(Update {
        record_key: RecordKey::new(key).unwrap(),
        id: UpdateId::published(id),
        target: TargetId(0),
        content_type: None,
        content_encoding: None,
        if_match: None,
        published_at: None,
        headers: Vec::new(),
        body: bytes::Bytes::new(),
    })
}

/// `keys`: a letter per delivery, its record. `outcomes`: a letter per attempt, A applied, R retryable; after them all
/// are applied. Attempts last no time. Answers the attempts: record and number.
fn check(in_flight_max: usize, keys: &str, outcomes: &str, expected: &str) {
    let (mut partition, tenure, mut now) = (partition(in_flight_max), Tenure(1), Tick::ZERO);
    partition.handle(now, Event::TenureBegan(tenure));
    for (delivery, key) in (1..).map(DeliveryTag).zip(keys.split("")) {
        if !key.is_empty() {
            let update = update(key, &format!("{delivery:?}"));
            partition.handle(now, Event::Received { tenure, delivery, redelivered: false, update });
        }
    }
    let (mut outcomes, mut told) = (outcomes.chars(), Vec::new());
    loop {
        match partition.poll_effect() {
            Some(Effect::Attempt { attempt, number, update }) => {
                let record_key = update.record_key.clone();
                told.push(format!("{}{number}", record_key.as_str()));
                let failure = Failure { cause: Cause::Timeout, detail: String::new() };
                let outcome = match outcomes.next() {
                    Some('R') => Outcome::Retryable { failure, retry_after: None },
                    _ => Outcome::Applied,
                };
                partition.handle(now, Event::AttemptEnded { attempt, record_key, outcome });
            }
            Some(Effect::Record { tenure, delivery, update, .. }) => {
                let record_key = update.map(|update| update.record_key.clone());
                partition.handle(now, Event::Recorded { tenure, delivery, record_key });
            }
            Some(Effect::Settle { .. }) => {}
            None => match partition.next_deadline() {
                Some(deadline) => {
                    now = deadline;
                    partition.wake(now);
                }
                None => break,
            },
        }
    }
    assert_eq!(told.join(" "), expected, "{keys} {outcomes:?}");
    assert_eq!(partition.view(), View::default());
}

#[test]
fn a_record_that_waits_lets_others_pass() {
    check(2, "abab", "RAA", "a1 b1 b1 a2 a1");
    check(8, "aab", "R", "a1 b1 a2 a1");
}

#[test]
fn in_strict_mode_nothing_passes() {
    check(1, "abab", "RR", "a1 a2 a3 b1 a1 b1");
    check(1, "aab", "ARA", "a1 a1 a2 b1");
}

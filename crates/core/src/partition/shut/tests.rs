//! Refusals where few records fill the window.

use std::num::NonZeroUsize;
use std::sync::Arc;

use super::*;
use crate::message::{DeliveryTag, Event, Tenure};
use crate::outcome::{Cause, Failure};
use crate::partition::Limits;
use crate::policy::{FailurePolicies, FailurePolicy, Policy, Resolution};
use crate::schedule::Schedule;
use crate::update::{RecordKey, Update, UpdateId};

const WINDOW: usize = 9;
const TENURE: Tenure = Tenure(1);

/// Hands over the records of `keys`, a letter each, and lets the target refuse all attempts, which last no time, for
/// `seconds`; but those of `applied` from second 20 on. Answers which records' updates ended, and how.
fn check(keys: &str, applied: &str, seconds: u64, expected: &str) {
    let policy = Policy {
        schedule: Schedule::new(vec![Duration::from_secs(1)], 0.0),
        attempts_max: None,
        elapsed_max: Some(Duration::from_secs(5)),
        retry_after_max: Duration::ZERO,
        failure: FailurePolicies::all(FailurePolicy::Park),
        failure_of_targets: Vec::new(),
    };
    let number = |number| NonZeroUsize::new(number).unwrap();
    let limits = Limits { in_flight_max: number(WINDOW), window: number(WINDOW) };
    let (mut core, mut now) = (Partition::new(limits, Arc::new(policy)), Tick::ZERO);
    core.handle(now, Event::TenureBegan(TENURE));
    core.handle(now, Event::LeaseRenewed { until: now.after(Duration::from_secs(3600)) });
    let mut queue: VecDeque<char> = keys.chars().collect();
    let (mut held, mut deliveries, mut ended) = (0, 0, String::new());
    while now <= Tick::from_micros(seconds * 1_000_000) {
        while held < WINDOW
            && let Some(key) = queue.pop_front()
        {
            (held, deliveries) = (held + 1, deliveries + 1);
            let update = update(key, deliveries);
            let delivery = DeliveryTag(deliveries);
            core.handle(now, Event::Received { tenure: TENURE, delivery, redelivered: false, update });
        }
        match core.poll_effect() {
            Some(Effect::Claim { tenure }) => {
                let claimed = Event::Claimed { tenure, number: None, rival_claim: None, wait_until: None };
                core.handle(now, claimed);
            }
            Some(Effect::Attempt { attempt, update, .. }) => {
                let record_key = update.record_key.clone();
                let takes = applied.contains(record_key.as_str()) && now >= Tick::from_micros(20_000_000);
                let failure = Failure { cause: Cause::Status(403), detail: String::new() };
                let outcome = if takes { Outcome::Applied } else { Outcome::Refused(failure) };
                core.handle(now, Event::AttemptEnded { attempt, record_key, outcome });
            }
            Some(Effect::Record { tenure, holder, update, resolution }) => {
                let record_key = update.map(|update| update.record_key.clone()).unwrap();
                let how = if resolution == Resolution::Applied { "+" } else { "!" };
                ended += record_key.as_str();
                ended += how;
                core.handle(now, Event::Recorded { tenure, holder, record_key: Some(record_key) });
            }
            Some(Effect::Settle { .. }) => held -= 1,
            Some(effect) => panic!("{effect:?}"),
            None => {
                let Some(next) = core.next_deadline() else { break };
                now = next;
                core.wake(now);
            }
        }
    }
    assert_eq!(ended, expected, "{keys}");
}

fn update(key: char, number: u64) -> Arc<Update> {
    Update::bare(RecordKey::new(key.to_string()).unwrap(), UpdateId::published(number.to_string()))
}

#[test]
fn one_of_few_records_that_fill_the_window_ends_and_no_other_before_something_is_applied() {
    check("aaaaaaaaaa", "", 1000, "a!");
    check("aaaabbbbbaaaaaaa", "", 1000, "a!");
    check("abcdabcdabbbbbbbb", "", 1000, "a!");
    // `b` is applied from 20 s on: then `a` may end again, with the time that it takes beside nobody.
    check("aaaaaaaab", "b", 1000, "a!b+");
    check(&("aaaaaaaab".to_owned() + "aaaa"), "b", 1000, "a!b+a!");
}

#[test]
fn no_record_ends_while_the_window_has_room_or_many_records() {
    check("aaaaaaaa", "", 1000, "");
    check("abcdeabcd", "", 1000, "");
    check("abcdeabcdabcde", "", 1000, "");
}

//! Small histories of one target that is paced, written out.

use std::num::NonZeroUsize;
use std::sync::Arc;
use std::time::Duration;

use super::*;
use crate::message::{AttemptId, DeliveryTag, Event, Tenure};
use crate::outcome::{Cause, Failure, Outcome};
use crate::partition::{Limits, View};
use crate::policy::{FailurePolicies, FailurePolicy, Policy};
use crate::schedule::Schedule;
use crate::update::{RecordKey, Update, UpdateId};

const TARGET: TargetId = TargetId(0);

/// A partition whose driver writes down each resolution at once.
struct History {
    core: Partition,
    now: Tick,
    tenure: u64,
    deliveries: u64,
    /// Attempts that are out, oldest first.
    out: Vec<(AttemptId, RecordKey)>,
    seen: Vec<String>,
}

impl History {
    fn new(in_flight_max: usize, elapsed_max: Duration) -> Self {
        let policy = Policy {
            schedule: Schedule::new(vec![Duration::from_secs(1)], 0.0),
            attempts_max: None,
            elapsed_max: Some(elapsed_max),
            retry_after_max: Duration::ZERO,
            failure: FailurePolicies::all(FailurePolicy::DeadLetter),
            failure_of_targets: Vec::new(),
        };
        let number = |number| NonZeroUsize::new(number).unwrap();
        let limits = Limits { in_flight_max: number(in_flight_max), window: number(9) };
        let core = Partition::new(limits, Arc::new(policy));
        let mut history =
            Self { core, now: Tick::ZERO, tenure: 0, deliveries: 0, out: Vec::new(), seen: Vec::new() };
        history.begin_tenure();
        history
    }

    fn begin_tenure(&mut self) {
        (self.tenure, self.deliveries) = (self.tenure + 1, 0);
        self.handle(Event::TenureBegan(Tenure(self.tenure)));
        self.handle(Event::LeaseRenewed { until: self.now.after(Duration::from_secs(3600)) });
    }

    fn receive(&mut self, record: char) {
        self.deliveries += 1;
        let update = Update::bare(
            RecordKey::new(record.to_string()).unwrap(),
            UpdateId::published(record.to_string()),
        );
        let (tenure, delivery) = (Tenure(self.tenure), DeliveryTag(self.deliveries));
        let redelivered = self.tenure > 1;
        self.handle(Event::Received { tenure, delivery, redelivered, update });
    }

    fn end(&mut self, letter: char) {
        let (attempt, record_key) = self.out.remove(0);
        let failure = Failure { cause: Cause::Status(429), detail: String::new() };
        let outcome = match letter {
            '+' => Outcome::Applied,
            'T' => Outcome::Throttled(failure),
            _ => Outcome::Retryable { failure, retry_after: None },
        };
        self.handle(Event::AttemptEnded { attempt, record_key, outcome });
    }

    fn handle(&mut self, event: Event) {
        self.core.handle(self.now, event);
        self.perform();
    }

    fn perform(&mut self) {
        while let Some(effect) = self.core.poll_effect() {
            self.seen.push(match effect {
                Effect::Attempt { attempt, number, update, probe, permit, .. } => {
                    let record = update.record_key.as_str();
                    let pass = if permit { "*" } else { "" };
                    assert!(!probe, "no probe is granted here");
                    let words = format!("{record}{number}{pass}");
                    self.out.push((attempt, update.record_key.clone()));
                    words
                }
                Effect::AskPermits { permits, .. } => format!("asks:{permits}"),
                Effect::ReturnPermits { permits, .. } => format!("returns:{permits}"),
                Effect::WithdrawPermits(_) => "withdraws".to_owned(),
                Effect::Record { tenure, holder, update, resolution } => {
                    let record_key = update.map(|update| update.record_key.clone());
                    self.core.handle(self.now, Event::Recorded { tenure, holder, record_key });
                    if resolution == crate::policy::Resolution::Applied {
                        continue;
                    }
                    resolution.name().to_owned()
                }
                Effect::Claim { tenure } => {
                    let claimed =
                        Event::Claimed { tenure, number: None, rival_claim: None, wait_until: None };
                    self.core.handle(self.now, claimed);
                    continue;
                }
                Effect::Settle { .. } | Effect::ClaimEnded { .. } => continue,
                other => panic!("{other:?}"),
            });
        }
    }
}

/// `script`: `a` to `z` an update of that record comes; `+` the attempt that is out for longest is applied, `T` it is
/// throttled, `R` it fails; `P` the target is paced, `U` not any more; `S` it is shut, `O` open; `1` to `9` so many permits are
/// granted; `!` the channel is lost, `<` another one is there; `.` one second passes; `X` a stop is requested. Answers what the
/// partition did: attempts, with `*` if they had a permit, and what it asked the pacer.
fn check(in_flight_max: usize, script: &str, expected: &str) {
    check_within(in_flight_max, Duration::from_secs(3600), script, expected);
}

fn check_within(in_flight_max: usize, elapsed_max: Duration, script: &str, expected: &str) {
    let mut history = History::new(in_flight_max, elapsed_max);
    for letter in script.chars() {
        match letter {
            'a'..='z' => history.receive(letter),
            '+' | 'T' | 'R' => history.end(letter),
            'P' => history.handle(Event::TargetPaced(TARGET)),
            'U' => history.handle(Event::TargetUnpaced(TARGET)),
            'S' => history.handle(Event::TargetShut { target: TARGET, probe_from: None }),
            'O' => history.handle(Event::TargetOpened(TARGET)),
            'X' => history.handle(Event::StopRequested),
            '!' => history.handle(Event::TenureEnded(Tenure(history.tenure))),
            '<' => history.begin_tenure(),
            '.' => {
                history.now = history.now.after(Duration::from_secs(1));
                history.core.wake(history.now);
                history.perform();
            }
            permits => {
                let permits = permits.to_digit(10).expect("a number of permits") as usize;
                history.handle(Event::PermitsGranted { target: TARGET, permits });
            }
        }
    }
    assert_eq!(history.seen.join(" "), expected, "{script}");
}

#[test]
fn a_target_that_is_not_paced_needs_no_permits() {
    check(4, "ab++", "a1 b1");
    check(4, "2", "returns:2");
}

#[test]
fn each_lane_asks_for_one_permit_once() {
    check(4, "Pabc", "asks:1 asks:1 asks:1");
    // Only the head of a lane needs one.
    check(4, "Paa1+1", "asks:1 a1* asks:1 a1*");
    check(4, "Pab.1..", "asks:1 asks:1 a1*");
}

#[test]
fn permits_go_to_the_lanes_whose_turns_came_first() {
    check(4, "Pabc12", "asks:1 asks:1 asks:1 a1* b1* c1*");
    // After a failure, its turn is behind what came meanwhile.
    check(4, "Pab1R.c111", "asks:1 asks:1 a1* asks:1 asks:1 b1* a2* c1*");
}

#[test]
fn permits_without_a_lane_go_back() {
    check(4, "Pa3", "asks:1 returns:2 a1*");
    check(4, "Pa1+2", "asks:1 a1* returns:2");
}

#[test]
fn a_lane_that_waits_for_room_keeps_one_permit() {
    check(2, "Pabcd4", "asks:1 asks:1 asks:1 asks:1 a1* b1* returns:1");
    check(2, "Pabcd4+", "asks:1 asks:1 asks:1 asks:1 a1* b1* returns:1 c1*");
    check(2, "Pabcd4++1", "asks:1 asks:1 asks:1 asks:1 a1* b1* returns:1 c1* asks:1 d1*");
}

#[test]
fn a_target_that_is_shut_needs_no_permits_until_it_is_open() {
    check(4, "PabS", "asks:1 asks:1 withdraws");
    check(4, "PabSO", "asks:1 asks:1 withdraws asks:2");
    check(4, "PabSO2", "asks:1 asks:1 withdraws asks:2 a1* b1*");
    // Permits that were on their way come back unused.
    check(4, "PabS2O2", "asks:1 asks:1 withdraws returns:2 asks:2 a1* b1*");
    check(2, "Pabc3S+", "asks:1 asks:1 asks:1 a1* b1* returns:1");
}

#[test]
fn lanes_go_on_in_turn_if_permits_are_no_longer_needed() {
    check(4, "PabcU", "asks:1 asks:1 asks:1 withdraws a1 b1 c1");
    check(2, "PabcU++", "asks:1 asks:1 asks:1 withdraws a1 b1 c1");
    check(2, "Pabc3U+", "asks:1 asks:1 asks:1 a1* b1* returns:1 c1");
}

#[test]
fn a_tenure_that_ends_gives_back_its_permits_and_withdraws_its_requests() {
    check(4, "Pab!", "asks:1 asks:1 withdraws");
    check(2, "Pabcd3!", "asks:1 asks:1 asks:1 asks:1 a1* b1* returns:1 withdraws");
    // They come too late.
    check(4, "Pab!2", "asks:1 asks:1 withdraws returns:2");
    check(4, "Pab!<ab2", "asks:1 asks:1 withdraws asks:1 asks:1 a1* b1*");
}

#[test]
fn a_stop_gives_back_what_waits() {
    check(2, "Pabcd3X+", "asks:1 asks:1 asks:1 asks:1 a1* b1* returns:1 withdraws");
    check(4, "PaX1", "asks:1 withdraws returns:1");
}

#[test]
fn a_head_that_is_throttled_keeps_its_turn_once_and_goes_behind_the_others_then() {
    check(4, "Pab1T1T1", "asks:1 asks:1 a1* asks:1 a2* b1*");
    check(4, "Pab1T1T.11", "asks:1 asks:1 a1* asks:1 a2* asks:1 b1* a3*");
}

#[test]
fn the_wait_for_a_permit_does_not_count() {
    let within = |script: &str, expected: &str| check_within(4, Duration::from_secs(3), script, expected);
    // Failed at 0, due at 1, sent and failed at 61.
    let minute = ".".repeat(60);
    within(&format!("Pa1R.{minute}1R"), "asks:1 a1* asks:1 a2*");
    within(&format!("Pa1R.{minute}1R.1R"), "asks:1 a1* asks:1 a2* asks:1 a3*");
    within(&format!("Pa1R.{minute}1R.1R.1R"), "asks:1 a1* asks:1 a2* asks:1 a3* asks:1 a4* dead_lettered");
    // Without permits it is the same; so it is if the target is shut, or not paced any more, or the channel is lost.
    check_within(4, Duration::from_secs(3), "aR.R.R.R", "a1 a2 a3 a4 dead_lettered");
    within(&format!("Pa1R.{minute}UR.R.R"), "asks:1 a1* asks:1 withdraws a2 a3 a4 dead_lettered");
    within(&format!("Pa1R.{minute}!<a1R.1"), "asks:1 a1* asks:1 withdraws asks:1 a2* asks:1 a3*");
}

#[test]
fn what_waits_for_permits_is_seen() {
    let mut history = History::new(4, Duration::from_secs(3600));
    history.handle(Event::TargetPaced(TARGET));
    history.receive('a');
    history.receive('b');
    assert_eq!(history.core.paced.lanes(), 2);
    history.handle(Event::PermitsGranted { target: TARGET, permits: 2 });
    history.end('+');
    history.end('+');
    assert_eq!(history.core.paced.lanes(), 0);
    assert_eq!(history.core.view(), View::default());
}

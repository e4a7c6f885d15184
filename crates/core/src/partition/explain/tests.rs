//! What each state of a record is explained by. Longer histories are in the simulation, which asks at random moments.

use std::collections::BTreeSet;
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::time::Duration;

use super::*;
use crate::layout::{Layout, LayoutNumber, PartitionNumber};
use crate::message::{AttemptId, DeliveryTag, Effect, Event, Holder, Tenure, TenureNumber};
use crate::outcome::{Cause, Failure, Outcome};
use crate::partition::Limits;
use crate::placement::Placement;
use crate::policy::{FailurePolicies, FailurePolicy, Policy};
use crate::previous_layout::PreviousLayout;
use crate::schedule::Schedule;
use crate::witness::witnesses;

const TENURE: Tenure = Tenure(1);

/// A partition whose requests and recordings end when the script says so.
struct World {
    partition: Partition,
    now: Tick,
    delivered: u64,
    /// Attempts that are out, oldest first.
    out: Vec<(AttemptId, RecordKey)>,
    recording: Vec<(Holder, Option<RecordKey>)>,
    /// Claims are confirmed at once.
    claims: bool,
    wait_until: Option<Tick>,
}

impl World {
    fn new(in_flight_max: usize) -> Self {
        let policy = Policy {
            schedule: Schedule::new(vec![Duration::from_secs(4)], 0.0),
            attempts_max: None,
            elapsed_max: None,
            retry_after_max: Duration::ZERO,
            failure: FailurePolicies::all(FailurePolicy::Block),
            failure_of_targets: Vec::new(),
        };
        let number = |number| NonZeroUsize::new(number).unwrap();
        let limits = Limits { in_flight_max: number(in_flight_max), window: number(9) };
        let mut world = Self {
            partition: Partition::new(limits, Arc::new(policy)),
            now: Tick::from_micros(1_000_000),
            delivered: 0,
            out: Vec::new(),
            recording: Vec::new(),
            claims: true,
            wait_until: None,
        };
        world.handle(Event::TenureBegan(TENURE));
        world.handle(Event::LeaseRenewed { until: world.now.after(Duration::from_secs(60)) });
        world
    }

    fn handle(&mut self, event: Event) {
        self.partition.handle(self.now, event);
        self.do_effects();
    }

    fn do_effects(&mut self) {
        while let Some(effect) = self.partition.poll_effect() {
            match effect {
                Effect::Claim { tenure } if self.claims => {
                    let (number, wait_until) = (Some(TenureNumber(1)), self.wait_until);
                    let claimed = Event::Claimed { tenure, number, rival_claim: None, wait_until };
                    self.partition.handle(self.now, claimed);
                }
                Effect::Attempt { attempt, update, .. } => {
                    self.out.push((attempt, update.record_key.clone()));
                }
                Effect::Record { holder, update, .. } => {
                    self.recording.push((holder, update.map(|update| update.record_key.clone())));
                }
                _ => {}
            }
        }
    }

    fn receive(&mut self, key: &str) {
        self.deliver(key, false);
    }

    fn deliver(&mut self, key: &str, redelivered: bool) {
        self.delivered += 1;
        let id = UpdateId::published(format!("u{}", self.delivered));
        let update = Update::bare(RecordKey::new(key).unwrap(), id);
        let delivery = DeliveryTag(self.delivered);
        self.handle(Event::Received { tenure: TENURE, delivery, redelivered, update });
    }

    /// The attempt that is out for longest ends.
    fn end(&mut self, outcome: Outcome) {
        let (attempt, record_key) = self.out.remove(0);
        self.handle(Event::AttemptEnded { attempt, record_key, outcome });
    }

    fn pass(&mut self, seconds: u64) {
        self.now = self.now.after(Duration::from_secs(seconds));
        self.partition.wake(self.now);
        self.do_effects();
    }

    fn explained(&self, key: &str) -> Explained {
        let explained = self.partition.explain(self.now, |record_key| record_key.as_str() == key);
        explained.unwrap_or_else(|| panic!("{key} is here"))
    }

    fn code(&self, key: &str) -> &'static str {
        self.explained(key).cause.code()
    }
}

fn failure(status: u16, detail: &str) -> Failure {
    Failure { cause: Cause::Status(status), detail: detail.to_owned() }
}

fn retryable(status: u16) -> Outcome {
    Outcome::Retryable { failure: failure(status, "no backend"), retry_after: None }
}

#[test]
fn a_record_of_which_nothing_is_here_has_no_cause() {
    let mut world = World::new(2);
    world.receive("a");
    assert_eq!(world.partition.explain(world.now, |record_key| record_key.as_str() == "b"), None);
}

#[test]
fn an_attempt_that_is_out_is_named_with_its_number_and_its_time() {
    let mut world = World::new(2);
    world.receive("a");
    world.receive("a");
    let explained = world.explained("a");
    assert_eq!(explained.cause, WaitCause::InFlight { attempt: 1 });
    assert_eq!(explained.head.update_id.as_str(), "u1");
    assert_eq!((explained.head.latest_began, explained.behind), (Some(world.now), 1));
}

#[test]
fn a_failed_attempt_is_named_with_the_time_of_the_next_one() {
    let mut world = World::new(2);
    world.receive("a");
    world.pass(3);
    world.end(retryable(503));
    let explained = world.explained("a");
    let failure = "status 503: no backend".to_owned();
    assert_eq!(explained.cause, WaitCause::Retry { attempts: 1, failure });
    assert_eq!(explained.ends_at, Some(world.now.after(Duration::from_secs(4))));
    let past: Vec<(u32, Duration)> =
        explained.past_attempts.iter().map(|past| (past.number, past.took)).collect();
    assert_eq!(past, [(1, Duration::from_secs(3))]);
    world.pass(4);
    assert_eq!(world.explained("a").cause, WaitCause::InFlight { attempt: 2 });
    assert_eq!(world.explained("a").past_attempts.len(), 1, "the failed one is still told of");
}

#[test]
fn a_wait_whose_time_has_passed_ends_now() {
    let mut world = World::new(2);
    world.receive("a");
    world.end(retryable(503));
    // Nobody has woken the partition yet.
    world.now = world.now.after(Duration::from_secs(5));
    assert_eq!((world.code("a"), world.explained("a").ends_at), ("retry", Some(world.now)));
}

#[test]
fn what_the_target_did_decides_the_cause() {
    let check = |outcome: Outcome, expected: &str| {
        let mut world = World::new(2);
        world.receive("a");
        world.end(outcome.clone());
        assert_eq!(world.code("a"), expected, "{outcome:?}");
    };
    check(retryable(500), "retry");
    check(Outcome::Refused(failure(401, "")), "refused");
    check(Outcome::Rejected(failure(422, "")), "blocked");
    check(Outcome::Conflict(failure(409, "")), "blocked");
    check(Outcome::Doubted(failure(404, "")), "doubted");
    check(Outcome::Withheld, "withheld");
    check(Outcome::Applied, "recording");
}

#[test]
fn records_without_room_are_counted_in_their_order() {
    let mut world = World::new(2);
    for key in ["a", "b", "c", "d"] {
        world.receive(key);
    }
    assert_eq!(world.code("b"), "in_flight");
    assert_eq!(world.explained("c").cause, WaitCause::Room { in_flight: 2, in_flight_max: 2, before: 0 });
    assert_eq!(world.explained("d").cause, WaitCause::Room { in_flight: 2, in_flight_max: 2, before: 1 });
    let longest: Vec<_> =
        world.partition.explain_in_flight(world.now, 1).into_iter().map(|of| of.record_key).collect();
    assert_eq!(longest, [RecordKey::new("a").unwrap()]);
}

#[test]
fn a_shut_target_is_named_with_the_next_probe() {
    let mut world = World::new(2);
    let (target, probe_from) = (TargetId(0), Some(world.now.after(Duration::from_secs(5))));
    world.handle(Event::TargetShut { target, probe_from });
    world.receive("a");
    world.receive("b");
    assert_eq!(world.explained("b").cause, WaitCause::TargetShut { probing: false, before: 1 });
    assert_eq!(world.explained("b").ends_at, probe_from);
    world.handle(Event::TargetShut { target, probe_from: None });
    assert_eq!(world.explained("a").cause, WaitCause::TargetShut { probing: true, before: 0 });
}

#[test]
fn a_limit_is_named_with_those_before() {
    let mut world = World::new(2);
    world.handle(Event::TargetPaced(TargetId(0)));
    world.receive("a");
    world.receive("b");
    assert_eq!(world.explained("b").cause, WaitCause::Limit { before: 1 });
    world.handle(Event::PermitsGranted { target: TargetId(0), permits: 1 });
    assert_eq!((world.code("a"), world.code("b")), ("in_flight", "limit"));
}

#[test]
fn ownership_that_is_missing_is_the_cause_of_everything_that_is_not_under_way() {
    let mut world = World::new(1);
    world.claims = false;
    world.receive("a");
    world.receive("a");
    let explained = world.explained("a");
    assert_eq!((explained.cause.code(), explained.behind), ("claim", 1));
    world.pass(61);
    assert_eq!(world.code("a"), "claim", "there is nothing yet that could lapse");

    let mut world = World::new(2);
    world.receive("a");
    world.receive("b");
    world.end(retryable(503));
    world.pass(61);
    world.receive("c");
    assert_eq!(
        (world.code("a"), world.code("b"), world.code("c")),
        ("lease_lapsed", "in_flight", "lease_lapsed")
    );
    world.handle(Event::StopRequested);
    assert_eq!((world.code("a"), world.code("b")), ("hand_back", "in_flight"));
    world.handle(Event::ClaimSuperseded(TENURE));
    assert_eq!((world.code("a"), world.code("c")), ("overtaken", "overtaken"));
}

#[test]
fn a_take_over_wait_has_its_end() {
    let mut world = World::new(2);
    world.wait_until = Some(world.now.after(Duration::from_secs(30)));
    world.deliver("a", true);
    assert_eq!(world.code("a"), "take_over");
    assert_eq!(world.explained("a").ends_at, world.wait_until);
    world.receive("b");
    assert_eq!(world.code("b"), "in_flight", "nobody can have sent it");
}

#[test]
fn an_attempt_of_an_earlier_tenure_is_named() {
    let mut world = World::new(2);
    let update = Update::bare(RecordKey::new("a").unwrap(), UpdateId::made("m1"));
    let received = |tenure, redelivered| Event::Received {
        tenure,
        delivery: DeliveryTag(1),
        redelivered,
        update: Arc::clone(&update),
    };
    world.handle(received(TENURE, false));
    world.handle(Event::TenureEnded(TENURE));
    world.handle(Event::TenureBegan(Tenure(2)));
    world.handle(received(Tenure(2), true));
    assert_eq!(world.code("a"), "earlier_attempt");
}

#[test]
fn the_previous_partition_is_named() {
    let layout = |number, partitions| Layout { number: LayoutNumber(number), partitions, prefetch: 9 };
    let placement = Placement::of(layout(1, 2), &witnesses(2));
    let of_a = placement.partition_of(&RecordKey::new("a").unwrap()).unwrap();
    let mut world = World::new(2);
    let undrained = BTreeSet::from([of_a]);
    world.partition = Partition::new(world.partition.limits(), Arc::clone(&world.partition.policy))
        .behind(PreviousLayout { partitions: 2, undrained });
    world.handle(Event::TenureBegan(TENURE));
    world.handle(Event::LeaseRenewed { until: world.now.after(Duration::from_secs(60)) });
    world.receive("a");
    let PartitionNumber(partition) = of_a;
    assert_eq!(world.explained("a").cause, WaitCause::PreviousLayout { partition });
}

#[test]
fn in_strict_mode_the_record_before_is_named_with_what_it_waits_for() {
    let mut world = World::new(1);
    for key in ["a", "b", "a", "c"] {
        world.receive(key);
    }
    let in_flight = Box::new(WaitCause::InFlight { attempt: 1 });
    assert_eq!(world.explained("b").cause, WaitCause::Strict { before: 1, first: in_flight.clone() });
    assert_eq!(world.explained("c").cause, WaitCause::Strict { before: 3, first: in_flight });
    assert_eq!((world.explained("a").cause.code(), world.explained("a").behind), ("in_flight", 1));
    assert_eq!(world.explained("c").head.update_id.as_str(), "u4");
}

#[test]
fn the_oldest_and_the_largest_records_come_first() {
    let mut world = World::new(2);
    for key in ["a", "b", "b", "c", "c", "c"] {
        world.receive(key);
    }
    assert_eq!(listed(&world.partition.explain_oldest(world.now, 2)), [("a", 0), ("b", 1)]);
    assert_eq!(listed(&world.partition.explain_largest(world.now, 2)), [("c", 2), ("b", 1)]);
}

/// Keys, each with how many updates are behind.
fn listed(explained: &[Explained]) -> Vec<(&str, usize)> {
    explained.iter().map(|of| (of.record_key.as_str(), of.behind)).collect()
}

#[test]
fn a_record_is_listed_once_with_all_of_its_updates_also_while_they_wait_for_the_claim() {
    let mut world = World::new(2);
    world.claims = false;
    for key in ["a", "b", "a"] {
        world.receive(key);
    }
    let (now, partition) = (world.now, &world.partition);
    assert_eq!(listed(&partition.explain_oldest(now, 9)), [("a", 1), ("b", 0)]);
    assert_eq!(listed(&partition.explain_largest(now, 1)), [("a", 1)]);
    assert_eq!(partition.explain_oldest(now, 9), [world.explained("a"), world.explained("b")]);
}

#[test]
fn a_record_that_was_begun_is_listed_with_what_came_after_a_lapse() {
    let mut world = World::new(2);
    world.receive("a");
    world.pass(61);
    for key in ["b", "a"] {
        world.receive(key);
    }
    assert_eq!(listed(&world.partition.explain_oldest(world.now, 9)), [("a", 1), ("b", 0)]);
}

#[test]
fn in_strict_mode_each_record_is_listed() {
    let mut world = World::new(1);
    for key in ["a", "b", "b"] {
        world.receive(key);
    }
    assert_eq!(listed(&world.partition.explain_oldest(world.now, 9)), [("a", 0), ("b", 1)]);
    assert_eq!(listed(&world.partition.explain_largest(world.now, 1)), [("b", 1)]);
}

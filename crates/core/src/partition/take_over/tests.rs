//! Histories of take-overs, written out.

use std::num::NonZeroUsize;
use std::sync::Arc;
use std::time::Duration;

use crate::message::{AttemptId, DeliveryTag, Effect, Event, ParkedSeq, Tenure, TenureNumber};
use crate::outcome::{Cause, Failure, Outcome};
use crate::partition::{Limits, Partition};
use crate::policy::{FailurePolicies, FailurePolicy, Policy};
use crate::routes::TargetId;
use crate::schedule::Schedule;
use crate::tick::Tick;
use crate::update::{RecordKey, Update, UpdateId};

/// One second per step of the clock. Everything but attempts is answered at once.
struct World {
    core: Partition,
    tenure: Tenure,
    now: u64,
    delivery: u64,
    wait_until: Option<u64>,
    rival_claim: Option<TenureNumber>,
    out: Vec<(AttemptId, RecordKey)>,
    asked: Vec<String>,
}

fn tick(seconds: u64) -> Tick {
    Tick::from_micros(seconds * 1_000_000)
}

/// Of the record that the name begins with.
fn update(name: &str) -> Arc<Update> {
    Update::bare(RecordKey::new(&name[..1]).unwrap(), UpdateId::published(name))
}

impl World {
    fn new(in_flight_max: usize, wait_until: u64) -> Self {
        let number = |number| NonZeroUsize::new(number).unwrap();
        let limits = Limits { in_flight_max: number(in_flight_max), window: number(9) };
        let policy = Policy {
            schedule: Schedule::new(vec![Duration::from_secs(1)], 0.0),
            attempts_max: None,
            elapsed_max: Some(Duration::from_secs(5)),
            retry_after_max: Duration::ZERO,
            failure: FailurePolicies::all(FailurePolicy::DeadLetter),
            failure_of_targets: Vec::new(),
        };
        let mut world = Self {
            core: Partition::new(limits, Arc::new(policy)),
            tenure: Tenure(0),
            now: 0,
            delivery: 0,
            wait_until: Some(wait_until),
            rival_claim: None,
            out: Vec::new(),
            asked: Vec::new(),
        };
        world.attach();
        world
    }

    fn attach(&mut self) {
        if self.tenure > Tenure(0) {
            self.handle(Event::TenureEnded(self.tenure));
        }
        self.tenure.0 += 1;
        self.delivery = 0;
        self.handle(Event::TenureBegan(self.tenure));
        self.handle(Event::LeaseRenewed { until: tick(3600) });
    }

    fn handle(&mut self, event: Event) {
        self.core.handle(tick(self.now), event);
        self.perform();
    }

    fn perform(&mut self) {
        while let Some(effect) = self.core.poll_effect() {
            match effect {
                Effect::Attempt { attempt, number, update, .. } => {
                    self.asked.push(format!("{}:{number}@{}", update.id.as_str(), self.now));
                    self.out.push((attempt, update.record_key.clone()));
                }
                Effect::Claim { tenure } => self.core.handle(
                    tick(self.now),
                    Event::Claimed {
                        tenure,
                        number: Some(TenureNumber(tenure.0)),
                        rival_claim: self.rival_claim,
                        wait_until: self.wait_until.map(tick),
                    },
                ),
                Effect::Record { tenure, holder, update, .. } => {
                    let record_key = update.map(|update| update.record_key.clone());
                    self.core.handle(tick(self.now), Event::Recorded { tenure, holder, record_key });
                }
                Effect::Settle { .. } => {}
                effect => self.asked.push(format!("{effect:?}").split(' ').next().unwrap().to_owned()),
            }
        }
    }

    /// `<` before a name: it comes redelivered.
    fn come(&mut self, names: &str) {
        for name in names.split(' ') {
            self.delivery += 1;
            let (tenure, delivery) = (self.tenure, DeliveryTag(self.delivery));
            let redelivered = name.starts_with('<');
            let update = update(name.trim_start_matches('<'));
            self.handle(Event::Received { tenure, delivery, redelivered, update });
        }
    }

    fn wait_changes(&mut self, until: impl Into<Option<u64>>) {
        self.handle(Event::TakeOverWait { tenure: self.tenure, until: until.into().map(tick) });
    }

    /// The attempts that are out end.
    fn end(&mut self, applied: bool) {
        for (attempt, record_key) in std::mem::take(&mut self.out) {
            let failure = Failure { cause: Cause::Timeout, detail: String::new() };
            let outcome =
                if applied { Outcome::Applied } else { Outcome::Retryable { failure, retry_after: None } };
            self.handle(Event::AttemptEnded { attempt, record_key, outcome });
        }
    }

    fn wake(&mut self, now: u64) {
        self.now = now;
        self.core.wake(tick(now));
        self.perform();
    }

    fn asked(&mut self, expected: &str) {
        assert_eq!(std::mem::take(&mut self.asked).join(" "), expected);
    }
}

#[test]
fn what_came_redelivered_waits_and_what_is_fresh_starts_at_once() {
    let mut world = World::new(2, 20);
    world.come("<a1 <a2 <b1 c1 a3 d1");
    world.asked("c1:1@0 d1:1@0");
    assert_eq!(world.core.view().take_over_wait, 2);
    assert_eq!((world.core.take_over_wait(), world.core.next_deadline()), (Some(tick(20)), Some(tick(20))));
    world.end(true);
    world.wake(19);
    world.asked("");
    world.wake(20);
    world.asked("a1:1@20 b1:1@20");
    assert_eq!((world.core.view().take_over_wait, world.core.take_over_wait()), (0, None));
}

#[test]
fn later_heads_of_a_lane_are_looked_at_in_the_same_way() {
    let mut world = World::new(2, 20);
    world.come("a1 <b1 b2");
    world.end(true);
    world.wake(20);
    world.end(true);
    world.asked("a1:1@0 b1:1@20 b2:1@20");
    // A record whose first update is known to be settled: the next one is looked at.
    let mut world = World::new(2, 20);
    world.come("a1 a2");
    world.end(true);
    world.wait_until = Some(30);
    world.attach();
    world.come("<a1 <a2");
    world.end(true);
    world.asked("a1:1@0 a2:1@0");
}

#[test]
fn a_wait_takes_neither_time_nor_attempts_of_an_update() {
    let mut world = World::new(1, 100);
    world.come("<a1");
    world.wake(100);
    world.end(false);
    world.wake(102);
    world.asked("a1:1@100 a1:2@102");
}

#[test]
fn in_strict_mode_the_partition_stands() {
    let mut world = World::new(1, 20);
    world.come("<a1 b1");
    world.asked("");
    world.wake(20);
    world.end(true);
    world.asked("a1:1@20 b1:1@20");
}

#[test]
fn what_is_released_waits_too() {
    let mut world = World::new(2, 20);
    world.come("c1");
    let updates = vec![(ParkedSeq(1), update("a1"))];
    let record_key = RecordKey::new("a").unwrap();
    world.handle(Event::Released { tenure: world.tenure, record_key, updates });
    world.asked("c1:1@0");
    world.wake(20);
    world.asked("a1:1@20");
}

#[test]
fn the_wait_ends_early_or_late_if_it_is_said_so() {
    let mut world = World::new(2, 20);
    world.come("<a1");
    world.wait_changes(30);
    world.wake(20);
    world.asked("");
    world.wait_changes(25);
    world.wake(25);
    world.asked("a1:1@25");
    // It becomes known while a head waits for a permit.
    let mut world = World::new(1, 0);
    world.come("<a1 <a2");
    world.wait_changes(30);
    world.end(true);
    world.asked("a1:1@0");
    world.now = 3;
    world.wait_changes(None);
    world.asked("a2:1@3");
}

#[test]
fn what_this_process_began_goes_on_after_a_lost_channel_and_the_wait_is_that_of_the_newest_claim() {
    let mut world = World::new(3, 20);
    world.come("<a1 b1 c1");
    let (attempt, record_key) = world.out.pop().unwrap();
    world.end(false);
    world.attach();
    assert_eq!(world.core.take_over_wait(), Some(tick(20)), "between the tenures, too");
    world.come("<a1 <b1 <c1");
    world.wake(2);
    world.asked("b1:1@0 c1:1@0 b1:2@2");
    world.handle(Event::AttemptEnded { attempt, record_key, outcome: Outcome::Applied });
    // The next claim knows of nothing.
    world.wait_until = None;
    world.attach();
    world.come("<a1 <b1");
    world.asked("a1:1@2");
}

#[test]
fn what_another_process_may_have_sent_since_waits_though_it_was_begun_here() {
    let mut world = World::new(3, 0);
    world.come("a1");
    world.end(false);
    world.rival_claim = Some(TenureNumber(9));
    world.wait_until = Some(20);
    world.attach();
    world.come("<a1");
    world.wake(10);
    world.asked("a1:1@0");
    world.wake(20);
    world.asked("a1:1@20");
}

#[test]
fn a_lane_that_has_a_probe_and_must_wait_gives_it_back() {
    let target = TargetId(0);
    let mut world = World::new(1, 0);
    world.handle(Event::TargetShut { target, probe_from: Some(tick(0)) });
    world.come("<a1");
    world.wait_changes(20);
    world.handle(Event::ProbeGranted(target));
    world.asked("AskProbe(TargetId(0)) ReturnProbe(TargetId(0))");
    world.handle(Event::TargetOpened(target));
    world.asked("");
    world.wake(20);
    world.asked("a1:1@20");
}

#[test]
fn what_is_void_is_given_up_and_nothing_further_is_looked_at() {
    let mut world = World::new(2, 0);
    world.come("a1 b1 c1");
    world.handle(Event::DeliveriesVoid(world.tenure));
    for _ in 0..20 {
        world.come("<a1");
    }
    world.end(true);
    world.asked("a1:1@0 b1:1@0 Abandon");
    world.attach();
    world.come("<a1 <b1 <c1");
    world.asked("c1:1@0");
}

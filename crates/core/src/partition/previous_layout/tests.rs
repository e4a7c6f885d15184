use std::num::NonZeroUsize;
use std::sync::Arc;
use std::time::Duration;

use super::*;
use crate::message::{AttemptId, DeliveryTag, Event, ParkedSeq, TenureNumber, YieldReason};
use crate::outcome::Outcome;
use crate::ownership::OwnershipState;
use crate::partition::{Limits, View};
use crate::phash2::partition_of;
use crate::policy::{FailurePolicies, FailurePolicy, Malformed, Policy};
use crate::schedule::Schedule;
use crate::tick::Tick;
use crate::update::{Update, UpdateId};

/// Partitions of the layout before.
const FORMER: u16 = 4;
const NOW: Tick = Tick::ZERO;

/// The letter names the record, the digit the partition that it was in before: `a0`.
fn record(name: &str) -> RecordKey {
    let previous: u16 = name[1..].parse().expect("a digit");
    let keys = (0..).map(|number| format!("{name}-{number}"));
    let is_there = |key: &String| partition_of(key.as_bytes(), FORMER).0 == previous;
    RecordKey::new(keys.into_iter().find(is_there).expect("some key is there")).unwrap()
}

fn update(name: &str) -> Arc<Update> {
    Update::bare(record(name), UpdateId::published(name))
}

fn set(partitions: &[u16]) -> BTreeSet<PartitionNumber> {
    partitions.iter().copied().map(PartitionNumber).collect()
}

/// A partition in its first tenure, and what it asked for in short: `a0@7` an attempt under the number 7, `claim`,
/// `settle`. Everything but attempts and claims is answered at once.
struct World {
    core: Partition,
    tenure: Tenure,
    delivery: u64,
    out: Vec<(AttemptId, RecordKey)>,
    asked: Vec<String>,
}

impl World {
    fn new(in_flight_max: usize, undrained: &[u16]) -> Self {
        let number = |number| NonZeroUsize::new(number).unwrap();
        let limits = Limits { in_flight_max: number(in_flight_max), window: number(9) };
        let policy = Policy {
            schedule: Schedule::new(vec![Duration::from_secs(1)], 0.0),
            attempts_max: None,
            elapsed_max: None,
            retry_after_max: Duration::ZERO,
            failure: FailurePolicies::all(FailurePolicy::DeadLetter),
            failure_of_targets: Vec::new(),
        };
        let previous = PreviousLayout { partitions: FORMER, undrained: set(undrained) };
        let core = Partition::new(limits, Arc::new(policy)).behind(previous);
        let mut world = Self { core, tenure: Tenure(1), delivery: 0, out: Vec::new(), asked: Vec::new() };
        world.attach();
        world
    }

    fn attach(&mut self) {
        self.delivery = 0;
        self.handle(Event::TenureBegan(self.tenure));
        self.handle(Event::LeaseRenewed { until: NOW });
    }

    fn lose(&mut self) {
        self.handle(Event::TenureEnded(self.tenure));
        self.tenure.0 += 1;
    }

    fn handle(&mut self, event: Event) {
        self.core.handle(NOW, event);
        while let Some(effect) = self.core.poll_effect() {
            match effect {
                Effect::Attempt { attempt, update, tenure, .. } => {
                    let number = tenure.map_or("-".to_owned(), |TenureNumber(number)| number.to_string());
                    self.asked.push(format!("{}@{number}", update.id.as_str()));
                    self.out.push((attempt, update.record_key.clone()));
                }
                Effect::Record { tenure, holder, update, .. } => {
                    let record_key = update.map(|update| update.record_key.clone());
                    self.core.handle(NOW, Event::Recorded { tenure, holder, record_key });
                }
                Effect::Settle { .. } => self.asked.push("settle".to_owned()),
                Effect::Claim { .. } => self.asked.push("claim".to_owned()),
                Effect::ClaimEnded { .. } => self.asked.push("claim ended".to_owned()),
                Effect::Yield { reason: YieldReason::HeldTooLong, .. } => {
                    self.asked.push("step back".to_owned());
                }
                effect => panic!("{effect:?}"),
            }
        }
    }

    /// Updates of these records come.
    fn come(&mut self, names: &str) {
        for name in names.split(' ') {
            self.delivery += 1;
            let (tenure, delivery) = (self.tenure, DeliveryTag(self.delivery));
            let redelivered = tenure > Tenure(1);
            self.handle(Event::Received { tenure, delivery, redelivered, update: update(name) });
        }
    }

    fn claimed(&mut self, number: impl Into<Option<u64>>) {
        let number = number.into().map(TenureNumber);
        self.handle(Event::Claimed { tenure: self.tenure, number, rival_claim: None, wait_until: None });
    }

    fn drained(&mut self, undrained: &[u16]) {
        self.handle(Event::PreviousDrained { undrained: set(undrained) });
    }

    /// All attempts that are out end well.
    fn applied(&mut self) {
        for (attempt, record_key) in std::mem::take(&mut self.out) {
            self.handle(Event::AttemptEnded { attempt, record_key, outcome: Outcome::Applied });
        }
    }

    #[track_caller]
    fn asked(&mut self, expected: &str) {
        assert_eq!(std::mem::take(&mut self.asked).join(" "), expected);
    }
}

#[test]
fn records_whose_previous_partition_is_not_drained_wait_and_hold_no_other_up() {
    let mut world = World::new(2, &[0, 1]);
    world.come("a0 b1 c2 a0 d3 e0");
    world.asked("claim");
    world.claimed(7);
    world.asked("c2@7 d3@7");
    let View { blocked_by_previous, in_flight, ready, .. } = world.core.view();
    assert_eq!((blocked_by_previous, in_flight, ready), (3, 2, 0), "they take no permit");
    world.applied();
    world.asked("settle settle");
    assert!(world.core.is_quiet());
    assert_eq!(world.core.view().held, 4, "and nothing becomes of them");
    world.drained(&[0, 1]);
    world.asked("");
    world.drained(&[0]);
    world.asked("claim");
    world.claimed(8);
    world.asked("b1@8");
    world.drained(&[]);
    world.asked("claim");
    world.claimed(9);
    world.asked("a0@9");
    world.applied();
    world.asked("e0@9 settle settle a0@9");
    world.applied();
    world.asked("settle settle");
    assert_eq!(world.core.view(), View::default());
}

#[test]
fn those_that_need_not_wait_any_longer_go_on_in_the_order_in_which_they_came() {
    let mut world = World::new(9, &[0, 1, 2, 3]);
    world.come("a3 b0 c2 d0 e3 f1");
    world.claimed(7);
    world.asked("claim");
    world.drained(&[2]);
    world.claimed(8);
    world.asked("claim a3@8 b0@8 d0@8 e3@8 f1@8");
}

#[test]
fn in_strict_mode_the_oldest_update_decides_and_nothing_passes_it() {
    let mut world = World::new(1, &[0]);
    world.come("a1 b0 c1");
    world.claimed(7);
    world.applied();
    world.asked("claim a1@7 settle");
    assert_eq!(world.core.view().blocked_by_previous, 1);
    world.drained(&[]);
    world.claimed(8);
    world.applied();
    world.applied();
    world.asked("claim b0@8 settle c1@8 settle");
}

#[test]
fn what_cannot_be_an_update_does_not_wait() {
    let mut world = World::new(2, &[0, 1, 2, 3]);
    world.come("a0");
    world.claimed(7);
    let (tenure, delivery) = (world.tenure, DeliveryTag(2));
    world.handle(Event::ReceivedMalformed { tenure, delivery, fault: Malformed::NoRecordKey });
    world.asked("claim settle");
}

#[test]
fn what_waits_goes_back_with_its_tenure_and_waits_again() {
    let mut world = World::new(2, &[0]);
    world.come("a0 a0 b0");
    world.claimed(7);
    world.handle(Event::HeldTooLong(world.tenure));
    world.asked("claim step back");
    assert!(world.core.is_quiet(), "it is given back at once");
    world.lose();
    assert_eq!(world.core.view(), View::default());
    world.attach();
    world.come("a0 a0 b0");
    world.claimed(8);
    world.asked("claim");
    world.lose();
    // Drained while we have no channel: the claim of the next tenure is late enough.
    world.drained(&[]);
    world.attach();
    world.come("a0 a0 b0");
    world.claimed(9);
    world.asked("claim a0@9 b0@9");
    world.applied();
    world.applied();
    world.asked("settle a0@9 settle settle");
}

#[test]
fn where_nothing_is_held_the_next_delivery_claims() {
    let mut world = World::new(2, &[0]);
    world.come("a1");
    world.claimed(7);
    world.applied();
    world.drained(&[]);
    world.asked("claim a1@7 settle claim ended");
    assert_eq!(world.core.ownership_state(), OwnershipState::Unclaimed);
    world.come("b0");
    world.asked("claim");
    world.claimed(8);
    world.asked("b0@8");
}

#[test]
fn a_claim_that_is_under_way_is_made_once_more() {
    let mut world = World::new(2, &[0, 1]);
    world.come("a0");
    world.drained(&[1]);
    world.drained(&[]);
    world.asked("claim claim claim");
    world.claimed(9);
    world.asked("a0@9");
}

#[test]
fn where_claims_are_waived_it_goes_on_without_a_number() {
    let mut world = World::new(2, &[0]);
    world.come("a0 b1");
    world.claimed(None);
    world.asked("claim b1@-");
    world.drained(&[]);
    world.asked("claim");
    world.claimed(None);
    world.asked("a0@-");
    world.claimed(8);
    world.applied();
    world.come("c0");
    world.asked("settle settle c0@8");
}

#[test]
fn nothing_is_claimed_once_it_drains_itself() {
    let mut world = World::new(2, &[0]);
    world.come("a0 b1");
    world.claimed(7);
    world.handle(Event::StopRequested);
    world.drained(&[]);
    world.asked("claim b1@7");
    world.applied();
    world.asked("settle");
}

#[test]
fn parked_updates_that_were_released_belong_to_the_previous_partition_until_it_is_drained() {
    let mut world = World::new(2, &[0]);
    world.come("b1 c0");
    world.claimed(7);
    world.applied();
    world.asked("claim b1@7 settle");
    let released = |world: &mut World| {
        let (tenure, updates) = (world.tenure, vec![(ParkedSeq(1), update("a0"))]);
        world.handle(Event::Released { tenure, record_key: record("a0"), updates });
    };
    assert!(world.core.is_blocked_by_previous(&record("a0")));
    released(&mut world);
    world.asked("");
    assert_eq!(world.core.view().released, 0);
    world.drained(&[]);
    released(&mut world);
    assert_eq!(world.core.view().released, 0, "not before the claim");
    world.claimed(8);
    world.asked("claim c0@8");
    released(&mut world);
    world.asked("a0@8");
    assert!(world.core.has_released(&record("a0")));
}

#[test]
#[should_panic(expected = "what is drained stays so")]
fn what_is_drained_stays_so() {
    World::new(2, &[0]).drained(&[0, 1]);
}

//! What a seed stands for: limits, policy, publications, manners of the target, and the faults that will happen.

use std::num::{NonZeroU32, NonZeroUsize};
use std::sync::Arc;
use std::time::Duration;

use lanekeeper_core::partition::Limits;
use lanekeeper_core::policy::{FailurePolicies, FailurePolicy, Policy};
use lanekeeper_core::schedule::Schedule;
use lanekeeper_core::tick::Tick;
use lanekeeper_core::update::{RecordKey, UpdateId};

use crate::circuits::Circuits;
use crate::ledger_setup::LedgerBehaviour;
use crate::pauses::Pauses;
use crate::rng::Rng;

/// Everything about a world that chance decides before it begins.
#[derive(Debug)]
pub struct Setup {
    pub limits: Limits,
    /// From when a note is sent, for as long as requests may leave once it is read back.
    pub lease: Duration,
    pub policy: Arc<Policy>,
    pub record_keys: Vec<RecordKey>,
    pub publications: Vec<Publication>,
    pub behaviour: TargetBehaviour,
    pub circuits: Circuits,
    pub pauses: Pauses,
    pub delays: Delays,
    pub faults: Faults,
    /// How the ledger behaves; `None`: there is none.
    pub ledger: Option<LedgerBehaviour>,
    /// The driver does not always take every effect before the next event.
    pub lazy: bool,
    /// From here on no fault happens and every attempt is applied, so that the world can come to rest.
    pub calm_at: Tick,
}

/// One publishing, in the order of the queue. Its place in the list is its name in the judge and in the trace.
#[derive(Debug)]
pub struct Publication {
    pub at: Tick,
    /// Index into `record_keys`; `None`: malformed.
    pub record: Option<usize>,
    /// Index of its target.
    pub target: usize,
    /// The publisher's id, if it gave one.
    pub id: Option<UpdateId>,
    /// The publication that it repeats, with the same id: the publisher was not sure of the first.
    pub repeats: Option<usize>,
    /// The publication of its record that has the same body: neither has an id, and they are two updates all the same.
    pub equals: Option<usize>,
}

/// How the target answers, each in a thousand. What is left is applied and says so.
#[derive(Debug)]
pub struct TargetBehaviour {
    pub retryable: u64,
    pub refused: u64,
    pub rejected: u64,
    pub conflict: u64,
    /// Of the failing answers: applied all the same.
    pub lies: u64,
    /// Of the retryable answers: with `Retry-After`.
    pub retry_after: u64,
    /// Per attempt: its record begins to fail for a while.
    pub stuck: u64,
}

/// Longest delays, in milliseconds.
#[derive(Debug)]
pub struct Delays {
    pub delivery: u64,
    pub ack: u64,
    pub attempt: u64,
    pub record: u64,
    /// From a channel's loss to the driver's knowing.
    pub notice: u64,
    pub attach: u64,
    /// From a claim to its being read back.
    pub claim: u64,
    pub timer_late: u64,
}

/// What goes wrong, each in a thousand per step, and how often at most.
#[derive(Debug)]
pub struct Faults {
    pub channel_lost: u64,
    pub crash: u64,
    pub stopping: u64,
    /// The process stands still.
    pub stall: u64,
    /// Another consumer is preferred, or a delivery is held for too long.
    pub yield_partition: u64,
    /// Of the times that our channel is gone: another process goes on.
    pub other_process: u64,
    /// Per event that could come twice, or for a tenure that has ended.
    pub stale: u64,
    pub left: u32,
}

const MILLI: u64 = 1000;

impl Setup {
    pub fn new(rng: &mut Rng, chance_of_circuits: &mut Rng) -> Self {
        let hostile = |rng: &mut Rng, most: u64| if rng.chance(400) { 0 } else { rng.between(1, most) };
        let records = usize::try_from(rng.between(1, 12)).unwrap();
        let publish_for = rng.pick(&[0, 50, 400, 1500]) * MILLI;
        let publications = publications(rng, records, publish_for);
        let mut setup = Self {
            circuits: Circuits::none(),
            pauses: Pauses::none(),
            limits: Limits {
                in_flight_max: NonZeroUsize::new(usize::try_from(rng.between(1, 8)).unwrap()).unwrap(),
                window: NonZeroUsize::new(rng.pick(&[1, 2, 3, 4, 5, 8, 13, 24, 40, 64])).unwrap(),
            },
            lease: Duration::from_millis(rng.pick(&[60, 200, 1000])),
            policy: Arc::new(policy(rng)),
            record_keys: (0..records).map(|n| RecordKey::new(format!("r{n}")).unwrap()).collect(),
            publications,
            behaviour: TargetBehaviour {
                retryable: hostile(rng, 400),
                refused: hostile(rng, 60),
                rejected: hostile(rng, 100),
                conflict: hostile(rng, 60),
                lies: hostile(rng, 500),
                retry_after: hostile(rng, 500),
                stuck: hostile(rng, 40),
            },
            delays: Delays {
                delivery: rng.pick(&[0, 1, 5, 20]),
                ack: rng.pick(&[0, 1, 10, 90]),
                attempt: rng.pick(&[0, 5, 30, 200]),
                record: rng.pick(&[0, 0, 5, 100]),
                notice: rng.pick(&[0, 0, 10, 150]),
                attach: rng.pick(&[0, 5, 50]),
                claim: rng.pick(&[0, 1, 5, 100]),
                timer_late: rng.pick(&[0, 1, 20]),
            },
            faults: Faults {
                channel_lost: hostile(rng, 30),
                crash: hostile(rng, 6),
                stopping: hostile(rng, 6),
                stall: hostile(rng, 6),
                yield_partition: hostile(rng, 6),
                other_process: rng.pick(&[0, 0, 300, 900]),
                stale: hostile(rng, 50),
                left: u32::try_from(rng.between(0, 12)).unwrap(),
            },
            ledger: None,
            lazy: rng.chance(200),
            calm_at: Tick::from_micros(publish_for + rng.between(100, 1500) * MILLI),
        };
        setup.add_targets(chance_of_circuits);
        setup
    }

    fn add_targets(&mut self, rng: &mut Rng) {
        self.circuits = Circuits::new(rng, self.calm_at);
        for number in 0..self.publications.len() {
            let (record, repeats) = (self.publications[number].record, self.publications[number].repeats);
            self.publications[number].target = match (repeats, record) {
                (Some(repeated), _) => self.publications[repeated].target,
                (None, Some(record)) => self.circuits.target_of(rng, record),
                (None, None) => 0,
            };
        }
        if rng.chance(500) {
            let policy = Arc::make_mut(&mut self.policy);
            policy.failure_of_targets = failure_of_targets(policy.failure);
        }
    }

    /// Lets publishers publish some more updates twice, since they were not sure of the first time.
    pub fn add_repeats(&mut self, rng: &mut Rng) {
        let repeated = rng.pick(&[0, 100, 300, 600]);
        for number in 0..self.publications.len() {
            if !rng.chance(repeated) {
                continue;
            }
            let (before, rest) = self.publications.split_at(number);
            let is_alone = |of: usize, publication: &Publication| {
                publication.repeats.is_none()
                    && self.publications.iter().all(|other| other.repeats != Some(of))
                    && publication.record.is_some()
            };
            let fits = |earlier: &usize| {
                let of = &before[*earlier];
                is_alone(*earlier, of) && of.record == rest[0].record && of.id.is_some()
            };
            let free: Vec<usize> = (0..number).filter(fits).collect();
            if !free.is_empty() && is_alone(number, &rest[0]) {
                let earlier = rng.pick(&free);
                let Publication { id, target, .. } = &self.publications[earlier];
                let (id, target) = (id.clone(), *target);
                let publication = &mut self.publications[number];
                (publication.id, publication.target, publication.repeats) = (id, target, Some(earlier));
            }
        }
    }

    /// Gives updates without an id the body of an earlier one of their record.
    pub fn add_equals(&mut self, rng: &mut Rng) {
        let equal = rng.pick(&[0, 300, 900]);
        for number in 0..self.publications.len() {
            let (before, rest) = self.publications.split_at(number);
            let Publication { record: Some(record), id: None, .. } = rest[0] else { continue };
            let is_free = |earlier: &usize| {
                let Publication { record: of, id, .. } = &before[*earlier];
                *of == Some(record) && id.is_none()
            };
            let free: Vec<usize> = (0..number).filter(is_free).collect();
            if !free.is_empty() && rng.chance(equal) {
                self.publications[number].equals = Some(rng.pick(&free));
            }
        }
    }
}

fn publications(rng: &mut Rng, records: usize, publish_for: u64) -> Vec<Publication> {
    let count = rng.pick(&[3, 8, 20, 20, 40, 60]);
    let (no_id, malformed, repeated) =
        (rng.pick(&[0, 0, 100, 500]), rng.pick(&[0, 0, 50]), rng.pick(&[0, 0, 30]));
    let mut moments: Vec<u64> = (0..count).map(|_| rng.between(0, publish_for) / MILLI * MILLI).collect();
    moments.sort_unstable();
    let mut published: Vec<Publication> = Vec::with_capacity(count);
    for (number, at) in moments.into_iter().enumerate() {
        let at = Tick::from_micros(at);
        // Half of the updates are of the first two records: long lanes are where order can break.
        let record = if rng.chance(500) { rng.index(records.min(2)) } else { rng.index(records) };
        let earlier = (number > 0).then(|| rng.index(number)).filter(|_| rng.chance(repeated));
        let earlier = earlier.filter(|earlier| published.iter().all(|other| other.repeats != Some(*earlier)));
        let publication = match earlier.map(|earlier| (earlier, &published[earlier])) {
            Some((earlier, Publication { record: Some(record), id: Some(id), repeats: None, .. })) => {
                Publication {
                    at,
                    record: Some(*record),
                    target: 0,
                    id: Some(id.clone()),
                    repeats: Some(earlier),
                    equals: None,
                }
            }
            _ if rng.chance(malformed) => {
                Publication { at, record: None, target: 0, id: None, repeats: None, equals: None }
            }
            _ => {
                let id = (!rng.chance(no_id)).then(|| UpdateId::published(format!("u{number}")));
                Publication { at, record: Some(record), target: 0, id, repeats: None, equals: None }
            }
        };
        published.push(publication);
    }
    published
}

fn policy(rng: &mut Rng) -> Policy {
    let failure_policy = |rng: &mut Rng| rng.pick(&[FailurePolicy::DeadLetter, FailurePolicy::Block]);
    let mut wait = rng.between(1, 20);
    let waits = (0..rng.between(1, 4)).map(|_| {
        wait *= rng.between(1, 3);
        Duration::from_millis(wait)
    });
    let waits = waits.collect();
    Policy {
        schedule: Schedule::new(waits, rng.pick(&[0.0, 0.2, 1.0])),
        attempts_max: NonZeroU32::new(rng.pick(&[0, 1, 2, 5])),
        elapsed_max: rng.pick(&[None, Some(50), Some(400)]).map(Duration::from_millis),
        retry_after_max: Duration::from_millis(rng.pick(&[0, 50, 300])),
        failure: FailurePolicies {
            rejected: failure_policy(rng),
            exhausted: failure_policy(rng),
            conflict: failure_policy(rng),
        },
        failure_of_targets: Vec::new(),
    }
}

/// The first target has other policies than the rest, none that needs a ledger if the rest have none.
pub fn failure_of_targets(failure: FailurePolicies) -> Vec<FailurePolicies> {
    let FailurePolicies { rejected, exhausted, conflict } = failure;
    let conflict = match conflict {
        FailurePolicy::Park | FailurePolicy::Block => FailurePolicy::DeadLetter,
        FailurePolicy::Superseded => FailurePolicy::Park,
        other => other,
    };
    vec![FailurePolicies { rejected: exhausted, exhausted: rejected, conflict }]
}

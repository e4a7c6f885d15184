//! What a seed stands for where there is a ledger: how it behaves, what operators do, what the updates say.

use std::sync::Arc;

use lanekeeper_core::policy::FailurePolicy;
use lanekeeper_core::update::UpdateId;

use crate::rng::Rng;
use crate::setup::{Setup, failure_of_targets};

/// Of each publication, what the ledger compares.
#[derive(Clone, Debug)]
pub struct Contents {
    /// Its body: that of the first publishing.
    pub bodies: Vec<usize>,
    /// `record-version`.
    pub versions: Vec<Option<i64>>,
}

/// How the ledger behaves, and those who use it. Delays are the longest, in milliseconds; shares are in a thousand.
#[derive(Clone, Debug)]
pub struct LedgerBehaviour {
    pub contents: Contents,
    pub lookup: u64,
    pub commit: u64,
    /// From a commit to its answer.
    pub answer: u64,
    pub retry: u64,
    /// From one look for released records to the next.
    pub look: u64,
    /// Between two doings of an operator.
    pub operator: u64,
    /// Of the consultations: no answer in time.
    pub silent: u64,
    /// Of the commits: the connection is lost during it.
    pub fails: u64,
    /// Of the parked records, each time the operator comes.
    pub released: u64,
    pub discarded: u64,
    /// Parked updates of one record that are loaded together.
    pub released_max: usize,
    /// Processes killed at a step of the way of an update.
    pub kills: u32,
}

impl LedgerBehaviour {
    /// Changes the setup for it: what fails is parked, and updates have versions.
    pub fn new(rng: &mut Rng, setup: &mut Setup) -> Self {
        let mut policy = (*setup.policy).clone();
        let failure_policy = |rng: &mut Rng| {
            rng.pick(&[
                FailurePolicy::Park,
                FailurePolicy::Park,
                FailurePolicy::DeadLetter,
                FailurePolicy::Block,
            ])
        };
        policy.failure.rejected = failure_policy(rng);
        policy.failure.exhausted = failure_policy(rng);
        policy.failure.conflict =
            rng.pick(&[FailurePolicy::Park, FailurePolicy::DeadLetter, FailurePolicy::Superseded]);
        if !policy.failure_of_targets.is_empty() {
            policy.failure_of_targets = failure_of_targets(policy.failure);
        }
        setup.policy = Arc::new(policy);
        setup.faults.other_process = rng.pick(&[0, 300, 900]);
        setup.delays.notice = rng.pick(&[0, 10, 150]);
        // What comes again is then not all there when the partition is claimed.
        if rng.chance(300) {
            setup.delays.delivery = rng.pick(&[50, 200]);
        }
        if rng.chance(700) {
            setup.behaviour.rejected = rng.between(20, 200);
        }
        let hostile = |rng: &mut Rng, most: u64| if rng.chance(400) { 0 } else { rng.between(1, most) };
        Self {
            contents: contents(rng, setup),
            lookup: rng.pick(&[0, 1, 5, 30]),
            commit: rng.pick(&[0, 1, 10, 80]),
            answer: rng.pick(&[0, 0, 5, 50]),
            retry: rng.pick(&[1, 20, 100]),
            look: rng.pick(&[5, 20, 100]),
            operator: rng.pick(&[2, 20, 100, 400]),
            silent: hostile(rng, 200),
            fails: hostile(rng, 200),
            released: rng.between(50, 500),
            discarded: hostile(rng, 300),
            released_max: rng.pick(&[1, 2, 4, 32]),
            kills: u32::try_from(rng.between(0, 4)).expect("a few"),
        }
    }
}

/// Says all of what was published, and gives some of it the ids of others.
fn contents(rng: &mut Rng, setup: &mut Setup) -> Contents {
    let (versioned, outdated) = (rng.chance(500), rng.pick(&[0, 100, 300]));
    let reused = rng.pick(&[0, 0, 60]);
    let mut newest = vec![0_i64; setup.record_keys.len()];
    let (mut bodies, mut versions) = (Vec::new(), Vec::new());
    for name in 0..setup.publications.len() {
        let publication = &setup.publications[name];
        let repeats = publication.repeats;
        let version = match (repeats, publication.record) {
            (Some(first), _) => versions[first],
            (None, Some(record)) if versioned && rng.chance(900) => {
                newest[record] += 1;
                Some(if rng.chance(outdated) {
                    newest[record] - rng.below(3).cast_signed()
                } else {
                    newest[record]
                })
            }
            (None, _) => None,
        };
        bodies.push(repeats.unwrap_or(name));
        versions.push(version);
        let alone = setup.publications.iter().all(|other| other.repeats != Some(name)) && repeats.is_none();
        if publication.record.is_some() && alone {
            let other = (name > 0 && rng.chance(reused)).then(|| rng.index(name));
            let other = other.and_then(|other| setup.publications[other].id.clone());
            let own = || UpdateId::published(format!("u{name}"));
            setup.publications[name].id = Some(other.unwrap_or_else(own));
        }
    }
    Contents { bodies, versions }
}

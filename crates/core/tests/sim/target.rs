//! A model target: what it does with a request and what it says about it are two things.

use std::time::Duration;

use lanekeeper_core::outcome::{Cause, Failure, Outcome};
use lanekeeper_core::tick::Tick;

use crate::rng::Rng;
use crate::setup::Setup;

#[derive(Debug)]
pub struct Target {
    /// Rejections are not believed, as if record after record was rejected.
    doubts: bool,
    /// Per record: fails until then.
    stuck_until: Vec<Tick>,
}

/// What will come of one request.
#[derive(Debug)]
pub struct TargetResponse {
    pub applies: bool,
    pub outcome: Outcome,
    /// From sending to being applied.
    pub arrives_after: Duration,
    /// From sending to the answer.
    pub ends_after: Duration,
}

impl Target {
    pub fn new(mut chance_of_doubts: Rng, records: usize) -> Self {
        Self { doubts: chance_of_doubts.chance(250), stuck_until: vec![Tick::ZERO; records] }
    }

    pub fn decide(
        &mut self,
        rng: &mut Rng,
        setup: &Setup,
        record: usize,
        target: usize,
        now: Tick,
    ) -> TargetResponse {
        let slow = rng.between(0, setup.delays.attempt);
        let arrives = rng.between(0, slow);
        let mut response = TargetResponse {
            applies: true,
            outcome: Outcome::Applied,
            arrives_after: Duration::from_millis(arrives),
            ends_after: Duration::from_millis(slow),
        };
        if now >= setup.calm_at {
            return response;
        }
        if rng.chance(setup.behaviour.stuck) {
            self.stuck_until[record] = now.after(Duration::from_millis(rng.between(10, 500)));
        }
        let outage = setup.circuits.outage(target, now).map(|outage| outage.refuses);
        response.outcome = match outage {
            Some(refuses) => outage_outcome(rng, refuses),
            None => outcome(rng, setup, self.stuck_until[record] > now),
        };
        if self.doubts {
            response.outcome = response.outcome.doubted();
        }
        response.applies = response.outcome == Outcome::Applied || rng.chance(setup.behaviour.lies);
        response
    }
}

fn outage_outcome(rng: &mut Rng, refuses: bool) -> Outcome {
    let failure = |cause| Failure { cause, detail: String::new() };
    if refuses {
        return Outcome::Refused(failure(Cause::Status(401)));
    }
    let cause = rng.pick(&[Cause::Status(503), Cause::Timeout, Cause::Connection]);
    Outcome::Retryable { failure: failure(cause), retry_after: None }
}

fn outcome(rng: &mut Rng, setup: &Setup, stuck: bool) -> Outcome {
    let behaviour = &setup.behaviour;
    let failure = |cause| Failure { cause, detail: String::new() };
    let mut draw = rng.below(1000);
    let mut drawn = |share: u64| {
        let hit = draw < share;
        draw = if hit { u64::MAX } else { draw - share };
        hit
    };
    if drawn(if stuck { 900 } else { behaviour.retryable }) {
        let cause = rng.pick(&[Cause::Status(500), Cause::Status(429), Cause::Timeout, Cause::Connection]);
        let asks_to_wait = matches!(cause, Cause::Status(_)) && rng.chance(behaviour.retry_after);
        let retry_after = asks_to_wait.then(|| Duration::from_millis(rng.between(0, 500)));
        Outcome::Retryable { failure: failure(cause), retry_after }
    } else if drawn(if stuck { 0 } else { behaviour.refused }) {
        Outcome::Refused(failure(Cause::Status(403)))
    } else if drawn(if stuck { 0 } else { behaviour.rejected }) {
        Outcome::Rejected(failure(Cause::Status(422)))
    } else if drawn(if stuck { 0 } else { behaviour.conflict }) {
        Outcome::Conflict(failure(Cause::Status(409)))
    } else {
        Outcome::Applied
    }
}

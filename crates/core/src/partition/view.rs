//! What a partition holds, for metrics and operators.

use super::claim::Unclaimed;
use super::{Limits, Partition};
use crate::lane::{Lane, LaneStatus};
use crate::message::{DeliveryTag, Holder};
use crate::update::UpdateId;

/// What a partition holds right now.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct View {
    /// Deliveries not yet settled.
    pub held: usize,
    /// Parked updates that were released and have not had their turn.
    pub released: usize,
    /// Records with an update here.
    pub lanes: usize,
    /// Records whose head waits for room: `in_flight_max` attempts are out.
    pub ready: usize,
    /// Attempts out, those of earlier tenures included.
    pub in_flight: usize,
    /// Records whose head waits between attempts.
    pub waiting: usize,
    /// Records whose head waits for a target that is shut.
    pub target_shut: usize,
    /// Records whose head waits for a target that a person has paused.
    pub target_paused: usize,
    /// Records whose head waits for a permit: a limit of its target is used up.
    pub paced: usize,
    /// Records whose head waits until no request of a tenure before ours is at work.
    pub take_over_wait: usize,
    /// Records whose head waits for its previous partition, which is not drained.
    pub blocked_by_previous: usize,
    /// Resolutions that are being written down.
    pub recording: usize,
    /// Events that came too late to change anything, since the start.
    pub stale: u64,
}

/// A record whose head has failed and is tried again: its later updates wait, and the partition is not drained before.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Retried {
    /// Its head.
    pub update_id: UpdateId,
    /// Updates of the record that are held here.
    pub updates: usize,
    /// Attempts of its head so far.
    pub attempts: u32,
}

/// The oldest of what a partition holds of the broker.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Oldest {
    /// The delivery that came first.
    pub delivery: Option<DeliveryTag>,
    /// When the update was published that was published first, as publishers say, in seconds since 1970-01-01 UTC.
    pub published_at: Option<u64>,
}

impl Oldest {
    fn and(self, delivery: DeliveryTag, published_at: Option<u64>) -> Self {
        Self {
            delivery: self.delivery.into_iter().chain([delivery]).min(),
            published_at: self.published_at.into_iter().chain(published_at).min(),
        }
    }
}

impl Partition {
    /// The oldest of what it holds of the broker; released updates are the ledger's. Looks at every update: not to be
    /// called for every event.
    #[must_use]
    pub fn oldest(&self) -> Oldest {
        let of_lanes = self.lanes.iter().flat_map(|lane| &lane.held).filter_map(|held| match held.holder {
            Holder::Broker(delivery) => Some((delivery, held.update.published_at)),
            Holder::Ledger(_) => None,
        });
        let unclaimed = self.unclaimed.iter().map(|unclaimed| match unclaimed {
            Unclaimed::Update { delivery, update, .. } => (*delivery, update.published_at),
            Unclaimed::Malformed { delivery, .. } => (*delivery, None),
        });
        let malformed = self.malformed.iter().map(|delivery| (*delivery, None));
        let all = of_lanes.chain(unclaimed).chain(malformed);
        all.fold(Oldest::default(), |oldest, (delivery, published_at)| oldest.and(delivery, published_at))
    }

    /// Records whose head was attempted more than once or waits for the next attempt, those with the most attempts first;
    /// at most `limit`. Looks at every lane: not to be called for every event.
    #[must_use]
    pub fn retried(&self, limit: usize) -> Vec<Retried> {
        let is_retried =
            |lane: &&Lane| lane.progress.attempts() > 1 || matches!(lane.status, LaneStatus::Waiting { .. });
        let retried = self.lanes.iter().filter(is_retried).map(|lane| Retried {
            update_id: lane.head().update.id.clone(),
            updates: lane.held.len(),
            attempts: lane.progress.attempts(),
        });
        let mut retried: Vec<Retried> = retried.collect();
        retried.sort_by_key(|retried| std::cmp::Reverse(retried.attempts));
        retried.truncate(limit);
        retried
    }

    /// Its bounds.
    #[must_use]
    pub fn limits(&self) -> Limits {
        self.limits
    }

    /// What it holds right now.
    #[must_use]
    pub fn view(&self) -> View {
        View {
            held: self.held,
            released: self.released,
            lanes: self.lanes.len(),
            ready: self.ready.len(),
            in_flight: self.in_flight,
            waiting: self.deadlines.len(),
            target_shut: self.targets.lanes(false),
            target_paused: self.targets.lanes(true),
            paced: self.paced.lanes(),
            take_over_wait: self.take_over.lanes(),
            blocked_by_previous: self.blocked.lanes(),
            recording: self.recording,
            stale: self.stale,
        }
    }
}

//! The updates of one record that wait here, oldest first.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use slab::Slab;

use super::message::{AttemptId, Holder, Tenure};
use super::policy::{Progress, Resolution};
use super::tick::Tick;
use super::update::{Identity, RecordKey, Update};

/// An update, and what it will be settled with.
#[derive(Clone, Debug)]
pub(super) struct HeldUpdate {
    pub(super) holder: Holder,
    /// Its number among all updates that came to the partition.
    pub(super) arrival: u64,
    /// When it came to the partition, or, if it was handed over before the claim, when the claim was confirmed.
    pub(super) received_at: Tick,
    /// The broker's flag: perhaps delivered before.
    pub(super) redelivered: bool,
    pub(super) update: Arc<Update>,
    /// Of the update.
    pub(super) identity: Identity,
    /// An earlier tenure of this process settled it, and its ack was lost.
    pub(super) settled_before: bool,
}

impl HeldUpdate {
    pub(super) fn is_released(&self) -> bool {
        matches!(self.holder, Holder::Ledger(_))
    }
}

/// The order of ready lanes: the one whose head came first is next. A head that was ready before counts as having come
/// when it became ready again, so that a head that fails repeatedly goes behind what came during its waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct QueuePosition {
    pub(super) arrival: u64,
    /// 0: it was not ready before. Otherwise it orders those that became ready again while nothing came.
    pub(super) requeue: u64,
}

impl QueuePosition {
    /// Of a head that was not ready before.
    pub(super) const fn first(arrival: u64) -> Self {
        Self { arrival, requeue: 0 }
    }
}

/// Names a resolution that is being written down.
pub(super) type Token = (Tenure, Holder);

/// What an earlier tenure began for a record and has not ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stray {
    /// A request to the target.
    Attempt(AttemptId),
    /// A resolution that is being written down.
    Recording(Token),
}

/// What the head of a lane is doing. Only `Partition` changes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum LaneStatus {
    /// Waits for room. Leaves to `InFlight`, or, if its turn comes, to `TakeOverWait` where an earlier request may be at work,
    /// to `TargetShut` or `TargetPaused` while its target is that, or to `Paced` if its request needs a permit.
    Ready,
    /// Its turn had come, and its target is shut. Leaves to `Ready`, with the same turn, when the target opens or it may
    /// probe, or to `TargetPaused`.
    TargetShut,
    /// Its turn had come, and a person has paused its target. Leaves to `Ready`, with the same turn, when it is resumed, or to
    /// `TargetShut` if it is shut then.
    TargetPaused,
    /// Its turn had come, and its request needs a permit. Leaves to `Ready`, with the same turn, when one is granted.
    Paced { since: Tick },
    /// Its turn had come, and a request of a tenure before ours may be at work for its record. Leaves to `Ready`, with the
    /// same turn, when that is over.
    TakeOverWait,
    /// The previous partition of its record may hold older updates of it. When that one is drained, the head enters as a
    /// new one does.
    BlockedByPrevious,
    /// What an earlier tenure began for an update that is not the head, or is not known to be, has not ended. Leaves to
    /// `Ready`.
    Behind(Stray),
    /// Its attempt is out. Leaves to `Waiting` or `Recording`, or, with the same turn, to `Ready`.
    InFlight(AttemptId),
    /// Its attempt failed; the next one starts no earlier. Leaves to `Ready`.
    Waiting { until: Tick },
    /// Its resolution is being written down, under this name. Leaves to `Ready` with the next head, or with the same one if
    /// the ledger has nothing to park it behind; or the lane ends.
    Recording { resolution: Resolution, token: Token },
}

/// Never empty while it exists: the last update takes its lane with it.
#[derive(Clone, Debug)]
pub(super) struct Lane {
    /// The record; in strict mode the whole queue.
    pub(super) key: RecordKey,
    pub(super) held: VecDeque<HeldUpdate>,
    pub(super) status: LaneStatus,
    /// When it got its status.
    pub(super) since: Tick,
    /// Of the head: the turn that it has, or had last.
    pub(super) position: QueuePosition,
    /// Of the head.
    pub(super) progress: Progress,
}

impl Lane {
    pub(super) fn head(&self) -> &HeldUpdate {
        self.held.front().expect("a lane exists only while it holds an update")
    }

    /// Released updates in it.
    pub(super) fn released(&self) -> usize {
        self.held.iter().filter(|held| held.is_released()).count()
    }
}

/// A lane's place in the slab. It is reused after the lane has ended, so only places are kept that the end of the lane
/// removes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct LaneId(usize);

/// All lanes of a partition, found by record key or by place.
#[derive(Debug, Default)]
pub(super) struct Lanes {
    by_key: HashMap<RecordKey, LaneId>,
    slab: Slab<Lane>,
}

impl Lanes {
    pub(super) fn len(&self) -> usize {
        self.by_key.len()
    }

    pub(super) fn find(&self, record_key: &RecordKey) -> Option<LaneId> {
        self.by_key.get(record_key).copied()
    }

    pub(super) fn insert(&mut self, lane: Lane) -> LaneId {
        let key = lane.key.clone();
        let id = LaneId(self.slab.insert(lane));
        self.by_key.insert(key, id);
        id
    }

    /// # Panics
    /// If the lane has ended.
    pub(super) fn remove(&mut self, id: LaneId) {
        let lane = self.slab.remove(id.0);
        self.by_key.remove(&lane.key);
    }

    /// All lanes with their places, in the order of the places.
    pub(super) fn iter_with_ids(&self) -> impl Iterator<Item = (LaneId, &Lane)> {
        self.slab.iter().map(|(place, lane)| (LaneId(place), lane))
    }

    /// All lanes, in the order of their places.
    pub(super) fn iter(&self) -> impl Iterator<Item = &Lane> {
        self.slab.iter().map(|(_, lane)| lane)
    }

    /// Takes all lanes, in the order of their places: the same for equal histories (I8).
    pub(super) fn take_all(&mut self) -> Vec<Lane> {
        self.by_key.clear();
        self.slab.drain().collect()
    }
}

impl std::ops::Index<LaneId> for Lanes {
    type Output = Lane;

    fn index(&self, id: LaneId) -> &Lane {
        &self.slab[id.0]
    }
}

impl std::ops::IndexMut<LaneId> for Lanes {
    fn index_mut(&mut self, id: LaneId) -> &mut Lane {
        &mut self.slab[id.0]
    }
}

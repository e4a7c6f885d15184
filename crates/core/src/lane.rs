//! The updates of one record that wait here, oldest first.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use super::message::{AttemptId, Holder, Tenure};
use super::policy::{Progress, Resolution};
use super::tick::Tick;
use super::update::{Identity, RecordKey, Update};

/// An update, and what it will be settled with.
#[derive(Clone, Debug)]
pub(super) struct HeldUpdate {
    pub(super) holder: Holder,
    /// Which of all that came to the partition it was.
    pub(super) arrival: u64,
    /// As the broker said: perhaps seen before.
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

/// Which of the ready lanes is next: the one whose head came first. A head that was ready before counts as having come
/// when it became ready again, so that what fails again and again is no earlier than what came meanwhile.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct QueuePosition {
    pub(super) arrival: u64,
    /// 0: it was not ready before. Otherwise it tells apart those that became ready again while nothing came.
    pub(super) requeue: u64,
}

/// Names a resolution that is being written down.
pub(super) type Token = (Tenure, Holder);

/// What an earlier tenure began for a record and what has not ended.
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
    /// Waits for a permit. Leaves to `InFlight`, or to `TargetShut` where its turn comes while its target is shut.
    Ready,
    /// Its turn had come, and its target is shut. Leaves to `Ready`, with the same turn, when the target opens or it may
    /// probe.
    TargetShut,
    /// The partition that its record was in before may hold older updates of it. Leaves, when that one is drained, to
    /// wherever a head begins.
    BlockedByPrevious,
    /// What an earlier tenure began for an update that is not the head, or is not known to be, has not ended. Leaves to
    /// `Ready`.
    Behind(Stray),
    /// Its attempt is out. Leaves to `Waiting` or `Recording`.
    InFlight(AttemptId),
    /// Its attempt failed; the next one starts no earlier. Leaves to `Ready`.
    Waiting { until: Tick },
    /// Its resolution is being written down, under this name. Leaves to `Ready` with the next head, or with the same one
    /// where the ledger has nothing to park it behind; or the lane ends.
    Recording { resolution: Resolution, token: Token },
}

/// Never empty while it exists: the last update takes its lane with it.
#[derive(Clone, Debug)]
pub(super) struct Lane {
    /// The record; in strict mode the whole queue.
    pub(super) key: RecordKey,
    pub(super) held: VecDeque<HeldUpdate>,
    pub(super) status: LaneStatus,
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

/// A lane's place in the slab. Reused after the lane has ended, so it is only kept where the lane's end removes it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct LaneId(u32);

/// All lanes of a partition, found by record key or by place.
#[derive(Debug, Default)]
pub(super) struct Lanes {
    by_key: HashMap<RecordKey, LaneId>,
    slab: Vec<Option<Lane>>,
    free: Vec<LaneId>,
}

impl Lanes {
    pub(super) fn len(&self) -> usize {
        self.by_key.len()
    }

    pub(super) fn find(&self, record_key: &RecordKey) -> Option<LaneId> {
        self.by_key.get(record_key).copied()
    }

    pub(super) fn insert(&mut self, lane: Lane) -> LaneId {
        let id = self.free.pop().unwrap_or_else(|| {
            self.slab.push(None);
            LaneId(u32::try_from(self.slab.len() - 1).expect("lanes are bounded by the window"))
        });
        self.by_key.insert(lane.key.clone(), id);
        self.slab[id.0 as usize] = Some(lane);
        id
    }

    pub(super) fn remove(&mut self, id: LaneId) -> Lane {
        let lane = self.slab[id.0 as usize].take().expect("a lane id names a living lane");
        self.by_key.remove(&lane.key);
        self.free.push(id);
        lane
    }

    /// All of them, in the order of places.
    pub(super) fn iter(&self) -> impl Iterator<Item = &Lane> {
        self.slab.iter().flatten()
    }

    /// Empties the slab, in the order of places: the same for equal histories (I8).
    pub(super) fn take_all(&mut self) -> Vec<Lane> {
        self.by_key.clear();
        self.free.clear();
        std::mem::take(&mut self.slab).into_iter().flatten().collect()
    }
}

impl std::ops::Index<LaneId> for Lanes {
    type Output = Lane;

    fn index(&self, id: LaneId) -> &Lane {
        self.slab[id.0 as usize].as_ref().expect("a lane id names a living lane")
    }
}

impl std::ops::IndexMut<LaneId> for Lanes {
    fn index_mut(&mut self, id: LaneId) -> &mut Lane {
        self.slab[id.0 as usize].as_mut().expect("a lane id names a living lane")
    }
}

//! The take-over wait: after a tenure of unknown end, its requests may still be at work. What it can have sent came
//! redelivered to us or was released, and is not sent until they no longer can be.

use std::collections::BTreeMap;

use super::Partition;
use crate::lane::{Lane, LaneId, LaneStatus, QueuePosition};
use crate::message::Tenure;
use crate::tick::Tick;

/// Until when heads wait, and their lanes.
#[derive(Debug, Default)]
pub(super) struct TakeOver {
    until: Option<Tick>,
    /// Lanes whose turn had come.
    lanes: BTreeMap<QueuePosition, LaneId>,
}

impl TakeOver {
    /// Lanes that wait.
    pub(super) fn lanes(&self) -> usize {
        self.lanes.len()
    }

    pub(super) fn next_deadline(&self) -> Option<Tick> {
        self.until.filter(|_| !self.lanes.is_empty())
    }

    pub(super) fn until(&self) -> Option<Tick> {
        self.until
    }

    /// The newest claim says until when; what it does not mention is over.
    pub(super) fn set(&mut self, until: Option<Tick>) {
        self.until = until;
    }

    /// The lanes end with their tenure.
    pub(super) fn forget_lanes(&mut self) {
        self.lanes.clear();
    }

    /// Returns true if the head of this lane must wait. One that this process had begun goes on: no other process has
    /// owned the partition since.
    pub(super) fn holds(&self, lane: &Lane, now: Tick) -> bool {
        let head = lane.head();
        self.until.is_some_and(|until| now < until)
            && (head.redelivered || head.is_released())
            && lane.progress.attempts() == 0
    }
}

impl Partition {
    /// Until when heads wait that came redelivered or were released, since requests of a tenure before ours can be at
    /// work; `None`: none waits. It is kept after the end of a tenure, until the next claim.
    #[must_use]
    pub fn take_over_wait(&self) -> Option<Tick> {
        self.take_over.until
    }

    pub(super) fn take_over_wait_changed(&mut self, tenure: Tenure, until: Option<Tick>) {
        if self.tenure == Some(tenure) {
            self.take_over.set(until);
        } else {
            self.stale += 1;
        }
    }

    /// Its turn had come, and its head must wait. It keeps its turn, and takes no permit.
    pub(super) fn wait_for_take_over(&mut self, position: QueuePosition, id: LaneId) {
        self.targets.forget_granted(id, &mut self.effects);
        self.take_over.lanes.insert(position, id);
        self.set_status(id, LaneStatus::TakeOverWait);
    }

    /// If the wait is over, its lanes are ready again, each with its turn.
    pub(super) fn end_take_over_wait(&mut self, now: Tick) {
        if self.take_over.until.is_some_and(|until| now < until) {
            return;
        }
        self.take_over.until = None;
        for (position, id) in std::mem::take(&mut self.take_over.lanes) {
            self.enqueue(id, position);
        }
    }
}

#[cfg(test)]
mod tests;

//! A tenure begins and ends: what of it is remembered.

use super::Partition;
use crate::lane::{Lane, LaneStatus};
use crate::memory::RememberedState;
use crate::message::{Effect, Tenure};
use crate::tick::Tick;

impl Partition {
    pub(super) fn begin_tenure(&mut self, tenure: Tenure) {
        assert!(self.tenure.is_none(), "a tenure begins after the one before has ended");
        assert!(tenure > self.newest_tenure, "tenures grow");
        self.tenure = Some(tenure);
        self.newest_tenure = tenure;
        self.ownership.begin();
        self.stopping = false;
    }

    /// The lanes end. How far their heads had come is remembered, since their updates come back (I7: in order).
    pub(super) fn end_tenure(&mut self, now: Tick, tenure: Tenure) {
        if self.tenure != Some(tenure) {
            self.stale += 1;
            return;
        }
        self.tenure = None;
        self.ownership.end();
        self.unclaimed.clear();
        (self.held, self.released) = (0, 0);
        self.recording = 0;
        self.malformed.clear();
        self.ready.clear();
        self.deadlines.clear();
        self.effects.retain(Effect::outlives_its_tenure);
        self.forget_held_back();
        self.forget_paced(now);
        self.take_over.forget_lanes();
        self.blocked.forget_lanes();
        self.memory.expect_redeliveries();
        for lane in self.lanes.take_all() {
            self.remember(lane);
        }
    }

    fn remember(&mut self, lane: Lane) {
        let Lane { held, status, progress, .. } = lane;
        for held in held.iter().filter(|held| held.settled_before) {
            self.memory.expect_redelivery(held.update.record_key.clone(), held.identity.clone());
        }
        let Some(head) = held.front().filter(|head| !head.settled_before) else { return };
        let state = match status {
            LaneStatus::InFlight(attempt) => {
                RememberedState::InFlight { attempt, target: head.update.target, progress }
            }
            LaneStatus::Waiting { until } => RememberedState::Waiting { until, progress },
            LaneStatus::Ready
            | LaneStatus::TargetShut
            | LaneStatus::TargetPaused
            | LaneStatus::Paced { .. }
                if progress.attempts() > 0 =>
            {
                RememberedState::Waiting { until: Tick::ZERO, progress }
            }
            LaneStatus::Recording { resolution, token } => RememberedState::Recording { token, resolution },
            LaneStatus::Ready
            | LaneStatus::TargetShut
            | LaneStatus::TargetPaused
            | LaneStatus::Paced { .. }
            | LaneStatus::TakeOverWait
            | LaneStatus::BlockedByPrevious
            | LaneStatus::Behind(_) => return,
        };
        let released = head.is_released();
        self.memory.remember(head.update.record_key.clone(), head.identity.clone(), state, released);
    }
}

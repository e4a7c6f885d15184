//! Targets whose requests need permits: lanes whose head goes there wait apart, in the order of their turns, so that they
//! hold up nothing else. The pacers ([`crate::pacing`]) decide when a request may leave, for all partitions of the process.

use std::collections::BTreeMap;

use super::Partition;
use crate::lane::{LaneId, LaneStatus, QueuePosition};
use crate::message::Effect;
use crate::routes::TargetId;
use crate::tick::Tick;

/// Every target whose requests have needed permits (I6: as many as the config has).
#[derive(Debug, Default)]
pub(super) struct PacedTargets(BTreeMap<TargetId, PacedTarget>);

#[derive(Debug, Default)]
struct PacedTarget {
    /// Requests need permits.
    in_force: bool,
    /// Lanes whose turn had come.
    lanes: BTreeMap<QueuePosition, LaneId>,
    /// Permits that were asked for and have not come.
    asked: usize,
    /// Permits that have come and are not used. Each has a ready lane.
    permits: usize,
}

impl PacedTargets {
    /// Lanes that wait for permits.
    pub(super) fn lanes(&self) -> usize {
        self.0.values().map(|target| target.lanes.len()).sum()
    }

    /// Lanes that wait for a permit of the target with an earlier turn.
    pub(super) fn lanes_before(&self, target: TargetId, position: QueuePosition) -> usize {
        self.0.get(&target).map_or(0, |target| target.lanes.range(..position).count())
    }
}

/// Why an attempt may be made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Pass {
    /// Its target takes requests.
    Free,
    /// It has a permit.
    Permit,
    /// Its target is shut, and it is the probe.
    Probe,
}

impl Partition {
    pub(super) fn target_paced(&mut self, target: TargetId) {
        self.paced.0.entry(target).or_default().in_force = true;
    }

    /// Its lanes are ready, each with its turn.
    pub(super) fn target_unpaced(&mut self, now: Tick, target: TargetId) {
        self.stop_waiting_for_permits(now, target);
        if let Some(paced) = self.paced.0.get_mut(&target) {
            paced.in_force = false;
        }
    }

    /// The lanes whose turns are first are ready, one for each permit.
    pub(super) fn permits_granted(&mut self, now: Tick, target: TargetId, permits: usize) {
        let Some(paced) = self.paced.0.get_mut(&target) else {
            return self.effects.push_back(Effect::ReturnPermits { target, permits });
        };
        paced.asked = paced.asked.saturating_sub(permits);
        let mut lanes = Vec::new();
        while lanes.len() < permits
            && let Some(next) = paced.lanes.pop_first()
        {
            lanes.push(next);
        }
        paced.permits += lanes.len();
        if lanes.len() < permits {
            self.effects.push_back(Effect::ReturnPermits { target, permits: permits - lanes.len() });
        }
        for (position, id) in lanes {
            self.wait_was_for_a_permit(now, id);
            self.enqueue(id, position);
        }
    }

    /// Why the lane that is next, whose target is open, may make its request; `None`: it waits for a permit.
    pub(super) fn pace(&mut self, target: TargetId) -> Option<Pass> {
        let Some(paced) = self.paced.0.get_mut(&target).filter(|paced| paced.in_force) else {
            return Some(Pass::Free);
        };
        paced.permits = paced.permits.checked_sub(1)?;
        Some(Pass::Permit)
    }

    /// Its turn had come, and its request needs a permit.
    pub(super) fn wait_for_permit(
        &mut self,
        now: Tick,
        position: QueuePosition,
        id: LaneId,
        target: TargetId,
    ) {
        self.paced.0.entry(target).or_default().lanes.insert(position, id);
        self.set_status(id, LaneStatus::Paced { since: now });
    }

    /// Asks for as many permits as there are lanes that wait for one.
    pub(super) fn ask_for_permits(&mut self) {
        for (target, paced) in &mut self.paced.0 {
            let more = paced.lanes.len().saturating_sub(paced.asked);
            if more > 0 {
                paced.asked += more;
                self.effects.push_back(Effect::AskPermits { target: *target, permits: more });
            }
        }
    }

    /// Permits that no lane uses now go back. One is kept for a lane that waits only for room (`in_flight_max`): it would
    /// ask again and again otherwise, and others would take the room.
    pub(super) fn return_permits(&mut self, kept: usize) {
        for (target, paced) in &mut self.paced.0 {
            let permits = paced.permits.saturating_sub(kept);
            if permits > 0 {
                paced.permits -= permits;
                self.effects.push_back(Effect::ReturnPermits { target: *target, permits });
            }
        }
    }

    /// No request is made soon: others may have the permits.
    pub(super) fn withdraw_permits(&mut self) {
        self.return_permits(0);
        for (target, paced) in &mut self.paced.0 {
            if std::mem::take(&mut paced.asked) > 0 {
                self.effects.push_back(Effect::WithdrawPermits(*target));
            }
        }
    }

    /// The lanes of this target wait for something else, or for nothing: they are ready, each with its turn.
    pub(super) fn stop_waiting_for_permits(&mut self, now: Tick, target: TargetId) {
        let Some(paced) = self.paced.0.get_mut(&target) else { return };
        if std::mem::take(&mut paced.asked) > 0 {
            self.effects.push_back(Effect::WithdrawPermits(target));
        }
        let permits = std::mem::take(&mut paced.permits);
        if permits > 0 {
            self.effects.push_back(Effect::ReturnPermits { target, permits });
        }
        for (position, id) in std::mem::take(&mut paced.lanes) {
            self.wait_was_for_a_permit(now, id);
            self.enqueue(id, position);
        }
    }

    /// The wait of this lane does not count towards `elapsed_max`.
    fn wait_was_for_a_permit(&mut self, now: Tick, id: LaneId) {
        let lane = &mut self.lanes[id];
        if let LaneStatus::Paced { since } = lane.status {
            lane.progress.skip(now.since(since));
        }
    }

    /// The lanes end with their tenure.
    pub(super) fn forget_paced(&mut self, now: Tick) {
        let lanes = self.paced.0.values_mut().flat_map(|paced| std::mem::take(&mut paced.lanes));
        for id in lanes.map(|(_, id)| id).collect::<Vec<LaneId>>() {
            self.wait_was_for_a_permit(now, id);
        }
        self.withdraw_permits();
    }
}

#[cfg(test)]
mod tests;

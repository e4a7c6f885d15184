//! Targets that a person pauses and resumes.

use lanekeeper_core::tick::Tick;

use super::Judge;

impl Judge {
    /// Its lanes wait until a person resumes it.
    pub fn target_paused(&mut self, now: Tick, target: usize) {
        self.step += 1;
        self.circuits.paused(now, target);
    }

    pub fn target_resumed(&mut self, now: Tick, target: usize) {
        self.step += 1;
        self.circuits.resumed(now, target);
        self.lanes_go_on(target);
    }

    /// If the target is neither shut nor paused, lanes that waited for it have their turns.
    pub(super) fn lanes_go_on(&mut self, target: usize) {
        if !self.circuits.is_shut(target) {
            self.fairness.opened(|update| self.updates[update].target == target);
        }
    }
}

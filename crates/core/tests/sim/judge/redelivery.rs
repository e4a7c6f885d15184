//! What comes back and what is sent again: whether it had to be, and as which attempt.

use lanekeeper_core::policy::FailurePolicy;

use super::Judge;
use crate::facts::{Facts, Here};

impl Judge {
    /// What was known of it in this process counts no longer, but that it was sent.
    pub fn begin_turn(&mut self, update: usize) {
        let here = &mut self.updates[update].here;
        *here = Here { turn: here.turn + 1, sent_at: here.sent_at, ..Here::default() };
    }

    pub(super) fn judge_number(&self, update: usize, number: u32) {
        let Facts { here, twin, target, .. } = &self.updates[update];
        let expected = if here.resolved_at.is_some() { 1 } else { here.attempts + 1 };
        if number != expected && twin.is_none() {
            fault!("numbers", "#{update} was sent as attempt {number} after attempt {}", here.attempts);
        }
        let exhausted = self.failure_of(*target).exhausted;
        let bounded = exhausted == FailurePolicy::DeadLetter && here.resolved_at.is_none();
        if let Some(max) = self.policy.attempts_max
            && bounded
            && twin.is_none()
            && here.failures >= max.get()
        {
            fault!("bounds", "#{update} was sent again after {} failures of {max}", here.failures);
        }
    }

    /// A second request for what this process knows to be resolved is needed only where an earlier update of the
    /// record had to be sent again: then the later ones must follow it, or the record would keep the earlier value.
    /// What lies between two publishings of an earlier update may also be sent again: both look alike.
    pub(super) fn judge_need(&self, record: usize, update: usize) {
        let Facts { twin, here, .. } = &self.updates[update];
        let (None, Some(resolved_at)) = (twin, here.resolved_at) else { return };
        let mut earlier = self.records[record].updates.iter().take_while(|earlier| **earlier < update);
        if earlier.clone().any(|earlier| self.updates[*earlier].twin.is_some_and(|twin| twin > update)) {
            return;
        }
        if !earlier.any(|earlier| self.updates[*earlier].here.sent_at >= resolved_at) {
            fault!("no duplicate without need", "#{update} was sent again, known to be resolved");
        }
    }
}

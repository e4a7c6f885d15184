//! What comes back and what is sent again: whether it had to be, and as which attempt.

use lanekeeper_core::policy::FailurePolicy;

use super::Judge;
use crate::facts::Facts;

impl Judge {
    /// A tenure ended. What is resolved may be settled, whether or not the judge has seen it.
    pub(super) fn expect_redeliveries(&mut self) {
        let is_held = |held: &usize| self.updates[*held].here.resolved_at.is_none();
        self.newest_held = self.newest_held.or_else(|| self.fairness.held().filter(is_held).max());
    }

    /// An update is looked at. What cannot be told from the newest one that was held, or is newer, may be taken for it.
    pub(super) fn came(&mut self, update: usize, redelivered: bool) {
        let facts = &mut self.updates[update];
        facts.perhaps_new |= self.newest_held.is_none();
        let comes_back = |newest: &mut usize| *newest <= update || facts.twin >= Some(*newest);
        self.newest_held.take_if(|newest| !redelivered || comes_back(newest));
    }

    /// It has no id, and follows two updates that cannot be told apart: what is known of it may be forgotten with its
    /// place.
    pub(super) fn is_place_in_doubt(&self, record: usize, update: usize) -> bool {
        let of_record = self.records[record].updates.iter().take_while(|earlier| **earlier < update);
        let mut earlier = of_record.map(|earlier| &self.updates[*earlier]);
        let without_id = |facts: &Facts| facts.id.is_none();
        without_id(&self.updates[update]) && earlier.any(|facts| without_id(facts) && facts.twin.is_some())
    }

    pub(super) fn judge_number(&self, update: usize, number: u32) {
        let Facts { here, twin, .. } = &self.updates[update];
        let expected = if here.resolved_at.is_some() { 1 } else { here.attempts + 1 };
        if number != expected && twin.is_none() {
            fault!("numbers", "#{update} was sent as attempt {number} after attempt {}", here.attempts);
        }
        let bounded = self.policy.exhausted == FailurePolicy::DeadLetter && here.resolved_at.is_none();
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
    /// What lies between two publishings of an earlier update may also be sent again: both look alike. And so may an
    /// update without an id, where nothing tells that it was here before.
    pub(super) fn judge_need(&self, record: usize, update: usize) {
        let Facts { id, twin, here, perhaps_new, .. } = &self.updates[update];
        let (None, Some(resolved_at)) = (twin, here.resolved_at) else { return };
        if id.is_none() && *perhaps_new {
            return;
        }
        let mut earlier = self.records[record].updates.iter().take_while(|earlier| **earlier < update);
        if earlier.clone().any(|earlier| self.updates[*earlier].twin.is_some_and(|twin| twin > update)) {
            return;
        }
        if !earlier.any(|earlier| self.updates[*earlier].here.sent_at >= resolved_at) {
            fault!("no duplicate without need", "#{update} was sent again, known to be resolved");
        }
    }
}

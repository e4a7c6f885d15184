//! Released updates have their turn before what the broker hands over of their record.

use lanekeeper_core::message::Holder;

use super::Judge;
use crate::facts::Facts;

impl Judge {
    /// The partition has taken these in, oldest first. The update that is the head then, if any, is under way.
    pub fn released(&mut self, record: usize, updates: &[usize]) {
        let head = self.fairness.head(record);
        let of = &mut self.records[record];
        of.released = updates.to_vec();
        of.head_at_release = head;
    }

    /// A resolution of an update is written down. If it is parked again, the other released ones go back. What was begun in
    /// an earlier tenure may count for another publishing of the update.
    pub fn released_ended(&mut self, update: usize, holder: Holder, tenure: u64, parked: bool) {
        let of_earlier_tenure = self.tenure != Some(tenure);
        let Facts { record: Some(record), twin, .. } = self.updates[update] else { return };
        if matches!(holder, Holder::Broker(_)) && !of_earlier_tenure {
            return;
        }
        let released = &mut self.records[record].released;
        let before = released.len();
        released.retain(|released| *released != update && (!of_earlier_tenure || Some(*released) != twin));
        if parked && released.len() < before {
            released.clear();
        }
    }

    /// They are gone from here with their tenure.
    pub(super) fn forget_released(&mut self) {
        self.records.iter_mut().for_each(|record| record.released.clear());
    }

    /// An attempt of an update that the broker holds begins.
    pub(super) fn judge_release(&self, record: usize, update: usize) {
        let of = &self.records[record];
        if let Some(released) = of.released.first()
            && self.exact
            && of.head_at_release != Some(update)
        {
            fault!("order, I2", "#{update} was sent before #{released} of its record, which was released");
        }
    }
}

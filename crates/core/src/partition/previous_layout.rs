//! Records that were in another partition in the previous layout. While that partition is not drained, older updates of
//! the record may be in it, and the updates that are here wait. They are only held: whatever an earlier tenure knows of an
//! update of such a record, it has learnt after the previous partition was drained.

use std::collections::{BTreeMap, BTreeSet};

use super::Partition;
use crate::lane::{LaneId, LaneStatus};
use crate::layout::PartitionNumber;
use crate::message::{Effect, Tenure};
use crate::previous_layout::PreviousLayout;
use crate::update::RecordKey;

/// Previous partitions that are not drained, with the lanes that wait for them.
#[derive(Debug, Default)]
pub(super) struct BlockedLanes {
    previous: PreviousLayout,
    lanes: BTreeMap<PartitionNumber, Vec<LaneId>>,
}

impl BlockedLanes {
    pub(super) fn holds(&self, record_key: &RecordKey) -> bool {
        self.previous_of(record_key).is_some()
    }

    /// The previous partition of the record, if it is not drained.
    pub(super) fn previous_of(&self, record_key: &RecordKey) -> Option<PartitionNumber> {
        self.previous.undrained_of(record_key)
    }

    /// Lanes that wait.
    pub(super) fn lanes(&self) -> usize {
        self.lanes.values().map(Vec::len).sum()
    }

    /// The lanes end with their tenure.
    pub(super) fn forget_lanes(&mut self) {
        self.lanes.clear();
    }

    /// Returns the lanes that need not wait any longer; `None` if all of that was known. Each was put apart once before, so
    /// that this costs no more than that did.
    fn narrow(&mut self, undrained: BTreeSet<PartitionNumber>) -> Option<Vec<LaneId>> {
        assert!(undrained.is_subset(&self.previous.undrained), "what is drained stays so");
        if undrained == self.previous.undrained {
            return None;
        }
        self.previous.undrained = undrained;
        let (waiting, drained): (BTreeMap<_, _>, BTreeMap<_, _>) = std::mem::take(&mut self.lanes)
            .into_iter()
            .partition(|(partition, _)| self.previous.undrained.contains(partition));
        self.lanes = waiting;
        Some(drained.into_values().flatten().collect())
    }
}

impl Partition {
    /// Records wait for these partitions of the previous layout, each record for its own.
    ///
    /// # Panics
    /// After a tenure has begun: what is drained stays so.
    #[must_use]
    pub fn behind(mut self, previous: PreviousLayout) -> Self {
        assert_eq!(self.newest_tenure, Tenure::default(), "what is drained stays so");
        self.blocked.previous = previous;
        self
    }

    /// Returns true if updates of this record wait for its previous partition. That one also sends parked updates that
    /// were released.
    #[must_use]
    pub fn is_blocked_by_previous(&self, record_key: &RecordKey) -> bool {
        self.blocked.holds(record_key)
    }

    /// If the previous partition of the lane's head is not drained, the lane waits apart, so that it holds up no other one.
    /// Returns true if it does.
    pub(super) fn block_by_previous(&mut self, id: LaneId) -> bool {
        let head = self.lanes[id].head();
        let Some(previous) = self.blocked.previous.undrained_of(&head.update.record_key) else {
            return false;
        };
        self.set_status(id, LaneStatus::BlockedByPrevious);
        self.blocked.lanes.entry(previous).or_default().push(id);
        true
    }

    /// Lanes that need not wait any longer go on, each in its turn. Their requests must carry a higher number than all
    /// requests of their previous partition did. Ours may be older than its last one, so the partition is claimed again.
    pub(super) fn previous_drained(&mut self, undrained: BTreeSet<PartitionNumber>) {
        let Some(lanes) = self.blocked.narrow(undrained) else { return };
        if let Some(tenure) = self.tenure.filter(|_| !self.stopping)
            && self.ownership.outdate()
        {
            if self.holds_nothing() {
                self.let_go(tenure);
            } else {
                self.effects.push_back(Effect::Claim { tenure });
            }
        }
        for id in lanes {
            self.enter_head(id);
        }
    }
}

#[cfg(test)]
mod tests;

//! Records that were in another partition while the layout before was in force: where that one is not drained, older
//! updates of the record may be in it, and those that are here wait for it. They are held, and nothing else becomes of
//! them: what an earlier tenure knew of an update of such a record can only be from after it was drained.

use std::collections::{BTreeMap, BTreeSet};

use super::Partition;
use crate::lane::{LaneId, LaneStatus};
use crate::layout::PartitionNumber;
use crate::message::{Effect, Tenure};
use crate::previous_layout::PreviousLayout;
use crate::update::RecordKey;

/// Former partitions that are not drained, with the lanes that wait for them.
#[derive(Debug, Default)]
pub(super) struct BlockedLanes {
    previous: PreviousLayout,
    lanes: BTreeMap<PartitionNumber, Vec<LaneId>>,
}

impl BlockedLanes {
    pub(super) fn holds(&self, record_key: &RecordKey) -> bool {
        self.previous.undrained_of(record_key).is_some()
    }

    /// Lanes that wait.
    pub(super) fn lanes(&self) -> usize {
        self.lanes.values().map(Vec::len).sum()
    }

    /// The lanes end with their tenure.
    pub(super) fn forget_lanes(&mut self) {
        self.lanes.clear();
    }

    /// The lanes that wait no longer; `None`: nothing is news. Each was moved apart once before, so that
    /// this costs no more than that did.
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
    /// Records that come from these partitions wait for them.
    ///
    /// # Panics
    /// After a tenure has begun: what is drained stays so.
    #[must_use]
    pub fn behind(mut self, previous: PreviousLayout) -> Self {
        assert_eq!(self.newest_tenure, Tenure::default(), "what is drained stays so");
        self.blocked.previous = previous;
        self
    }

    /// Whether updates of this record wait for its former partition: also parked ones that were released, which are that
    /// partition's to send.
    #[must_use]
    pub fn is_blocked_by_previous(&self, record_key: &RecordKey) -> bool {
        self.blocked.holds(record_key)
    }

    /// The former partition of a lane's head, where it is not drained: the lane waits apart, so that it holds no other
    /// up. Whether it does.
    pub(super) fn block_by_previous(&mut self, id: LaneId) -> bool {
        let blocked = &mut self.blocked;
        let lane = &mut self.lanes[id];
        let Some(previous) = blocked.previous.undrained_of(&lane.head().update.record_key) else {
            return false;
        };
        lane.status = LaneStatus::BlockedByPrevious;
        blocked.lanes.entry(previous).or_default().push(id);
        true
    }

    /// Lanes that need not wait any longer go on, each in its turn. Their requests must carry a number above
    /// all that those of their former partition carried: whatever number we have may be older than its last one, and
    /// counts no more.
    pub(super) fn previous_drained(&mut self, undrained: BTreeSet<PartitionNumber>) {
        let Some(lanes) = self.blocked.narrow(undrained) else { return };
        if let Some(tenure) = self.tenure.filter(|_| !self.stopping)
            && self.ownership.outdate()
        {
            if self.holds_nothing() {
                self.ownership.let_go(); // the next delivery claims
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

//! The order of the ready lanes. docs/decisions/013 says why.

use super::Partition;
use crate::lane::{LaneId, LaneStatus, QueuePosition};

impl Partition {
    /// After a wait, its turn is behind whatever came before the wait was over.
    pub(super) fn make_ready_again(&mut self, id: LaneId) {
        if let LaneStatus::Waiting { until } = self.lanes[id].status {
            self.deadlines.remove(&(until, id));
        }
        self.last_requeue += 1;
        self.enqueue(id, QueuePosition { arrival: self.last_arrival, requeue: self.last_requeue });
    }

    pub(super) fn enqueue(&mut self, id: LaneId, position: QueuePosition) {
        let lane = &mut self.lanes[id];
        (lane.status, lane.position) = (LaneStatus::Ready, position);
        self.ready.insert(position, id);
    }

    /// The number of the next update that comes.
    pub(super) fn count_in(&mut self) -> u64 {
        self.last_arrival += 1;
        self.last_arrival
    }
}

//! The order of the ready lanes. docs/decisions/013 says why.

use super::Partition;
use crate::lane::{LaneId, LaneStatus, QueuePosition};
use crate::tick::Tick;

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
        self.set_status(id, LaneStatus::Ready);
        self.lanes[id].position = position;
        self.ready.insert(position, id);
    }

    /// The next attempt starts no earlier.
    pub(super) fn wait_until(&mut self, id: LaneId, until: Tick) {
        self.set_status(id, LaneStatus::Waiting { until });
        self.deadlines.insert((until, id));
    }

    /// The one place where the status of a lane changes.
    pub(super) fn set_status(&mut self, id: LaneId, status: LaneStatus) {
        let lane = &mut self.lanes[id];
        (lane.status, lane.since) = (status, self.now);
    }

    /// The number of the next update that comes.
    pub(super) fn count_in(&mut self) -> u64 {
        self.last_arrival += 1;
        self.last_arrival
    }
}

//! Which of the ready lanes is next: docs/decisions/013.

use super::Partition;
use crate::lane::{LaneId, LaneStatus, Turn};

impl Partition {
    /// After a wait its turn is behind what came before it was over.
    pub(super) fn make_ready_again(&mut self, id: LaneId) {
        if let LaneStatus::Waiting { until } = self.lanes[id].status {
            self.deadlines.remove(&(until, id));
        }
        self.again += 1;
        self.take_turn(id, Turn { came: self.came, again: self.again });
    }

    pub(super) fn take_turn(&mut self, id: LaneId, turn: Turn) {
        self.lanes[id].status = LaneStatus::Ready;
        self.ready.insert(turn, id);
    }

    /// The number of the next update that comes.
    pub(super) fn count_in(&mut self) -> u64 {
        self.came += 1;
        self.came
    }
}

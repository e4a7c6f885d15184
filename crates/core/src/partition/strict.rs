//! Strict mode (`in_flight_max = 1`), where one lane holds the whole queue.

use super::Partition;
use crate::lane::LaneId;
use crate::update::RecordKey;

impl Partition {
    /// In strict mode one lane holds all updates: the whole queue is treated as one record.
    pub(super) fn lane_key<'a>(&'a self, record_key: &'a RecordKey) -> &'a RecordKey {
        self.strict.as_ref().unwrap_or(record_key)
    }

    pub(super) fn find_lane(&self, record_key: &RecordKey) -> Option<LaneId> {
        self.lanes.find(self.lane_key(record_key))
    }
}

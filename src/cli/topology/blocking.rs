//! Records that keep a partition of a draining layout from being drained.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use lanekeeper_broker::{PartitionStatus, RetriedRecord};
use lanekeeper_core::layout::PartitionNumber;

/// What an operator can do about them.
const ADVICE: &str = "  Their partitions are not drained before these records are resolved, and the records that were in \
     those partitions wait; all others go on. Fix their target, or let them be parked or dead-lettered \
     (failure.rejected, failure.exhausted, retry.elapsed_max of the dispatchers).";

/// One line per record, then what to do; empty if there is none.
pub fn format_blocking(statuses: &BTreeMap<PartitionNumber, PartitionStatus>) -> String {
    let mut text = String::new();
    for (partition, status) in statuses {
        for RetriedRecord { update_id, updates, attempts } in &status.retried_records {
            let _ = writeln!(
                text,
                "  {partition}: the record of update {update_id:?} holds {updates} updates; this first one was attempted \
                 {attempts} times and is tried again"
            );
        }
    }
    if !text.is_empty() {
        text.push_str(ADVICE);
    }
    text
}

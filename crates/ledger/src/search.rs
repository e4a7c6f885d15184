//! Searches parked records.

use std::fmt;
use std::sync::Arc;

use super::entry::ParkKind;
use super::parked::{ParkedRecord, ParkedState};
use lanekeeper_core::update::RecordKey;

/// How many records one call looks at, if it asks [`ParkedFilter::takes`] of each: their oldest updates are read.
pub const LOOKED_AT_MAX: u32 = 5_000;

/// Says if an update with this AMQP `type` is meant.
type TakesType = dyn Fn(Option<&str>) -> bool + Send + Sync;

/// Which parked records to find. The default finds all.
#[derive(Clone, Default)]
pub struct ParkedFilter {
    /// Only those whose key contains this text, exactly as it is written. For one key, [`super::Ledger::parked_record`] is
    /// cheaper.
    pub key_contains: Option<String>,
    /// Only those that were last parked for this reason.
    pub reason: Option<ParkKind>,
    /// Only those in this state.
    pub state: Option<ParkedState>,
    /// Only those that were last parked at this time or later, in milliseconds since 1970-01-01 UTC.
    pub from_ms: Option<i64>,
    /// Only those that were last parked before this time.
    pub before_ms: Option<i64>,
    /// Only those whose oldest parked update has a type for which this returns true. The ledger does not know targets: the
    /// routes of the config say which one takes a type.
    pub takes: Option<Arc<TakesType>>,
}

impl fmt::Debug for ParkedFilter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The text is part of a record key.
        f.debug_struct("ParkedFilter").field("reason", &self.reason).finish_non_exhaustive()
    }
}

/// Where a search goes on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ParkedCursor {
    /// [`ParkedRecord::since_ms`] of the last record that was looked at.
    pub since_ms: i64,
    /// Its key.
    pub record_key: RecordKey,
}

/// A part of what a search finds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FoundParked {
    /// The records, those that were parked last first.
    pub records: Vec<ParkedRecord>,
    /// Where to go on; `None`: all records were looked at.
    pub next: Option<ParkedCursor>,
}

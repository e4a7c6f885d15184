//! Records and targets that people have paused.

use super::entry::StoredParkReason;
use super::parked::OperatorReason;
use lanekeeper_core::update::RecordKey;

/// How many records can be paused at once.
pub const PAUSED_RECORDS_MAX: u32 = 10_000;

/// How many targets can be paused at once, those included that no config has any more.
pub const PAUSED_TARGETS_MAX: u32 = 1_000;

/// Since when something is paused, by whom and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pause {
    /// Since when, in milliseconds since 1970-01-01 UTC.
    pub since_ms: i64,
    /// By whom, and why.
    pub operator_reason: OperatorReason,
}

/// A target that a person has paused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PausedTarget {
    /// Its name. The config of a dispatcher may have no such target.
    pub name: String,
    /// Since when, by whom and why.
    pub pause: Pause,
}

/// A record that a person has paused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PausedRecord {
    /// The record.
    pub record_key: RecordKey,
    /// Since when, by whom and why.
    pub pause: Pause,
    /// How many parked updates it has.
    pub updates: u64,
}

/// What became of the wish to pause something.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Paused {
    /// It is paused now.
    Done,
    /// It was paused before, and stays so as it was.
    Already(Pause),
    /// So many are paused that no more can be: [`PAUSED_RECORDS_MAX`], [`PAUSED_TARGETS_MAX`].
    Full,
}

/// What became of the wish to resume a record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Resumed {
    /// It was not paused.
    NotPaused,
    /// It is paused no more.
    Done {
        /// So many updates were parked because of the pause, and are released.
        updates: u64,
        /// It is parked for another reason, and waits for a release.
        still_parked: Option<StoredParkReason>,
    },
}

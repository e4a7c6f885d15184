//! What the ledger knows of an update id and of a record.

use super::entry::{ResolvedAs, StoredParkReason};
use super::parked::{OperatorReason, ParkedRecord, ParkedState};
use super::pauses::Pause;
use lanekeeper_core::update::RecordKey;

/// What became of the updates that had an id. Publishers that number the updates of each record use one id for many records.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct IdHistory {
    /// By record key. An update that was discarded, or is parked, stands there once.
    pub updates: Vec<IdUse>,
    /// Those are all. If it is false, ask for a record key, too.
    pub is_all: bool,
}

/// An update that had the id.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IdUse {
    /// The record that it changes.
    pub record_key: RecordKey,
    /// What became of it.
    pub end: IdEnd,
}

/// What became of an update. Times are milliseconds since 1970-01-01 UTC.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum IdEnd {
    /// The target has applied it.
    Applied {
        /// When that was written down.
        at_ms: i64,
        /// The status of the target's answer.
        status: Option<u16>,
    },
    /// It was resolved in another way.
    Resolved {
        /// How.
        resolution: ResolvedAs,
        /// When that was written down.
        at_ms: i64,
    },
    /// It is parked.
    Parked {
        /// Since when.
        parked_ms: i64,
        /// Why.
        reason: StoredParkReason,
        /// Whether its record waits for a person or was released.
        state: ParkedState,
    },
    /// A person has discarded it.
    Discarded {
        /// When.
        at_ms: i64,
        /// Who, and why.
        operator_reason: OperatorReason,
        /// When it had been parked.
        parked_ms: i64,
        /// Why it had been parked. The attempts are not kept.
        reason: StoredParkReason,
    },
}

impl IdEnd {
    pub(super) fn is_resolved_as(&self, expected: ResolvedAs) -> bool {
        matches!(self, Self::Resolved { resolution, .. } if *resolution == expected)
    }
}

/// What the ledger knows of a record.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RecordState {
    /// The highest `record-version` that was applied to it.
    pub version: Option<i64>,
    /// The last `ETag` that the target gave for it.
    pub etag: Option<String>,
    /// The update that was applied last.
    pub last_applied: Option<LastApplied>,
    /// Its parked updates, if there are some.
    pub parked: Option<ParkedRecord>,
    /// Since when it is paused, by whom and why.
    pub paused: Option<Pause>,
}

/// The update of a record that was applied last.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LastApplied {
    /// Its id.
    pub update_id: String,
    /// When that was written down, in milliseconds since 1970-01-01 UTC.
    pub at_ms: i64,
}

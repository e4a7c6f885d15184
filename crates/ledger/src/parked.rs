//! Parked updates, as dispatchers and operators see them.

use super::entry::{ParkedSeq, StoredParkReason};
use super::stored::StoredUpdate;
use lanekeeper_core::layout::{LayoutNumber, PartitionNumber};
use lanekeeper_core::update::RecordKey;

/// A record whose parked updates are to go out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReleasedRecord {
    /// The record.
    pub record_key: RecordKey,
    /// The layout of the partition that parked it last.
    pub layout: LayoutNumber,
    /// The partition that parked it last.
    pub partition: PartitionNumber,
}

/// A record with parked updates.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ParkedRecord {
    /// The record.
    pub record_key: RecordKey,
    /// Whether it waits for a person or is going out.
    pub state: ParkedState,
    /// How many updates it has parked; at least 1.
    pub updates: u64,
    /// When it was parked last, in milliseconds since 1970-01-01 UTC.
    pub since_ms: i64,
    /// Why its head is parked, or was when it was parked last.
    pub reason: StoredParkReason,
    /// The layout of the partition that parked it last.
    pub layout: LayoutNumber,
    /// The partition that parked it last.
    pub partition: PartitionNumber,
}

/// Whether a parked record waits for a person.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ParkedState {
    /// Until somebody releases or discards it.
    Parked,
    /// Released: its updates go out, in order.
    Releasing,
}

impl ParkedState {
    /// As written in the ledger.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Parked => "parked",
            Self::Releasing => "releasing",
        }
    }
}

/// A parked update, with why it is.
#[derive(Clone, Debug, PartialEq)]
pub struct ParkedUpdate {
    /// Its place.
    pub seq: ParkedSeq,
    /// The update.
    pub update: StoredUpdate,
    /// Why it was parked.
    pub reason: StoredParkReason,
    /// When, in milliseconds since 1970-01-01 UTC.
    pub parked_ms: i64,
}

/// Which parked records are to be released.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Selection {
    /// These.
    Keys(Vec<RecordKey>),
    /// All.
    All,
    /// Those that are parked for this reason.
    Reason(super::entry::ParkKind),
}

/// What a discard did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Discarded {
    /// So many updates are dropped; `left` stay parked.
    Done {
        /// Dropped.
        updates: u64,
        /// Still parked.
        left: u64,
    },
    /// The record has no parked updates.
    NotParked,
    /// The record was released: its head may be on its way.
    Releasing,
}

/// Who drops parked updates, and why: for the audit table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OperatorReason {
    /// Who.
    pub who: String,
    /// Why.
    pub why: String,
}

/// How large the ledger is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LedgerStats {
    /// Update ids that are known; perhaps a few less.
    pub resolved_updates: u64,
    /// Records that the ledger has a version, an `ETag` or a last update of.
    pub records: u64,
    /// Records with parked updates.
    pub parked_records: u64,
    /// Parked updates.
    pub parked_updates: u64,
    /// Size of the file, its write-ahead log included, or of the database's tables.
    pub bytes: u64,
    /// Transactions that this process committed for [`super::Ledger::record`].
    pub commits: u64,
    /// Entries in them.
    pub entries: u64,
}

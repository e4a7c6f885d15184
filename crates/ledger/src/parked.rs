//! Parked records and updates, as dispatchers and operators see them.

use super::entry::{ParkedSeq, StoredParkReason};
use super::stored::StoredUpdate;
use lanekeeper_core::layout::{LayoutNumber, PartitionNumber};
use lanekeeper_core::update::RecordKey;

/// A released record: its parked updates are to be sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReleasedRecord {
    /// The record.
    pub record_key: RecordKey,
    /// The layout of the partition that parked it last; 0: it was forgotten ([`super::Ledger::forget_layouts`]).
    pub layout: LayoutNumber,
    /// The partition that parked it last.
    pub partition: PartitionNumber,
    /// When it was last parked, in milliseconds since 1970-01-01 UTC.
    pub since_ms: i64,
}

/// A record with parked updates.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ParkedRecord {
    /// The record.
    pub record_key: RecordKey,
    /// Whether it waits for a person or was released.
    pub state: ParkedState,
    /// How many parked updates it has; at least 1.
    pub updates: u64,
    /// The id of the oldest of them: the one that failed.
    pub head_id: String,
    /// The AMQP `type` of the oldest of them.
    pub head_type: Option<String>,
    /// When it was last parked, in milliseconds since 1970-01-01 UTC.
    pub since_ms: i64,
    /// Why it was last parked.
    pub reason: StoredParkReason,
    /// The layout of the partition that parked it last.
    pub layout: LayoutNumber,
    /// The partition that parked it last.
    pub partition: PartitionNumber,
    /// A person has paused it: a release passes it over until it is resumed.
    pub paused: bool,
}

/// How much is parked.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ParkedCounts {
    /// Records, by the partition that parked them last, in order.
    pub partitions: Vec<ParkedCount>,
    /// Parked updates of all of them.
    pub updates: u64,
}

/// How many records of a partition are parked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ParkedCount {
    /// The layout of the partition; 0: it was forgotten.
    pub layout: LayoutNumber,
    /// The partition that parked them last.
    pub partition: PartitionNumber,
    /// Records that wait for a person.
    pub parked: u64,
    /// Records that were released.
    pub releasing: u64,
}

/// Whether a parked record waits for a person or was released.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ParkedState {
    /// It waits until a person releases or discards it.
    Parked,
    /// It was released: its updates are sent, in order.
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

/// A parked update and the reason.
#[derive(Clone, Debug, PartialEq)]
pub struct ParkedUpdate {
    /// Its place in the order of parking.
    pub seq: ParkedSeq,
    /// The update.
    pub update: StoredUpdate,
    /// Why it was parked.
    pub reason: StoredParkReason,
    /// When it was parked, in milliseconds since 1970-01-01 UTC.
    pub parked_ms: i64,
}

/// Which parked records to release.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Selection {
    /// The records with these keys.
    Keys(Vec<RecordKey>),
    /// All records.
    All,
    /// The records that were last parked for this reason.
    Reason(super::entry::ParkKind),
    /// The records with these keys, which a search found.
    Found {
        /// Their keys.
        record_keys: Vec<RecordKey>,
        /// What was searched for, in words.
        filter: String,
    },
}

impl Selection {
    /// What is written in `ledger_change`: one row with these words; `None`: a row for each record, with its key.
    pub(super) fn in_words(&self) -> Option<String> {
        match self {
            Self::Keys(_) => None,
            Self::All => Some("all parked records".to_owned()),
            Self::Reason(kind) => Some(format!("records parked for {}", kind.name())),
            Self::Found { filter, .. } => Some(filter.clone()),
        }
    }
}

/// What a release did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Released {
    /// How many records it released.
    pub records: u64,
    /// How many parked updates they have.
    pub updates: u64,
    /// How many it passed over, since they are paused.
    pub paused: u64,
}

/// What a discard did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Discarded {
    /// Updates were discarded.
    Done {
        /// How many were discarded.
        updates: u64,
        /// How many of the record are still parked.
        left: u64,
    },
    /// The record has no parked updates.
    NotParked,
    /// The record was released: its head may be in flight.
    Releasing,
}

/// Who changes something, and why. Kept in the table `ledger_change`, and of a discard in `ledger_discarded`, too.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OperatorReason {
    /// The person; at most [`super::WHO_CHARS_MAX`] characters are kept.
    pub who: String,
    /// The reason; at most [`super::WHY_CHARS_MAX`] characters are kept. Empty: none was given.
    pub why: String,
}

/// The size of the ledger.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LedgerStats {
    /// Known update ids; an estimate that can be a little too high.
    pub resolved_updates: u64,
    /// Records with parked updates.
    pub parked_records: u64,
    /// Parked updates.
    pub parked_updates: u64,
    /// Bytes of the file with its write-ahead log, or of the database's tables.
    pub bytes: u64,
    /// Transactions that this process committed for [`super::Ledger::record`].
    pub commits: u64,
    /// Entries in these transactions.
    pub entries: u64,
}

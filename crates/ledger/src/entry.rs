//! What is asked of the ledger, and what is written into it.

use std::fmt;

use ring::digest::{SHA256, digest};

use super::stored::StoredUpdate;
use lanekeeper_core::layout::{LayoutNumber, PartitionNumber};
pub use lanekeeper_core::message::ParkedSeq;
use lanekeeper_core::message::TenureNumber;
use lanekeeper_core::update::{RecordKey, UpdateId};

/// Tells bodies apart: the first 128 bits of the body's SHA-256. Kept in the ledger, so it never changes.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Fingerprint(pub(super) [u8; 16]);

impl Fingerprint {
    /// Of a body.
    #[must_use]
    pub fn of(body: &[u8]) -> Self {
        let whole = digest(&SHA256, body);
        let (first, _) = whole.as_ref().split_first_chunk().expect("SHA-256 has 32 bytes");
        Self(*first)
    }
}

impl fmt::Debug for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Fingerprint({:032x})", u128::from_be_bytes(self.0))
    }
}

/// What is to be known before an update is attempted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Query {
    /// The record that it changes.
    pub record_key: RecordKey,
    /// Its id. One that was made for a delivery is never known: nobody can send it twice.
    pub id: UpdateId,
    /// Of its body.
    pub fingerprint: Fingerprint,
}

/// The ledger's answer to a [`Query`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LookupResult {
    /// Whether the update had its turn before.
    pub id_status: IdStatus,
    /// The record has parked updates: this one comes after them, also while they are being released.
    pub parked: bool,
    /// Highest `record-version` that was applied to the record.
    pub version: Option<i64>,
    /// Last `ETag` that the target gave for the record.
    pub etag: Option<String>,
}

/// What the ledger knows of an update id.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IdStatus {
    /// Nothing: never resolved, or longer ago than `ledger.retention`.
    Unknown,
    /// The same update was resolved: same id, same record, same body.
    Resolved,
    /// Another update was resolved under this id: of another record, or with another body.
    Reused,
}

/// One thing to write, by the owner of a partition.
#[derive(Clone, Debug, PartialEq)]
pub struct Entry {
    /// The layout of the partition.
    pub layout: LayoutNumber,
    /// The partition.
    pub partition: PartitionNumber,
    /// The owner's fencing number; `None`: it has none, and is not fenced.
    pub tenure: Option<TenureNumber>,
    /// The record.
    pub record_key: RecordKey,
    /// What is to be written about it.
    pub kind: EntryKind,
}

/// What an [`Entry`] writes.
#[derive(Clone, Debug, PartialEq)]
pub enum EntryKind {
    /// The target has the update: its id is known from now on, and the record has this version and `ETag`.
    Applied {
        /// Of the update.
        id: UpdateId,
        /// Of its body.
        fingerprint: Fingerprint,
        /// Its `record-version`; the record keeps the highest.
        version: Option<i64>,
        /// The target's answer.
        status: u16,
        /// The target's `ETag`; `None`: the record has none from now on.
        etag: Option<String>,
        /// The update was a parked one: it goes. With the record's last one the record is no longer parked.
        parked: Option<ParkedSeq>,
    },
    /// The update's turn ended otherwise: its id is known from now on.
    Resolved {
        /// Of the update.
        id: UpdateId,
        /// Of its body.
        fingerprint: Fingerprint,
        /// How its turn ended.
        resolution: ResolvedAs,
        /// As for [`EntryKind::Applied`].
        parked: Option<ParkedSeq>,
    },
    /// The update joins the end of the record's parked updates, and the record is parked. One that is there already, or
    /// was resolved, is not written again: writing an entry twice is the same as once.
    Park {
        /// The update.
        update: StoredUpdate,
        /// Why.
        reason: StoredParkReason,
        /// Only if the record is parked; else nothing is written, and the answer is [`Recorded::NotParked`].
        only_behind: bool,
    },
    /// A released head failed again: the record waits for a person once more. Its updates stay as they are.
    Repark {
        /// The head.
        seq: ParkedSeq,
        /// Why.
        reason: StoredParkReason,
    },
}

/// How an update's turn ended, other than applied.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ResolvedAs {
    /// The target holds this or a later version.
    Superseded,
    /// It is in the dead-letter queue.
    DeadLettered,
    /// A person dropped it.
    Discarded,
}

impl ResolvedAs {
    /// As written in the ledger.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Superseded => "superseded",
            Self::DeadLettered => "dead_lettered",
            Self::Discarded => "discarded",
        }
    }
}

/// What became of an [`Entry`]. Everything but `Done` means that nothing of it was written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Recorded {
    /// It is on disk.
    Done,
    /// `only_behind`, and the record is not parked.
    NotParked,
    /// A higher tenure number of this partition has written: this owner is one no more.
    Fenced,
    /// `ledger.parked_max` would be passed.
    Full,
}

/// Why an update is parked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredParkReason {
    /// In one word.
    pub kind: ParkKind,
    /// The target's last answer.
    pub status: Option<u16>,
    /// For a person: the target's problem text, or what went wrong.
    pub detail: String,
    /// Attempts made.
    pub attempts: u32,
}

impl StoredParkReason {
    /// Of an update that was never attempted, as its record was parked.
    #[must_use]
    pub fn behind() -> Self {
        Self { kind: ParkKind::Behind, status: None, detail: String::new(), attempts: 0 }
    }
}

/// Why an update is parked, in one word.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ParkKind {
    /// The target will never accept it.
    Rejected,
    /// No attempt or no time was left.
    Exhausted,
    /// It disagrees with the record's state.
    Conflict,
    /// Its id was used before, for another body or record.
    IdReused,
    /// It came after a parked one of its record.
    Behind,
}

impl ParkKind {
    /// All of them.
    pub const ALL: [Self; 5] =
        [Self::Rejected, Self::Exhausted, Self::Conflict, Self::IdReused, Self::Behind];

    /// As written in the ledger, and by `parked release --reason`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Rejected => "rejected",
            Self::Exhausted => "exhausted",
            Self::Conflict => "conflict",
            Self::IdReused => "id_reused",
            Self::Behind => "behind",
        }
    }

    /// The kind of this name.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.name() == name)
    }
}

impl IdStatus {
    /// From the row of the id, if there is one.
    pub(super) fn of(query: &Query, record_key: Option<&[u8]>, fingerprint: Option<&[u8]>) -> Self {
        match (record_key, fingerprint) {
            (Some(record_key), Some(fingerprint)) => {
                let same =
                    record_key == query.record_key.as_str().as_bytes() && fingerprint == query.fingerprint.0;
                if same { Self::Resolved } else { Self::Reused }
            }
            _ => Self::Unknown,
        }
    }
}

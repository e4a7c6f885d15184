//! Inquiries to the ledger with their answers, and entries with theirs.

use super::fingerprint::Fingerprint;
use super::stored::StoredUpdate;
use lanekeeper_core::layout::{LayoutNumber, PartitionNumber};
pub use lanekeeper_core::message::ParkedSeq;
use lanekeeper_core::message::TenureNumber;
use lanekeeper_core::update::{RecordKey, UpdateId};

/// The question before an update is attempted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Query {
    /// The record that the update changes.
    pub record_key: RecordKey,
    /// Its id. An id that was made for a delivery is never known, because no publisher can repeat it.
    pub id: UpdateId,
    /// The fingerprint of its body.
    pub fingerprint: Fingerprint,
}

/// The ledger's answer to a [`Query`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LookupResult {
    /// Whether the update was resolved before.
    pub id_status: IdStatus,
    /// The record has parked updates, which come before this one, also while they are being released.
    pub parked: bool,
    /// A person has paused the record: none of its updates is sent, not even one that was released.
    pub paused: bool,
    /// The highest `record-version` that was applied to the record.
    pub version: Option<i64>,
    /// The last `ETag` that the target gave for the record.
    pub etag: Option<String>,
}

/// What the ledger knows of an update id.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IdStatus {
    /// No update of its record was resolved under this id, or longer ago than `ledger.retention`. Other records may have
    /// used the id.
    Unknown,
    /// The same update was resolved: same id, same record, same body.
    Resolved,
    /// Another update of the record was resolved under this id, with another body.
    Reused,
}

/// Something to write, by the owner of a partition.
#[derive(Clone, Debug, PartialEq)]
pub struct Entry {
    /// The layout of the partition.
    pub layout: LayoutNumber,
    /// The partition.
    pub partition: PartitionNumber,
    /// The owner's tenure number; `None`: it has none, and is not fenced.
    pub tenure: Option<TenureNumber>,
    /// The record.
    pub record_key: RecordKey,
    /// What to write about the record.
    pub kind: EntryKind,
}

/// What an [`Entry`] writes.
#[derive(Clone, Debug, PartialEq)]
pub enum EntryKind {
    /// The target has applied the update. Its id counts as resolved, and the record has this version and `ETag`.
    Applied {
        /// The update's id.
        id: UpdateId,
        /// The fingerprint of its body.
        fingerprint: Fingerprint,
        /// The update's `record-version`; the record keeps the highest one.
        version: Option<i64>,
        /// The status of the target's answer.
        status: u16,
        /// The `ETag` of the target's answer; `None`: the stored one is deleted.
        etag: Option<String>,
        /// The update's place if it was parked: it is deleted there. Without a parked update the record is no longer parked.
        parked: Option<ParkedSeq>,
    },
    /// The update was resolved in another way. Its id counts as resolved.
    Resolved {
        /// The update's id.
        id: UpdateId,
        /// The fingerprint of its body.
        fingerprint: Fingerprint,
        /// How it was resolved.
        resolution: ResolvedAs,
        /// As for [`EntryKind::Applied`].
        parked: Option<ParkedSeq>,
    },
    /// The update is appended to the record's parked updates, and the record is parked. If the update is parked or resolved
    /// already, nothing is written: writing an entry twice has the same effect as once.
    Park {
        /// The update.
        update: StoredUpdate,
        /// Why.
        reason: StoredParkReason,
        /// Write only if the record is parked or paused; otherwise the answer is [`Recorded::NotParked`].
        only_behind: bool,
    },
    /// A released head failed again: the record is parked again, its updates stay as they are.
    Repark {
        /// The head's place.
        seq: ParkedSeq,
        /// Why. [`ParkKind::Behind`]: the record is paused; if it is not any more, the answer is [`Recorded::NotParked`].
        reason: StoredParkReason,
    },
}

/// How an update was resolved, other than applied.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ResolvedAs {
    /// The target has this version of the record or a later one.
    Superseded,
    /// It is in the dead-letter queue.
    DeadLettered,
    /// A person discarded it.
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

    /// The resolution of this name.
    pub(super) fn named(name: &str) -> Option<Self> {
        [Self::Superseded, Self::DeadLettered, Self::Discarded].into_iter().find(|known| known.name() == name)
    }
}

/// What became of an [`Entry`]. Unless it is `Done`, nothing of it was written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Recorded {
    /// It is committed to disk.
    Done,
    /// `only_behind`, and the record is neither parked nor paused.
    NotParked,
    /// A higher tenure of this partition has written: this process does not own the partition any more.
    Fenced,
    /// `ledger.parked_max` would be exceeded.
    Full,
    /// `ledger.parked_record_max` would be exceeded: this record alone has so many.
    RecordFull,
}

/// Why an update is parked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredParkReason {
    /// The reason in one word.
    pub kind: ParkKind,
    /// The status of the target's last answer.
    pub status: Option<u16>,
    /// Details for a person: the target's words, or what went wrong.
    pub detail: String,
    /// How many attempts were made.
    pub attempts: u32,
}

impl StoredParkReason {
    /// The reason of an update that was never attempted, because its record was parked.
    #[must_use]
    pub fn behind() -> Self {
        Self { kind: ParkKind::Behind, status: None, detail: String::new(), attempts: 0 }
    }
}

/// Why an update is parked, in one word.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ParkKind {
    /// The target rejected it for good.
    Rejected,
    /// It had no attempt or no time left.
    Exhausted,
    /// It disagrees with the record's state at the target.
    Conflict,
    /// Its id was used before by another update of its record.
    IdReused,
    /// It came after a parked update of its record, or while its record was paused.
    Behind,
    /// A person has paused the record. Records have this reason, updates do not.
    Paused,
}

impl ParkKind {
    /// All of them.
    pub const ALL: [Self; 6] =
        [Self::Rejected, Self::Exhausted, Self::Conflict, Self::IdReused, Self::Behind, Self::Paused];

    /// As shown, and given to `parked release --reason`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Rejected => "rejected",
            Self::Exhausted => "exhausted",
            Self::Conflict => "conflict",
            Self::IdReused => "id_reused",
            Self::Behind => "behind",
            Self::Paused => "paused",
        }
    }

    /// As written in the ledger. Programs that know no pause read it, too: to them, a paused record is parked behind something.
    pub(super) const fn stored_name(self) -> &'static str {
        match self {
            Self::Paused => Self::Behind.name(),
            kind => kind.name(),
        }
    }

    /// The reason of a record by its stored name.
    pub(super) fn of_record(stored_name: &str) -> Option<Self> {
        match Self::named(stored_name) {
            Some(Self::Behind) => Some(Self::Paused),
            kind => kind,
        }
    }

    /// The kind of this name.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.name() == name)
    }
}

impl IdStatus {
    /// The status by the fingerprint that is kept for the record and the id, if there is one.
    pub(super) fn of(query: &Query, fingerprint: Option<&[u8]>) -> Self {
        match fingerprint {
            Some(fingerprint) if fingerprint == query.fingerprint.0 => Self::Resolved,
            Some(_) => Self::Reused,
            None => Self::Unknown,
        }
    }
}

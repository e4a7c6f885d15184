//! What people changed.

use super::parked::OperatorReason;
use lanekeeper_core::update::RecordKey;

/// How many changes are kept: the newest ones, however old they are. With texts of usual length that is some 20 MB.
pub const CHANGES_MAX: u32 = 100_000;

/// The longest name that is kept, in characters; what is longer is cut.
pub const WHO_CHARS_MAX: usize = 200;

/// The longest reason that is kept, in characters; what is longer is cut.
pub const WHY_CHARS_MAX: usize = 2_000;

/// The place of a change: grows with time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ChangeSeq(pub i64);

/// A change that a person made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// Its place.
    pub seq: ChangeSeq,
    /// When it was made, in milliseconds since 1970-01-01 UTC.
    pub at_ms: i64,
    /// Who made it, and why.
    pub operator_reason: OperatorReason,
    /// What was done.
    pub kind: ChangeKind,
    /// To what.
    pub subject: ChangeSubject,
    /// How many records it concerned; 0: it was about a target.
    pub records: u64,
    /// How many parked updates it concerned.
    pub updates: u64,
}

/// What a person did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ChangeKind {
    /// Released parked records.
    Release,
    /// Discarded parked updates.
    Discard,
    /// Paused a record.
    PauseRecord,
    /// Resumed a record.
    ResumeRecord,
    /// Paused a target.
    PauseTarget,
    /// Resumed a target.
    ResumeTarget,
    /// Had a record forget its version.
    ForgetVersion,
    /// Something that a later version of the program knows.
    Other(String),
}

impl ChangeKind {
    /// As written in the ledger.
    #[must_use]
    pub fn name(&self) -> &str {
        match self {
            Self::Release => "release",
            Self::Discard => "discard",
            Self::PauseRecord => "pause_record",
            Self::ResumeRecord => "resume_record",
            Self::PauseTarget => "pause_target",
            Self::ResumeTarget => "resume_target",
            Self::ForgetVersion => "forget_version",
            Self::Other(name) => name,
        }
    }

    /// The kind of this name.
    pub(super) fn named(name: String) -> Self {
        let known = [
            Self::Release,
            Self::Discard,
            Self::PauseRecord,
            Self::ResumeRecord,
            Self::PauseTarget,
            Self::ResumeTarget,
            Self::ForgetVersion,
        ];
        known.into_iter().find(|kind| kind.name() == name).unwrap_or(Self::Other(name))
    }
}

/// What a change was made to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ChangeSubject {
    /// One record.
    Record(RecordKey),
    /// A target by its name, or the records that were meant, in words.
    Named(String),
}

/// Which changes to read.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ChangeFilter {
    /// Only those of this record. Changes of many records at once are not among them: see [`super::Selection`].
    pub record_key: Option<RecordKey>,
}

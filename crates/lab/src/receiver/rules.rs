//! What a request may do to a record: every check, in one order. Pure, and the same for all stores.
//!
//! docs/receiving.md explains the order.

use std::str::FromStr;

use bytes::Bytes;

use super::body::BodyMembers;

/// Bytes kept of a record's value.
pub(super) const VALUE_BYTES_MAX: usize = 64 * 1024;

/// Which of the remedies against races the receiver applies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Safeguards {
    /// An `Idempotency-Key` that was applied before gets the same answer and is not applied again; 422 if the body
    /// differs, 409 while the first request is still in progress.
    pub idempotency: bool,
    /// `If-Match`, `If-None-Match` and `record-version` are checked.
    pub versions: bool,
    /// A record is locked from the moment it is read until it is written.
    pub row_locks: bool,
    /// A request of an older tenure than the highest that the record has seen is refused.
    pub fencing: bool,
}

impl Safeguards {
    /// All of them.
    pub const ALL: Self = Self { idempotency: true, versions: true, row_locks: true, fencing: true };

    /// All but this one.
    #[must_use]
    pub fn without(mut self, safeguard: Safeguard) -> Self {
        *match safeguard {
            Safeguard::Idempotency => &mut self.idempotency,
            Safeguard::Versions => &mut self.versions,
            Safeguard::RowLocks => &mut self.row_locks,
            Safeguard::Fencing => &mut self.fencing,
        } = false;
        self
    }
}

/// One remedy, by name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Safeguard {
    /// `idempotency`
    Idempotency,
    /// `versions`
    Versions,
    /// `row-locks`
    RowLocks,
    /// `fencing`
    Fencing,
}

/// A text names no remedy.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not one of idempotency, versions, row-locks, fencing")]
pub struct SafeguardError(String);

impl FromStr for Safeguard {
    type Err = SafeguardError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "idempotency" => Ok(Self::Idempotency),
            "versions" => Ok(Self::Versions),
            "row-locks" => Ok(Self::RowLocks),
            "fencing" => Ok(Self::Fencing),
            other => Err(SafeguardError(other.to_owned())),
        }
    }
}

/// What a request wants to write, and on which conditions.
#[derive(Clone, Debug, Default)]
pub(super) struct Change {
    pub(super) record_key: String,
    /// By which repetition is judged: the idempotency key, else `lanekeeper-update-id`.
    pub(super) update_id: Option<String>,
    /// `Idempotency-Key`, if this safeguard is on.
    pub(super) idempotency_key: Option<String>,
    pub(super) if_match: Option<String>,
    pub(super) if_none_match: Option<String>,
    pub(super) record_version: Option<i64>,
    pub(super) tenure: Option<u64>,
    pub(super) content_type: Option<String>,
    pub(super) members: BodyMembers,
    pub(super) body: Bytes,
}

/// A record as it is kept. Version 0: it has no value yet.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Row {
    /// Times that it was written.
    pub(super) version: u64,
    /// The highest `record-version` applied.
    pub(super) record_version: Option<i64>,
    /// The highest `lanekeeper-tenure` that a request had; zero: none had one.
    pub(super) tenure: u64,
    pub(super) content_type: Option<String>,
    pub(super) body: Vec<u8>,
}

/// What is known of a request's idempotency key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum KeySeen {
    /// Nothing, or the request has none.
    Never,
    /// It was applied with this very body, and the record had this version then.
    Applied { version: u64 },
    /// It was applied with another body.
    WithOtherBody,
}

/// What becomes of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum WriteOutcome {
    /// It is the record's value now.
    Applied { version: u64 },
    /// It was applied before: the same answer again.
    Replayed { version: u64 },
    /// The record has this `record-version` or a later one.
    Superseded { version: u64 },
    /// `If-Match` or `If-None-Match` does not hold.
    PreconditionFailed { version: u64 },
    /// It does not say which version it means.
    PreconditionRequired { version: u64 },
    /// Its idempotency key was used before, for another body.
    KeyReused,
    /// The first request with its idempotency key has not ended.
    KeyInProgress,
    /// A newer owner has written to the record.
    OlderTenure,
}

/// Checks a request against the record, in this order; `None`: write it.
pub(super) fn check(
    row: &Row,
    key: KeySeen,
    change: &Change,
    safeguards: Safeguards,
    require_if_match: bool,
) -> Option<WriteOutcome> {
    let version = row.version;
    if safeguards.fencing && change.tenure.is_some_and(|tenure| tenure < row.tenure) {
        return Some(WriteOutcome::OlderTenure);
    }
    match key {
        KeySeen::Never => {}
        KeySeen::Applied { version } => return Some(WriteOutcome::Replayed { version }),
        KeySeen::WithOtherBody => return Some(WriteOutcome::KeyReused),
    }
    if !safeguards.versions {
        return None;
    }
    if let (Some(asked), Some(applied)) = (change.record_version, row.record_version)
        && asked <= applied
    {
        return Some(WriteOutcome::Superseded { version });
    }
    if require_if_match && change.if_match.is_none() && change.if_none_match.is_none() {
        return Some(WriteOutcome::PreconditionRequired { version });
    }
    let holds = change.if_match.as_deref().is_none_or(|etags| names_version(etags, version))
        && !change.if_none_match.as_deref().is_some_and(|etags| names_version(etags, version));
    (!holds).then_some(WriteOutcome::PreconditionFailed { version })
}

impl Row {
    /// Becomes what it is after the change.
    pub(super) fn apply(&mut self, change: &Change) {
        if let Some(sum) = change.members.sum(&self.body) {
            self.body = sum;
        } else {
            self.body.clear();
            self.body.extend_from_slice(&change.body[..change.body.len().min(VALUE_BYTES_MAX)]);
        }
        self.version += 1;
        self.record_version = self.record_version.max(change.record_version);
        self.tenure = self.tenure.max(change.tenure.unwrap_or_default());
        if self.content_type != change.content_type {
            self.content_type.clone_from(&change.content_type);
        }
    }
}

/// True if a list of entity tags names the version (RFC 9110, sections 13.1.1 and 13.1.2). Version 0: there is no value.
fn names_version(etags: &str, version: u64) -> bool {
    version > 0 && etags.split(',').map(str::trim).any(|etag| etag == "*" || etag == etag_of(version))
}

/// The entity tag of a version, quotes included.
pub(super) fn etag_of(version: u64) -> String {
    format!("\"{version}\"")
}

#[cfg(test)]
mod tests;

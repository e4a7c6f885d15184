//! What SQLite and PostgreSQL have in common: rows, keys, the version of the schema.

use ring::digest::{SHA256, digest};

use super::error::StoreError;
use crate::receiver::rules::{Change, KeySeen, Row, Safeguards, WriteOutcome};

/// Idempotency keys kept per record: those of its latest versions.
const KEYS_MAX: u64 = 512;
/// Older keys are deleted every so many versions of a record.
const FORGET_EVERY: u64 = 64;

/// The schema is of a newer program: its version.
pub(super) struct Newer(pub(super) i64);

/// A row as the databases return it.
pub(super) type RowRead = (i64, Option<i64>, i64, Option<String>, Vec<u8>);

pub(super) fn row_of((version, record_version, tenure, content_type, body): RowRead) -> Row {
    Row { version: unsigned(version), record_version, tenure: unsigned(tenure), content_type, body }
}

/// What is known of a change's idempotency key. `found`: the stored hash of the body, and the version of the answer.
pub(super) fn key_seen(found: Option<(Vec<u8>, i64)>, change: &Change) -> KeySeen {
    match found {
        None => KeySeen::Never,
        Some((hash, version)) if hash == request_hash(change) => {
            KeySeen::Applied { version: unsigned(version) }
        }
        Some(_) => KeySeen::WithOtherBody,
    }
}

/// The tenure to write to the record although the request itself is not written, so that an older owner is refused from
/// now on.
pub(super) fn tenure_to_raise(
    row: &Row,
    change: &Change,
    written: WriteOutcome,
    safeguards: Safeguards,
) -> Option<u64> {
    let raises = safeguards.fencing && written != WriteOutcome::OlderTenure;
    change.tenure.filter(|tenure| raises && *tenure > row.tenure)
}

/// Keys of this version and below are to be deleted, now that the record has reached `version`; zero: none, or not now.
pub(super) fn forget_up_to(version: u64) -> u64 {
    if version.is_multiple_of(FORGET_EVERY) { version.saturating_sub(KEYS_MAX) } else { 0 }
}

/// Another request has inserted the same key in between, without locking the record: it has only just ended.
pub(super) fn refused_key(error: sqlx::Error) -> Result<WriteOutcome, StoreError> {
    match error.as_database_error() {
        Some(database) if database.is_unique_violation() => Ok(WriteOutcome::KeyInProgress),
        _ => Err(error.into()),
    }
}

pub(super) fn request_hash(change: &Change) -> Vec<u8> {
    digest(&SHA256, &change.body).as_ref().to_vec()
}

/// Databases have signed integers only. A number that does not fit becomes the largest one: no broker counts that far.
pub(super) fn signed(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

pub(super) fn unsigned(number: i64) -> u64 {
    u64::try_from(number).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_forgotten_now_and_then() {
        assert_eq!(forget_up_to(FORGET_EVERY), 0);
        assert_eq!(forget_up_to(KEYS_MAX + FORGET_EVERY), FORGET_EVERY);
        assert_eq!(forget_up_to(KEYS_MAX + FORGET_EVERY + 1), 0);
    }
}

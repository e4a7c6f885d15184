//! Converts values to and from columns. Both databases store 64-bit integers, bytes and text.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::entry::{ParkKind, StoredParkReason};
use super::error::LedgerError;
use super::fingerprint::Fingerprint;
use super::parked::ParkedState;
use lanekeeper_core::update::RecordKey;

/// A row of `ledger_resolved_update`.
#[derive(Clone, Copy, Debug)]
pub struct ResolvedRow<'a> {
    pub update_id: &'a str,
    pub record_key: &'a RecordKey,
    pub fingerprint: Fingerprint,
    pub resolution: &'static str,
    pub status: Option<u16>,
}

/// The new values of a row of `ledger_record`.
#[derive(Clone, Copy, Debug)]
pub struct RecordRow<'a> {
    pub version: Option<i64>,
    pub etag: Option<&'a str>,
    pub update_id: &'a str,
}

/// The current time in milliseconds since 1970-01-01 UTC.
pub fn now_ms() -> i64 {
    ms(SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default())
}

/// A duration in milliseconds.
pub fn ms(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}

/// An unsigned number as a column. No number comes near the end of the range.
pub fn number(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

/// A number of rows.
pub fn count(value: i64) -> u64 {
    u64::try_from(value).unwrap_or_default()
}

/// A record key as bytes: it may contain NUL, which PostgreSQL does not allow in text.
pub fn key(record_key: &RecordKey) -> &[u8] {
    record_key.as_str().as_bytes()
}

/// A text from outside without NUL, which PostgreSQL does not allow.
pub fn text(text: &str) -> String {
    text.replace('\0', "\u{fffd}")
}

/// As [`text`], with at most `max` characters.
pub fn bounded(long: &str, max: usize) -> String {
    match long.char_indices().nth(max) {
        Some((end, _)) => text(&long[..end]),
        None => text(long),
    }
}

/// A record key from its column.
pub fn record_key(bytes: Vec<u8>) -> Result<RecordKey, LedgerError> {
    let key = String::from_utf8(bytes).ok().and_then(|key| RecordKey::new(key).ok());
    key.ok_or(LedgerError::Damaged { what: "a record key" })
}

/// A reason from its columns.
pub fn reason(
    kind: &str,
    status: Option<i64>,
    detail: String,
    attempts: i64,
) -> Result<StoredParkReason, LedgerError> {
    Ok(StoredParkReason {
        kind: ParkKind::named(kind).ok_or(LedgerError::Damaged { what: "a reason" })?,
        status: status.and_then(|status| u16::try_from(status).ok()),
        detail,
        attempts: u32::try_from(attempts).unwrap_or_default(),
    })
}

/// The reason of a parked record from its columns.
pub fn record_reason(
    stored: &str,
    status: Option<i64>,
    detail: String,
    attempts: i64,
) -> Result<StoredParkReason, LedgerError> {
    let kind = ParkKind::of_record(stored).ok_or(LedgerError::Damaged { what: "a reason" })?;
    Ok(StoredParkReason { kind, ..reason(stored, status, detail, attempts)? })
}

/// A state from its column.
pub fn state(name: &str) -> Result<ParkedState, LedgerError> {
    [ParkedState::Parked, ParkedState::Releasing]
        .into_iter()
        .find(|state| state.name() == name)
        .ok_or(LedgerError::Damaged { what: "the state of a parked record" })
}

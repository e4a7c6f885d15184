//! SQLite has no row locks: the file has one writer.

use super::database::Options;
use crate::config::LedgerConfig;
use crate::entry::{LookupResult, Query};
use crate::error::LedgerError;
use crate::postgres::RecordLock;

/// Refuses every lock.
#[derive(Debug)]
pub struct Locks;

impl Locks {
    pub fn new(_: Options, _: &LedgerConfig) -> Self {
        Self
    }

    #[expect(clippy::unused_async, reason = "with PostgreSQL this waits")]
    pub async fn lock(&self, _: Query) -> Result<(LookupResult, RecordLock), LedgerError> {
        Err(LedgerError::NoRowLocks)
    }
}

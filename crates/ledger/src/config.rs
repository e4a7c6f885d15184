//! `[ledger]` of the config.

use std::path::PathBuf;
use std::time::Duration;

use lanekeeper_core::secret::Secret;

/// `[ledger]` of the config.
#[derive(Clone, Debug)]
pub struct LedgerConfig {
    /// The database.
    pub place: LedgerPlace,
    /// How long ids of resolved updates are kept; a minute to ten years.
    pub retention: Duration,
    /// Whether to lock a record's row during its attempts. Only with PostgreSQL.
    pub row_lock: bool,
    /// Parked updates of all records together, at most; at least 1.
    pub parked_max: u64,
    /// Parked updates of one record, at most; at least 1.
    pub parked_record_max: u64,
    /// Connections for row locks, at most; at least 1.
    pub connections_max: u32,
}

/// The database of a ledger.
#[derive(Clone, Debug)]
pub enum LedgerPlace {
    /// A file, created if it does not exist. Processes of one host may share it.
    Sqlite(PathBuf),
    /// `postgres://…`, one URL for each server, at least one, all with the same database.
    Postgres(Vec<Secret>),
}

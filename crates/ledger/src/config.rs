//! Where the ledger is, and its bounds.

use std::path::PathBuf;
use std::time::Duration;

use lanekeeper_core::secret::Secret;

/// `[ledger]` of the config.
#[derive(Clone, Debug)]
pub struct LedgerConfig {
    /// The database.
    pub place: LedgerPlace,
    /// How long resolved ids are known; a minute to ten years.
    pub retention: Duration,
    /// Hold a record's row during its attempts. Only with PostgreSQL.
    pub row_lock: bool,
    /// Most parked updates over all records; at least 1.
    pub parked_max: u64,
    /// Most connections for row locks; at least 1.
    pub connections_max: u32,
}

/// The database of a ledger.
#[derive(Clone, Debug)]
pub enum LedgerPlace {
    /// A file, made where it is missing. Processes of one host may share it.
    Sqlite(PathBuf),
    /// `postgres://…`.
    Postgres(Secret),
}

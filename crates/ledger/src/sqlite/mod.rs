//! The ledger in a SQLite file, for the processes of one host.

mod database;
mod lock;
#[path = "../sql/mod.rs"]
#[allow(clippy::duplicate_mod, reason = "sql/mod.rs says why it is compiled once for each database")]
mod sql;

pub use sql::store::SqlStore as SqliteLedger;

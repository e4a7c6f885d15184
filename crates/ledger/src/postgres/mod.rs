//! The ledger in PostgreSQL, for dispatchers on several hosts.

mod database;
mod hosts;
mod lock;
mod relay;
#[path = "../sql/mod.rs"]
mod sql;

pub use lock::RecordLock;
pub use sql::store::SqlStore as PostgresLedger;

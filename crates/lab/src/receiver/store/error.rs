//! Why a store cannot be opened, and why a request to it failed.

use std::error::Error;
use std::time::Duration;

use super::address::StoreAddress;

/// The version of the schema that this program makes and knows.
pub(super) const SCHEMA_VERSION: i64 = 1;
/// Time limit of a transaction that waits for a lock or a connection; then the request is answered 503.
pub(super) const WAIT_MAX: Duration = Duration::from_secs(5);

/// Why a store cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenStoreError {
    /// It does not exist, refuses the connection, or is no such store.
    #[error("cannot open {address}")]
    Open {
        /// Its address.
        address: StoreAddress,
        /// The error of the database's client.
        #[source]
        source: Box<dyn Error + Send + Sync>,
    },
    /// A newer program has created its tables.
    #[error(
        "{address} has schema version {found}; this program knows versions up to {SCHEMA_VERSION}: use a newer one"
    )]
    Newer {
        /// Its address.
        address: StoreAddress,
        /// The version of its schema.
        found: i64,
    },
}

/// Why a store could not serve a request.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// Others held a lock, or all connections, for too long.
    #[error("the record or the store is in use, for longer than {} s", WAIT_MAX.as_secs())]
    Busy,
    /// The record's key, or another text of the request, has a character that the store cannot keep.
    #[error("PostgreSQL cannot keep a text with the character NUL")]
    Unfit,
    /// Anything else.
    #[error("the store failed: {0}")]
    Failed(sqlx::Error),
}

impl From<sqlx::Error> for StoreError {
    fn from(error: sqlx::Error) -> Self {
        // PostgreSQL: lock_not_available, deadlock_detected, serialization_failure. SQLite: SQLITE_BUSY in its forms.
        const BUSY: [&str; 6] = ["55P03", "40P01", "40001", "5", "261", "517"];
        let code = error.as_database_error().and_then(sqlx::error::DatabaseError::code);
        match code.as_deref() {
            Some(code) if BUSY.contains(&code) => Self::Busy,
            Some("22021") => Self::Unfit, // character_not_in_repertoire
            _ if matches!(error, sqlx::Error::PoolTimedOut) => Self::Busy,
            _ => Self::Failed(error),
        }
    }
}

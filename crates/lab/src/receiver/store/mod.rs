//! Where the receiver keeps its records: in memory, in SQLite or in PostgreSQL.
//!
//! Each store applies an update in one transaction: it reads the record (and locks it, with row locks), looks for the
//! idempotency key, checks, thinks, and writes both. The checks are those of `rules`. The statements of the databases are
//! files below `sql`, and docs/receiving.md explains them.

mod address;
mod error;
mod memory;
mod postgres;
mod row;
mod sqlite;
mod statements;

pub use self::address::{StoreAddress, StoreAddressError};
pub use self::error::{OpenStoreError, StoreError};
use self::memory::MemoryStore;
use self::postgres::PostgresStore;
use self::row::Newer;
use self::sqlite::SqliteStore;
use super::judge::Judges;
use super::rules::{Change, Row, WriteOutcome};
use super::settings::ReceiverSettings;

/// A store that is open.
#[derive(Debug)]
pub(super) enum Store {
    Memory(Box<MemoryStore>),
    Sqlite(SqliteStore),
    Postgres(PostgresStore),
}

impl Store {
    pub(super) fn memory() -> Self {
        Self::Memory(Box::default())
    }

    /// When this has returned, the tables exist.
    pub(super) async fn open(address: &StoreAddress) -> Result<Self, OpenStoreError> {
        let opened = match address {
            StoreAddress::Memory => return Ok(Self::memory()),
            StoreAddress::Sqlite(file) => {
                SqliteStore::open(file).await.map(|opened| opened.map(Self::Sqlite))
            }
            StoreAddress::Postgres(url) => {
                PostgresStore::open(url).await.map(|opened| opened.map(Self::Postgres))
            }
        };
        match opened {
            Ok(Ok(store)) => Ok(store),
            Ok(Err(Newer(found))) => Err(OpenStoreError::Newer { address: address.clone(), found }),
            Err(source) => Err(OpenStoreError::Open { address: address.clone(), source: Box::new(source) }),
        }
    }

    /// The record; `None`: it has no value.
    pub(super) async fn read(&self, record_key: &str) -> Result<Option<Row>, StoreError> {
        let row = match self {
            Self::Memory(memory) => memory.read(record_key),
            Self::Sqlite(sqlite) => sqlite.read(record_key).await?,
            Self::Postgres(postgres) => postgres.read(record_key).await?,
        };
        Ok(row.filter(|row| row.version > 0))
    }

    /// Applies a change, or says why not. When this has returned `Applied`, the change is as durable as the store. The
    /// judges learn of it while nobody else can write to the record.
    ///
    /// # Errors
    /// Nothing was applied. If the commit failed, this is not certain.
    pub(super) async fn write(
        &self,
        change: &Change,
        settings: &ReceiverSettings,
        judges: &Judges,
    ) -> Result<WriteOutcome, StoreError> {
        match self {
            Self::Memory(memory) => Ok(memory.write(change, settings, judges).await),
            Self::Sqlite(sqlite) => sqlite.write(change, settings, judges).await,
            Self::Postgres(postgres) => postgres.write(change, settings, judges).await,
        }
    }

    /// Deletes all records and keys.
    pub(super) async fn clear(&self) -> Result<(), StoreError> {
        match self {
            Self::Memory(memory) => memory.clear(),
            Self::Sqlite(sqlite) => sqlite.clear().await?,
            Self::Postgres(postgres) => postgres.clear().await?,
        }
        Ok(())
    }
}

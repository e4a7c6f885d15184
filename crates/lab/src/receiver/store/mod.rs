//! Where the receiver keeps its records: in memory, in SQLite or in PostgreSQL.
//!
//! Each applies an update in one transaction: read the record (locked, with row locks), look for the idempotency key,
//! check, think, write both. The checks are those of `rules`; the statements of the databases are files below `sql`, and
//! docs/receiving.md explains them.

mod memory;
mod postgres;
mod sqlite;
mod statements;

use std::error::Error;
use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use ring::digest::{SHA256, digest};

use self::memory::MemoryStore;
use self::postgres::PostgresStore;
use self::sqlite::SqliteStore;
use super::Judges;
use super::rules::{Change, KeySeen, Row, Safeguards, WriteOutcome};
use super::settings::ReceiverSettings;

/// How long a transaction waits for a lock or a connection; then the request is answered 503.
const WAIT_MAX: Duration = Duration::from_secs(5);
/// The schema that this program makes and knows.
const SCHEMA_VERSION: i64 = 1;
/// Idempotency keys kept per record: those of its latest versions.
const KEYS_MAX: u64 = 512;
/// Keys too old are deleted every so many versions of a record.
const FORGET_EVERY: u64 = 64;

/// Where records are kept.
#[derive(Clone, PartialEq, Eq)]
pub enum StoreAddress {
    /// `memory`: they end with the receiver.
    Memory,
    /// `sqlite://FILE`. The file is made where it is not there.
    Sqlite(PathBuf),
    /// `postgres://USER:PASSWORD@HOST:PORT/DATABASE`. The tables are made in that database; it has to be there.
    Postgres(String),
}

/// A text is no address of a store.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("write memory, sqlite://FILE or postgres://USER:PASSWORD@HOST:PORT/DATABASE")]
pub struct StoreAddressFault;

impl FromStr for StoreAddress {
    type Err = StoreAddressFault;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text.split_once("://") {
            None if text == "memory" => Ok(Self::Memory),
            Some(("sqlite", file)) if !file.is_empty() => Ok(Self::Sqlite(PathBuf::from(file))),
            Some(("postgres" | "postgresql", rest)) if !rest.is_empty() => {
                Ok(Self::Postgres(text.to_owned()))
            }
            _ => Err(StoreAddressFault),
        }
    }
}

/// Without user and password.
impl fmt::Display for StoreAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Memory => write!(f, "memory"),
            Self::Sqlite(file) => write!(f, "sqlite://{}", file.display()),
            Self::Postgres(url) => {
                let place = url
                    .rsplit_once('@')
                    .map_or_else(|| url.split_once("://").map_or("", |(_, place)| place), |(_, place)| place);
                write!(f, "postgres://{}", place.split('?').next().unwrap_or_default())
            }
        }
    }
}

impl fmt::Debug for StoreAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Why a store cannot be used at all.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// It is not there, refuses us, or is no such store.
    #[error("cannot open {address}")]
    Open {
        /// Which.
        address: StoreAddress,
        /// The database client's own words.
        #[source]
        source: Box<dyn Error + Send + Sync>,
    },
    /// A later program has made its tables.
    #[error(
        "{address} has schema version {found}; this program knows versions up to {SCHEMA_VERSION}: use a newer one"
    )]
    Newer {
        /// Which.
        address: StoreAddress,
        /// The version that it has.
        found: i64,
    },
}

/// Why a store did not do what a request asked for.
#[derive(Debug, thiserror::Error)]
pub enum StoreFault {
    /// Something else held a lock or all connections for too long.
    #[error("the record or the store is in use, for longer than {} s", WAIT_MAX.as_secs())]
    Busy,
    /// The record's key, or another text of the request, has a character that it cannot keep.
    #[error("PostgreSQL cannot keep a text with the character NUL")]
    Unfit,
    /// Anything else.
    #[error("the store failed: {0}")]
    Failed(sqlx::Error),
}

impl From<sqlx::Error> for StoreFault {
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

    /// When it has returned, the tables are there.
    pub(super) async fn open(address: &StoreAddress) -> Result<Self, StoreError> {
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
            Ok(Err(Newer(found))) => Err(StoreError::Newer { address: address.clone(), found }),
            Err(source) => Err(StoreError::Open { address: address.clone(), source: Box::new(source) }),
        }
    }

    /// The record as it is, or `None` where it has no value.
    pub(super) async fn read(&self, record_key: &str) -> Result<Option<Row>, StoreFault> {
        let row = match self {
            Self::Memory(memory) => memory.read(record_key),
            Self::Sqlite(sqlite) => sqlite.read(record_key).await?,
            Self::Postgres(postgres) => postgres.read(record_key).await?,
        };
        Ok(row.filter(|row| row.version > 0))
    }

    /// Applies a change, or says why not. When it has returned `Applied`, the change is as durable as the store is. The
    /// judges are told while nobody else can write to the record.
    ///
    /// # Errors
    /// Nothing is applied; where the fault came with the commit, that is not certain.
    pub(super) async fn write(
        &self,
        change: &Change,
        settings: &ReceiverSettings,
        judges: &Judges,
    ) -> Result<WriteOutcome, StoreFault> {
        match self {
            Self::Memory(memory) => Ok(memory.write(change, settings, judges).await),
            Self::Sqlite(sqlite) => sqlite.write(change, settings, judges).await,
            Self::Postgres(postgres) => postgres.write(change, settings, judges).await,
        }
    }

    /// Forgets all records and keys.
    pub(super) async fn clear(&self) -> Result<(), StoreFault> {
        match self {
            Self::Memory(memory) => memory.clear(),
            Self::Sqlite(sqlite) => sqlite.clear().await?,
            Self::Postgres(postgres) => postgres.clear().await?,
        }
        Ok(())
    }
}

/// A schema of a later program: its version.
struct Newer(i64);

/// A row as databases give it.
type RowRead = (i64, Option<i64>, i64, Option<String>, Vec<u8>);

fn row_of((version, record_version, tenure, content_type, body): RowRead) -> Row {
    Row { version: unsigned(version), record_version, tenure: unsigned(tenure), content_type, body }
}

/// What a key that was found says of a change: the stored hash, the version of the answer.
fn key_seen(found: Option<(Vec<u8>, i64)>, change: &Change) -> KeySeen {
    match found {
        None => KeySeen::Never,
        Some((hash, version)) if hash == request_hash(change) => {
            KeySeen::Applied { version: unsigned(version) }
        }
        Some(_) => KeySeen::WithOtherBody,
    }
}

/// The tenure that the record has to learn from a request that is answered without a write, so that an older owner is
/// refused from now on.
fn tenure_to_raise(row: &Row, change: &Change, written: WriteOutcome, safeguards: Safeguards) -> Option<u64> {
    let raises = safeguards.fencing && written != WriteOutcome::OlderTenure;
    change.tenure.filter(|tenure| raises && *tenure > row.tenure)
}

/// Keys of a version at or below this one are too old, now that the record has reached this version; zero: none, or
/// not now.
fn forget_up_to(version: u64) -> u64 {
    if version.is_multiple_of(FORGET_EVERY) { version.saturating_sub(KEYS_MAX) } else { 0 }
}

/// A key that came in between, from a request that did not lock the record: that request has only just ended.
fn refused_key(error: sqlx::Error) -> Result<WriteOutcome, StoreFault> {
    match error.as_database_error() {
        Some(database) if database.is_unique_violation() => Ok(WriteOutcome::KeyInProgress),
        _ => Err(error.into()),
    }
}

fn request_hash(change: &Change) -> Vec<u8> {
    digest(&SHA256, &change.body).as_ref().to_vec()
}

/// Databases have signed integers only. What does not fit is the largest: no broker counts that far.
fn signed(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

fn unsigned(number: i64) -> u64 {
    u64::try_from(number).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_urls_and_never_show_a_password() {
        let check = |text: &str, shown: &str| {
            let address: StoreAddress = text.parse().unwrap();
            assert_eq!((address.to_string(), format!("{address:?}")), (shown.to_owned(), shown.to_owned()));
        };
        check("memory", "memory");
        check("sqlite://records.db", "sqlite://records.db");
        check("sqlite:///var/lib/records.db", "sqlite:///var/lib/records.db");
        check("postgres://me:secret@db:5432/crm?sslmode=require", "postgres://db:5432/crm");
        check("postgresql://me:p%40ss@db/crm", "postgres://db/crm");
        check("postgres:///crm?user=me&password=secret", "postgres:///crm");
        for text in ["", "Memory", "sqlite://", "postgres://", "mysql://db/crm", "records.db"] {
            assert_eq!(text.parse::<StoreAddress>(), Err(StoreAddressFault), "{text:?}");
        }
    }

    #[test]
    fn keys_are_forgotten_now_and_then() {
        assert_eq!(forget_up_to(FORGET_EVERY), 0);
        assert_eq!(forget_up_to(KEYS_MAX + FORGET_EVERY), FORGET_EVERY);
        assert_eq!(forget_up_to(KEYS_MAX + FORGET_EVERY + 1), 0);
    }
}

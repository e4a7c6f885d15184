//! What is particular to SQLite: types, settings, and the statements that differ.
//!
//! Journal mode WAL: readers do not wait for the writer. `synchronous = FULL`: a commit is on disk when it returns
//! (<https://sqlite.org/pragma.html#pragma_synchronous>; with NORMAL a power failure can lose the last ones).

use std::fs::{OpenOptions, Permissions};
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::Path;
use std::time::Duration;

use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqliteRow, SqliteSynchronous};
use sqlx::{ConnectOptions as _, Connection as _, SqliteConnection, Transaction, query};
use tokio::time::timeout;

use super::sql::connection_slot::ANSWER_MAX;
use crate::config::{LedgerConfig, LedgerPlace};
use crate::entry::Query;
use crate::error::LedgerError;
use crate::rows::{self, RecordRow, ResolvedRow};
use lanekeeper_core::update::{IdOrigin, RecordKey};

pub type Connection = SqliteConnection;
pub type Row = SqliteRow;

/// How the file is opened.
#[derive(Clone, Debug)]
pub struct Options(SqliteConnectOptions);

/// There is only one file.
#[derive(Clone, Copy, Debug)]
pub struct Mark;

impl Options {
    pub async fn open(&self) -> Result<(Connection, Mark), LedgerError> {
        let opening = timeout(ANSWER_MAX, self.0.connect()).await;
        let connection = opening.map_err(|_| LedgerError::TimedOut { seconds: ANSWER_MAX.as_secs() })??;
        Ok((connection, Mark))
    }

    #[expect(clippy::unused_self, clippy::unnecessary_wraps, reason = "PostgreSQL has users")]
    pub fn change_users(&self, _: &LedgerConfig) -> Result<(), LedgerError> {
        Ok(())
    }

    #[expect(clippy::unused_self, reason = "with PostgreSQL there are several servers")]
    pub fn is_current(&self, Mark: Mark) -> bool {
        true
    }

    #[expect(clippy::unused_self, reason = "as above")]
    pub fn suspect(&self, Mark: Mark, _: &LedgerError) {}

    pub async fn unusable(&self) -> LedgerError {
        std::future::pending().await
    }
}

/// A file takes writes or is an error.
pub async fn check(_: &mut Connection, Mark: Mark) -> Result<(), LedgerError> {
    Ok(())
}

/// Seconds since 1970 by the database's clock, which all processes share.
pub const NOW_SECONDS: &str = "unixepoch()";

/// In order. A migration that was released is never changed.
pub const MIGRATIONS: [&str; 1] = [include_str!("schema_1.sql")];

/// Tables that came later, and that programs of before need not know: these go on using the ledger. The same holds for them.
pub const ADDITIONS: [&str; 4] = [
    include_str!("schema_2.sql"),
    include_str!("schema_3.sql"),
    include_str!("schema_4.sql"),
    include_str!("schema_5.sql"),
];

/// Without `FOR UPDATE`: a writer has locked the whole file.
pub const LOCK_PARKED_RECORD: &str = "SELECT state FROM ledger_parked_record WHERE record_key = $1";

/// As above.
pub const LOCK_PAUSED_RECORD: &str = "SELECT who, why FROM ledger_paused_record WHERE record_key = $1";

/// A record key contains the bytes `$7`.
pub const KEY_CONTAINS: &str = "instr(record_key, $7) > 0";

/// How long a writer of another process may hold the file.
const BUSY_MAX: Duration = Duration::from_secs(5);

pub fn options(config: &LedgerConfig) -> Result<Options, LedgerError> {
    let LedgerPlace::Sqlite(path) = &config.place else {
        return Err(LedgerError::Damaged { what: "the URL" });
    };
    create_private(path);
    let options = SqliteConnectOptions::new()
        .filename(path)
        .create_if_missing(true)
        .journal_mode(SqliteJournalMode::Wal)
        .synchronous(SqliteSynchronous::Full)
        .busy_timeout(BUSY_MAX);
    Ok(Options(options))
}

/// Creates a new ledger readable by its owner alone, whatever the umask: it holds bodies and record keys. SQLite gives the
/// files beside it the same permissions. If it cannot be created, SQLite says why when it opens it.
fn create_private(path: &Path) {
    const OWNER_ALONE: u32 = 0o600;
    let created = OpenOptions::new().write(true).create_new(true).mode(OWNER_ALONE).open(path);
    // A umask can have taken even these.
    let _ = created.and_then(|file| file.set_permissions(Permissions::from_mode(OWNER_ALONE)));
}

/// Begins a transaction as a writer: one that begins as a reader could not wait for another writer later.
pub async fn begin(connection: &mut Connection) -> Result<Transaction<'_, sqlx::Sqlite>, sqlx::Error> {
    connection.begin_with("BEGIN IMMEDIATE").await
}

/// A writer is alone anyway.
pub async fn one_at_a_time(_: &mut Connection) -> Result<(), sqlx::Error> {
    Ok(())
}

/// A row for each partition with its highest tenure.
pub async fn tenure_rows(connection: &mut Connection, _: &[(i64, i64)]) -> Result<Vec<Row>, sqlx::Error> {
    query("SELECT layout, partition, number FROM ledger_tenure").fetch_all(connection).await
}

pub async fn keep_resolved(
    connection: &mut Connection,
    resolved: &[ResolvedRow<'_>],
    now: i64,
) -> Result<(), sqlx::Error> {
    let new = rows_as_json(resolved, |row| {
        (row.update_id, hex(rows::key(row.record_key)), hex(&row.fingerprint.0), row.resolution, row.status)
    });
    let kept = query(
        "INSERT INTO ledger_resolved_update (update_id, record_key, fingerprint, resolution, status, at_ms)
         SELECT value ->> 0, unhex(value ->> 1), unhex(value ->> 2), value ->> 3, value ->> 4, $2
         FROM json_each($1) WHERE true ORDER BY key
         ON CONFLICT (update_id) DO NOTHING",
    )
    .bind(&new)
    .bind(now)
    .execute(&mut *connection)
    .await?;
    if kept.rows_affected() == resolved.len() as u64 {
        return Ok(());
    }
    // Some ids are known. Those of other records are kept apart.
    query(
        "INSERT INTO ledger_resolved_shared_id (update_id, record_key, fingerprint, resolution, status, at_ms)
         SELECT value ->> 0, unhex(value ->> 1), unhex(value ->> 2), value ->> 3, value ->> 4, $2
         FROM json_each($1) JOIN ledger_resolved_update u ON u.update_id = value ->> 0
         WHERE u.record_key <> unhex(value ->> 1) ORDER BY key
         ON CONFLICT (update_id, record_key) DO NOTHING",
    )
    .bind(new)
    .bind(now)
    .execute(connection)
    .await?;
    Ok(())
}

pub async fn keep_records(
    connection: &mut Connection,
    records: &[(&RecordKey, RecordRow<'_>)],
    now: i64,
) -> Result<(), sqlx::Error> {
    let new = rows_as_json(records, |(record_key, row)| {
        (hex(rows::key(record_key)), row.version, row.etag, row.update_id)
    });
    query(
        "INSERT INTO ledger_record (record_key, version, etag, update_id, at_ms)
         SELECT unhex(value ->> 0), value ->> 1, value ->> 2, value ->> 3, $2 FROM json_each($1) WHERE true
         ON CONFLICT (record_key) DO UPDATE SET
             version = CASE WHEN ledger_record.version IS NULL OR excluded.version > ledger_record.version
                 THEN excluded.version ELSE ledger_record.version END,
             etag = excluded.etag, update_id = excluded.update_id, at_ms = excluded.at_ms",
    )
    .bind(new)
    .bind(now)
    .execute(connection)
    .await?;
    Ok(())
}

/// A row for each query, in order.
pub async fn lookup_rows(connection: &mut Connection, queries: &[Query]) -> Result<Vec<Row>, LedgerError> {
    let asked = rows_as_json(queries, |asked| {
        let id = (asked.id.origin() == IdOrigin::Publisher).then_some(asked.id.as_str());
        (hex(rows::key(&asked.record_key)), id)
    });
    Ok(query(
        "SELECT CASE WHEN u.record_key = asked.record_key THEN u.fingerprint ELSE s.fingerprint END AS fingerprint,
             r.version, r.etag, p.record_key IS NOT NULL AS parked, h.record_key IS NOT NULL AS paused
         FROM (SELECT key AS place, unhex(value ->> 0) AS record_key, value ->> 1 AS id FROM json_each($1)) asked
         LEFT JOIN ledger_resolved_update u ON u.update_id = asked.id
         LEFT JOIN ledger_resolved_shared_id s ON s.update_id = asked.id AND s.record_key = asked.record_key
         LEFT JOIN ledger_record r ON r.record_key = asked.record_key
         LEFT JOIN ledger_parked_record p ON p.record_key = asked.record_key
         LEFT JOIN ledger_paused_record h ON h.record_key = asked.record_key
         ORDER BY asked.place",
    )
    .bind(asked)
    .fetch_all(connection)
    .await?)
}

/// Many rows in one argument. A statement per row would cost a message to SQLite's thread and back for each.
fn rows_as_json<'a, T, R: serde::Serialize>(items: &'a [T], row: impl Fn(&'a T) -> R) -> String {
    let rows: Vec<R> = items.iter().map(row).collect();
    serde_json::to_string(&rows).expect("strings and numbers are JSON")
}

/// JSON has no bytes.
fn hex(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let digit = |nibble: u8| char::from(DIGITS[usize::from(nibble)]);
    bytes.iter().flat_map(|byte| [digit(byte >> 4), digit(byte & 15)]).collect()
}

/// The size of the file and its write-ahead log.
pub async fn bytes(_: &mut Connection, config: &LedgerConfig) -> Result<u64, LedgerError> {
    let LedgerPlace::Sqlite(path) = &config.place else { return Ok(0) };
    let size = |path: &Path| std::fs::metadata(path).map_or(0, |file| file.len());
    let mut log = path.clone().into_os_string();
    log.push("-wal");
    Ok(size(path) + size(log.as_ref()))
}

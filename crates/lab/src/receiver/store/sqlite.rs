//! Records in SQLite, which locks the whole file instead of a row: `BEGIN IMMEDIATE` is its row lock.

use std::path::Path;

use sqlx::sqlite::{
    SqliteConnectOptions, SqliteJournalMode, SqlitePool, SqlitePoolOptions, SqliteSynchronous,
};
use sqlx::{SqliteConnection, query, query_as, query_scalar, raw_sql};
use tokio::time::sleep;

use super::error::{SCHEMA_VERSION, StoreError, WAIT_MAX};
use super::row::{Newer, RowRead, key_seen, refused_key, row_of, signed, tenure_to_raise};
use super::statements::{CLEAR, FIND_KEY, RAISE_TENURE, READ_ROW, write_both};
use crate::receiver::body::BodyMembers;
use crate::receiver::judge::Judges;
use crate::receiver::rules::{self, Change, KeySeen, Row, WriteOutcome};
use crate::receiver::settings::ReceiverSettings;

const SCHEMA: &str = include_str!("../sql/sqlite/schema.sql");
const SET_SCHEMA_VERSION: &str = "PRAGMA user_version = 1";
/// Takes the lock at once. A plain BEGIN takes it with the first write, and then fails if somebody has written since the
/// read.
const BEGIN: &str = "BEGIN IMMEDIATE";

/// Reads at the same time.
const READERS_MAX: u32 = 4;

/// See the module.
#[derive(Debug)]
pub(in crate::receiver) struct SqliteStore {
    /// One connection: waiting for it is fair, and waiting for SQLite's lock is not.
    writer: SqlitePool,
    readers: SqlitePool,
}

impl SqliteStore {
    pub(super) async fn open(file: &Path) -> sqlx::Result<Result<Self, Newer>> {
        let options = SqliteConnectOptions::new()
            .filename(file)
            .create_if_missing(true)
            .journal_mode(SqliteJournalMode::Wal)
            .synchronous(SqliteSynchronous::Full)
            .busy_timeout(WAIT_MAX);
        let pool = |connections_max| {
            SqlitePoolOptions::new().max_connections(connections_max).acquire_timeout(WAIT_MAX)
        };
        let writer = pool(1).connect_with(options.clone()).await?;
        let mut transaction = writer.begin_with(BEGIN).await?;
        let version: i64 = query_scalar("PRAGMA user_version").fetch_one(&mut *transaction).await?;
        match version {
            0 => {
                raw_sql(SCHEMA).execute(&mut *transaction).await?;
                raw_sql(SET_SCHEMA_VERSION).execute(&mut *transaction).await?;
            }
            version if version > SCHEMA_VERSION => return Ok(Err(Newer(version))),
            _ => {}
        }
        transaction.commit().await?;
        let readers = pool(READERS_MAX).connect_with(options.read_only(true)).await?;
        Ok(Ok(Self { writer, readers }))
    }

    pub(super) async fn read(&self, record_key: &str) -> Result<Option<Row>, StoreError> {
        let read = query_as::<_, RowRead>(READ_ROW).bind(record_key).fetch_optional(&self.readers).await?;
        Ok(read.map(row_of))
    }

    pub(super) async fn clear(&self) -> Result<(), StoreError> {
        let mut transaction = self.writer.begin_with(BEGIN).await?;
        raw_sql(CLEAR).execute(&mut *transaction).await?;
        Ok(transaction.commit().await?)
    }

    pub(super) async fn write(
        &self,
        change: &Change,
        settings: &ReceiverSettings,
        judges: &Judges,
    ) -> Result<WriteOutcome, StoreError> {
        let mut locked = if settings.safeguards.row_locks {
            Some(self.writer.begin_with(BEGIN).await?)
        } else {
            None // the row can have changed when it is written
        };
        let (mut row, key) = match &mut locked {
            Some(transaction) => read_both(&mut *transaction, change).await?,
            None => read_both(&mut *self.readers.acquire().await?, change).await?,
        };
        let checked = rules::check(&row, key, change, settings.safeguards, settings.require_if_match);
        if let Some(written) = checked {
            let raised = tenure_to_raise(&row, change, written, settings.safeguards);
            if let (Some(tenure), Some(mut transaction)) = (raised, locked) {
                let raise = query(RAISE_TENURE).bind(&change.record_key).bind(signed(tenure));
                raise.execute(&mut *transaction).await?;
                transaction.commit().await?;
            }
            return Ok(written);
        }

        let before = row.body.clone();
        row.apply(change);
        sleep(settings.think).await;
        let mut transaction = match locked {
            Some(transaction) => transaction,
            None => self.writer.begin_with(BEGIN).await?,
        };
        if let Err(error) = write_both!(&mut *transaction, change, row) {
            return refused_key(error);
        }
        // Nobody else can write before the commit, so the judge sees changes in the order of their commits.
        let sequence_before = || BodyMembers::of(&before).sequence.unwrap_or_default();
        judges.of(&change.record_key).applied(change, &row, sequence_before);
        transaction.commit().await?;
        Ok(WriteOutcome::Applied { version: row.version })
    }
}

/// Reads the record, and what is known of the idempotency key.
async fn read_both(connection: &mut SqliteConnection, change: &Change) -> sqlx::Result<(Row, KeySeen)> {
    let read = query_as::<_, RowRead>(READ_ROW).bind(&change.record_key);
    let row = read.fetch_optional(&mut *connection).await?.map(row_of).unwrap_or_default();
    let Some(key) = &change.idempotency_key else { return Ok((row, KeySeen::Never)) };
    let find = query_as(FIND_KEY).bind(&change.record_key).bind(key);
    Ok((row, key_seen(find.fetch_optional(&mut *connection).await?, change)))
}

//! Records in PostgreSQL.

use std::str::FromStr;

use sqlx::postgres::{PgConnectOptions, PgPool, PgPoolOptions};
use sqlx::{PgConnection, query, query_as, query_scalar, raw_sql};
use tokio::time::sleep;

use super::error::{SCHEMA_VERSION, StoreError, WAIT_MAX};
use super::row::{Newer, RowRead, key_seen, refused_key, row_of, signed, tenure_to_raise};
use super::statements::{CLEAR, FIND_KEY, RAISE_TENURE, READ_ROW, write_both};
use crate::receiver::body::BodyMembers;
use crate::receiver::judge::Judges;
use crate::receiver::rules::{self, Change, KeySeen, Row, WriteOutcome};
use crate::receiver::settings::ReceiverSettings;

const SCHEMA: &str = include_str!("../sql/postgres/schema.sql");
const LOCK_KEY: &str = include_str!("../sql/postgres/lock_key.sql");
const LOCK_ROW: &str = include_str!("../sql/postgres/lock_row.sql");
const MAKE_ROW: &str = include_str!("../sql/postgres/make_row.sql");

/// Transactions at the same time.
const CONNECTIONS_MAX: u32 = 16;
/// The advisory lock under which the tables are created; any number.
const SCHEMA_LOCK: i64 = 0x6c61_6e65_7265_6376;

/// See the module.
#[derive(Debug)]
pub(in crate::receiver) struct PostgresStore {
    pool: PgPool,
}

impl PostgresStore {
    pub(super) async fn open(url: &str) -> sqlx::Result<Result<Self, Newer>> {
        let lock_timeout = WAIT_MAX.as_millis().to_string();
        let options = PgConnectOptions::from_str(url)?.options([("lock_timeout", lock_timeout)]);
        let pool = PgPoolOptions::new().max_connections(CONNECTIONS_MAX).acquire_timeout(WAIT_MAX);
        let pool = pool.connect_with(options).await?;
        let mut transaction = pool.begin().await?;
        query("SELECT pg_advisory_xact_lock($1)").bind(SCHEMA_LOCK).execute(&mut *transaction).await?;
        let versions = "CREATE TABLE IF NOT EXISTS receiver_schema (version bigint NOT NULL)";
        query(versions).execute(&mut *transaction).await?;
        let version: Option<i64> =
            query_scalar("SELECT max(version) FROM receiver_schema").fetch_one(&mut *transaction).await?;
        match version {
            None => {
                raw_sql(SCHEMA).execute(&mut *transaction).await?;
                let keep = query("INSERT INTO receiver_schema (version) VALUES ($1)").bind(SCHEMA_VERSION);
                keep.execute(&mut *transaction).await?;
            }
            Some(version) if version > SCHEMA_VERSION => return Ok(Err(Newer(version))),
            Some(_) => {}
        }
        transaction.commit().await?;
        Ok(Ok(Self { pool }))
    }

    pub(super) async fn read(&self, record_key: &str) -> Result<Option<Row>, StoreError> {
        let read = query_as::<_, RowRead>(READ_ROW).bind(record_key).fetch_optional(&self.pool).await?;
        Ok(read.map(row_of))
    }

    pub(super) async fn clear(&self) -> Result<(), StoreError> {
        let mut transaction = self.pool.begin().await?;
        raw_sql(CLEAR).execute(&mut *transaction).await?;
        Ok(transaction.commit().await?)
    }

    /// One transaction. It has ended when this returns: a key or a record that were locked in it are free before the answer
    /// goes out. If this future is dropped before the commit, it is rolled back.
    pub(super) async fn write(
        &self,
        change: &Change,
        settings: &ReceiverSettings,
        judges: &Judges,
    ) -> Result<WriteOutcome, StoreError> {
        let mut transaction = self.pool.begin().await?;
        let record_key = change.record_key.as_str();
        if let Some(key) = &change.idempotency_key {
            let lock = query_scalar(LOCK_KEY).bind(record_key).bind(key);
            let is_ours: bool = lock.fetch_one(&mut *transaction).await?;
            if !is_ours {
                return Ok(WriteOutcome::KeyInProgress);
            }
        }
        let mut row = if settings.safeguards.row_locks {
            locked(&mut transaction, record_key).await?
        } else {
            let read = query_as::<_, RowRead>(READ_ROW).bind(record_key);
            read.fetch_optional(&mut *transaction).await?.map(row_of).unwrap_or_default()
        };
        let key = match &change.idempotency_key {
            Some(key) => {
                let find = query_as(FIND_KEY).bind(record_key).bind(key);
                key_seen(find.fetch_optional(&mut *transaction).await?, change)
            }
            None => KeySeen::Never,
        };
        let checked = rules::check(&row, key, change, settings.safeguards, settings.require_if_match);
        if let Some(written) = checked {
            if let Some(tenure) = tenure_to_raise(&row, change, written, settings.safeguards) {
                let raise = query(RAISE_TENURE).bind(record_key).bind(signed(tenure));
                raise.execute(&mut *transaction).await?;
                transaction.commit().await?;
            } else {
                transaction.rollback().await?;
            }
            return Ok(written);
        }

        let before = row.body.clone();
        row.apply(change);
        sleep(settings.think).await;
        if let Err(error) = write_both!(&mut *transaction, change, row) {
            let refused = refused_key(error);
            transaction.rollback().await?;
            return refused;
        }
        // Nobody else can write to the record before the commit, so the judge sees changes in the order of their commits.
        let sequence_before = || BodyMembers::of(&before).sequence.unwrap_or_default();
        judges.of(record_key).applied(change, &row, sequence_before);
        transaction.commit().await?;
        Ok(WriteOutcome::Applied { version: row.version })
    }
}

/// The record, locked until the transaction ends. A record that does not exist cannot be locked, so it is created first;
/// two transactions that create it at the same time wait for each other.
async fn locked(connection: &mut PgConnection, record_key: &str) -> sqlx::Result<Row> {
    let lock = || query_as::<_, RowRead>(LOCK_ROW).bind(record_key);
    if let Some(read) = lock().fetch_optional(&mut *connection).await? {
        return Ok(row_of(read));
    }
    query(MAKE_ROW).bind(record_key).execute(&mut *connection).await?;
    lock().fetch_one(&mut *connection).await.map(row_of)
}

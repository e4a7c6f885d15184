//! Locks a record's row from before the attempt until its outcome is committed.

use std::fmt;
use std::time::{Duration, Instant};

use sqlx::postgres::{PgPool, PgPoolOptions};
use sqlx::{Postgres, Row as _, Transaction, query};
use tokio::time::timeout;

use super::database::Options;
use super::sql::connection_slot::ANSWER_MAX;
use super::sql::lookup::lookup;
use super::sql::write::{Bounds, Write, write};
use crate::config::LedgerConfig;
use crate::entry::{Entry, LookupResult, Query, Recorded};
use crate::error::LedgerError;
use crate::rows;

/// How long to wait for a free connection.
const CONNECTION_WAIT_MAX: Duration = Duration::from_secs(5);

/// Connections for row locks; each lock uses one.
#[derive(Debug)]
pub struct Locks {
    pool: PgPool,
    bounds: Bounds,
}

impl Locks {
    pub fn new(options: Options, config: &LedgerConfig) -> Self {
        let pool = PgPoolOptions::new()
            .max_connections(config.connections_max)
            .acquire_timeout(CONNECTION_WAIT_MAX)
            .connect_lazy_with(options);
        Self { pool, bounds: Bounds::of(config) }
    }

    pub async fn lock(&self, asked: Query) -> Result<(LookupResult, RecordLock), LedgerError> {
        let began = Instant::now();
        let mut transaction = self.pool.begin().await.map_err(|error| match error {
            // The pool gives the same error if the server is away. Only a full pool means that no connection is free.
            sqlx::Error::PoolTimedOut if self.pool.size() >= self.pool.options().get_max_connections() => {
                LedgerError::NoConnection
            }
            error => error.into(),
        })?;
        let work = async {
            lock_record(&mut transaction, &asked).await?;
            let lookup_result = lookup(&mut transaction, std::slice::from_ref(&asked)).await?.pop();
            lookup_result.ok_or(LedgerError::Damaged { what: "the answer to a query" })
        };
        let lookup_result = timeout(ANSWER_MAX, work).await.unwrap_or(Err(timed_out()))?;
        Ok((lookup_result, RecordLock { transaction, bounds: self.bounds, waited: began.elapsed() }))
    }
}

/// Locks the row, and inserts it if it does not exist. The one who inserts it has locked it.
async fn lock_record(
    transaction: &mut Transaction<'static, Postgres>,
    asked: &Query,
) -> Result<(), sqlx::Error> {
    let key = rows::key(&asked.record_key);
    let select = "SELECT at_ms FROM ledger_record WHERE record_key = $1 FOR UPDATE";
    if query(select).bind(key).fetch_optional(&mut **transaction).await?.is_some() {
        return Ok(());
    }
    query(
        "INSERT INTO ledger_record (record_key, update_id, at_ms) VALUES ($1, '', $2)
         ON CONFLICT (record_key) DO NOTHING",
    )
    .bind(key)
    .bind(rows::now_ms())
    .execute(&mut **transaction)
    .await?;
    query(select).bind(key).fetch_one(&mut **transaction).await?.try_get::<i64, _>("at_ms").map(drop)
}

/// A locked row of a record. Dropping it unlocks the row and writes nothing.
pub struct RecordLock {
    transaction: Transaction<'static, Postgres>,
    bounds: Bounds,
    waited: Duration,
}

impl RecordLock {
    /// How long it took to get the lock: a free connection and the row.
    #[must_use]
    pub fn waited(&self) -> Duration {
        self.waited
    }

    /// Writes an entry about this record and unlocks the row. When it has returned `Done`, the entry is committed.
    ///
    /// # Errors
    /// As [`crate::Ledger::record`]. The row is unlocked; the entry can be written with `record`.
    pub async fn record(mut self, entry: Entry) -> Result<Recorded, LedgerError> {
        let work = async {
            let answers = write(&mut self.transaction, &[Write::Entry(Box::new(entry))], self.bounds).await?;
            let recorded = answers.first().copied().unwrap_or(Recorded::Done);
            // Also if nothing of the entry was written: the tenure's number may be new.
            self.transaction.commit().await?;
            Ok(recorded)
        };
        timeout(ANSWER_MAX, work).await.unwrap_or(Err(timed_out()))
    }
}

fn timed_out() -> LedgerError {
    LedgerError::TimedOut { seconds: ANSWER_MAX.as_secs() }
}

impl fmt::Debug for RecordLock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RecordLock").field("waited", &self.waited).finish_non_exhaustive()
    }
}

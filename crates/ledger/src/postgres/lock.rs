//! Locks a record's row from before the attempt until its outcome is committed.

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use sqlx::{PgConnection, Row as _, query, raw_sql};
use tokio::runtime::Handle;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;

use super::database::Options;
use super::hosts::Mark;
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
    pool: Arc<Pool>,
    bounds: Bounds,
}

/// At most `ledger.connections_max` sessions.
#[derive(Debug)]
struct Pool {
    options: Options,
    permits: Arc<Semaphore>,
    idle: Mutex<Vec<Session>>,
}

/// A session that is in no transaction while it is idle. When it is dropped, it ends.
#[derive(Debug)]
struct Session {
    connection: PgConnection,
    mark: Mark,
}

impl Pool {
    fn idle(&self) -> MutexGuard<'_, Vec<Session>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// An idle session on the newest server, the one that was used last.
    fn take(&self) -> Option<Session> {
        let mut idle = self.idle();
        while let Some(session) = idle.pop() {
            if self.options.is_current(session.mark) {
                return Some(session);
            }
        }
        None
    }

    async fn open(&self) -> Result<Session, LedgerError> {
        let (connection, mark) = self.options.open().await?;
        Ok(Session { connection, mark })
    }

    /// For the next lock.
    fn release(&self, session: Session) {
        if self.options.is_current(session.mark) {
            self.idle().push(session);
        }
    }

    /// One session did not answer, or its server takes no writes: others of it would not do better, and each would cost a
    /// lock its time.
    fn forget_idle(&self) {
        self.idle().clear();
    }
}

/// Ends the idle sessions if it is dropped: whoever waited has given up.
struct Suspicion<'a>(Option<&'a Pool>);

impl Drop for Suspicion<'_> {
    fn drop(&mut self) {
        if let Some(pool) = self.0 {
            pool.forget_idle();
        }
    }
}

impl Locks {
    pub fn new(options: Options, config: &LedgerConfig) -> Self {
        let permits = usize::try_from(config.connections_max).unwrap_or(usize::MAX);
        let permits = Arc::new(Semaphore::new(permits.min(Semaphore::MAX_PERMITS)));
        let pool = Arc::new(Pool { options, permits, idle: Mutex::default() });
        Self { pool, bounds: Bounds::of(config) }
    }

    pub async fn lock(&self, asked: Query) -> Result<(LookupResult, RecordLock), LedgerError> {
        let began = Instant::now();
        let permit = timeout(CONNECTION_WAIT_MAX, Arc::clone(&self.pool.permits).acquire_owned()).await;
        let permit = permit.map_err(|_| LedgerError::NoConnection)?.map_err(|_| LedgerError::Closed)?;
        let mut suspicion = Suspicion(Some(&self.pool));
        let locked = match self.pool.take() {
            None => self.lock_in(self.pool.open().await?, &asked).await,
            Some(session) => match self.lock_in(session, &asked).await {
                // The server was started again while the session was idle.
                Err(LedgerError::Lost(_) | LedgerError::ReadOnly) => {
                    self.pool.forget_idle();
                    self.lock_in(self.pool.open().await?, &asked).await
                }
                locked => locked,
            },
        };
        if !matches!(&locked, Err(error) if error.is_of_the_server()) {
            suspicion.0 = None;
        }
        let (lookup_result, session) = locked?;
        let waited = began.elapsed();
        let held = Some((session, permit));
        let lock = RecordLock { held, pool: Arc::clone(&self.pool), bounds: self.bounds, waited };
        Ok((lookup_result, lock))
    }

    /// Locks the row in a transaction of this session. After an error the session ends, and with it the transaction.
    async fn lock_in(
        &self,
        mut session: Session,
        asked: &Query,
    ) -> Result<(LookupResult, Session), LedgerError> {
        let work = async {
            raw_sql("BEGIN").execute(&mut session.connection).await?;
            lock_record(&mut session.connection, asked).await?;
            let lookup_result = lookup(&mut session.connection, std::slice::from_ref(asked)).await?.pop();
            lookup_result.ok_or(LedgerError::Damaged { what: "the answer to a query" })
        };
        match timeout(ANSWER_MAX, work).await.unwrap_or(Err(timed_out())) {
            Ok(lookup_result) => Ok((lookup_result, session)),
            Err(error) => {
                self.pool.options.suspect(session.mark, &error);
                Err(error)
            }
        }
    }
}

/// Locks the row, and inserts it if it does not exist. The one who inserts it has locked it.
async fn lock_record(connection: &mut PgConnection, asked: &Query) -> Result<(), sqlx::Error> {
    let key = rows::key(&asked.record_key);
    let select = "SELECT at_ms FROM ledger_record WHERE record_key = $1 FOR UPDATE";
    if query(select).bind(key).fetch_optional(&mut *connection).await?.is_some() {
        return Ok(());
    }
    query(
        "INSERT INTO ledger_record (record_key, update_id, at_ms) VALUES ($1, '', $2)
         ON CONFLICT (record_key) DO NOTHING",
    )
    .bind(key)
    .bind(rows::now_ms())
    .execute(&mut *connection)
    .await?;
    query(select).bind(key).fetch_one(connection).await?.try_get::<i64, _>("at_ms").map(drop)
}

/// A locked row of a record. Dropping it unlocks the row and writes nothing.
pub struct RecordLock {
    /// `None`: it was used up.
    held: Option<(Session, OwnedSemaphorePermit)>,
    pool: Arc<Pool>,
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
        // From here on the session ends unless the commit is answered.
        let Some((mut session, permit)) = self.held.take() else { return Err(LedgerError::Closed) };
        let work = async {
            let writes = [Write::Entry(Box::new(entry))];
            let answers = write(&mut session.connection, &writes, self.bounds).await?;
            let recorded = answers.first().copied().unwrap_or(Recorded::Done);
            // Also if nothing of the entry was written: the tenure's number may be new.
            raw_sql("COMMIT").execute(&mut session.connection).await?;
            Ok(recorded)
        };
        let recorded = timeout(ANSWER_MAX, work).await.unwrap_or(Err(timed_out()));
        match &recorded {
            Ok(_) => self.pool.release(session),
            Err(error) => {
                self.pool.options.suspect(session.mark, error);
                if error.is_of_the_server() {
                    self.pool.forget_idle();
                }
            }
        }
        drop(permit);
        recorded
    }
}

impl Drop for RecordLock {
    fn drop(&mut self) {
        let (Some((mut session, permit)), Ok(runtime)) = (self.held.take(), Handle::try_current()) else {
            return;
        };
        let pool = Arc::clone(&self.pool);
        runtime.spawn(async move {
            let undoing = raw_sql("ROLLBACK").execute(&mut session.connection);
            match timeout(ANSWER_MAX, undoing).await {
                Ok(Ok(_)) => pool.release(session),
                Ok(Err(_)) | Err(_) => pool.forget_idle(),
            }
            drop(permit);
        });
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

//! A connection that is made again whenever it was lost.

use std::time::Duration;

use sqlx::ConnectOptions as _;
use tokio::sync::{Mutex, MutexGuard};
use tokio::time::{error::Elapsed, timeout};

use super::{Connection, Options};
use crate::error::LedgerError;

/// Longest wait for an answer of the database; longer than it waits for a lock of another process.
pub const ANSWER_MAX: Duration = Duration::from_secs(10);

/// One connection, for one at a time, in the order in which they ask.
#[derive(Debug)]
pub struct ConnectionSlot {
    options: Options,
    idle: Mutex<Option<Connection>>,
}

/// The connection of a line. If it is dropped without [`Lease::release`], it is closed and made again.
#[derive(Debug)]
pub struct Lease<'a> {
    slot: MutexGuard<'a, Option<Connection>>,
    /// The connection.
    pub connection: Connection,
}

impl ConnectionSlot {
    /// Without a connection yet.
    pub fn new(options: Options) -> Self {
        Self { options, idle: Mutex::new(None) }
    }

    /// Waits for its turn, and connects if need be.
    pub async fn acquire(&self) -> Result<Lease<'_>, LedgerError> {
        let mut slot = self.idle.lock().await;
        let connection = match slot.take() {
            Some(connection) => connection,
            None => timeout(ANSWER_MAX, self.options.connect()).await.map_err(timed_out)??,
        };
        Ok(Lease { slot, connection })
    }
}

impl Lease<'_> {
    /// Keeps the connection for the next one, unless something went wrong with it.
    pub fn release<T, E: Into<LedgerError>>(
        mut self,
        result: Result<Result<T, E>, Elapsed>,
    ) -> Result<T, LedgerError> {
        let answer = result.map_err(timed_out)?.map_err(Into::into)?;
        *self.slot = Some(self.connection);
        Ok(answer)
    }
}

fn timed_out(_: Elapsed) -> LedgerError {
    LedgerError::TimedOut { seconds: ANSWER_MAX.as_secs() }
}

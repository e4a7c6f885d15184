//! One database connection, reopened when it was lost.

use std::time::Duration;

use sqlx::ConnectOptions as _;
use tokio::sync::{Mutex, MutexGuard};
use tokio::time::{error::Elapsed, timeout};

use super::super::database::{Connection, Options};
use crate::error::LedgerError;

/// How long to wait for an answer of the database. Longer than the database waits for a lock of another process.
pub const ANSWER_MAX: Duration = Duration::from_secs(10);

/// One connection. Callers use it one at a time, in the order in which they ask.
#[derive(Debug)]
pub struct ConnectionSlot {
    options: Options,
    idle: Mutex<Option<Connection>>,
}

/// The connection of a slot, in use. If it is dropped without [`Lease::release`], the connection is closed, and the next
/// caller opens a new one.
#[derive(Debug)]
pub struct Lease<'a> {
    slot: MutexGuard<'a, Option<Connection>>,
    /// The connection.
    pub connection: Connection,
}

impl ConnectionSlot {
    /// A slot that is not connected yet.
    pub fn new(options: Options) -> Self {
        Self { options, idle: Mutex::new(None) }
    }

    /// Waits until the connection is free, and opens it if necessary.
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
    /// Returns the result. Keeps the connection for the next caller if the result is a success.
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

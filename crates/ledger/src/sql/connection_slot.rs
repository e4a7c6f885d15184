//! One database connection, reopened when it was lost.

use std::time::Duration;

use tokio::sync::{Mutex, MutexGuard};
use tokio::time::{error::Elapsed, timeout};

use super::super::database::{Connection, Mark, Options, check};
use crate::error::LedgerError;

/// How long to wait for an answer of the database. Longer than the database waits for a lock of another process.
pub const ANSWER_MAX: Duration = Duration::from_secs(10);

/// One connection. Callers use it one at a time, in the order in which they ask.
#[derive(Debug)]
pub struct ConnectionSlot {
    options: Options,
    idle: Mutex<Option<(Connection, Mark)>>,
}

/// The connection of a slot, in use. If it is dropped without [`Lease::release`], the connection is closed, and the next
/// caller opens a new one.
#[derive(Debug)]
pub struct Lease<'a> {
    options: &'a Options,
    slot: MutexGuard<'a, Option<(Connection, Mark)>>,
    /// The connection.
    pub connection: Connection,
    mark: Mark,
}

impl ConnectionSlot {
    /// A slot that is not connected yet.
    pub fn new(options: Options) -> Self {
        Self { options, idle: Mutex::new(None) }
    }

    /// Waits until the connection is free. Opens it if there is none, or if the ledger is on another server now.
    pub async fn acquire(&self) -> Result<Lease<'_>, LedgerError> {
        let mut slot = self.idle.lock().await;
        let idle = slot.take().filter(|(_, mark)| self.options.is_current(*mark));
        let (connection, mark) = match idle {
            Some(idle) => idle,
            None => self.options.open().await?,
        };
        Ok(Lease { options: &self.options, slot, connection, mark })
    }

    /// As [`Self::acquire`], to read what a server that takes no writes must not be asked for.
    pub async fn acquire_checked(&self) -> Result<Lease<'_>, LedgerError> {
        let mut lease = self.acquire().await?;
        let checked = timeout(ANSWER_MAX, check(&mut lease.connection, lease.mark)).await;
        lease.answer(checked)?;
        Ok(lease)
    }
}

impl Lease<'_> {
    /// Returns the result. Keeps the connection for the next caller if the result is a success.
    pub fn release<T, E: Into<LedgerError>>(
        mut self,
        result: Result<Result<T, E>, Elapsed>,
    ) -> Result<T, LedgerError> {
        let answer = self.answer(result)?;
        *self.slot = Some((self.connection, self.mark));
        Ok(answer)
    }

    fn answer<T, E: Into<LedgerError>>(
        &self,
        result: Result<Result<T, E>, Elapsed>,
    ) -> Result<T, LedgerError> {
        let answer = result.map_err(timed_out).and_then(|answer| answer.map_err(Into::into));
        answer.inspect_err(|error| self.options.suspect(self.mark, error))
    }
}

fn timed_out(_: Elapsed) -> LedgerError {
    LedgerError::TimedOut { seconds: ANSWER_MAX.as_secs() }
}

//! Connects again and again, later and later.

use std::time::Duration;

use lanekeeper_core::error::error_chain;
use tracing::warn;

use super::address::Address;
use super::connect::{Connection, connect};
use super::error::ConnectError;
use crate::backoff::Backoff;
use crate::log_on_change::LogOnChange;

const RECONNECT_DELAY_MIN: Duration = Duration::from_millis(250);
/// The longest wait between two tries; a connection that lasts longer was a good one.
pub(crate) const RECONNECT_DELAY_MAX: Duration = Duration::from_secs(10);

impl Address {
    /// Connects, waiting for a broker that is not there yet: services that start together need no order.
    ///
    /// # Errors
    /// What waiting cannot heal.
    pub async fn connect_patiently(&self, name: &str) -> Result<Connection, ConnectError> {
        let mut reconnecting = Reconnecting::default();
        loop {
            match reconnecting.try_once(self, name).await {
                Err(error) if error.can_heal() => {}
                done => return done,
            }
        }
    }
}

/// Waits between tries; one line in the log per change of the reason.
pub(crate) struct Reconnecting {
    backoff: Backoff,
    log: LogOnChange,
}

impl Default for Reconnecting {
    /// The first try is made at once, the next ones later and later: a connection that breaks as soon as it is made must
    /// not keep the broker busy.
    fn default() -> Self {
        let backoff = Backoff::first_at_once(RECONNECT_DELAY_MIN, RECONNECT_DELAY_MAX);
        Self { backoff, log: LogOnChange::default() }
    }
}

impl Reconnecting {
    /// Tries until there is a connection: a broker that comes back should not need us restarted.
    pub(crate) async fn connect(&mut self, address: &Address, name: &str) -> Connection {
        loop {
            if let Ok(connection) = self.try_once(address, name).await {
                return connection;
            }
        }
    }

    async fn try_once(&mut self, address: &Address, name: &str) -> Result<Connection, ConnectError> {
        self.backoff.wait().await;
        connect(address, name).await.inspect_err(|error| {
            let error = error_chain(error);
            if self.log.is_new(error.clone()) {
                warn!(connection = name, error, "broker not reached, trying again");
            }
        })
    }
}

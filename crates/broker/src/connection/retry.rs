//! Connects again and again, later and later.

use std::time::Duration;

use lanekeeper_core::error::error_chain;
use tracing::warn;

use super::address::Address;
use super::connect::{Connection, connect};
use super::error::ConnectError;

const DELAY_MIN: Duration = Duration::from_millis(250);
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
#[derive(Default)]
pub(crate) struct Reconnecting {
    delay: Option<Duration>,
    last_logged: String,
}

impl Reconnecting {
    /// Tries for ever, since a broker that comes back should not need us restarted.
    pub(crate) async fn connect(&mut self, address: &Address, name: &str) -> Connection {
        loop {
            if let Ok(connection) = self.try_once(address, name).await {
                return connection;
            }
        }
    }

    /// Waits, but not the first time: a connection that breaks as soon as it is made must not keep the broker busy.
    async fn try_once(&mut self, address: &Address, name: &str) -> Result<Connection, ConnectError> {
        let delay =
            self.delay.map_or(Duration::ZERO, |delay| (delay * 2).clamp(DELAY_MIN, RECONNECT_DELAY_MAX));
        self.delay = Some(delay);
        tokio::time::sleep(delay).await;
        let connected = connect(address, name).await;
        if let Err(error) = &connected {
            self.log(name, error);
        }
        connected
    }

    fn log(&mut self, name: &str, error: &ConnectError) {
        let text = error_chain(error);
        if text != self.last_logged {
            warn!(connection = name, error = text, "broker not reached, trying again");
            self.last_logged = text;
        }
    }
}

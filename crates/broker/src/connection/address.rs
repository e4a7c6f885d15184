//! Where the broker is, and as whom we come.

use std::fmt;
use std::time::Duration;

use lapin::uri::AMQPUri;

use super::error::ConnectError;
use super::screen::FRAME_MAX_DEFAULT;
use crate::settings::ConnectionSettings;

/// How long connecting may take unless the URL says otherwise, from the look-up of the name to the open virtual host.
/// RabbitMQ itself ends a handshake after 10 s (`handshake_timeout`), so waiting longer would be in vain.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// The longest body that is read unless somebody says otherwise: what dispatchers publish for each other is far shorter.
const BODY_BYTES_MAX: u64 = 1024 * 1024;

/// The broker as an operator names it, and what is read from it. Does not print the password.
#[derive(Clone)]
pub struct Address {
    uri: AMQPUri,
    host_port: String,
    frame_max: u32,
    body_bytes_max: u64,
}

impl Address {
    /// From `broker.url` and `broker.heartbeat`, which the broker may lower.
    ///
    /// # Errors
    /// [`ConnectError::Url`]
    pub fn new(broker: &ConnectionSettings) -> Result<Self, ConnectError> {
        let mut uri: AMQPUri = broker.url.reveal().parse().map_err(|fault| ConnectError::Url { fault })?;
        // 0 would turn heartbeats off unless the broker wants them.
        let heartbeat = u16::try_from(broker.heartbeat.as_secs()).unwrap_or(u16::MAX);
        uri.query.heartbeat = Some(heartbeat.max(1));
        let frame_max = uri.query.frame_max.filter(|frame_max| *frame_max > 0).unwrap_or(FRAME_MAX_DEFAULT);
        uri.query.frame_max = Some(frame_max);
        let host_port = format!("{}:{}", uri.authority.host, uri.authority.port);
        Ok(Self { uri, host_port, frame_max, body_bytes_max: BODY_BYTES_MAX })
    }

    /// For a connection that reads bodies of up to so many bytes. A longer one never enters memory.
    #[must_use]
    pub fn reading_bodies(&self, bytes_max: u64) -> Self {
        Self { body_bytes_max: bytes_max, ..self.clone() }
    }

    /// Host and port, for people.
    #[must_use]
    pub fn host_port(&self) -> &str {
        &self.host_port
    }

    /// The virtual host.
    #[must_use]
    pub fn vhost(&self) -> &str {
        &self.uri.vhost
    }

    /// The user.
    #[must_use]
    pub fn user(&self) -> &str {
        &self.uri.authority.userinfo.username
    }

    pub(super) fn frame_max(&self) -> u32 {
        self.frame_max
    }

    pub(super) fn body_bytes_max(&self) -> u64 {
        self.body_bytes_max
    }

    pub(super) fn uri(&self) -> &AMQPUri {
        &self.uri
    }

    /// How long connecting may take: the `connection_timeout` of the URL, in milliseconds, else ten seconds.
    pub(super) fn connect_timeout(&self) -> Duration {
        self.uri.query.connection_timeout.map_or(CONNECT_TIMEOUT, Duration::from_millis)
    }
}

impl fmt::Debug for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Address").field(&self.host_port).field(&self.uri.vhost).finish()
    }
}

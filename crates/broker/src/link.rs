//! One connection to the broker, made again whenever it is lost.

use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::StreamExt;
use lapin::protocol::{AMQPErrorKind, AMQPHardError, AMQPSoftError};
use lapin::types::AMQPValue;
use lapin::uri::AMQPUri;
use lapin::{Channel, Connection, ConnectionProperties, ErrorKind, Event};
use tokio::sync::watch;
use tokio_util::task::AbortOnDropHandle;
use tracing::{info, warn};

use super::error::SourceError;
use super::version::{VERSION_MIN, Version};
use crate::settings::ConnectionSettings;
use lanekeeper_core::error::error_chain;

/// How long connecting and each answer of the broker may take before we try anew.
pub(super) const ANSWER_TIMEOUT: Duration = Duration::from_secs(30);
const CLOSE_TIMEOUT: Duration = Duration::from_secs(5);
const RECONNECT_DELAY_MIN: Duration = Duration::from_millis(250);
const RECONNECT_DELAY_MAX: Duration = Duration::from_secs(10);

/// Where the broker is and as whom we come. Does not print the password.
#[derive(Clone, Debug)]
pub struct Address {
    uri: AMQPUri,
    host_port: String,
}

impl Address {
    /// From `broker.url` and `broker.heartbeat`.
    ///
    /// # Errors
    /// The URL cannot be understood.
    pub fn new(broker: &ConnectionSettings) -> Result<Self, SourceError> {
        let mut uri: AMQPUri = broker.url.reveal().parse().map_err(|fault| SourceError::Url { fault })?;
        // Lowered by the broker if it wants less; 0 would turn heartbeats off, which the config's check refuses.
        uri.query.heartbeat = u16::try_from(broker.heartbeat.as_secs()).ok();
        let host_port = format!("{}:{}", uri.authority.host, uri.authority.port);
        Ok(Self { uri, host_port })
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

    /// Connects once.
    ///
    /// # Errors
    /// [`SourceError::Unreachable`], [`SourceError::AccessRefused`] or [`SourceError::TooOld`].
    pub async fn connect(&self, name: &str) -> Result<Connection, SourceError> {
        let properties = ConnectionProperties::default()
            .with_connection_name(name.into())
            .with_client_property("product".into(), "lanekeeper".into())
            .with_client_property("version".into(), env!("CARGO_PKG_VERSION").into());
        let connecting = Connection::connect_uri(self.uri.clone(), properties);
        match tokio::time::timeout(ANSWER_TIMEOUT, connecting).await {
            Ok(Ok(connection)) => self.new_enough(connection).await,
            Ok(Err(source)) => Err(self.connect_error(source)),
            Err(_) => Err(SourceError::Silent { step: "connecting", seconds: ANSWER_TIMEOUT.as_secs() }),
        }
    }

    /// Connects, waiting for a broker that is not there yet: services that start together need no order.
    ///
    /// # Errors
    /// What waiting cannot heal.
    pub async fn connect_patiently(&self, name: &str) -> Result<Connection, SourceError> {
        let mut retry = Retry::default();
        loop {
            retry.pause().await;
            match self.connect(name).await {
                Ok(connection) => return Ok(connection),
                Err(error) if !error.can_heal() => return Err(error),
                Err(error) => retry.log(name, &error),
            }
        }
    }

    async fn new_enough(&self, connection: Connection) -> Result<Connection, SourceError> {
        match version_of(&connection).filter(|version| *version < VERSION_MIN) {
            None => Ok(connection),
            Some(version) => {
                let closing = connection.close(200, "too old".into());
                let _ = tokio::time::timeout(CLOSE_TIMEOUT, closing).await;
                Err(SourceError::TooOld { address: self.host_port.clone(), version })
            }
        }
    }

    fn connect_error(&self, source: lapin::Error) -> SourceError {
        let address = self.host_port.clone();
        let refused = match source.kind() {
            ErrorKind::ProtocolError(error) => matches!(
                error.kind(),
                AMQPErrorKind::Soft(AMQPSoftError::ACCESSREFUSED)
                    | AMQPErrorKind::Hard(AMQPHardError::NOTALLOWED | AMQPHardError::INVALIDPATH)
            ),
            _ => false,
        };
        if refused {
            SourceError::AccessRefused { address, vhost: self.uri.vhost.clone(), source: Box::new(source) }
        } else {
            SourceError::Unreachable { address, source: Box::new(source) }
        }
    }
}

/// Counts the connections of one link, from 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct ConnectionNumber(u64);

type Numbered = (ConnectionNumber, Arc<Connection>);

/// A connection that is kept up for as long as this lives.
#[derive(Clone, Debug)]
pub struct Link {
    connection: watch::Receiver<Option<Numbered>>,
    keeper: Arc<AbortOnDropHandle<()>>,
}

impl Link {
    /// Keeps up the connection, beginning with one that exists.
    #[must_use]
    pub fn keep(address: Address, name: String, connection: Connection) -> Self {
        let connection = Arc::new(connection);
        let (sender, receiver) = watch::channel(Some((ConnectionNumber(1), Arc::clone(&connection))));
        let keeper = AbortOnDropHandle::new(tokio::spawn(keep(address, name, connection, sender)));
        Self { connection: receiver, keeper: Arc::new(keeper) }
    }

    /// A new channel, as soon as there is a connection.
    ///
    /// # Errors
    /// The connection did not give one.
    pub async fn channel(&self) -> Result<Channel, SourceError> {
        self.channel_of().await.map(|(channel, _)| channel)
    }

    /// A new channel, and on which connection it is.
    pub(super) async fn channel_of(&self) -> Result<(Channel, ConnectionNumber), SourceError> {
        let mut watched = self.connection.clone();
        let connection = match watched.wait_for(Option::is_some).await {
            Ok(connection) => connection.clone(),
            Err(_) => None, // the keeper was aborted: the process ends
        };
        let Some((number, connection)) = connection else { return std::future::pending().await };
        let opening = async {
            match tokio::time::timeout(ANSWER_TIMEOUT, connection.create_channel()).await {
                Ok(Ok(channel)) => Ok((channel, number)),
                Ok(Err(error)) => Err(SourceError::amqp("opening a channel")(error)),
                Err(_) => {
                    Err(SourceError::Silent { step: "opening a channel", seconds: ANSWER_TIMEOUT.as_secs() })
                }
            }
        };
        self.while_up(number, opening).await
    }

    /// Which connection there is, as soon as there is one.
    pub(super) async fn up(&self) -> ConnectionNumber {
        self.watch_until(|connection| connection.as_ref().map(|(number, _)| *number)).await
    }

    /// Done once this connection is lost.
    pub(super) async fn lost(&self, number: ConnectionNumber) {
        let is_other = |(other, _): &Numbered| *other != number;
        self.watch_until(|connection| connection.as_ref().is_none_or(is_other).then_some(())).await;
    }

    /// Work on this connection ends with it, at the latest: what was asked of it as it ended may never be answered, and a
    /// consumer that was made then may never learn of it (lapin 4.12.3).
    pub(super) async fn while_up<T>(
        &self,
        number: ConnectionNumber,
        work: impl Future<Output = Result<T, SourceError>>,
    ) -> Result<T, SourceError> {
        tokio::select! {
            biased;
            done = work => done,
            () = self.lost(number) => Err(SourceError::ConnectionLost),
        }
    }

    async fn watch_until<T>(&self, look: impl Fn(&Option<Numbered>) -> Option<T>) -> T {
        let mut watched = self.connection.clone();
        let found = match watched.wait_for(|connection| look(connection).is_some()).await {
            Ok(connection) => look(&connection),
            Err(_) => None, // the keeper was aborted: the process ends
        };
        match found {
            Some(found) => found,
            None => std::future::pending().await,
        }
    }

    /// Whether there is a connection.
    #[must_use]
    pub fn is_up(&self) -> bool {
        self.connection.borrow().is_some()
    }

    /// Whether an alarm of the broker keeps it from taking publishes.
    pub(super) fn is_blocked(&self) -> bool {
        self.connection.borrow().as_ref().is_some_and(|(_, connection)| connection.status().blocked())
    }

    /// Which RabbitMQ it is, where there is a connection and it says so.
    pub(super) fn version(&self) -> Option<Version> {
        self.connection.borrow().as_ref().and_then(|(_, connection)| version_of(connection))
    }

    /// Closes the connection for good.
    pub async fn close(self) {
        self.keeper.abort();
        let connection = self.connection.borrow().as_ref().map(|(_, connection)| Arc::clone(connection));
        if let Some(connection) = connection.filter(|connection| connection.status().connected()) {
            let closing = connection.close(200, "normal shutdown".into());
            // A broker that does not answer now has nothing of ours to lose.
            let _ = tokio::time::timeout(CLOSE_TIMEOUT, closing).await;
        }
    }
}

async fn keep(
    address: Address,
    name: String,
    mut connection: Arc<Connection>,
    up: watch::Sender<Option<Numbered>>,
) {
    let (mut retry, mut number) = (Retry::default(), 1);
    loop {
        let since = Instant::now();
        let why = until_lost(&connection).await;
        up.send_replace(None);
        warn!(connection = name, error = why, "broker connection lost, connecting again");
        if since.elapsed() > RECONNECT_DELAY_MAX {
            retry = Retry::default();
        }
        connection = Arc::new(connect_again(&address, &name, &mut retry).await);
        info!(connection = name, "broker connected");
        number += 1;
        up.send_replace(Some((ConnectionNumber(number), Arc::clone(&connection))));
    }
}

/// As the broker says it when it greets.
pub(super) fn broker_version(connection: &Connection) -> Option<String> {
    server_property(connection, "version")
}

fn version_of(connection: &Connection) -> Option<Version> {
    Version::parse(&broker_version(connection)?)
}

/// A text that the broker greets with.
pub(super) fn server_property(connection: &Connection, name: &str) -> Option<String> {
    match connection.configuration().server_properties().inner().get(name)? {
        AMQPValue::LongString(text) => Some(text.to_string()),
        _ => None,
    }
}

async fn until_lost(connection: &Connection) -> String {
    let mut events = connection.events_listener();
    let mut look = tokio::time::interval(Duration::from_secs(1));
    loop {
        tokio::select! {
            event = events.next() => match event {
                Some(Event::ConnectionBlocked(reason)) => {
                    warn!(reason, "the broker blocks publishing: memory or disk alarm");
                }
                Some(Event::ConnectionUnblocked) => info!("the broker takes publishes again"),
                Some(Event::Error(error)) if !connection.status().connected() => return error.to_string(),
                Some(_) => {}
                None => return "closed".to_owned(),
            },
            _ = look.tick() => if !connection.status().connected() {
                return "closed".to_owned();
            },
        }
    }
}

/// For ever, since a broker that comes back should not need us restarted.
async fn connect_again(address: &Address, name: &str, retry: &mut Retry) -> Connection {
    loop {
        retry.pause().await;
        match address.connect(name).await {
            Ok(connection) => return connection,
            Err(error) => retry.log(name, &error),
        }
    }
}

/// Waits between tries; one line per change of the reason.
#[derive(Default)]
struct Retry {
    delay: Option<Duration>,
    last_logged: String,
}

impl Retry {
    /// Not at all the first time, then longer and longer: a connection that breaks as soon as it is made must not keep
    /// the broker busy.
    async fn pause(&mut self) {
        let delay = self
            .delay
            .map_or(Duration::ZERO, |delay| (delay * 2).clamp(RECONNECT_DELAY_MIN, RECONNECT_DELAY_MAX));
        self.delay = Some(delay);
        tokio::time::sleep(delay).await;
    }

    fn log(&mut self, name: &str, error: &SourceError) {
        let text = error_chain(error);
        if text != self.last_logged {
            warn!(connection = name, error = text, "broker not reached, trying again");
            self.last_logged = text;
        }
    }
}

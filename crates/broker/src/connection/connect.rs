//! The one way to the broker: everything that speaks AMQP connects here.

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::ops::Deref;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use async_rs::TokioRuntime;
use lanekeeper_core::error::error_chain;
use lapin::tcp::{AsyncTcpStream, TLSConfig};
use lapin::types::parsing::parse_field_table;
use lapin::types::{AMQPValue, FieldTable};
use lapin::{Channel, ConnectionProperties};
use tokio::net::lookup_host;
use tracing::warn;

use super::address::{Address, Host};
use super::alterations::{ChannelAlterations, WatchedChannels};
use super::cut::{Cut, CutStream};
use super::error::ConnectError;
use super::runtime::{PlainStream, ScreenedRuntime, screened_runtime};
use super::screen::{Limits, Screen};
use super::stream::ScreenedStream;
use super::version::{VERSION_MIN, Version};

const CLOSE_TIMEOUT: Duration = Duration::from_secs(5);
/// Addresses of one name that are tried.
const ADDRESSES_MAX: usize = 16;

/// A connection to the broker, behind a screen. It ends when it is dropped.
#[derive(Debug)]
pub struct Connection {
    client: lapin::Connection,
    watched: WatchedChannels,
    server_properties: FieldTable,
    host_port: String,
    at: SocketAddr,
    cut: Cut,
}

impl Address {
    /// Connects once. `name`: for the RabbitMQ UI.
    ///
    /// # Errors
    /// Every variant of [`ConnectError`] but [`ConnectError::Url`].
    pub async fn connect(&self, name: &str) -> Result<Connection, ConnectError> {
        connect(self, name).await
    }

    /// The node of this connection answers, but is of no use: the next connection is made to another one, if there is one.
    pub fn avoid(&self, connection: &Connection) {
        self.failures().failed(connection.at());
    }
}

/// Connects once: to the first address of a host that works, each within its own time. `name`: for the RabbitMQ UI.
///
/// The host that worked last comes first, and what did not work a moment ago comes last.
///
/// # Errors
/// No address works. Every variant of [`ConnectError`] but [`ConnectError::Url`].
pub async fn connect(address: &Address, name: &str) -> Result<Connection, ConnectError> {
    let failures = address.failures();
    let (mut faults, mut avoided) = (Faults::default(), Vec::new());
    for index in failures.order(address.hosts().len()) {
        let host = &address.hosts()[index];
        let addresses = match look_up(host).await {
            Ok(addresses) => addresses,
            Err(fault) => {
                faults.add(index, fault);
                continue;
            }
        };
        for at in addresses {
            if failures.is_avoided(at) {
                avoided.push((index, at));
                continue;
            }
            match connect_to(address, index, at, name).await {
                Ok(connection) => return Ok(faults.log(name, connection)),
                Err(fault) => faults.add(index, fault),
            }
        }
    }
    for (index, at) in avoided {
        match connect_to(address, index, at, name).await {
            Ok(connection) => return Ok(faults.log(name, connection)),
            Err(fault) => faults.add(index, fault),
        }
    }
    Err(faults.into_error())
}

/// Why hosts could not be used, one reason for each.
#[derive(Default)]
struct Faults(BTreeMap<usize, ConnectError>);

impl Faults {
    /// Of several addresses of a host, the one that came furthest counts: `localhost` has one that nobody listens on, too.
    fn add(&mut self, host: usize, fault: ConnectError) {
        let known = self.0.get(&host);
        if known.is_none_or(|known| known.progress() <= fault.progress()) {
            self.0.insert(host, fault);
        }
    }

    /// Says which hosts did not work although another one does.
    fn log(self, name: &str, connection: Connection) -> Connection {
        let host = connection.host_port();
        for fault in self.0.values() {
            let error = error_chain(fault);
            warn!(
                connection = name,
                error, host, "a host of broker.url cannot be used, connected to another one"
            );
        }
        connection
    }

    fn into_error(self) -> ConnectError {
        let mut faults: Vec<_> = self.0.into_values().collect();
        match faults.len() {
            1 => faults.remove(0),
            _ => ConnectError::NoHost { faults },
        }
    }
}

/// The addresses of a host, at most [`ADDRESSES_MAX`].
async fn look_up(host: &Host) -> Result<Vec<SocketAddr>, ConnectError> {
    let address = host.host_port().to_owned();
    let timeout = host.tcp_timeout();
    match tokio::time::timeout(timeout, lookup_host(host.name_and_port())).await {
        Err(_) => Err(ConnectError::Silent { address, seconds: timeout.as_secs_f64() }),
        Ok(Err(source)) => Err(ConnectError::Unreachable { address, source }),
        Ok(Ok(found)) => {
            let found: Vec<_> = found.take(ADDRESSES_MAX).collect();
            if found.is_empty() {
                let source = io::Error::new(io::ErrorKind::NotFound, "the name has no address");
                return Err(ConnectError::Unreachable { address, source });
            }
            Ok(found)
        }
    }
}

/// Connects to one address of a host, within the time for it.
async fn connect_to(
    address: &Address,
    index: usize,
    at: SocketAddr,
    name: &str,
) -> Result<Connection, ConnectError> {
    let host = &address.hosts()[index];
    let connected = connect_within(address, host, at, name).await;
    match &connected {
        Ok(_) => address.failures().worked(index, at),
        Err(_) => address.failures().failed(at),
    }
    connected
}

async fn connect_within(
    address: &Address,
    host: &Host,
    at: SocketAddr,
    name: &str,
) -> Result<Connection, ConnectError> {
    let silent = |timeout: Duration| ConnectError::Silent {
        address: host.host_port().to_owned(),
        seconds: timeout.as_secs_f64(),
    };
    let (begun, timeout) = (Instant::now(), host.connect_timeout());
    let runtime = TokioRuntime::tokio_current();
    let opening = tokio::time::timeout(host.tcp_timeout(), AsyncTcpStream::connect(&runtime, at));
    let stream = opening.await.map_err(|_| silent(host.tcp_timeout()))?;
    let stream = stream.map_err(|error| ConnectError::of_stream(host.host_port(), error))?;
    let connecting = Box::pin(handshake(address, host, at, stream, name));
    let left = timeout.saturating_sub(begun.elapsed());
    let connection = tokio::time::timeout(left, connecting).await.map_err(|_| silent(timeout))??;
    match connection.version().filter(|version| *version < VERSION_MIN) {
        None => Ok(connection),
        Some(version) => {
            let closing = connection.close(200, "this version is too old".into());
            let _ = tokio::time::timeout(CLOSE_TIMEOUT, closing).await;
            Err(ConnectError::TooOld { address: host.host_port().to_owned(), version })
        }
    }
}

async fn handshake(
    address: &Address,
    host: &Host,
    at: SocketAddr,
    stream: PlainStream,
    name: &str,
) -> Result<Connection, ConnectError> {
    let stream = if host.is_encrypted() {
        let encrypting = stream.into_tls(host.name_and_port().0, TLSConfig::default());
        encrypting.await.map_err(|error| ConnectError::of_stream(host.host_port(), error))?
    } else {
        stream
    };
    let (watched, server_properties) = (WatchedChannels::default(), Arc::new(OnceLock::new()));
    let limits = Limits { body_bytes_max: address.body_bytes_max(), frame_max: host.frame_max() };
    let screen = Screen::new(limits, watched.clone(), Arc::clone(&server_properties));
    let cut = Cut::default();
    let stream = ScreenedStream::new(CutStream::new(stream, cut.clone()), screen);
    let uri = host.uri();
    let user = uri.authority.userinfo.username.clone();
    let connecting = lapin::Connection::connector(uri, screened_runtime(), once(stream), properties(name));
    let client = connecting
        .await
        .map_err(|error| ConnectError::of_handshake(host.host_port(), address.vhost(), &user, error))?;
    let server_properties = server_properties.get().map(Vec::as_slice).unwrap_or_default();
    let server_properties = parse_field_table(server_properties).map(|(_, table)| table).unwrap_or_default();
    let host_port = host.host_port().to_owned();
    Ok(Connection { client, watched, server_properties, host_port, at, cut })
}

/// The client asks again for a stream if the first is lost in the handshake: it gets none, so that there is one place that
/// connects again.
fn once(
    stream: ScreenedStream<CutStream<PlainStream>>,
) -> impl AsyncFn(
    lapin::uri::AMQPUri,
    ScreenedRuntime,
) -> lapin::Result<AsyncTcpStream<ScreenedStream<CutStream<PlainStream>>>>
+ Send
+ Sync
+ 'static {
    let stream = Mutex::new(Some(stream));
    async move |_, _| {
        let stream = stream.lock().unwrap_or_else(PoisonError::into_inner).take();
        stream
            .map(AsyncTcpStream::Plain)
            .ok_or_else(|| io::Error::from(io::ErrorKind::ConnectionAborted).into())
    }
}

fn properties(name: &str) -> ConnectionProperties {
    ConnectionProperties::default()
        .configure_backoff(|backoff| backoff.with_max_times(0))
        .with_connection_name(name.into())
        .with_client_property("product".into(), "lanekeeper".into())
        .with_client_property("version".into(), env!("CARGO_PKG_VERSION").into())
}

impl Connection {
    /// Keeps what the screen changes in the deliveries of this channel, for whoever takes them. To be called before the
    /// channel consumes. `window`: its prefetch.
    pub(crate) fn watch(&self, channel: &Channel, window: usize) -> ChannelAlterations {
        self.watched.watch(channel.id(), window)
    }

    /// Ends it without a word to the broker, if it is blocked: it would else stay as long as the alarm does.
    pub(crate) fn cut_if_blocked(&self) {
        if self.client.status().blocked() {
            self.cut.cut();
        }
    }

    /// Host and port that it was made to, for people.
    #[must_use]
    pub fn host_port(&self) -> &str {
        &self.host_port
    }

    /// The address that it was made to.
    pub(super) fn at(&self) -> SocketAddr {
        self.at
    }

    /// How long either side may be silent: the lower of what both sides want.
    #[must_use]
    pub fn heartbeat(&self) -> Duration {
        Duration::from_secs(self.client.configuration().heartbeat().into())
    }

    /// The longest frame that either side may send.
    #[must_use]
    pub fn frame_max(&self) -> usize {
        self.client.configuration().frame_max() as usize
    }

    /// Which RabbitMQ it is; `None` if it says nothing that can be understood.
    #[must_use]
    pub fn version(&self) -> Option<Version> {
        Version::parse(&self.server_property("version")?)
    }

    /// A text that the broker says of itself.
    #[must_use]
    pub fn server_property(&self, name: &str) -> Option<String> {
        match self.server_properties.inner().get(name)? {
            AMQPValue::LongString(text) => Some(text.to_string()),
            _ => None,
        }
    }
}

impl Deref for Connection {
    type Target = lapin::Connection;

    fn deref(&self) -> &lapin::Connection {
        &self.client
    }
}

//! The one way to the broker: everything that speaks AMQP connects here.

use std::ops::Deref;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use async_rs::TokioRuntime;
use lapin::tcp::{AMQPUriTcpExt, AsyncTcpStream, TLSConfig};
use lapin::types::parsing::parse_field_table;
use lapin::types::{AMQPValue, FieldTable};
use lapin::{Channel, ConnectionProperties};

use super::address::Address;
use super::alterations::{ChannelAlterations, WatchedChannels};
use super::error::ConnectError;
use super::runtime::{PlainStream, ScreenedRuntime, screened_runtime};
use super::screen::{Limits, Screen};
use super::stream::ScreenedStream;
use super::version::{VERSION_MIN, Version};

const CLOSE_TIMEOUT: Duration = Duration::from_secs(5);

/// A connection to the broker, behind a screen. It ends when it is dropped.
#[derive(Debug)]
pub struct Connection {
    client: lapin::Connection,
    watched: WatchedChannels,
    server_properties: FieldTable,
}

impl Address {
    /// Connects once. `name`: for the RabbitMQ UI.
    ///
    /// # Errors
    /// Every variant of [`ConnectError`] but [`ConnectError::Url`].
    pub async fn connect(&self, name: &str) -> Result<Connection, ConnectError> {
        connect(self, name).await
    }
}

/// Connects once, within the time that the address allows. `name`: for the RabbitMQ UI.
///
/// # Errors
/// Every variant of [`ConnectError`] but [`ConnectError::Url`].
pub async fn connect(address: &Address, name: &str) -> Result<Connection, ConnectError> {
    let timeout = address.connect_timeout();
    let connecting = Box::pin(handshake(address, name));
    let Ok(connection) = tokio::time::timeout(timeout, connecting).await else {
        let (address, seconds) = (address.host_port().to_owned(), timeout.as_secs_f64());
        return Err(ConnectError::Silent { address, seconds });
    };
    let connection = connection?;
    match connection.version().filter(|version| *version < VERSION_MIN) {
        None => Ok(connection),
        Some(version) => {
            let closing = connection.close(200, "this version is too old".into());
            let _ = tokio::time::timeout(CLOSE_TIMEOUT, closing).await;
            Err(ConnectError::TooOld { address: address.host_port().to_owned(), version })
        }
    }
}

async fn handshake(address: &Address, name: &str) -> Result<Connection, ConnectError> {
    let tcp = TokioRuntime::tokio_current();
    let opening = address.uri().connect_with_config_async(TLSConfig::default(), &tcp);
    let stream = opening.await.map_err(|error| ConnectError::of_stream(address.host_port(), error))?;
    let (watched, server_properties) = (WatchedChannels::default(), Arc::new(OnceLock::new()));
    let limits = Limits { body_bytes_max: address.body_bytes_max(), frame_max: address.frame_max() };
    let screen = Screen::new(limits, watched.clone(), Arc::clone(&server_properties));
    let stream = ScreenedStream::new(stream, screen);
    let connecting = lapin::Connection::connector(
        address.uri().clone(),
        screened_runtime(),
        once(stream),
        properties(name),
    );
    let client = connecting.await.map_err(|error| {
        ConnectError::of_handshake(address.host_port(), address.vhost(), address.user(), error)
    })?;
    let server_properties = server_properties.get().map(Vec::as_slice).unwrap_or_default();
    let server_properties = parse_field_table(server_properties).map(|(_, table)| table).unwrap_or_default();
    Ok(Connection { client, watched, server_properties })
}

/// The client asks again for a stream if the first is lost in the handshake: it gets none, so that there is one place that
/// connects again.
fn once(
    stream: ScreenedStream<PlainStream>,
) -> impl AsyncFn(
    lapin::uri::AMQPUri,
    ScreenedRuntime,
) -> lapin::Result<AsyncTcpStream<ScreenedStream<PlainStream>>>
+ Send
+ Sync
+ 'static {
    let stream = Mutex::new(Some(stream));
    async move |_, _| {
        let stream = stream.lock().unwrap_or_else(PoisonError::into_inner).take();
        stream
            .map(AsyncTcpStream::Plain)
            .ok_or_else(|| std::io::Error::from(std::io::ErrorKind::ConnectionAborted).into())
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

//! One connection to the broker, which is made again whenever it is lost.

use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::StreamExt;
use lapin::{Channel, Event};
use tokio::sync::watch;
use tokio_util::task::AbortOnDropHandle;
use tracing::{info, warn};

use super::error::SourceError;
use crate::connection::{
    Address, ChannelAlterations, Connection, RECONNECT_DELAY_MAX, Reconnecting, Version,
};

/// How long each answer of the broker may take before the request is retried.
pub(super) const ANSWER_TIMEOUT: Duration = Duration::from_secs(30);
const CLOSE_TIMEOUT: Duration = Duration::from_secs(5);

/// Counts the connections of one link, from 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct ConnectionNumber(u64);

pub(super) type Numbered = (ConnectionNumber, Arc<Connection>);

/// A connection that is kept up until this is dropped.
#[derive(Clone, Debug)]
pub struct Link {
    connection: watch::Receiver<Option<Numbered>>,
    heartbeat: Duration,
    keeper: Arc<AbortOnDropHandle<()>>,
}

/// A channel that is to consume.
pub(super) struct ConsumingChannel {
    pub(super) channel: Channel,
    /// On which connection it is.
    pub(super) connection: ConnectionNumber,
    /// What the screen changes in what it delivers.
    pub(super) alterations: ChannelAlterations,
}

impl Link {
    /// Keeps up the connection, beginning with one that exists.
    #[must_use]
    pub fn keep(address: Address, name: String, connection: Connection) -> Self {
        let heartbeat = connection.heartbeat();
        let connection = Arc::new(connection);
        let (sender, receiver) = watch::channel(Some((ConnectionNumber(1), Arc::clone(&connection))));
        let keeper = AbortOnDropHandle::new(tokio::spawn(keep(address, name, connection, sender)));
        Self { connection: receiver, heartbeat, keeper: Arc::new(keeper) }
    }

    /// A new channel, as soon as there is a connection.
    ///
    /// # Errors
    /// The connection did not give one.
    pub(crate) async fn channel(&self) -> Result<Channel, SourceError> {
        self.channel_of().await.map(|(channel, _)| channel)
    }

    /// A new channel that is to consume with this window.
    pub(super) async fn consuming_channel(&self, window: usize) -> Result<ConsumingChannel, SourceError> {
        let (number, connection) = self.connected().await;
        let (channel, number) = self.open(number, &connection).await?;
        let alterations = connection.watch(&channel, window);
        Ok(ConsumingChannel { channel, connection: number, alterations })
    }

    /// How long either side may be silent, as both sides agreed on the first connection. The broker may want less on a
    /// later one.
    #[must_use]
    pub fn heartbeat(&self) -> Duration {
        self.heartbeat
    }

    /// How much shorter the heartbeat of the present connection is than [`Self::heartbeat`].
    pub(super) fn heartbeat_lowered_by(&self) -> Duration {
        let connection = self.connection.borrow();
        connection.as_ref().map_or(Duration::ZERO, |(_, connection)| self.lowered_by(connection))
    }

    fn lowered_by(&self, connection: &Connection) -> Duration {
        self.heartbeat.saturating_sub(connection.heartbeat())
    }

    /// The longest frame that may be sent on the present connection; `None`: there is none.
    pub(super) fn frame_max(&self) -> Option<usize> {
        self.connection.borrow().as_ref().map(|(_, connection)| connection.frame_max())
    }

    /// A new channel, and on which connection it is.
    pub(super) async fn channel_of(&self) -> Result<(Channel, ConnectionNumber), SourceError> {
        let (number, connection) = self.connected().await;
        self.open(number, &connection).await
    }

    /// The connection, as soon as there is one, and which it is.
    pub(super) async fn connected(&self) -> Numbered {
        let mut watched = self.connection.clone();
        let connection = match watched.wait_for(Option::is_some).await {
            Ok(connection) => connection.clone(),
            Err(_) => None, // the keeper was aborted: the process ends
        };
        match connection {
            Some(connection) => connection,
            None => std::future::pending().await,
        }
    }

    async fn open(
        &self,
        number: ConnectionNumber,
        connection: &Connection,
    ) -> Result<(Channel, ConnectionNumber), SourceError> {
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

    /// Waits until this connection is lost.
    pub(super) async fn lost(&self, number: ConnectionNumber) {
        let is_other = |(other, _): &Numbered| *other != number;
        self.watch_until(|connection| connection.as_ref().is_none_or(is_other).then_some(())).await;
    }

    /// Does work on this connection, until the connection is lost: a request that was sent as it ended may never be answered,
    /// and a consumer that was made then may never see the end (lapin 4.12.3).
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

    /// Returns true if the broker takes no publishes because of an alarm.
    #[must_use]
    pub fn is_blocked(&self) -> bool {
        self.connection.borrow().as_ref().is_some_and(|(_, connection)| connection.status().blocked())
    }

    /// The version of RabbitMQ, if there is a connection and the broker says it.
    pub(super) fn version(&self) -> Option<Version> {
        self.connection.borrow().as_ref().and_then(|(_, connection)| connection.version())
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
    let (mut reconnecting, mut number) = (Reconnecting::default(), 1);
    loop {
        let since = Instant::now();
        let why = until_lost(&connection).await;
        up.send_replace(None);
        warn!(connection = name, error = why, "broker connection lost, reconnecting");
        if since.elapsed() > RECONNECT_DELAY_MAX {
            reconnecting = Reconnecting::default();
        } else {
            address.avoid(&connection);
        }
        connection = Arc::new(reconnecting.connect(&address, &name).await);
        info!(connection = name, "broker connected again");
        number += 1;
        up.send_replace(Some((ConnectionNumber(number), Arc::clone(&connection))));
    }
}

async fn until_lost(connection: &Connection) -> String {
    let mut events = connection.events_listener();
    let mut look = tokio::time::interval(Duration::from_secs(1));
    loop {
        tokio::select! {
            event = events.next() => match event {
                Some(Event::ConnectionBlocked(reason)) => {
                    warn!(reason, "the broker blocks publishing because of a memory or disk alarm, waiting until it ends");
                }
                Some(Event::ConnectionUnblocked) => info!("the broker accepts publishes again"),
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

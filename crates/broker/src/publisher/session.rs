//! The broker: one connection with one channel, in confirm mode.

use std::future::Future;
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::BoxStream;
use lapin::options::ExchangeDeclareOptions;
use lapin::protocol::{AMQPErrorKind, AMQPHardError, AMQPSoftError};
use lapin::types::{AMQPValue, FieldTable, LongString, ShortString};
use lapin::{BasicProperties, ErrorKind, Event, ExchangeKind};

use super::confirms::RawAnswer;
use super::error::PublishError;
use super::settings::PublisherSettings;
use crate::channel::confirm_channel::{ConfirmChannel, Message, Unconfirmed};
use crate::connection::{Address, ConnectError, Connection, connect};
use lanekeeper_core::publish::outbox::InFlight;
use lanekeeper_core::publish::outgoing::{HeaderValue, Outgoing, ShortText};

/// An orderly close takes milliseconds; under an alarm it never comes.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(2);

/// What happens to a connection.
#[derive(Debug)]
pub(super) enum SessionEvent {
    /// An alarm: publishes hang until it is over.
    Blocked(String),
    /// It is over.
    Unblocked,
    /// The connection is gone.
    Lost(lapin::Error),
}

/// A connection and its channel.
pub(super) struct PublisherSession {
    connection: Connection,
    channel: ConfirmChannel,
    events: BoxStream<'static, Event>,
    exchange: ShortString,
}

impl PublisherSession {
    /// Connects, and makes sure that the exchange exists.
    pub(super) async fn open(address: &Address, settings: &PublisherSettings) -> Result<Self, PublishError> {
        let connection = connect(address, &format!("lanekeeper publish {}", settings.instance)).await?;
        let events = connection.events_listener().boxed();
        match Self::prepare(&connection, &settings.exchange).await {
            Ok((channel, exchange)) => Ok(Self { connection, channel, events, exchange }),
            Err(error) => Err(fatal(&error, &settings.exchange).unwrap_or_else(|| {
                address.avoid(&connection);
                ConnectError::lost(connection.host_port(), error).into()
            })),
        }
    }

    async fn prepare(
        connection: &lapin::Connection,
        exchange: &ShortText,
    ) -> lapin::Result<(ConfirmChannel, ShortString)> {
        let channel = connection.create_channel().await?;
        let exchange = short(exchange);
        let passive = ExchangeDeclareOptions { passive: true, ..ExchangeDeclareOptions::default() };
        // With `passive`, type and arguments are not looked at.
        channel
            .exchange_declare(exchange.clone(), ExchangeKind::Fanout, passive, FieldTable::default())
            .await?;
        Ok((ConfirmChannel::select(channel).await?, exchange))
    }

    /// Publishes when first polled, ends with the broker's answer. To be polled by one task only, since lapin
    /// numbers publishes in the order of these polls.
    pub(super) fn publish(
        &self,
        in_flight: InFlight,
    ) -> impl Future<Output = RawAnswer<lapin::Error>> + Send + 'static {
        let (channel, exchange) = (self.channel.clone(), self.exchange.clone());
        async move {
            let InFlight { id, outgoing, .. } = in_flight;
            let answer = match channel.send(message(exchange, &outgoing)).await {
                Ok(unconfirmed) => unconfirmed.answer().await,
                Err(error) => Err(error),
            };
            let (confirm, returned) = match answer {
                Ok(answer) => (Ok(answer.is_ack), answer.returned.map(|key| key.to_string())),
                Err(error) => (Err(error), None),
            };
            RawAnswer { record_key: outgoing.record_key.clone(), in_flight: id, confirm, returned }
        }
    }

    /// Sends an update, whose answer is to be waited for.
    pub(super) async fn send(&self, outgoing: &Outgoing) -> lapin::Result<Unconfirmed> {
        self.channel.send(message(self.exchange.clone(), outgoing)).await
    }

    /// What happens to the connection next. Nothing is lost if the future is dropped.
    pub(super) async fn next_event(&mut self) -> SessionEvent {
        loop {
            match self.events.next().await {
                Some(Event::ConnectionBlocked(reason)) => return SessionEvent::Blocked(reason),
                Some(Event::ConnectionUnblocked) => return SessionEvent::Unblocked,
                Some(Event::Error(error)) => return SessionEvent::Lost(error),
                Some(_) => {}
                None => std::future::pending().await,
            }
        }
    }

    /// Closes in order. Everything is answered already, so nothing is lost if that takes too long.
    pub(super) async fn close(self) {
        let close = self.connection.close(200, ShortString::from("normal shutdown"));
        let _ = tokio::time::timeout(CLOSE_TIMEOUT, close).await;
    }
}

fn message(exchange: ShortString, outgoing: &Outgoing) -> Message<'_> {
    Message {
        exchange,
        routing_key: outgoing.record_key.as_str().into(),
        properties: properties(outgoing),
        body: &outgoing.body,
    }
}

pub(super) fn properties(outgoing: &Outgoing) -> BasicProperties {
    let mut properties = BasicProperties::default()
        .with_delivery_mode(2)
        .with_message_id(short(&outgoing.id))
        .with_timestamp(outgoing.published_at);
    if let Some(update_type) = &outgoing.update_type {
        properties = properties.with_type(short(update_type));
    }
    if let Some(content_type) = &outgoing.content_type {
        properties = properties.with_content_type(short(content_type));
    }
    if let Some(content_encoding) = &outgoing.content_encoding {
        properties = properties.with_content_encoding(short(content_encoding));
    }
    if !outgoing.headers.is_empty() {
        let mut headers = FieldTable::default();
        for (name, value) in &outgoing.headers {
            headers.insert(
                short(name),
                match value {
                    HeaderValue::Text(text) => AMQPValue::LongString(LongString::from(text.as_str())),
                    HeaderValue::Integer(integer) => AMQPValue::LongLongInt(*integer),
                    HeaderValue::Flag(flag) => AMQPValue::Boolean(*flag),
                },
            );
        }
        properties = properties.with_headers(headers);
    }
    properties
}

fn short(text: &ShortText) -> ShortString {
    ShortString::from(text.as_str())
}

/// The error for the caller, if connecting again would only meet the same fault again.
pub(super) fn fatal(error: &lapin::Error, exchange: &ShortText) -> Option<PublishError> {
    let (kind, text) = protocol_error(error)?;
    match kind {
        AMQPErrorKind::Soft(AMQPSoftError::NOTFOUND) => {
            Some(PublishError::ExchangeMissing { exchange: exchange.as_str().to_owned() })
        }
        // An operator closed it, a node stops, or something in the broker failed: another time it may work.
        AMQPErrorKind::Hard(
            AMQPHardError::CONNECTIONFORCED | AMQPHardError::INTERNALERROR | AMQPHardError::RESOURCEERROR,
        ) => None,
        _ => Some(PublishError::Refused { text }),
    }
}

fn protocol_error(error: &lapin::Error) -> Option<(AMQPErrorKind, String)> {
    match error.kind() {
        ErrorKind::ProtocolError(error) => Some((error.kind().clone(), error.get_message().to_string())),
        _ => None,
    }
}

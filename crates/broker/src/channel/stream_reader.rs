//! Reads a stream of the broker, from some offset on and then as it grows.

use std::time::Duration;

use lapin::Channel;
use lapin::message::Delivery;
use lapin::options::BasicAckOptions;
use lapin::types::{AMQPValue, FieldTable};

use super::consumer_channel::ConsumerChannel;
use crate::error::SourceError;

/// Messages that the broker sends ahead. A stream must have a prefetch.
const PREFETCH: u16 = 100;
/// Under an alarm the broker does not read what we say.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(1);

/// Where a reader begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum StreamOffset {
    /// With the oldest message that the stream still has.
    First,
    /// With the last chunk, which can hold several messages. If nothing is written, nothing comes of an empty stream.
    Last,
    /// With what is written from now on.
    Next,
    /// With the chunk that was written at this time, in seconds since 1970, or later.
    Since(u64),
    /// With the message of this offset. The chunk that it is in can come whole.
    At(u64),
}

impl StreamOffset {
    fn argument(self) -> AMQPValue {
        match self {
            Self::First => AMQPValue::LongString("first".into()),
            Self::Last => AMQPValue::LongString("last".into()),
            Self::Next => AMQPValue::LongString("next".into()),
            Self::Since(seconds) => AMQPValue::Timestamp(seconds),
            Self::At(offset) => AMQPValue::LongLongInt(i64::try_from(offset).unwrap_or(i64::MAX)),
        }
    }
}

/// A consumer of a stream on a channel of its own.
#[derive(Debug)]
pub(crate) struct StreamReader {
    channel: ConsumerChannel,
    stream: String,
    exchange: String,
    /// What is being done, for the errors.
    step: &'static str,
}

impl StreamReader {
    /// Begins to read the stream. `exchange` is `updates.exchange`, for the errors.
    ///
    /// # Errors
    /// The stream is not there, or may not be read.
    pub(crate) async fn open(
        channel: Channel,
        (stream, exchange): (&str, &str),
        from: StreamOffset,
        step: &'static str,
    ) -> Result<Self, SourceError> {
        let channel = ConsumerChannel::new(channel);
        let (stream, exchange) = (stream.to_owned(), exchange.to_owned());
        let mut reader = Self { channel, stream, exchange, step };
        let mut arguments = FieldTable::default();
        arguments.insert("x-stream-offset".into(), from.argument());
        let consuming = async {
            reader.channel.set_prefetch(PREFETCH).await?;
            reader.channel.consume(&reader.stream, "", arguments).await
        };
        match consuming.await {
            Ok(_) => Ok(reader),
            Err(source) => {
                let object = format!("stream {}", reader.stream);
                Err(SourceError::from_consuming(step, &object, &reader.exchange, source))
            }
        }
    }

    /// The next message, for which the broker gets credit. A message is lost if the future is dropped.
    ///
    /// # Errors
    /// The stream or the connection is gone.
    pub(crate) async fn next(&mut self) -> Result<Delivery, SourceError> {
        let delivery = self.receive().await?;
        self.credit(&delivery).await?;
        Ok(delivery)
    }

    /// The next message. Nothing is lost if the future is dropped.
    ///
    /// # Errors
    /// As [`Self::next`].
    pub(crate) async fn receive(&mut self) -> Result<Delivery, SourceError> {
        match self.channel.next_of(0).await {
            Some(Ok(delivery)) => Ok(delivery),
            Some(Err(source)) => Err(self.error(source)),
            None => Err(SourceError::Missing { text: format!("the stream {} is gone", self.stream) }),
        }
    }

    /// Lets the broker send one more. This is what the ack of a stream's message means: nothing is removed.
    ///
    /// # Errors
    /// As [`Self::next`].
    pub(crate) async fn credit(&self, delivery: &Delivery) -> Result<(), SourceError> {
        let acked = delivery.ack(BasicAckOptions::default()).await;
        acked.map(drop).map_err(|source| self.error(source))
    }

    /// Ends reading. Of no consequence if it fails: the channel ends with its connection.
    pub(crate) async fn close(self) {
        let _ = self.channel.close(CLOSE_TIMEOUT).await;
    }

    fn error(&self, source: lapin::Error) -> SourceError {
        SourceError::from_amqp(self.step, &format!("stream {}", self.stream), &self.exchange, source)
    }
}

/// The offset of a stream's message.
pub(crate) fn offset_of(delivery: &Delivery) -> Option<u64> {
    let headers = delivery.properties.headers().as_ref()?;
    match headers.inner().get("x-stream-offset")? {
        AMQPValue::LongLongInt(offset) => u64::try_from(*offset).ok(),
        _ => None,
    }
}

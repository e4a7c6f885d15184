//! A channel and the consumers on it, which end in the one order that is safe.

use std::mem::{ManuallyDrop, take};
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::{SelectAll, Stream};
use lapin::message::Delivery;
use lapin::options::{BasicConsumeOptions, BasicQosOptions};
use lapin::types::FieldTable;
use lapin::{Channel, Consumer};
use tokio::runtime::Handle;
use tokio::time::timeout;

/// How long the broker may take to say that a channel is closed that nobody waits for.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(5);
/// The text of each close, as RabbitMQ's log has it.
const CLOSE_TEXT: &str = "normal shutdown";

/// A channel and its consumers.
///
/// The client (lapin 4.12.3) sends `basic.cancel` when a consumer is dropped while its channel is open. With unsettled
/// deliveries RabbitMQ would then give the *next* messages to the standby at once, and the unsettled ones after them
/// (3.10.8 and 4.0.5, measured); and a cancel that comes after the close of its channel makes RabbitMQ end the connection
/// (`expected 'channel.open'`; 3.10.8, measured). So the consumers are dropped only once the channel is closed; if the
/// broker does not confirm that in time, they are leaked, and end with their connection.
#[derive(Debug)]
pub(crate) struct ConsumerChannel {
    channel: Channel,
    consumers: Vec<Consumer>,
    /// A consumer was asked for, and may be there even if nobody has waited for the answer.
    has_consumers: bool,
}

/// Why a channel may not be closed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CloseError {
    /// The broker said no, or the connection was lost.
    #[error("closing a channel")]
    Refused(#[source] lapin::Error),
    /// The broker did not answer.
    #[error("closing a channel: no answer within {0:?}")]
    Silent(Duration),
}

impl ConsumerChannel {
    /// Takes over a channel that nobody consumes on yet.
    pub(crate) fn new(channel: Channel) -> Self {
        Self { channel, consumers: Vec::new(), has_consumers: false }
    }

    /// The channel, for acks and requests.
    pub(crate) fn channel(&self) -> &Channel {
        &self.channel
    }

    /// Sets the prefetch of the consumers that are made from now on.
    pub(crate) async fn set_prefetch(&self, prefetch: u16) -> lapin::Result<()> {
        self.channel.basic_qos(prefetch, BasicQosOptions::default()).await
    }

    /// Makes a consumer of a queue or stream. Returns its index: 0 for the first one. If the future is dropped, the channel must
    /// not be used any more: its drop closes it, and whatever consumer the broker has made by then.
    pub(crate) async fn consume(
        &mut self,
        queue: &str,
        consumer_tag: &str,
        arguments: FieldTable,
    ) -> lapin::Result<usize> {
        let options = BasicConsumeOptions::default();
        self.has_consumers = true;
        let consuming = self.channel.basic_consume(queue.into(), consumer_tag.into(), options, arguments);
        self.consumers.push(consuming.await?);
        Ok(self.consumers.len() - 1)
    }

    /// As [`Self::consume`], for what is settled by being delivered.
    pub(crate) async fn consume_settled(&mut self, queue: &str) -> lapin::Result<usize> {
        let options = BasicConsumeOptions { no_ack: true, exclusive: true, ..BasicConsumeOptions::default() };
        self.has_consumers = true;
        let consuming = self.channel.basic_consume(queue.into(), "".into(), options, FieldTable::default());
        self.consumers.push(consuming.await?);
        Ok(self.consumers.len() - 1)
    }

    /// The next delivery of the consumer with this index; `None`: the broker has cancelled it. Nothing is lost when the
    /// future is dropped.
    pub(crate) async fn next_of(&mut self, consumer: usize) -> Option<lapin::Result<Delivery>> {
        self.consumers[consumer].next().await
    }

    /// The deliveries of all consumers made so far, each with the index of its consumer.
    pub(crate) fn deliveries(&mut self) -> impl Stream<Item = (usize, lapin::Result<Delivery>)> + Send + '_ {
        let of_each =
            |(index, consumer): (usize, _)| StreamExt::map(consumer, move |delivery| (index, delivery));
        self.consumers.iter_mut().enumerate().map(of_each).collect::<SelectAll<_>>()
    }

    /// Closes the channel, then drops the consumers. What is unsettled goes back to its queue, in order. `within`: how long
    /// the broker may take to answer; what we said is on its way by then.
    ///
    /// # Errors
    /// The channel may still be open. It ends with its connection.
    pub(crate) async fn close(mut self, within: Duration) -> Result<(), CloseError> {
        let consumers = ManuallyDrop::new(take(&mut self.consumers));
        self.has_consumers = false;
        close_in_order(&self.channel, consumers, within).await
    }
}

/// If this future is dropped, the consumers are leaked.
async fn close_in_order(
    channel: &Channel,
    consumers: ManuallyDrop<Vec<Consumer>>,
    within: Duration,
) -> Result<(), CloseError> {
    let mut closed = Ok(());
    if channel.status().connected() {
        match timeout(within, channel.close(200, CLOSE_TEXT.into())).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => closed = Err(CloseError::Refused(error)),
            Err(_) => return Err(CloseError::Silent(within)),
        }
    }
    drop(ManuallyDrop::into_inner(consumers));
    closed
}

/// Closes in the background, where there is a runtime to do it; otherwise the process ends. A consumer whose answer nobody
/// has waited for would stay without this, and as the active one get all deliveries of its queue.
impl Drop for ConsumerChannel {
    fn drop(&mut self) {
        if !self.has_consumers {
            return;
        }
        let consumers = ManuallyDrop::new(take(&mut self.consumers));
        if let Ok(runtime) = Handle::try_current() {
            let channel = self.channel.clone();
            runtime.spawn(async move {
                let _ = close_in_order(&channel, consumers, CLOSE_TIMEOUT).await;
            });
        }
    }
}

//! A handle for work on the topology: what is declared, looked at, changed and deleted goes through it.

use std::time::Duration;

use lapin::options::{
    ExchangeBindOptions, ExchangeDeclareOptions, ExchangeDeleteOptions, ExchangeUnbindOptions,
    QueueBindOptions, QueueDeclareOptions, QueueDeleteOptions,
};
use lapin::types::FieldTable;
use lapin::{Channel, ExchangeKind};
use tokio::time::timeout;

use crate::channel::confirm_channel::{ConfirmChannel, Message, PublishAnswer};
use crate::channel::consumer_channel::ConsumerChannel;
use crate::channel::stream_reader::{StreamOffset, StreamReader};
use crate::connection::Connection;
use crate::error::SourceError;
use crate::link::ANSWER_TIMEOUT;
use crate::names::Names;

/// An alarm keeps the broker from reading that a channel is closed.
pub(crate) const CLOSE_TIMEOUT: Duration = Duration::from_secs(1);

/// Acks sent are not acks done if the channel is closed at once (RabbitMQ 3.10.8 and 4.0.5, measured).
pub(crate) const SETTLE_GRACE: Duration = Duration::from_millis(100);

/// Work on one topology, over one connection.
///
/// It opens its channel when a step first needs one. RabbitMQ closes a channel with every error that it answers, so that
/// after a failed step the next one gets another channel.
pub(crate) struct TopologySession<'a> {
    connection: &'a Connection,
    names: &'a Names,
    instance: &'a str,
    channel: Option<Channel>,
}

/// What is in a queue, as a passive declaration returns it. Zero for an exchange.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Depth {
    /// Messages that no consumer holds.
    pub ready: u32,
    /// Consumers.
    pub consumers: u32,
}

impl<'a> TopologySession<'a> {
    /// `instance`: `instance.name`, for the layout document.
    pub(crate) fn new(connection: &'a Connection, names: &'a Names, instance: &'a str) -> Self {
        Self { connection, names, instance, channel: None }
    }

    pub(crate) fn names(&self) -> &'a Names {
        self.names
    }

    pub(crate) fn instance(&self) -> &'a str {
        self.instance
    }

    /// The broker's version, and the name of its cluster.
    pub(crate) fn broker(&self) -> (Option<String>, Option<String>) {
        let property = |name| self.connection.server_property(name);
        (property("version"), property("cluster_name"))
    }

    /// Returns true if the broker takes no publishes because of an alarm.
    pub(crate) fn is_blocked(&self) -> bool {
        self.connection.status().blocked()
    }

    /// Closes the channel. Of no consequence if it fails: the channel ends with its connection.
    pub(crate) async fn close(self) {
        if let Some(channel) = self.channel {
            let _ = timeout(CLOSE_TIMEOUT, channel.close(200, "normal shutdown".into())).await;
        }
    }

    /// Declares a durable exchange, or finds it as it must be.
    ///
    /// # Errors
    /// It exists with other properties, or may not be declared.
    pub(crate) async fn declare_exchange(
        &mut self,
        exchange: &str,
        kind: ExchangeKind,
        internal: bool,
        arguments: FieldTable,
    ) -> Result<(), SourceError> {
        let options = ExchangeDeclareOptions { durable: true, internal, ..ExchangeDeclareOptions::default() };
        self.declare_exchange_with(exchange, kind, options, arguments).await
    }

    /// Declares the exchange that the broker deletes as soon as its one binding, to the public exchange, is gone.
    ///
    /// # Errors
    /// As [`Self::declare_exchange`].
    pub(crate) async fn declare_watch(&mut self) -> Result<(), SourceError> {
        let (names, kind) = (self.names, ExchangeKind::Fanout);
        let options = ExchangeDeclareOptions {
            durable: true,
            internal: true,
            auto_delete: true,
            ..ExchangeDeclareOptions::default()
        };
        self.declare_exchange_with(&names.watch(), kind, options, FieldTable::default()).await?;
        self.bind_exchange(names.public(), &names.watch()).await
    }

    async fn declare_exchange_with(
        &mut self,
        exchange: &str,
        kind: ExchangeKind,
        options: ExchangeDeclareOptions,
        arguments: FieldTable,
    ) -> Result<(), SourceError> {
        let (object, exchange) = (format!("exchange {exchange}"), exchange.into());
        let declaring = |channel: Channel| async move {
            channel.exchange_declare(exchange, kind, options, arguments).await
        };
        self.request("declaring an exchange", &object, declaring).await
    }

    /// Declares a durable queue, or finds it as it must be.
    ///
    /// # Errors
    /// It exists with other properties, or may not be declared.
    pub(crate) async fn declare_queue(
        &mut self,
        queue: &str,
        arguments: FieldTable,
    ) -> Result<(), SourceError> {
        let options = QueueDeclareOptions { durable: true, ..QueueDeclareOptions::default() };
        let (object, queue) = (format!("queue {queue}"), queue.into());
        let declaring = |channel: Channel| async move {
            channel.queue_declare(queue, options, arguments).await.map(drop)
        };
        self.request("declaring a queue", &object, declaring).await
    }

    /// Looks at a queue without declaring it.
    ///
    /// # Errors
    /// [`SourceError::Missing`]: this node knows no such queue. [`SourceError::NodeDown`]: its node is down.
    ///
    /// A node that does not reach the queue's leader answers with zero messages and zero consumers, whatever is in it
    /// (RabbitMQ 3.10.8 and 4.0.5, measured): to delete it takes more than this answer.
    pub(crate) async fn queue_depth(&mut self, queue: &str) -> Result<Depth, SourceError> {
        let options = QueueDeclareOptions { passive: true, ..QueueDeclareOptions::default() };
        let (object, queue) = (format!("queue {queue}"), queue.into());
        let looking = |channel: Channel| async move {
            channel.queue_declare(queue, options, FieldTable::default()).await
        };
        let declared = self.request("looking at a queue", &object, looking).await?;
        Ok(Depth { ready: declared.message_count(), consumers: declared.consumer_count() })
    }

    /// Returns true if the node of this connection knows the exchange.
    pub(crate) async fn knows_exchange(&mut self, exchange: &str) -> Result<bool, SourceError> {
        match self.find_exchange(exchange).await {
            Ok(()) => Ok(true),
            Err(SourceError::Missing { .. }) => Ok(false),
            Err(fault) => Err(fault),
        }
    }

    /// Looks at an exchange without declaring it.
    ///
    /// # Errors
    /// [`SourceError::Missing`]: it is not there.
    pub(crate) async fn find_exchange(&mut self, exchange: &str) -> Result<(), SourceError> {
        let options = ExchangeDeclareOptions { passive: true, ..ExchangeDeclareOptions::default() };
        let (object, exchange) = (format!("exchange {exchange}"), exchange.into());
        let kind = ExchangeKind::Fanout; // a passive declaration does not compare it
        let looking = |channel: Channel| async move {
            channel.exchange_declare(exchange, kind, options, FieldTable::default()).await
        };
        self.request("looking at an exchange", &object, looking).await
    }

    /// Binds a queue to an exchange. Binding what is bound changes nothing.
    pub(crate) async fn bind_queue(&mut self, queue: &str, exchange: &str) -> Result<(), SourceError> {
        let object = format!("binding of {queue} to {exchange}");
        let (queue, exchange, options) = (queue.into(), exchange.into(), QueueBindOptions::default());
        let binding = |channel: Channel| async move {
            channel.queue_bind(queue, exchange, "".into(), options, FieldTable::default()).await
        };
        self.request("binding a queue", &object, binding).await
    }

    /// Binds an exchange to another one, from which it gets messages. Binding what is bound changes nothing.
    pub(crate) async fn bind_exchange(&mut self, destination: &str, from: &str) -> Result<(), SourceError> {
        let object = format!("binding of {destination} to {from}");
        let (destination, from, options) = (destination.into(), from.into(), ExchangeBindOptions::default());
        let binding = |channel: Channel| async move {
            channel.exchange_bind(destination, from, "".into(), options, FieldTable::default()).await
        };
        self.request("binding an exchange", &object, binding).await
    }

    /// Removes such a binding. What is not bound is no error (RabbitMQ 3.10.8 and 4.0.5).
    pub(crate) async fn unbind_exchange(&mut self, destination: &str, from: &str) -> Result<(), SourceError> {
        let object = format!("binding of {destination} to {from}");
        let (destination, from, options) =
            (destination.into(), from.into(), ExchangeUnbindOptions::default());
        let unbinding = |channel: Channel| async move {
            channel.exchange_unbind(destination, from, "".into(), options, FieldTable::default()).await
        };
        self.request("removing a binding", &object, unbinding).await
    }

    /// Deletes a queue with what is in it. One that is not there is no error.
    pub(crate) async fn delete_queue(&mut self, queue: &str) -> Result<(), SourceError> {
        let (object, queue) = (format!("queue {queue}"), queue.into());
        let deleting = |channel: Channel| async move {
            channel.queue_delete(queue, QueueDeleteOptions::default()).await.map(drop)
        };
        self.request("deleting a queue", &object, deleting).await
    }

    /// Deletes an exchange with its bindings. One that is not there is no error.
    pub(crate) async fn delete_exchange(&mut self, exchange: &str) -> Result<(), SourceError> {
        self.delete_exchange_with(exchange, ExchangeDeleteOptions::default()).await
    }

    /// Deletes an exchange that nothing is bound to.
    ///
    /// # Errors
    /// [`SourceError::is_in_use`]: something is bound to it.
    pub(crate) async fn delete_unused_exchange(&mut self, exchange: &str) -> Result<(), SourceError> {
        let options = ExchangeDeleteOptions { if_unused: true, ..ExchangeDeleteOptions::default() };
        self.delete_exchange_with(exchange, options).await
    }

    async fn delete_exchange_with(
        &mut self,
        exchange: &str,
        options: ExchangeDeleteOptions,
    ) -> Result<(), SourceError> {
        let (object, exchange) = (format!("exchange {exchange}"), exchange.into());
        let deleting = |channel: Channel| async move { channel.exchange_delete(exchange, options).await };
        self.request("deleting an exchange", &object, deleting).await
    }

    /// Takes the lock for changing the layout: an exclusive queue, which the broker refuses to a second connection and
    /// deletes with its connection. This connection can take it again.
    ///
    /// # Errors
    /// [`SourceError::Locked`]: another connection has it.
    pub(crate) async fn lock(&mut self) -> Result<(), SourceError> {
        let options = QueueDeclareOptions { exclusive: true, ..QueueDeclareOptions::default() };
        let lock = self.names.topology_lock();
        let (object, lock) = (format!("queue {lock}"), lock.as_str().into());
        let locking = |channel: Channel| async move {
            channel.queue_declare(lock, options, FieldTable::default()).await.map(drop)
        };
        self.request("locking the layout", &object, locking).await
    }

    /// Releases the lock.
    pub(crate) async fn unlock(&mut self) -> Result<(), SourceError> {
        let lock = self.names.topology_lock();
        let (object, lock) = (format!("queue {lock}"), lock.as_str().into());
        let unlocking = |channel: Channel| async move {
            channel.queue_delete(lock, QueueDeleteOptions::default()).await.map(drop)
        };
        self.request("unlocking the layout", &object, unlocking).await
    }

    /// Publishes all messages. Returns once the broker has answered to each, in the order of the messages.
    ///
    /// # Errors
    /// [`SourceError::Silent`]: not within [`ANSWER_TIMEOUT`]; each may have arrived or not. Under an alarm of the broker
    /// this connection then is of no more use before the alarm is over.
    pub(crate) async fn publish_all(
        &mut self,
        step: &'static str,
        object: &str,
        messages: Vec<Message<'_>>,
    ) -> Result<Vec<PublishAnswer>, SourceError> {
        let publishing = self.request(step, object, |channel: Channel| async move {
            ConfirmChannel::select(channel).await?.publish_all(messages).await
        });
        match timeout(ANSWER_TIMEOUT, publishing).await {
            Ok(answers) => answers,
            Err(_) => Err(SourceError::Silent { step, seconds: ANSWER_TIMEOUT.as_secs() }),
        }
    }

    /// A channel for consumers, apart from that of the session: they end with it.
    pub(crate) async fn consumer_channel(&self) -> Result<ConsumerChannel, SourceError> {
        open(self.connection).await.map(ConsumerChannel::new)
    }

    /// Consumes a quorum queue for a moment, which takes a majority of its replicas. What it delivers goes back to its head.
    ///
    /// # Errors
    /// [`SourceError::NoQuorum`].
    pub(crate) async fn try_consuming(&self, queue: &str, step: &'static str) -> Result<(), SourceError> {
        let mut channel = self.consumer_channel().await?;
        let trying = async {
            channel.set_prefetch(1).await?;
            channel.consume(queue, "", FieldTable::default()).await
        };
        let tried = timeout(ANSWER_TIMEOUT, trying).await;
        let _ = channel.close(CLOSE_TIMEOUT).await;
        match tried {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(source)) => {
                let object = format!("queue {queue}");
                Err(SourceError::from_consuming(step, &object, self.names.public(), source))
            }
            Err(_) => Err(SourceError::NoQuorum { step }),
        }
    }

    /// Begins to read a stream, on a channel of its own.
    ///
    /// # Errors
    /// [`SourceError::Missing`]: the stream is not there.
    pub(crate) async fn read_stream(
        &self,
        stream: &str,
        from: StreamOffset,
        step: &'static str,
    ) -> Result<StreamReader, SourceError> {
        let channel = open(self.connection).await?;
        StreamReader::open(channel, (stream, self.names.public()), from, step).await
    }

    /// The channel is missing afterwards unless all goes well, also if the future is dropped.
    async fn request<T, F: Future<Output = lapin::Result<T>>>(
        &mut self,
        step: &'static str,
        object: &str,
        ask: impl FnOnce(Channel) -> F,
    ) -> Result<T, SourceError> {
        let channel = match self.channel.take() {
            Some(channel) => channel,
            None => open(self.connection).await?,
        };
        let answer = ask(channel.clone()).await;
        let answer =
            answer.map_err(|source| SourceError::from_amqp(step, object, self.names.public(), source))?;
        self.channel = Some(channel);
        Ok(answer)
    }
}

async fn open(connection: &Connection) -> Result<Channel, SourceError> {
    connection.create_channel().await.map_err(SourceError::amqp("opening a channel"))
}

//! The broker's side of a publisher's test: an exchange of the test's own, its queues, and what is in them.

use std::collections::BTreeMap;
use std::time::Duration;

use futures_util::StreamExt;
use lapin::message::Delivery;
use lapin::options::{
    BasicAckOptions, BasicConsumeOptions, BasicPublishOptions, ConfirmSelectOptions, ExchangeDeclareOptions,
    ExchangeDeleteOptions, QueueBindOptions, QueueDeclareOptions, QueueDeleteOptions,
};
use lapin::types::{AMQPValue, FieldTable};
use lapin::{BasicProperties, Channel, Connection, ConnectionProperties, ExchangeKind};
use tokio::runtime::Runtime;

use crate::harness::until;

/// How long anything may take before the test fails.
pub const DEADLINE: Duration = Duration::from_secs(180);

/// An exchange and its queues, removed in the end.
pub struct Exchange {
    pub name: String,
    url: String,
    queues: Vec<String>,
    runtime: Runtime,
}

/// A message that a publisher sent.
#[derive(Debug)]
pub struct Arrived {
    pub record_key: String,
    pub properties: BasicProperties,
    pub body: Vec<u8>,
}

impl From<Delivery> for Arrived {
    fn from(delivery: Delivery) -> Self {
        Self {
            record_key: delivery.routing_key.to_string(),
            properties: delivery.properties,
            body: delivery.data,
        }
    }
}

impl Arrived {
    /// The member `sequence` of its JSON body.
    pub fn sequence(&self) -> u64 {
        let body: serde_json::Value = serde_json::from_slice(&self.body).expect("a JSON body");
        body["sequence"].as_u64().expect("a sequence number")
    }

    /// AMQP `message_id`.
    pub fn id(&self) -> &str {
        self.properties.message_id().as_ref().expect("an id").as_str()
    }
}

impl Exchange {
    /// Declares an exchange with a name of its own.
    pub fn declare(url: &str, kind: ExchangeKind) -> Self {
        let runtime = Runtime::new().unwrap();
        let name = format!("test-{}", uuid::Uuid::new_v4());
        let exchange = Self { name, url: url.to_owned(), queues: Vec::new(), runtime };
        exchange.with_channel(async |channel| {
            let options = ExchangeDeclareOptions { durable: true, ..ExchangeDeclareOptions::default() };
            let name = exchange.name.as_str().into();
            channel.exchange_declare(name, kind, options, FieldTable::default()).await.unwrap();
        });
        exchange
    }

    /// A fanout exchange with one quorum queue.
    pub fn with_queue(url: &str) -> Self {
        let mut exchange = Self::declare(url, ExchangeKind::Fanout);
        exchange.queue("", &[]);
        exchange
    }

    /// Adds a quorum queue, bound with `binding_key`.
    pub fn queue(&mut self, binding_key: &str, arguments: &[(&str, AMQPValue)]) {
        let queue = format!("{}.{}", self.name, self.queues.len());
        self.with_channel(async |channel| {
            let options = QueueDeclareOptions { durable: true, ..QueueDeclareOptions::default() };
            let mut table = FieldTable::default();
            table.insert("x-queue-type".into(), AMQPValue::LongString("quorum".into()));
            for (name, value) in arguments {
                table.insert((*name).into(), value.clone());
            }
            channel.queue_declare(queue.as_str().into(), options, table).await.unwrap();
            let (queue, exchange) = (queue.as_str().into(), self.name.as_str().into());
            let (key, options) = (binding_key.into(), QueueBindOptions::default());
            channel.queue_bind(queue, exchange, key, options, FieldTable::default()).await.unwrap();
        });
        self.queues.push(queue);
    }

    /// Removes the exchange, not the queues.
    pub fn delete_exchange(&self) {
        self.with_channel(async |channel| {
            let options = ExchangeDeleteOptions::default();
            channel.exchange_delete(self.name.as_str().into(), options).await.unwrap();
        });
    }

    /// Waits until the queues hold at least `count` messages.
    pub fn wait_for(&self, count: u32) {
        self.with_channel(async |channel| {
            let look = || async {
                let mut seen = 0;
                for queue in &self.queues {
                    let options = QueueDeclareOptions { passive: true, ..QueueDeclareOptions::default() };
                    let declared =
                        channel.queue_declare(queue.as_str().into(), options, FieldTable::default()).await;
                    seen += declared.unwrap().message_count();
                }
                if seen >= count { Ok(()) } else { Err(format!("{seen} messages")) }
            };
            until(&format!("{count} messages"), look).await;
        });
    }

    /// Takes `count` messages out of the first queue as they come.
    pub fn take(&self, count: usize) -> Vec<Arrived> {
        self.with_channel(async |channel| {
            let (queue, options) = (self.queues[0].as_str().into(), BasicConsumeOptions::default());
            let mut consumer =
                channel.basic_consume(queue, "take".into(), options, FieldTable::default()).await.unwrap();
            let mut arrived = Vec::new();
            while arrived.len() < count {
                let next = tokio::time::timeout(DEADLINE, consumer.next()).await;
                let Ok(delivery) = next else { panic!("{} of {count} messages came", arrived.len()) };
                let delivery = delivery.unwrap().unwrap();
                delivery.ack(BasicAckOptions::default()).await.unwrap();
                arrived.push(Arrived::from(delivery));
            }
            arrived
        })
    }

    /// Takes everything out of the queues, in order. Nobody publishes meanwhile.
    pub fn drain(&self) -> Vec<Arrived> {
        self.with_channel(async |channel| {
            channel.confirm_select(ConfirmSelectOptions::default()).await.unwrap();
            let mut arrived = Vec::new();
            for queue in &self.queues {
                let options = BasicConsumeOptions { no_ack: true, ..BasicConsumeOptions::default() };
                let tag = format!("drain-{queue}");
                let mut consumer = channel
                    .basic_consume(queue.as_str().into(), tag.into(), options, FieldTable::default())
                    .await
                    .unwrap();
                // Whatever was there before this marker comes before it.
                let options = BasicPublishOptions::default();
                let confirm = channel
                    .basic_publish("".into(), queue.as_str().into(), options, b"", BasicProperties::default())
                    .await
                    .unwrap();
                confirm.await.unwrap();
                loop {
                    let next = tokio::time::timeout(DEADLINE, consumer.next()).await;
                    let delivery = next.expect("the marker arrives").unwrap().unwrap();
                    if delivery.exchange.as_str().is_empty() {
                        break;
                    }
                    arrived.push(Arrived::from(delivery));
                }
            }
            arrived
        })
    }

    fn with_channel<T>(&self, run: impl AsyncFnOnce(Channel) -> T) -> T {
        self.runtime.block_on(async {
            let connection = Connection::connect(&self.url, ConnectionProperties::default())
                .await
                .expect("the test's broker");
            let channel = connection.create_channel().await.unwrap();
            let result = run(channel).await;
            let _ = connection.close(200, "done".into()).await;
            result
        })
    }
}

impl Drop for Exchange {
    fn drop(&mut self) {
        let connected =
            self.runtime.block_on(Connection::connect(&self.url, ConnectionProperties::default()));
        let Ok(connection) = connected else { return };
        self.runtime.block_on(async {
            if let Ok(channel) = connection.create_channel().await {
                for queue in &self.queues {
                    let _ = channel.queue_delete(queue.as_str().into(), QueueDeleteOptions::default()).await;
                }
                let name = self.name.as_str().into();
                let _ = channel.exchange_delete(name, ExchangeDeleteOptions::default()).await;
            }
            let _ = connection.close(200, "done".into()).await;
        });
    }
}

/// The sequence numbers of each record, repeated ones left out.
///
/// Repetitions are allowed (at least once), but only of the newest update, or order would be broken.
pub fn sequences(arrived: &[Arrived]) -> BTreeMap<String, Vec<u64>> {
    let mut records: BTreeMap<String, Vec<u64>> = BTreeMap::new();
    for message in arrived {
        let seen = records.entry(message.record_key.clone()).or_default();
        let sequence = message.sequence();
        match seen.last() {
            Some(last) if *last == sequence => {}
            Some(last) => {
                assert_eq!(sequence, last + 1, "{}: out of order, or a gap", message.record_key);
                seen.push(sequence);
            }
            None => seen.push(sequence),
        }
    }
    records
}

/// Every one of `records` records has updates 0 to `updates - 1`, in order.
pub fn assert_complete(arrived: &[Arrived], records: usize, updates: u64) {
    let seen = sequences(arrived);
    assert_eq!(seen.len(), records, "records that arrived");
    for (record_key, sequences) in seen {
        assert_eq!(sequences.first(), Some(&0), "{record_key}");
        assert_eq!(sequences.len() as u64, updates, "{record_key}");
    }
}

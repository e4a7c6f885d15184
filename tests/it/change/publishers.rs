//! Publishers that go on while the layout changes: confirmed, mandatory, each on a connection of its own.

use std::collections::HashMap;
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::FuturesOrdered;
use lapin::options::{
    BasicAckOptions, BasicConsumeOptions, BasicPublishOptions, BasicQosOptions, ConfirmSelectOptions,
    QueueBindOptions, QueueDeclareOptions,
};
use lapin::types::FieldTable;
use lapin::{BasicProperties, Confirmation, Connection, ConnectionProperties};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{MissedTickBehavior, interval, timeout};

use crate::harness::World;

const RECORDS: usize = 100;
const UNCONFIRMED_MAX: usize = 1_000;
const BURST_EVERY: Duration = Duration::from_millis(10);
/// An audit queue that gives nothing for so long is empty.
const AUDIT_PATIENCE: Duration = Duration::from_secs(10);

/// What a publisher has done.
pub struct Published {
    pub updates: u64,
    pub unroutable: u64,
}

/// Some publishers, until they are asked to stop.
pub struct Publishers {
    stop: watch::Sender<bool>,
    running: Vec<JoinHandle<Published>>,
}

impl Publishers {
    /// Begins, with so many updates a second each.
    pub fn begin(world: &World, publishers: usize, rate: usize) -> Self {
        let (stop, stopped) = watch::channel(false);
        let running = (0..publishers).map(|number| {
            let (url, exchange) = (world.broker.url().to_owned(), world.exchange.clone());
            tokio::spawn(publish(url, exchange, number, rate, stopped.clone()))
        });
        Self { stop, running: running.collect() }
    }

    /// All of them, once everything is confirmed.
    pub async fn end(self) -> Published {
        self.stop.send_replace(true);
        let mut all = Published { updates: 0, unroutable: 0 };
        for one in self.running {
            let Published { updates, unroutable } = one.await.expect("a publisher does not panic");
            all.updates += updates;
            all.unroutable += unroutable;
        }
        all
    }
}

async fn publish(
    url: String,
    exchange: String,
    number: usize,
    rate: usize,
    stop: watch::Receiver<bool>,
) -> Published {
    let connecting = Connection::connect(&url, ConnectionProperties::default());
    let connection = connecting.await.expect("the broker takes connections");
    let channel = connection.create_channel().await.expect("it gives a channel");
    channel.confirm_select(ConfirmSelectOptions::default()).await.expect("it confirms");
    let mut pace = interval(BURST_EVERY);
    pace.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let burst = (rate / 100).max(1);
    let mut confirms = FuturesOrdered::new();
    let mut done = Published { updates: 0, unroutable: 0 };
    let mut judge = |confirmation: lapin::Result<Confirmation>| match confirmation.expect("it is confirmed") {
        Confirmation::Ack(None) => {}
        Confirmation::Ack(Some(_)) => done.unroutable += 1,
        other => panic!("not taken: {other:?}"),
    };
    let mut published = 0;
    while !*stop.borrow() {
        pace.tick().await;
        for _ in 0..burst {
            let (record, sequence) = (published % RECORDS, published / RECORDS + 1);
            let key = format!("record-{number}-{record}");
            let properties = BasicProperties::default()
                .with_message_id(format!("{number}-{record}-{sequence}").into())
                .with_type("record.updated".into())
                .with_delivery_mode(2);
            let body = format!(r#"{{"sequence":{sequence}}}"#);
            let options = BasicPublishOptions { mandatory: true, ..BasicPublishOptions::default() };
            let sending = channel.basic_publish(
                exchange.as_str().into(),
                key.into(),
                options,
                body.as_bytes(),
                properties,
            );
            confirms.push_back(sending.await.expect("it can be sent"));
            published += 1;
        }
        while confirms.len() > UNCONFIRMED_MAX {
            judge(confirms.next().await.expect("there are some"));
        }
    }
    while let Some(confirmation) = confirms.next().await {
        judge(confirmation);
    }
    connection.close(200, "done".into()).await.expect("it closes");
    Published { updates: u64::try_from(published).expect("it is not negative"), ..done }
}

/// Binds an audit queue to the public exchange.
pub async fn audit(world: &World) -> String {
    let (channel, queue) = (world.channel().await, format!("{}.audit", world.exchange));
    let options = QueueDeclareOptions { durable: true, ..QueueDeclareOptions::default() };
    channel
        .queue_declare(queue.as_str().into(), options, FieldTable::default())
        .await
        .expect("it is declared");
    let (name, exchange) = (queue.as_str().into(), world.exchange.as_str().into());
    let options = QueueBindOptions::default();
    channel.queue_bind(name, exchange, "".into(), options, FieldTable::default()).await.expect("it is bound");
    queue
}

/// How many different updates the audit queue has, and how many came more than once.
pub async fn audited(world: &World, queue: &str, updates: u64) -> (u64, u64) {
    let channel = world.channel().await;
    channel.basic_qos(1_000, BasicQosOptions::default()).await.expect("it can be set");
    let options = BasicConsumeOptions::default();
    let consuming = channel.basic_consume(queue.into(), "".into(), options, FieldTable::default());
    let mut consumer = consuming.await.expect("it can be consumed");
    let mut seen: HashMap<String, u64> = HashMap::new();
    let mut messages = 0;
    while let Ok(Some(delivery)) = timeout(AUDIT_PATIENCE, consumer.next()).await {
        let delivery = delivery.expect("it can be read");
        delivery.ack(BasicAckOptions::default()).await.expect("it is settled");
        let id = delivery.properties.message_id().as_ref().expect("it has an id").to_string();
        *seen.entry(id).or_default() += 1;
        messages += 1;
        if messages == updates && world.waiting(&channel, "audit").await == 0 {
            break;
        }
    }
    let more = seen.values().filter(|times| **times > 1).count();
    (seen.len() as u64, more as u64)
}

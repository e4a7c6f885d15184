//! The bare loop: the least that forwards in order per record. `lanekeeper-lab bench --compare bare` takes it for the
//! ceiling.
//!
//! It has the client libraries of Lanekeeper, lanes, Lanekeeper's acks, and its choice of the next lane, without which there
//! would be ten times as many acks. It has no ledger, retries, policy, ownership, metrics or logs. Its settings are the
//! variables of benches/peers/README.md.

#![expect(clippy::disallowed_types, reason = "it uses the client libraries directly")]

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap, VecDeque};
use std::env;
use std::time::{Duration, Instant};

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use lanekeeper_core::acks::{AckLimits, Acks};
use lanekeeper_core::message::DeliveryTag;
use lanekeeper_core::tick::Tick;
use lapin::message::Delivery;
use lapin::options::{BasicAckOptions, BasicConsumeOptions, BasicQosOptions};
use lapin::types::{FieldTable, ShortString};
use lapin::{Channel, Connection, ConnectionProperties};
use reqwest::Client;
use reqwest::header::CONTENT_TYPE;

/// The loop waits for an event or for an ack that is due; without either it wakes up after this time.
const IDLE: Duration = Duration::from_secs(3600);

#[derive(Clone)]
struct Task {
    target: String,
    prefetch: u16,
    in_flight_max: usize,
    client: Client,
}

#[tokio::main]
async fn main() {
    rustls::crypto::ring::default_provider().install_default().expect("the TLS provider is installed once");
    let client = Client::builder().no_proxy().tcp_nodelay(true).build().expect("the client can be made");
    let task = Task {
        target: variable("BENCH_TARGET"),
        prefetch: variable("BENCH_PREFETCH").parse().expect("a number"),
        in_flight_max: variable("BENCH_IN_FLIGHT_MAX").parse().expect("a number"),
        client,
    };
    let broker = variable("BENCH_BROKER_URL");
    let connecting = Connection::connect(&broker, ConnectionProperties::default());
    let connection = connecting.await.expect("the broker answers");
    let mut partitions = Vec::new();
    for queue in variable("BENCH_QUEUES").split(' ') {
        let channel = connection.create_channel().await.expect("a channel can be opened");
        partitions.push(tokio::spawn(partition(task.clone(), channel, queue.to_owned())));
    }
    for partition in partitions {
        partition.await.expect("a partition does not end");
    }
}

fn variable(name: &str) -> String {
    env::var(name).unwrap_or_else(|_| panic!("{name} is not set: `lanekeeper-lab bench` sets it"))
}

/// One lane per record. A lane that is not empty has its head in flight, or is in `ready`.
async fn partition(task: Task, channel: Channel, queue: String) {
    channel.basic_qos(task.prefetch, BasicQosOptions::default()).await.expect("the broker answers");
    let (options, arguments) = (BasicConsumeOptions::default(), FieldTable::default());
    let consuming = channel.basic_consume(queue.as_str().into(), "bare".into(), options, arguments);
    let mut consumer = consuming.await.expect("the queue can be consumed");
    let mut lanes: HashMap<ShortString, VecDeque<Delivery>> = HashMap::new();
    let mut ready = BinaryHeap::new();
    let mut in_flight = FuturesUnordered::new();
    let mut acks = Acks::new(AckLimits::for_prefetch(task.prefetch.into()));
    let started = Instant::now();
    let now = || Tick::from_micros(u64::try_from(started.elapsed().as_micros()).expect("it is not so long"));
    loop {
        while in_flight.len() < task.in_flight_max
            && let Some(Reverse((_, key))) = ready.pop()
        {
            let head = lanes.get_mut(&key).and_then(VecDeque::pop_front).expect("a ready lane has a head");
            in_flight.push(send(task.clone(), head));
        }
        while let Some(ack) = acks.poll(now()) {
            let options = BasicAckOptions { multiple: ack.multiple };
            channel.basic_ack(ack.tag.0, options).await.expect("the channel is open");
        }
        let due = acks.next_deadline().map_or(IDLE, |due| due.since(now()));
        tokio::select! {
            biased;
            Some((key, tag)) = in_flight.next(), if !in_flight.is_empty() => {
                acks.finished(DeliveryTag(tag), now());
                if let Some(next) = lanes[&key].front() {
                    ready.push(Reverse((next.delivery_tag, key)));
                } else {
                    lanes.remove(&key);
                }
            }
            Some(delivery) = consumer.next() => {
                let delivery = delivery.expect("the channel is open");
                acks.delivered(DeliveryTag(delivery.delivery_tag), now());
                let (key, tag) = (delivery.routing_key.clone(), delivery.delivery_tag);
                if let Some(lane) = lanes.get_mut(&key) {
                    lane.push_back(delivery);
                } else {
                    lanes.insert(key.clone(), VecDeque::from([delivery]));
                    ready.push(Reverse((tag, key)));
                }
            }
            () = tokio::time::sleep(due) => {}
        }
    }
}

/// Sends one request. It ends the program if the receiver refuses it.
async fn send(task: Task, delivery: Delivery) -> (ShortString, u64) {
    let id = delivery.properties.message_id().as_ref().map(ToString::to_string).unwrap_or_default();
    let request = task
        .client
        .put(format!("{}{}", task.target, delivery.routing_key))
        .header("idempotency-key", format!("\"{id}\""))
        .header(CONTENT_TYPE, "application/json")
        .body(delivery.data);
    let answer = request.send().await.expect("the receiver answers");
    assert!(answer.status().is_success(), "the receiver answered {}", answer.status());
    answer.bytes().await.expect("the answer is whole");
    (delivery.routing_key, delivery.delivery_tag)
}

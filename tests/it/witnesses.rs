//! Where keys go: recorded with the layout, and compared after every connect.

use std::collections::BTreeMap;
use std::sync::Arc;

use futures_util::StreamExt;
use lanekeeper_core::phash2::partition_of;
use lapin::options::{
    BasicAckOptions, BasicConsumeOptions, BasicPublishOptions, BasicQosOptions, ConfirmSelectOptions,
    ExchangeDeclareOptions, QueueBindOptions, QueueDeclareOptions, QueueDeleteOptions,
};
use lapin::types::{AMQPValue, FieldTable};
use lapin::{BasicProperties, Channel, ExchangeKind};
use serde_json::{Value, json};

use crate::harness::{Dispatcher, Proxy, World, assert_flawless, until, updates};

async fn declare_hash_exchange(channel: &Channel, exchange: &str) {
    let options = ExchangeDeclareOptions { durable: true, ..ExchangeDeclareOptions::default() };
    let kind = ExchangeKind::Custom("x-modulus-hash".to_owned());
    channel.exchange_declare(exchange.into(), kind, options, FieldTable::default()).await.unwrap();
}

async fn bind(channel: &Channel, queue: &str, exchange: &str, routing_key: &str) {
    let options = QueueBindOptions::default();
    let (queue, exchange) = (queue.into(), exchange.into());
    channel.queue_bind(queue, exchange, routing_key.into(), options, FieldTable::default()).await.unwrap();
}

/// A queue that is no partition, bound to the hash exchange as somebody might by mistake.
async fn bind_foreign_queue(channel: &Channel, queue: &str, exchange: &str) {
    let options = QueueDeclareOptions { durable: true, ..QueueDeclareOptions::default() };
    channel.queue_declare(queue.into(), options, FieldTable::default()).await.unwrap();
    bind(channel, queue, exchange, "").await;
}

async fn delete_queue(channel: &Channel, queue: &str) {
    channel.queue_delete(queue.into(), QueueDeleteOptions::default()).await.unwrap();
}

/// The last document of the topology stream.
async fn document(world: &World) -> Value {
    let channel = world.channel().await;
    channel.basic_qos(100, BasicQosOptions::default()).await.unwrap();
    let mut arguments = FieldTable::default();
    arguments.insert("x-stream-offset".into(), AMQPValue::LongString("last".into()));
    let stream = format!("{}.topology", world.exchange);
    let options = BasicConsumeOptions::default();
    let mut consumer = channel.basic_consume(stream.into(), "".into(), options, arguments).await.unwrap();
    loop {
        let delivery = consumer.next().await.expect("the stream stays").expect("it can be read");
        delivery.ack(BasicAckOptions::default()).await.unwrap();
        if let Ok(document) = serde_json::from_slice(&delivery.data) {
            return document;
        }
    }
}

fn partitions_of(document: &Value) -> BTreeMap<String, u64> {
    let witnesses = document["witnesses"].as_array().expect("witnesses");
    witnesses
        .iter()
        .map(|witness| (witness["key"].as_str().unwrap().to_owned(), witness["partition"].as_u64().unwrap()))
        .collect()
}

fn computed(document: &Value, partitions: u16) -> BTreeMap<String, u64> {
    let partition = |key: &str| u64::from(partition_of(key.as_bytes(), partitions).0);
    partitions_of(document).into_keys().map(|key| (key.clone(), partition(&key))).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn witnesses_are_recorded_and_come_without_being_updates() {
    let world = World::new("witnessed").await;
    let dispatcher = world.dispatcher("updates.partitions = 4").await;
    world.publish(updates(40, 5)).await;
    assert_flawless(&world.applied(200).await, 200);
    until("every witness", || async {
        match dispatcher.metric("lanekeeper_witnesses_seen_total").await {
            16.0 => Ok(()),
            other => Err(other.to_string()),
        }
    })
    .await;
    let counts = ["lanekeeper_updates_received_total", "lanekeeper_updates_dead_lettered_total"];
    let [received, dead_lettered] = counts.map(|name| dispatcher.metric(name));
    assert_eq!(format!("{} {}", received.await, dead_lettered.await.abs()), "200 0");
    assert_eq!(world.receiver.report(0).counts.updates, 200, "nothing else was sent");
    let document = document(&world).await;
    assert!([3, 4].contains(&document["version"].as_u64().unwrap()), "{document}");
    assert_eq!(partitions_of(&document).len(), 16);
    assert_eq!(partitions_of(&document), computed(&document, 4));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_foreign_queue_on_the_hash_exchange_stops_all_dispatch_until_it_is_gone() {
    let world = World::new("foreign").await;
    let address = world.broker.url().split('@').nth(1).unwrap().split('/').next().unwrap().to_owned();
    let proxy = Proxy::start(address.clone()).await.expect("a port is free");
    let config = world.config("updates.partitions = 3").replace(&address, &proxy.address.to_string());
    let mut dispatcher = world.start(&config);
    dispatcher.ready().await;
    world.publish(updates(30, 5)).await;
    assert_flawless(&world.applied(150).await, 150);
    let channel = world.channel().await;
    bind_foreign_queue(&channel, "foreign.l1.audit", "foreign.l1").await;
    proxy.close_connections();
    assert_eq!(dispatcher.ended().await, Some(3));
    dispatcher.logged("keys have moved: the exchange foreign.l1 routes lanekeeper-witness-").await;
    dispatcher.logged("rabbitmqctl list_bindings").await;
    // As long as nothing is put right it does not go on either.
    let mut again = world.start(&config);
    assert_eq!(again.ended().await, Some(3));
    delete_queue(&channel, "foreign.l1.audit").await;
    let again = world.dispatcher("updates.partitions = 3").await;
    let more = updates(30, 10).filter(|update| update["body"]["sequence"].as_u64() > Some(5));
    world.publish(more.collect::<Vec<_>>()).await;
    assert_flawless(&world.applied(300).await, 300);
    assert!(!again.log().iter().any(|line| line.contains("keys have moved")));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replica_that_finds_moved_keys_stops_the_others_too() {
    let world = World::new("moved-both").await;
    let mut first = world.dispatcher("updates.partitions = 2").await;
    let witnessed = |count: f64| {
        let first = &first;
        until("witnesses", move || async move {
            let seen = first.metric("lanekeeper_witnesses_seen_total").await;
            if seen >= count { Ok(()) } else { Err(seen.to_string()) }
        })
    };
    witnessed(16.0).await;
    let channel = world.channel().await;
    bind_foreign_queue(&channel, "moved-both.l1.audit", "moved-both.l1").await;
    // The first one owns both partitions, and gets the witnesses of the second: it asks anew, and finds its own moved.
    let mut second = world.start(&world.config("updates.partitions = 2"));
    assert_eq!(first.ended().await, Some(3));
    first.logged("a witness of another process came to a wrong queue, publishing our own to check").await;
    assert_eq!(second.ended().await, Some(3));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_layout_records_what_the_broker_did_even_if_it_is_not_as_computed() {
    let world = World::new("otherwise").await;
    let channel = world.channel().await;
    let broken = world.start(&world.config("updates.partitions = 2"));
    broken.ready().await;
    drop(broken);
    // The same objects with the second queue bound twice, and no document.
    delete_queue(&channel, "otherwise.topology").await;
    bind(&channel, "otherwise.l1.p001", "otherwise.l1", "again").await;
    until("no consumer", || async {
        let options = QueueDeclareOptions { passive: true, ..QueueDeclareOptions::default() };
        let declared =
            channel.queue_declare("otherwise.l1.p001".into(), options, FieldTable::default()).await.unwrap();
        if declared.consumer_count() == 0 { Ok(()) } else { Err("a consumer".to_owned()) }
    })
    .await;
    let dispatcher = world.dispatcher("updates.partitions = 2").await;
    dispatcher.logged("the broker routes keys to other queues than computed").await;
    let document = document(&world).await;
    assert_ne!(partitions_of(&document), computed(&document, 2));
    world.publish(updates(30, 5)).await;
    assert_flawless(&world.applied(150).await, 150);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_layout_whose_keys_go_astray_is_refused() {
    let world = World::new("astray").await;
    let channel = world.channel().await;
    declare_hash_exchange(&channel, "astray.l1").await;
    bind_foreign_queue(&channel, "astray.l1.audit", "astray.l1").await;
    let mut dispatcher: Dispatcher = world.start(&world.config("updates.partitions = 1"));
    assert_eq!(dispatcher.ended().await, Some(3));
    dispatcher.logged("the exchange astray.l1 routes lanekeeper-witness-").await;
    delete_queue(&channel, "astray.l1.audit").await;
    let _dispatcher = world.dispatcher("updates.partitions = 1").await;
    world.publish(updates(3, 3)).await;
    assert_flawless(&world.applied(9).await, 9);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_document_without_witnesses_is_read_and_gets_them() {
    let world = Arc::new(World::new("unwitnessed").await);
    let dispatcher = world.dispatcher("updates.partitions = 2").await;
    dispatcher.terminate();
    drop(dispatcher);
    let channel = world.channel().await;
    let older = json!({
        "version": 1,
        "in_force": {"number": 1, "partitions": 2, "prefetch": 1000},
        "changed_by": "older",
        "changed_at": 1_767_225_600,
    });
    // Its document is the only one.
    let stream = || "unwitnessed.topology".into();
    channel.queue_delete(stream(), QueueDeleteOptions::default()).await.unwrap();
    let durable = QueueDeclareOptions { durable: true, ..QueueDeclareOptions::default() };
    let mut arguments = FieldTable::default();
    arguments.insert("x-queue-type".into(), AMQPValue::LongString("stream".into()));
    channel.queue_declare(stream(), durable, arguments).await.unwrap();
    channel.confirm_select(ConfirmSelectOptions::default()).await.unwrap();
    let (options, properties) = (BasicPublishOptions::default(), BasicProperties::default());
    let properties = properties.with_type("layout".into());
    let body = older.to_string();
    let sent = channel.basic_publish("".into(), stream(), options, body.as_bytes(), properties);
    sent.await.unwrap().await.unwrap();
    // An update that waits already: the witnesses cannot be observed before it is settled.
    world.publish(updates(10, 1)).await;
    let dispatcher = world.dispatcher("updates.partitions = 2").await;
    dispatcher.logged("added witnesses to the layout").await;
    assert_flawless(&world.applied(10).await, 10);
    let document = document(&world).await;
    // 4 once the epoch of tenure numbers is recorded, too.
    assert!([3, 4].contains(&document["version"].as_u64().unwrap()), "{document}");
    assert_eq!(partitions_of(&document), computed(&document, 2));
}

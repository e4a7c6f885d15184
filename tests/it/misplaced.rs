//! What comes from the queue of a partition and does not belong there: updates of other partitions' records, and messages
//! of Lanekeeper's own that somebody has moved.

use lanekeeper_core::phash2::partition_of;
use lapin::message::Delivery;
use lapin::options::{
    BasicGetOptions, BasicPublishOptions, ConfirmSelectOptions, ExchangeBindOptions, ExchangeDeclareOptions,
    QueueBindOptions, QueueDeclareOptions,
};
use lapin::types::{AMQPValue, FieldTable};
use lapin::{BasicProperties, Channel, ExchangeKind};

use crate::harness::{World, assert_flawless, until, updates};

const PARTITIONS: u16 = 4;

async fn publish(channel: &Channel, exchange: &str, key: &str, properties: BasicProperties, body: &str) {
    let options = BasicPublishOptions::default();
    let publishing = channel.basic_publish(exchange.into(), key.into(), options, body.as_bytes(), properties);
    publishing.await.expect("it is sent").await.expect("it is confirmed");
}

async fn confirming(world: &World) -> Channel {
    let channel = world.channel().await;
    channel.confirm_select(ConfirmSelectOptions::default()).await.expect("confirms are on");
    channel
}

/// Takes so many dead letters, all of which are misplaced, and returns them.
async fn misplaced(world: &World, channel: &Channel, letters: usize) -> Vec<Delivery> {
    let mut found = Vec::new();
    while found.len() < letters {
        let queue = format!("{}.dead", world.exchange);
        let letter = until("a dead letter", || async {
            let got = channel.basic_get(queue.as_str().into(), BasicGetOptions { no_ack: true }).await;
            got.map_err(|error| error.to_string())?.ok_or_else(|| "the queue is empty".to_owned())
        })
        .await
        .delivery;
        let headers = letter.properties.headers().clone().unwrap_or_default();
        let reason = headers.inner().get("lanekeeper-reason");
        assert_eq!(reason, Some(&AMQPValue::LongString("misplaced".into())));
        found.push(letter);
    }
    found
}

#[tokio::test(flavor = "multi_thread")]
async fn an_update_that_came_to_a_second_partition_is_dead_lettered_there_and_applied_once_in_order() {
    let world = World::new("elsewhere").await;
    let dispatcher = world.dispatcher(&format!("updates.partitions = 4\n{}", world.ledger())).await;
    let channel = confirming(&world).await;
    let key = "record-0";
    let own = partition_of(key.as_bytes(), PARTITIONS);
    // Somebody has bound an exchange of theirs to the way in and, by mistake, to the queue of a partition.
    let (foreign, fanout) = ("elsewhere-foreign", ExchangeKind::Fanout);
    let options = ExchangeDeclareOptions::default();
    channel.exchange_declare(foreign.into(), fanout, options, FieldTable::default()).await.unwrap();
    let options = ExchangeBindOptions::default();
    let none = FieldTable::default();
    channel.exchange_bind("elsewhere".into(), foreign.into(), "".into(), options, none).await.unwrap();
    let queue = format!("elsewhere.l1.p{:03}", (own.0 + 1) % PARTITIONS);
    let (options, none) = (QueueBindOptions::default(), FieldTable::default());
    channel.queue_bind(queue.into(), foreign.into(), "".into(), options, none).await.unwrap();
    for sequence in 1..=20 {
        let exchange = if sequence % 2 == 0 { foreign } else { "elsewhere" };
        let properties = BasicProperties::default()
            .with_message_id(format!("0-{sequence}").into())
            .with_type("record.updated".into());
        publish(&channel, exchange, key, properties, &format!("{{\"sequence\":{sequence}}}")).await;
    }
    let letters = misplaced(&world, &channel, 10).await;
    // Every one is applied from its own partition: the ledger was not told of its id by the other one.
    assert_flawless(&world.applied(20).await, 20);
    assert!(letters.iter().all(|letter| letter.routing_key.as_str() == key));
    let bodies = letters.iter().map(|letter| String::from_utf8_lossy(&letter.data).into_owned());
    let expected: Vec<_> = (1..=10).map(|half| format!("{{\"sequence\":{}}}", 2 * half)).collect();
    assert_eq!(bodies.collect::<Vec<_>>(), expected, "in the order in which they came");
    let line = dispatcher.logged("misplaced").await;
    assert!(line.contains("WARN"), "{line}");
    let lines = dispatcher.log().iter().filter(|line| line.contains("misplaced")).count();
    assert_eq!(lines, 1, "one line at once, the others are counted in the next");
    let counted = "lanekeeper_updates_dead_lettered_total{reason=\"misplaced\"} 10";
    assert!(dispatcher.metrics().await.contains(counted));
    assert_eq!(world.receiver.report(0).counts.updates, 20);
}

/// As *Move messages* of the management UI does with the queue of an older layout.
#[tokio::test(flavor = "multi_thread")]
async fn what_was_moved_into_a_partition_is_dead_lettered_or_settled_and_the_partition_goes_on() {
    let world = World::new("moved-here").await;
    let mut dispatcher = world.dispatcher("updates.partitions = 4").await;
    let channel = confirming(&world).await;
    world.publish(updates(20, 1)).await;
    assert_flawless(&world.applied(20).await, 20);
    let typed = |kind: &str| BasicProperties::default().with_type(kind.into());
    let marker = |of: &str| typed("lanekeeper.marker").with_message_id(of.into());
    for partition in 0..4 {
        let queue = format!("moved-here.l1.p{partition:03}");
        publish(&channel, "", &queue, typed("record.updated"), "{\"sequence\":1}").await;
        publish(&channel, "", &queue, marker("moved-here.l0.p000"), "").await;
        publish(&channel, "", &queue, typed("lanekeeper.witness").with_message_id("a 1".into()), "").await;
    }
    let letters = misplaced(&world, &channel, 4).await;
    assert!(letters.iter().all(|letter| letter.routing_key.as_str().starts_with("moved-here.l1.p")));
    let line = dispatcher.logged("markers or witnesses that do not belong into the queue were settled").await;
    assert!(line.contains("WARN"), "{line}");
    until("eight stray messages", || async {
        match dispatcher.metric("lanekeeper_stray_messages_total").await {
            8.0 => Ok(()),
            other => Err(other.to_string()),
        }
    })
    .await;
    let more = updates(20, 2).filter(|update| update["body"]["sequence"] == 2);
    world.publish(more.collect::<Vec<_>>()).await;
    assert_flawless(&world.applied(40).await, 40);
    dispatcher.terminate();
    assert_eq!(dispatcher.ended().await, Some(0));
    for partition in 0..4 {
        assert_eq!(world.waiting(&channel, &format!("l1.p{partition:03}")).await, 0);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn if_keys_have_moved_dispatch_stops_at_the_first_misplaced_update_and_dead_letters_none() {
    let world = World::new("all-moved").await;
    let config = world.config("updates.partitions = 4\ndispatch.drain_timeout = \"2s\"");
    let mut dispatcher = world.start(&config);
    dispatcher.ready().await;
    world.publish(updates(40, 1)).await;
    assert_flawless(&world.applied(40).await, 40);
    let channel = confirming(&world).await;
    let options = QueueDeclareOptions { durable: true, ..QueueDeclareOptions::default() };
    let (queue, exchange) = ("all-moved.l1.audit", "all-moved.l1");
    channel.queue_declare(queue.into(), options, FieldTable::default()).await.unwrap();
    let options = QueueBindOptions::default();
    channel
        .queue_bind(queue.into(), exchange.into(), "".into(), options, FieldTable::default())
        .await
        .unwrap();
    for record in 0..40 {
        let properties = BasicProperties::default().with_message_id(format!("{record}-2").into());
        publish(&channel, "all-moved", &format!("record-{record}"), properties, "{\"sequence\":2}").await;
    }
    assert_eq!(dispatcher.ended().await, Some(3));
    dispatcher.logged("keys have moved: the exchange all-moved.l1 routes lanekeeper-witness-").await;
    assert_eq!(world.waiting(&channel, "dead").await, 0);
    assert_eq!(world.receiver.report(0).counts.reorders, 0);
}

//! The public exchange takes no update before there is a way from it into a queue.

use std::collections::BTreeMap;

use lapin::options::{
    BasicPublishOptions, ConfirmSelectOptions, ExchangeDeclareOptions, ExchangeDeleteOptions,
};
use lapin::types::FieldTable;
use lapin::{BasicProperties, Channel, ExchangeKind};

use crate::harness::{World, assert_flawless, assert_in_order};

/// Records that are published to in turn.
const RECORDS: usize = 20;
/// Updates that follow the first one that the broker has confirmed.
const FURTHER: usize = 500;

/// Publishes with confirms and without `mandatory`, one update after the other, from before the exchange exists. Returns
/// how many were confirmed.
async fn publish_impatiently(world: &World, prefix: &str) -> u64 {
    let confirming = async || -> Channel {
        let channel = world.channel().await;
        channel.confirm_select(ConfirmSelectOptions::default()).await.expect("the broker knows confirms");
        channel
    };
    let mut channel = confirming().await;
    let mut sequences: BTreeMap<usize, u64> = BTreeMap::new();
    let mut confirmed = 0;
    while confirmed < FURTHER {
        let record = confirmed % RECORDS;
        let sequence = sequences.get(&record).copied().unwrap_or_default() + 1;
        let properties = BasicProperties::default()
            .with_delivery_mode(2)
            .with_type("record.updated".into())
            .with_message_id(format!("{prefix}-{record}-{sequence}").into());
        let body = format!(r#"{{"sequence":{sequence}}}"#);
        let key = format!("{prefix}-{record}");
        let options = BasicPublishOptions::default();
        let exchange = world.exchange.as_str().into();
        let sent = channel.basic_publish(exchange, key.into(), options, body.as_bytes(), properties).await;
        let answer = match sent {
            Ok(sent) => sent.await,
            Err(error) => Err(error),
        };
        match answer {
            Ok(_) => {
                sequences.insert(record, sequence);
                confirmed += 1;
            }
            // There is no such exchange yet: a clear answer, and the channel is closed.
            Err(_) => channel = confirming().await,
        }
    }
    confirmed as u64
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_confirmed_while_the_topology_is_made_arrives() {
    let world = World::new("first-start").await;
    let dispatcher = world.start(&world.config("updates.partitions = 4"));
    let (one, other) = tokio::join!(publish_impatiently(&world, "a"), publish_impatiently(&world, "b"));
    assert_flawless(&world.applied(one + other).await, one + other);
    drop(dispatcher);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_confirmed_after_the_exchange_was_deleted_arrives() {
    let world = World::new("deleted-exchange").await;
    let mut dispatcher = world.dispatcher("updates.partitions = 4").await;
    dispatcher.terminate();
    assert_eq!(dispatcher.ended().await, Some(0));
    let channel = world.channel().await;
    let deleting = channel.exchange_delete(world.exchange.as_str().into(), ExchangeDeleteOptions::default());
    deleting.await.expect("it may be deleted");
    let dispatcher = world.start(&world.config("updates.partitions = 4"));
    let confirmed = publish_impatiently(&world, "a").await;
    assert_flawless(&world.applied(confirmed).await, confirmed);
    drop(dispatcher);
}

/// A publisher of the user's own declares the exchange, as an earlier version of Lanekeeper did.
#[tokio::test(flavor = "multi_thread")]
async fn an_exchange_that_publishers_have_declared_is_taken_as_it_is() {
    let world = World::new("declared-by-others").await;
    let channel = world.channel().await;
    let declare = async || {
        let options = ExchangeDeclareOptions { durable: true, ..ExchangeDeclareOptions::default() };
        let exchange = world.exchange.as_str().into();
        let declaring =
            channel.exchange_declare(exchange, ExchangeKind::Fanout, options, FieldTable::default());
        declaring.await.expect("it is a fanout exchange without arguments");
    };
    declare().await;
    let mut dispatcher = world.dispatcher("updates.partitions = 2").await;
    declare().await;
    let confirmed = publish_impatiently(&world, "a").await;
    assert_in_order(&world.applied(confirmed).await, confirmed);
    dispatcher.terminate();
    assert_eq!(dispatcher.ended().await, Some(0));
}

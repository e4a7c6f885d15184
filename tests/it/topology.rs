//! What is declared, what is refused, and what is said about it.

use std::sync::Arc;

use lapin::ExchangeKind;
use lapin::options::{ExchangeDeclareOptions, QueueDeclareOptions};
use lapin::types::FieldTable;

use crate::harness::{Broker, Dispatcher, World, assert_flawless, updates};

#[tokio::test(flavor = "multi_thread")]
async fn the_layout_in_force_wins_over_another_number_in_the_config() {
    let world = World::new("layout").await;
    let mut first = world.dispatcher("updates.partitions = 3").await;
    first.terminate();
    assert_eq!(first.ended().await, Some(0));
    let second = world.dispatcher("updates.partitions = 5\ndispatch.prefetch = 500").await;
    second.logged("updates.partitions differs from the current layout").await;
    second.logged("dispatch.prefetch differs from the current layout").await;
    second.logged("dispatching layout=1 partitions=3").await;
    world.publish(updates(30, 2)).await;
    assert_flawless(&world.applied(60).await, 60);
}

#[tokio::test(flavor = "multi_thread")]
async fn dispatchers_that_start_together_agree_on_one_layout() {
    let world = World::new("together").await;
    let config = world.write_config(&world.config("updates.partitions = 2"));
    let dispatchers = [(); 3].map(|()| Dispatcher::start(&config));
    for dispatcher in &dispatchers {
        dispatcher.ready().await;
    }
    let made = dispatchers
        .iter()
        .filter(|one| one.log().iter().any(|line| line.contains("made the layout")))
        .count();
    assert_eq!(made, 1);
    world.publish(updates(30, 10)).await;
    assert_flawless(&world.applied(300).await, 300);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_object_that_differs_is_named_with_what_was_expected_and_found() {
    let world = World::new("differs").await;
    let channel = world.channel().await;
    let options = ExchangeDeclareOptions { durable: true, ..ExchangeDeclareOptions::default() };
    channel
        .exchange_declare("differs".into(), ExchangeKind::Topic, options, FieldTable::default())
        .await
        .unwrap();
    let mut dispatcher = world.start(&world.config("updates.partitions = 2"));
    assert_eq!(dispatcher.ended().await, Some(3));
    dispatcher.logged("exchange differs exists with type = topic, but it must be fanout").await;

    let world = World::new("differs-queue").await;
    let options = QueueDeclareOptions { durable: true, ..QueueDeclareOptions::default() };
    channel.queue_declare("differs-queue.l1.p001".into(), options, FieldTable::default()).await.unwrap();
    let mut dispatcher = world.start(&world.config("updates.partitions = 2"));
    assert_eq!(dispatcher.ended().await, Some(3));
    dispatcher.logged("queue differs-queue.l1.p001 exists with").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broker_that_refuses_us_is_reported_and_the_password_is_not_printed() {
    let world = World::new("refuses").await;
    let config = world.config("updates.partitions = 1");
    let mut dispatcher = world.start(&config.replace("guest:guest@", "guest:hunter2@"));
    assert_eq!(dispatcher.ended().await, Some(3));
    dispatcher.logged("access refused").await;
    assert!(!dispatcher.log().join("\n").contains("hunter2"));
    let mut dispatcher = world.start(&config.replace("/%2f", "/nowhere"));
    assert_eq!(dispatcher.ended().await, Some(3));
    dispatcher.logged("nowhere").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broker_without_the_hash_exchange_gets_the_command_that_enables_it() {
    let broker = Arc::new(Broker::start());
    let node = Arc::clone(&broker);
    let forget = "rabbit_registry:unregister(exchange, <<\"x-modulus-hash\">>).";
    tokio::task::spawn_blocking(move || node.ctl(&["eval", forget])).await.expect("it does not panic");
    let world = World::on(broker, "updates", lanekeeper_lab::receiver::ReceiverSettings::default()).await;
    let mut dispatcher = world.start(&world.config("updates.partitions = 1"));
    assert_eq!(dispatcher.ended().await, Some(3));
    dispatcher.logged("rabbitmq-plugins enable rabbitmq_sharding").await;
}

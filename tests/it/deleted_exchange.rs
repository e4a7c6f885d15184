//! Exchanges and bindings that somebody deletes while updates are dispatched.

use lapin::options::{
    BasicPublishOptions, ConfirmSelectOptions, ExchangeDeclareOptions, ExchangeDeleteOptions,
    ExchangeUnbindOptions,
};
use lapin::types::FieldTable;
use lapin::{BasicProperties, Channel, Confirmation, ExchangeKind};

use crate::harness::{World, assert_flawless, assert_in_order, until, updates};

async fn delete(channel: &Channel, exchange: &str) {
    let deleting = channel.exchange_delete(exchange.into(), ExchangeDeleteOptions::default());
    deleting.await.expect("it may be deleted");
}

/// As clients of publishers do at their start.
async fn declare(channel: &Channel, exchange: &str, kind: ExchangeKind) {
    let options = ExchangeDeclareOptions { durable: true, ..ExchangeDeclareOptions::default() };
    let declaring = channel.exchange_declare(exchange.into(), kind, options, FieldTable::default());
    declaring.await.expect("it may be declared");
}

/// Publishes one update, mandatory, until a queue takes it.
async fn arrives(world: &World, id: &str) {
    let channel = world.channel().await;
    channel.confirm_select(ConfirmSelectOptions::default()).await.expect("the broker knows confirms");
    until("a publish to be routed", || async {
        let options = BasicPublishOptions { mandatory: true, ..BasicPublishOptions::default() };
        let properties = BasicProperties::default()
            .with_delivery_mode(2)
            .with_type("record.updated".into())
            .with_message_id(id.into());
        let exchange = world.exchange.as_str().into();
        let body = br#"{"sequence":1}"#;
        let sent = channel.basic_publish(exchange, id.into(), options, body, properties).await;
        match sent.expect("the channel is open").await.expect("the channel is open") {
            Confirmation::Ack(None) => Ok(()),
            answer => Err(format!("{answer:?}")),
        }
    })
    .await;
}

const AGAIN: &str = "the exchange for publishers was deleted and declared again";

/// The bindings from and to the exchange of publishers.
fn bindings(world: &World) -> Vec<String> {
    let all = world.broker.ctl(&["list_bindings", "--quiet", "source_name", "destination_name"]);
    let of_publishers = |line: &&str| line.split('\t').any(|name| name == world.exchange);
    let mut bindings: Vec<String> = all.lines().filter(of_publishers).map(str::to_owned).collect();
    bindings.sort();
    bindings
}

#[tokio::test(flavor = "multi_thread")]
async fn an_exchange_that_a_client_has_made_again_is_bound_again_and_it_is_said_once() {
    let world = World::new("again").await;
    let dispatcher = world.dispatcher("updates.partitions = 2").await;
    let channel = world.channel().await;
    // The first look knows the exchange.
    until("the exchange that is watched", || async {
        let exchanges = world.broker.ctl(&["list_exchanges", "name"]);
        if exchanges.contains("again.watch") { Ok(()) } else { Err(exchanges) }
    })
    .await;
    let bound = bindings(&world);
    assert!(bound.len() >= 2, "{bound:?}");
    for times in 1..=2 {
        // The dispatcher has done with the one before: an exchange that is gone again meanwhile is another error.
        until("all bindings", || async {
            let found = bindings(&world);
            if found == bound { Ok(()) } else { Err(format!("{found:?}")) }
        })
        .await;
        delete(&channel, "again").await;
        declare(&channel, "again", ExchangeKind::Fanout).await;
        arrives(&world, &format!("update-{times}")).await;
        until("a line that says so", || async {
            let log = dispatcher.log();
            let lines: Vec<&String> = log.iter().filter(|line| line.contains(AGAIN)).collect();
            let is_error = lines.iter().all(|line| line.contains("ERROR"));
            if lines.len() == times && is_error { Ok(()) } else { Err(log.join("\n")) }
        })
        .await;
    }
    world.applied(2).await;
    let log = dispatcher.log().join("\n");
    assert!(!log.contains("WARN"), "{log}");
}

#[tokio::test(flavor = "multi_thread")]
async fn constant_bindings_that_are_removed_are_made_again() {
    let world = World::new("unbound").await;
    let _dispatcher = world.dispatcher("updates.partitions = 2").await;
    let channel = world.channel().await;
    // Without an alternate exchange, nothing but the binding leads to the queues.
    delete(&channel, "unbound").await;
    declare(&channel, "unbound", ExchangeKind::Fanout).await;
    arrives(&world, "update-1").await;
    let none = FieldTable::default;
    let options = ExchangeUnbindOptions::default();
    channel
        .exchange_unbind("unbound.ingress".into(), "unbound".into(), "".into(), options, none())
        .await
        .unwrap();
    channel.queue_unbind("unbound.dead".into(), "unbound.dead".into(), "".into(), none()).await.unwrap();
    arrives(&world, "update-2").await;
    until("the dead-letter queue to be bound", || async {
        let bindings = world.broker.ctl(&["list_bindings", "--quiet", "source_name", "destination_name"]);
        if bindings.contains("unbound.dead\tunbound.dead") { Ok(()) } else { Err(bindings) }
    })
    .await;
    world.applied(2).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn exchanges_that_are_deleted_are_declared_again_with_their_bindings_and_it_is_said() {
    let world = World::new("swept").await;
    let dispatcher = world.dispatcher("updates.partitions = 4").await;
    world.publish(updates(20, 1)).await;
    let channel = world.channel().await;
    let mut sent = 20;
    for exchange in ["swept.l1", "swept.ingress", "swept.handoff", "swept.dead", "swept"] {
        delete(&channel, exchange).await;
        let missing = format!("missing=\"exchange {exchange}\"");
        let line = dispatcher.logged(&missing).await;
        assert!(line.contains("ERROR"), "{line}");
        until("the exchange", || async {
            let bindings = world.broker.ctl(&["list_bindings", "--quiet", "source_name", "destination_name"]);
            let ways = [
                "swept\tswept.ingress",
                "swept.ingress\tswept.l1",
                "swept.l1\tswept.l1.p003",
                "swept.dead\tswept.dead",
            ];
            let lines: Vec<&str> = bindings.lines().collect();
            let exchanges = world.broker.ctl(&["list_exchanges", "--quiet", "name"]);
            let is_there = exchanges.lines().any(|line| line == exchange);
            if is_there && ways.iter().all(|way| lines.contains(way)) { Ok(()) } else { Err(bindings) }
        })
        .await;
        world.publish(updates(20, sent / 20 + 1).skip(sent)).await;
        sent += 20;
    }
    // Keys are where they were.
    assert_flawless(&world.applied(sent as u64).await, sent as u64);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_exchange_of_another_type_is_an_error_until_it_is_put_right() {
    let world = World::new("other-type").await;
    let dispatcher = world.dispatcher("updates.partitions = 2").await;
    let channel = world.channel().await;
    delete(&channel, "other-type").await;
    declare(&channel, "other-type", ExchangeKind::Topic).await;
    let line = dispatcher.logged("are not as they must be, and cannot be put right").await;
    assert!(line.contains("type = topic, but it must be fanout"), "{line}");
    delete(&channel, "other-type").await;
    dispatcher.logged("the exchanges before the queues are as they must be again").await;
    world.publish(updates(10, 2)).await;
    assert_in_order(&world.applied(20).await, 20);
}

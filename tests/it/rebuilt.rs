//! What is remembered in two places: a broker that is made again while its ledger is kept, a stream of members that is lost,
//! a ledger that is copied, or shared by two exchanges. Judged by what the receiver saw, and by how the program ends.

use std::sync::Arc;

use lapin::BasicProperties;
use lapin::options::{BasicPublishOptions, ConfirmSelectOptions, QueueDeleteOptions};

use lanekeeper_lab::receiver::ReceiverSettings;

use crate::harness::{Broker, Dispatcher, World, assert_in_order, updates};

/// What restarts, notes and status requests leave behind in weeks: the stream of members is long.
async fn age(world: &World) {
    let channel = world.channel().await;
    channel.confirm_select(ConfirmSelectOptions::default()).await.expect("the broker confirms");
    let stream = format!("{}.members", world.exchange);
    for _ in 0..2_000 {
        let options = BasicPublishOptions::default();
        let (stream, properties) = (stream.as_str().into(), BasicProperties::default());
        channel.basic_publish("".into(), stream, options, b"{}", properties).await.expect("it is sent");
    }
    channel.wait_for_confirms().await.expect("the broker has them");
}

async fn delete_members(world: &World) {
    let channel = world.channel().await;
    let stream = format!("{}.members", world.exchange);
    channel.queue_delete(stream.as_str().into(), QueueDeleteOptions::default()).await.expect("it is there");
}

fn make_vhost_again(broker: &Broker) {
    broker.ctl(&["delete_vhost", "/"]);
    broker.ctl(&["add_vhost", "/"]);
    broker.ctl(&["set_permissions", "-p", "/", "guest", ".*", ".*", ".*"]);
}

/// All of the updates, from the one behind `skip` on, of 20 records.
async fn publish(world: &World, rounds: std::ops::Range<usize>) {
    world.publish(updates(20, rounds.end).skip(rounds.start * 20)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn tenure_numbers_grow_when_the_virtual_host_is_made_again_and_the_ledger_is_kept() {
    let world = World::on(Arc::new(Broker::start()), "made-again", ReceiverSettings::default()).await;
    let extra = world.ledger() + "updates.partitions = 4\n";
    let mut dispatcher = world.dispatcher(&extra).await;
    age(&world).await;
    dispatcher.terminate();
    assert_eq!(dispatcher.ended().await, Some(0));
    let mut dispatcher = world.dispatcher(&extra).await;
    publish(&world, 0..3).await;
    world.applied(60).await;
    dispatcher.terminate();
    assert_eq!(dispatcher.ended().await, Some(0));
    make_vhost_again(&world.broker);
    let dispatcher = world.dispatcher(&extra).await;
    dispatcher.logged("the exchange was made again, and its ledger was kept").await;
    publish(&world, 3..6).await;
    let report = world.applied(120).await;
    assert_in_order(&report, 120);
    assert_eq!(report.counts.older_tenures, 0, "{}", report.counts);
    let fenced = dispatcher.log().into_iter().find(|line| line.contains("newer owner"));
    assert_eq!(fenced, None);
}

#[tokio::test(flavor = "multi_thread")]
async fn tenure_numbers_grow_without_a_ledger_when_the_stream_of_members_is_lost() {
    let world = World::new("members-lost").await;
    let extra = "updates.partitions = 4\n";
    let mut dispatcher = world.dispatcher(extra).await;
    age(&world).await;
    publish(&world, 0..2).await;
    world.applied(40).await;
    // While it runs: it reads another stream from then on.
    delete_members(&world).await;
    dispatcher.logged("tenure numbers of a new epoch").await;
    publish(&world, 2..4).await;
    world.applied(80).await;
    dispatcher.terminate();
    assert_eq!(dispatcher.ended().await, Some(0));
    // And while nobody runs.
    delete_members(&world).await;
    let dispatcher = world.dispatcher(extra).await;
    dispatcher.logged("a new epoch of tenure numbers begins").await;
    publish(&world, 4..6).await;
    let report = world.applied(120).await;
    assert_in_order(&report, 120);
    assert_eq!(report.counts.older_tenures, 0, "{}", report.counts);
}

fn copy_ledger(world: &World, to: &str) -> String {
    let path = |name: &str| world.dir.path().join(name);
    for side in ["", "-wal"] {
        std::fs::copy(path(&format!("ledger.db{side}")), path(&format!("{to}{side}")))
            .expect("it can be copied");
    }
    format!("ledger.url = \"sqlite://{}\"\nupdates.partitions = 2\n", path(to).display())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_copy_of_the_ledger_ends_its_dispatcher_at_the_start_and_while_it_runs() {
    let world = World::new("copied").await;
    let mut original = world.dispatcher(&(world.ledger() + "updates.partitions = 2\n")).await;
    publish(&world, 0..1).await;
    world.applied(20).await;
    let copied = copy_ledger(&world, "copy.db");
    let late = copy_ledger(&world, "late.db");
    // The copy has the last mark, too: from this start on it is the ledger, and the other one is the copy.
    let copy = world.start(&world.config(&copied));
    copy.ready().await;
    assert_eq!(original.ended().await, Some(4));
    original.logged("this ledger is a copy").await;
    let mut refused = world.start(&world.config(&late));
    assert_eq!(refused.ended().await, Some(4));
    refused.logged("this ledger is a copy").await;
    // A person decides.
    let path = world.write_config(&world.config(&late));
    let adopted = Dispatcher::start_with(&path, &["--adopt-ledger"]);
    adopted.ready().await;
    publish(&world, 1..2).await;
    assert_in_order(&world.applied(40).await, 40);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_ledger_of_another_exchange_is_refused_unless_it_is_adopted() {
    let world = World::new("ledger-one").await;
    let mut one = world.dispatcher(&(world.ledger() + "updates.partitions = 2\n")).await;
    let other = World::new("ledger-other").await;
    let shared = other.config(&(world.ledger() + "updates.partitions = 2\n"));
    let mut refused = other.start(&shared);
    assert_eq!(refused.ended().await, Some(4));
    refused.logged("belongs to the exchange ledger-one of virtual host /").await;
    publish(&world, 0..1).await;
    world.applied(20).await;
    let adopted = Dispatcher::start_with(&other.write_config(&shared), &["--adopt-ledger"]);
    adopted.ready().await;
    assert_eq!(one.ended().await, Some(4), "the ledger is another exchange's now");
    one.logged("belongs to the exchange ledger-other").await;
}

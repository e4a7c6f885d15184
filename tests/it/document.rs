//! A layout document that is gone, or older than the broker's objects: never a second way in, and nothing that holds an
//! update is deleted.

use std::path::PathBuf;
use std::sync::Arc;

use lapin::options::{
    BasicPublishOptions, ConfirmSelectOptions, QueueBindOptions, QueueDeclareOptions, QueueDeleteOptions,
};
use lapin::types::{AMQPValue, FieldTable};
use lapin::{BasicProperties, Channel};
use serde_json::{Value as Json, json};

use lanekeeper_core::witness::witnesses;

use crate::harness::{Broker, Output, World, assert_flawless, http, lanekeeper, until, updates};

/// `lanekeeper topology …` with this config.
fn topology(world: &World, config: &str, arguments: &[&str]) -> Output {
    let path: PathBuf = world.dir.path().join("topology.toml");
    std::fs::write(&path, config).expect("the config can be written");
    let path = path.display().to_string();
    let all = [&["topology"], arguments, &["--config", &path]].concat();
    let management = world.broker.management_url().to_owned();
    lanekeeper(&all, &[("LANEKEEPER_MANAGEMENT_URL", management)], b"")
}

fn apply(world: &World, partitions: u16) {
    let config = world.config(&format!("updates.partitions = {partitions}"));
    let applied = topology(world, &config, &["apply"]);
    assert_eq!(applied.code, Some(0), "{}", applied.stderr);
}

/// Where publishes go from the ingress.
fn ways(world: &World, vhost: &str) -> Vec<String> {
    let columns = ["source_name", "destination_name"];
    let listed = world.broker.ctl(&["list_bindings", "--quiet", "--vhost", vhost, columns[0], columns[1]]);
    let ingress = format!("{}.ingress\t", world.exchange);
    listed.lines().filter_map(|line| line.strip_prefix(&ingress)).map(str::to_owned).collect()
}

async fn delete_documents(world: &World, channel: &Channel) {
    let stream = format!("{}.topology", world.exchange);
    channel.queue_delete(stream.into(), QueueDeleteOptions::default()).await.expect("it may be deleted");
}

/// Leaves these documents, as if the broker had lost those that came after them.
async fn leave_documents(world: &World, documents: &[Json]) {
    let channel = world.channel().await;
    delete_documents(world, &channel).await;
    channel.confirm_select(ConfirmSelectOptions::default()).await.expect("the broker knows confirms");
    let stream = format!("{}.topology", world.exchange);
    let mut arguments = FieldTable::default();
    arguments.insert("x-queue-type".into(), AMQPValue::LongString("stream".into()));
    let options = QueueDeclareOptions { durable: true, ..QueueDeclareOptions::default() };
    channel.queue_declare(stream.as_str().into(), options, arguments).await.expect("it may be declared");
    for document in documents {
        let (body, options) = (document.to_string(), BasicPublishOptions::default());
        let properties = BasicProperties::default().with_delivery_mode(2).with_type("layout".into());
        let publishing =
            channel.basic_publish("".into(), stream.as_str().into(), options, body.as_bytes(), properties);
        publishing.await.expect("it is published").await.expect("it is confirmed");
    }
}

/// Layout 1 with two partitions, as the first start writes it.
fn first() -> Json {
    json!({"version": 3, "serial": 1, "in_force": {"number": 1, "partitions": 2, "prefetch": 1000},
           "witnesses": witnesses(2), "number_max": 1, "changed_by": "test", "changed_at": 1_767_225_600})
}

/// A change to three partitions that has begun.
fn begun() -> Json {
    let mut document = first();
    document["serial"] = 2.into();
    document["number_max"] = 2.into();
    document["changing"] =
        json!({"number": 2, "partitions": 3, "prefetch": 1000, "by": "test", "since": 1_767_225_600});
    document
}

/// Layout 2 with three partitions is current, its dispatcher has ended.
async fn changed(exchange: &str) -> World {
    let world = World::new(exchange).await;
    let mut dispatcher = world.dispatcher("updates.partitions = 2").await;
    apply(&world, 3);
    dispatcher.terminate();
    assert_eq!(dispatcher.ended().await, Some(0));
    world
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deleted_document_lets_no_start_make_a_second_way_in() {
    let world = World::new("gone").await;
    let dispatcher = world.dispatcher("updates.partitions = 2").await;
    apply(&world, 3);
    delete_documents(&world, &world.channel().await).await;
    let config =
        world.config("updates.partitions = 2").replace("instance.name = \"gone\"", "instance.name = \"two\"");
    let mut other = world.start(&config);
    assert_eq!(other.ended().await, Some(3));
    let line = other.logged("there is no layout document in the stream gone.topology").await;
    for part in ["exchanges of later layouts (gone.l2)", "rabbitmqctl delete_queue", "rabbitmqadmin"] {
        assert!(line.contains(part), "{part}: {line}");
    }
    assert_eq!(ways(&world, "/"), ["gone.l2"]);
    let environment = [("LANEKEEPER_MANAGEMENT_URL", world.broker.management_url().to_owned())];
    let path = world.write_config(&config).display().to_string();
    let doctor = lanekeeper(&["doctor", "--config", &path], &environment, b"");
    assert_eq!(doctor.code, Some(1), "{}", doctor.stderr);
    assert!(doctor.stdout.contains("error LK116"), "{}", doctor.stdout);
    world.publish(updates(20, 2)).await;
    assert_flawless(&world.applied(40).await, 40);
    drop(dispatcher);
}

#[tokio::test(flavor = "multi_thread")]
async fn definitions_that_were_exported_at_a_later_layout_are_refused() {
    let broker = Arc::new(Broker::start());
    let settings = lanekeeper_lab::receiver::ReceiverSettings::default();
    let world = World::on(Arc::clone(&broker), "updates", settings).await;
    let _blue = world.dispatcher("updates.partitions = 2").await;
    apply(&world, 3);
    broker.ctl(&["add_vhost", "green"]);
    broker.ctl(&["set_permissions", "-p", "green", "guest", ".*", ".*", ".*"]);
    let url = |vhost: &str| format!("{}/api/definitions/{vhost}", broker.management_url());
    let exported = http().get(url("%2f")).send().await.expect("it answers").text().await.expect("text");
    let posting = http().post(url("green")).header("content-type", "application/json").body(exported);
    let answer = posting.send().await.expect("the management API answers");
    assert!(answer.status().is_success(), "{}", answer.status());

    let config = world.config("updates.partitions = 2").replace("/%2f", "/green");
    let mut green = world.start(&config);
    assert_eq!(green.ended().await, Some(3));
    green.logged("definitions were imported that were exported at a later layout").await;
    assert_eq!(ways(&world, "green"), ["updates.l2"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_document_nothing_is_bound_beside_what_is_bound_already() {
    let world = World::new("bound-before").await;
    let (config, channel) = (world.config("updates.partitions = 2"), world.channel().await);
    let mut first = world.dispatcher("updates.partitions = 2").await;
    first.terminate();
    assert_eq!(first.ended().await, Some(0));
    // All is deleted but the exchanges before the layout, and an audit queue is bound there.
    delete_documents(&world, &channel).await;
    for partition in 0..2 {
        let queue = format!("bound-before.l1.p00{partition}");
        channel.queue_delete(queue.into(), QueueDeleteOptions::default()).await.unwrap();
    }
    channel
        .exchange_delete("bound-before.l1".into(), lapin::options::ExchangeDeleteOptions::default())
        .await
        .unwrap();
    let none = FieldTable::default;
    channel.queue_declare("bound-before-audit".into(), QueueDeclareOptions::default(), none()).await.unwrap();
    let bind = QueueBindOptions::default();
    let (audit, ingress) = ("bound-before-audit", "bound-before.ingress");
    channel.queue_bind(audit.into(), ingress.into(), "".into(), bind, none()).await.unwrap();
    let mut refused = world.start(&config);
    assert_eq!(refused.ended().await, Some(3));
    refused.logged("something is bound to bound-before.ingress").await;
    assert_eq!(ways(&world, "/"), [audit]);
    channel.queue_unbind(audit.into(), ingress.into(), "".into(), none()).await.unwrap();
    let _made = world.dispatcher("updates.partitions = 2").await;
    world.publish(updates(10, 2)).await;
    assert_flawless(&world.applied(20).await, 20);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_imported_first_layout_with_other_partitions_is_refused_with_their_number() {
    let world = World::new("imported").await;
    let exported = topology(&world, &world.config("updates.partitions = 3"), &["export"]);
    let url = format!("{}/api/definitions", world.broker.management_url());
    let posting = http().post(url).header("content-type", "application/json").body(exported.stdout);
    let answer = posting.send().await.expect("the management API answers");
    assert!(answer.status().is_success(), "{}", answer.status());
    world.publish(updates(10, 2)).await;
    for other in [2, 5] {
        let mut refused = world.start(&world.config(&format!("updates.partitions = {other}")));
        assert_eq!(refused.ended().await, Some(3));
        refused
            .logged(&format!("the queues of layout 1 are bound (3), and updates.partitions is {other}"))
            .await;
    }
    let _dispatcher = world.dispatcher("updates.partitions = 3").await;
    assert_flawless(&world.applied(20).await, 20);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_document_from_before_a_change_binds_no_old_layout_beside_the_new_one() {
    let world = changed("older").await;
    leave_documents(&world, &[first()]).await;
    let mut refused = world.start(&world.config("updates.partitions = 2"));
    assert_eq!(refused.ended().await, Some(3));
    refused.logged("it knows no layout after 1, but the exchange older.l2 exists").await;
    assert_eq!(ways(&world, "/"), ["older.l2"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_change_that_the_document_takes_for_unfinished_keeps_the_queues_that_hold_updates() {
    let world = changed("kept").await;
    world.publish(updates(20, 2)).await;
    leave_documents(&world, &[first(), begun()]).await;
    let mut refused = world.start(&world.config("updates.partitions = 2"));
    assert_eq!(refused.ended().await, Some(3));
    refused.logged("it says that layout 2 was never published to, but the queue kept.l2.p00").await;
    let channel = world.channel().await;
    let mut waiting = 0;
    for partition in 0..3 {
        waiting += world.waiting(&channel, &format!("l2.p00{partition}")).await;
    }
    assert!(waiting >= 40, "{waiting} of 40 updates are left");
    assert_eq!(ways(&world, "/"), ["kept.l2"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_change_that_the_document_takes_for_unfinished_keeps_the_way_of_publishes() {
    let world = changed("way").await;
    leave_documents(&world, &[first(), begun()]).await;
    let mut refused = world.start(&world.config("updates.partitions = 2"));
    assert_eq!(refused.ended().await, Some(3));
    refused.logged("but publishes go to the exchange way.l2").await;
    assert_eq!(ways(&world, "/"), ["way.l2"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_change_that_was_not_finished_is_undone_with_the_queues_that_were_never_published_to() {
    let world = World::new("undone").await;
    let mut dispatcher = world.dispatcher("updates.partitions = 2").await;
    dispatcher.terminate();
    assert_eq!(dispatcher.ended().await, Some(0));
    // Its queues were declared, and no more.
    let channel = world.channel().await;
    for partition in 0..2 {
        let mut arguments = FieldTable::default();
        arguments.insert("x-queue-type".into(), AMQPValue::LongString("quorum".into()));
        let options = QueueDeclareOptions { durable: true, ..QueueDeclareOptions::default() };
        let queue = format!("undone.l2.p00{partition}");
        channel.queue_declare(queue.into(), options, arguments).await.unwrap();
    }
    leave_documents(&world, &[first(), begun()]).await;
    let dispatcher = world.dispatcher("updates.partitions = 2").await;
    dispatcher.logged("undid a change of the layout that was begun and not finished").await;
    let queues = world.broker.ctl(&["list_queues", "name"]);
    assert!(!queues.contains("undone.l2"), "{queues}");
    world.publish(updates(10, 2)).await;
    assert_flawless(&world.applied(20).await, 20);
    until("the probe to be settled", || async {
        let waiting = world.waiting(&channel, "l1.p000").await + world.waiting(&channel, "l1.p001").await;
        if waiting == 0 { Ok(()) } else { Err(waiting.to_string()) }
    })
    .await;
    assert_eq!(world.waiting(&channel, "dead").await, 0);
    let exchanges = world.broker.ctl(&["list_exchanges", "name"]);
    assert!(!exchanges.contains("undone.probe"), "{exchanges}");
}

/// The one way out of each refusal above.
#[tokio::test(flavor = "multi_thread")]
async fn a_layout_is_adopted_with_the_updates_in_its_queues() {
    let world = changed("adopted").await;
    world.publish(updates(20, 2)).await;
    let config = world.config("updates.partitions = 2");
    let nothing = topology(&world, &config, &["adopt"]);
    assert_eq!(nothing.code, Some(1), "{}", nothing.stdout);
    assert!(nothing.stderr.contains("names layout 2 already"), "{}", nothing.stderr);
    for documents in [vec![], vec![first()], vec![first(), begun()]] {
        leave_documents(&world, &documents).await;
        let mut refused = world.start(&config);
        assert_eq!(refused.ended().await, Some(3));
        refused.logged("`lanekeeper topology adopt`").await;
        let adopted = topology(&world, &config, &["adopt"]);
        assert_eq!(adopted.code, Some(0), "{}", adopted.stderr);
        assert_eq!(adopted.stdout, "layout 2 with 3 partitions and prefetch 1000 is current\n");
    }
    let dispatcher = world.dispatcher("updates.partitions = 2").await;
    assert_flawless(&world.applied(40).await, 40);
    let used = topology(&world, &config, &["adopt"]);
    assert_eq!(used.code, Some(1), "{}", used.stdout);
    // What it has written is changed as any other.
    apply(&world, 4);
    world.publish(updates(20, 4).skip(40)).await;
    assert_flawless(&world.applied(80).await, 80);
    delete_documents(&world, &world.channel().await).await;
    let consumed = topology(&world, &config, &["adopt"]);
    assert!(consumed.stderr.contains("is consumed: stop all dispatchers first"), "{}", consumed.stderr);
    drop(dispatcher);
}

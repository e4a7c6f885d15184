//! What people are told of events, by two dispatchers and one receiver. Judged by what the receiver saw.

use std::time::Duration;

use lanekeeper_lab::receiver::ReceiverSettings;
use lapin::options::{BasicConsumeOptions, BasicQosOptions};
use lapin::types::FieldTable;
use serde_json::Value;

use crate::harness::{
    Dispatcher, Proxy, ProxyMode, Signal, StandIn, World, lanekeeper, pace, until, updates,
};

/// Quick to trip, quick to probe.
const QUICK: &str = "updates.partitions = 4\nbroker.heartbeat = \"1s\"\nretry.delay_initial = \"100ms\"\n\
    retry.delay_max = \"200ms\"\nretry.elapsed_max = \"10m\"\nbreaker.attempts_min = 6\nbreaker.records_min = 2\n\
    breaker.wait_initial = \"200ms\"\nbreaker.wait_max = \"500ms\"\n";

/// A receiver of notifications that takes them all.
async fn receiver() -> StandIn {
    StandIn::start(|_| (204, String::new())).await
}

/// The config of a process of this name that tells `receiver`.
fn config(world: &World, instance: &str, extra: &str, receiver: &StandIn, notify: &str) -> String {
    let extra = format!("{}{QUICK}{extra}", world.ledger());
    let config = world.config(&extra).replacen(
        &format!("instance.name = \"{}\"", world.exchange),
        &format!("instance.name = \"{instance}\""),
        1,
    );
    let url = format!("http://{}/events", receiver.address());
    format!("{config}\n[[notify]]\nname = \"on-call\"\nurl = \"{url}\"\n{notify}\n")
}

/// Starts one after the other, so that each has a config file of its own.
async fn start(world: &World, instance: &str, text: &str) -> Dispatcher {
    let path = world.dir.path().join(format!("{instance}.toml"));
    std::fs::write(&path, text).expect("the config can be written");
    let dispatcher = Dispatcher::start(&path);
    dispatcher.ready().await;
    dispatcher
}

fn events(receiver: &StandIn) -> Vec<Value> {
    let bodies = receiver.seen().into_iter().map(|seen| seen.body);
    bodies.map(|body| serde_json::from_slice(&body).expect("a notification is JSON")).collect()
}

fn of_kind(receiver: &StandIn, kind: &str) -> Vec<Value> {
    let kind = format!("lanekeeper.{kind}");
    events(receiver).into_iter().filter(|event| event["type"] == kind.as_str()).collect()
}

/// Waits for the first event of a kind.
async fn notification(receiver: &StandIn, kind: &str) -> Value {
    until(&format!("a notification of {kind}"), || async {
        let found = of_kind(receiver, kind).into_iter().next();
        found.ok_or_else(|| format!("{:?}", events(receiver)))
    })
    .await
}

/// Long enough for a second notification, if there was one: a batch is open for 2 s, and it is looked once a second.
async fn time_for_another() {
    pace(Duration::from_secs(6)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_burst_of_parked_records_is_one_notification_with_their_number() {
    let fail_with = vec!["422".parse().expect("a fault")];
    let settings = ReceiverSettings { fail_share: 1.0, fail_with, ..ReceiverSettings::default() };
    let world = World::with("notify-parked", settings).await;
    let receiver = receiver().await;
    // 422 is always believed. One partition: one process parks them all.
    let extra = "failure.rejected = \"park\"\n";
    let text = config(&world, "notify-parked", extra, &receiver, "[notify.auth]\nbearer = \"s3cret\"")
        .replace("updates.partitions = 4", "updates.partitions = 1");
    let dispatcher = start(&world, "notify-parked", &text).await;
    world.publish(updates(30, 2)).await;
    let event = notification(&receiver, "record_parked").await;
    time_for_another().await;
    assert_eq!(events(&receiver).len(), 1, "{:?}", events(&receiver));
    let data = &event["data"];
    assert_eq!((&data["count"], &data["target"]), (&Value::from(30), &Value::from("receiver")), "{event}");
    assert_eq!(data["reasons"]["rejected"], 30, "{event}");
    let records = data["records"].as_array().expect("a list");
    assert_eq!(records.len(), 20, "the first of them");
    assert_eq!(records[0]["cause"], "status 422", "{event}");
    assert!(!event.to_string().contains("record-"), "no record keys: {event}");
    assert_eq!(event["source"], "/lanekeeper/notify-parked");
    let request = receiver.seen().remove(0);
    assert_eq!(request.header("authorization"), Some("Bearer s3cret"));
    assert_eq!(request.header("content-type"), Some("application/cloudevents+json; charset=utf-8"));
    assert_eq!(request.header("lanekeeper-record-key"), None);
    assert_eq!(request.header("idempotency-key"), Some(format!("{}", event["id"]).as_str()));
    assert!((dispatcher.metric("lanekeeper_notifications_sent_total").await - 1.0).abs() < f64::EPSILON);
}

#[tokio::test(flavor = "multi_thread")]
async fn two_processes_tell_once_that_a_target_is_shut_and_once_that_it_is_open() {
    let mut world = World::new("notify-shut").await;
    let behind = world.target.trim_start_matches("http://").to_owned();
    let proxy = Proxy::start(behind).await.expect("a port is free");
    world.target = format!("http://{}", proxy.address);
    let receiver = receiver().await;
    let notify = "events = [\"target_shut\", \"target_opened\"]";
    let one = start(&world, "notify-one", &config(&world, "notify-one", "", &receiver, notify)).await;
    let other = start(&world, "notify-other", &config(&world, "notify-other", "", &receiver, notify)).await;
    world.publish(updates(40, 1)).await;
    world.applied(40).await;
    proxy.set(ProxyMode::Refuse);
    world.publish(updates(40, 3).skip(40)).await;
    let event = notification(&receiver, "target_shut").await;
    assert_eq!(event["data"]["target"], "receiver", "{event}");
    assert!(event["data"]["text"].as_str().is_some_and(|text| text.contains("is shut")), "{event}");
    time_for_another().await;
    assert_eq!(events(&receiver).len(), 1, "{:?}", events(&receiver));
    proxy.set(ProxyMode::Forward);
    notification(&receiver, "target_opened").await;
    world.applied(120).await;
    time_for_another().await;
    assert_eq!(events(&receiver).len(), 2, "{:?}", events(&receiver));
    drop((one, other));
}

#[tokio::test(flavor = "multi_thread")]
async fn who_tells_is_replaced_and_its_successor_knows_what_people_were_told() {
    let mut world = World::new("notify-successor").await;
    let behind = world.target.trim_start_matches("http://").to_owned();
    let proxy = Proxy::start(behind).await.expect("a port is free");
    world.target = format!("http://{}", proxy.address);
    let receiver = receiver().await;
    let names = ["notify-a", "notify-b"];
    let mut dispatchers = Vec::new();
    for name in names {
        dispatchers.push(start(&world, name, &config(&world, name, "", &receiver, "")).await);
    }
    proxy.set(ProxyMode::Refuse);
    world.publish(updates(40, 2)).await;
    let event = notification(&receiver, "target_shut").await;
    // Let the notes of who told it come to the other, then kill it.
    time_for_another().await;
    let source = names.iter().position(|name| event["data"]["instance"] == *name).expect("one of them");
    dispatchers[source].kill();
    let successor = &dispatchers[1 - source];
    until("the successor to find out that the target is shut", || async {
        let shut = successor.metric("lanekeeper_circuit_state").await;
        if shut > 0.0 { Ok(()) } else { Err("open".to_owned()) }
    })
    .await;
    time_for_another().await;
    assert_eq!(of_kind(&receiver, "target_shut").len(), 1, "{:?}", events(&receiver));
    proxy.set(ProxyMode::Forward);
    let event = notification(&receiver, "target_opened").await;
    assert_eq!(event["data"]["instance"], names[1 - source], "{event}");
    world.applied(80).await;
}

/// Somebody else's consumer holds the partition: RabbitMQ gives it to no dispatcher.
#[tokio::test(flavor = "multi_thread")]
async fn updates_that_wait_in_a_partition_without_an_owner_are_told_and_that_it_has_one_again() {
    let world = World::new("notify-owner").await;
    let receiver = receiver().await;
    let text = |instance: &str| {
        let text = config(&world, instance, "", &receiver, "");
        text.replace("updates.partitions = 4", "updates.partitions = 1")
    };
    let mut first = start(&world, "notify-first", &text("notify-first")).await;
    first.terminate();
    assert_eq!(first.ended().await, Some(0));
    let channel = world.channel().await;
    channel.basic_qos(1, BasicQosOptions::default()).await.expect("the broker takes it");
    let queue = format!("{}.l1.p000", world.exchange);
    let (tag, options) = ("somebody else".into(), BasicConsumeOptions::default());
    let consumer = channel.basic_consume(queue.as_str().into(), tag, options, FieldTable::default()).await;
    let consumer = consumer.expect("it consumes");
    let _one = start(&world, "notify-one", &text("notify-one")).await;
    let _other = start(&world, "notify-other", &text("notify-other")).await;
    world.publish(updates(5, 1)).await;
    let event = notification(&receiver, "partition_without_owner").await;
    assert_eq!(event["data"]["partitions"], serde_json::json!(["l1.p000"]), "{event}");
    let text = event["data"]["text"].as_str().expect("a text");
    assert!(text.starts_with("messages wait in a partition that no process owns: l1.p000 ("), "{event}");
    time_for_another().await;
    assert_eq!(events(&receiver).len(), 1, "{:?}", events(&receiver));
    drop(consumer);
    channel.close(200, "normal shutdown".into()).await.expect("it is closed");
    notification(&receiver, "partition_owned").await;
    world.applied(5).await;
    time_for_another().await;
    assert_eq!(events(&receiver).len(), 2, "{:?}", events(&receiver));
}

/// The receiver answers nothing and then 503: dispatch does not notice.
#[tokio::test(flavor = "multi_thread")]
async fn a_receiver_that_fails_is_tried_again_and_delays_nothing() {
    let fail_records = vec!["record-0=422".parse().expect("a failing record")];
    let world =
        World::with("notify-fails", ReceiverSettings { fail_records, ..ReceiverSettings::default() }).await;
    let failing = StandIn::start(|_| (503, String::new())).await;
    let notify = "body = '{\"text\": {{ body.data.text }}}'\nrecord_keys = true";
    let dispatcher =
        start(&world, "notify-fails", &config(&world, "notify-fails", "", &failing, notify)).await;
    world.publish(updates(10, 10)).await;
    world.applied(90).await;
    let line = dispatcher.logged("a notification was not taken").await;
    for part in ["WARN", "on-call", "record_parked", "status 503"] {
        assert!(line.contains(part), "{part} in {line}");
    }
    assert_eq!(failing.seen().len(), 4, "four tries");
    let first = failing.seen().remove(0);
    let text: Value = serde_json::from_slice(&first.body).expect("the template makes JSON");
    assert!(
        text["text"].as_str().is_some_and(|text| text.starts_with("a record of the target receiver parked"))
    );
    let ids: std::collections::BTreeSet<_> =
        failing.seen().iter().map(|seen| seen.header("idempotency-key").map(str::to_owned)).collect();
    assert_eq!(ids.len(), 1, "each try has the same id");
    assert!((dispatcher.metric("lanekeeper_notifications_dropped_total").await - 1.0).abs() < f64::EPSILON);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_person_can_try_a_receiver() {
    let world = World::new("notify-test").await;
    let receiver = receiver().await;
    let path = world.write_config(&config(&world, "notify-test", "", &receiver, ""));
    let path = path.display().to_string();
    let run = move |name: &'static [&'static str]| {
        let path = path.clone();
        let running = move || lanekeeper(&[&["notify", "test", "--config", &path], name].concat(), &[], b"");
        async { tokio::task::spawn_blocking(running).await.expect("it does not panic") }
    };
    let output = run(&[]).await;
    assert_eq!((output.code, output.stdout.as_str()), (Some(0), "on-call: taken\n"), "{}", output.stderr);
    assert_eq!(events(&receiver)[0]["type"], "lanekeeper.test");
    let unknown = run(&["pager"]).await;
    assert_eq!(unknown.code, Some(2), "{}", unknown.stderr);
    assert!(unknown.stderr.contains("it has on-call"), "{}", unknown.stderr);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_receiver_that_is_added_while_the_process_runs_is_told_of_what_happens_then() {
    let fail_records = vec!["record-0=422".parse().expect("a failing record")];
    let settings = ReceiverSettings { fail_records, ..ReceiverSettings::default() };
    let world = World::with("notify-reload", settings).await;
    let receiver = receiver().await;
    let text = config(&world, "notify-reload", "", &receiver, "record_keys = true");
    let (without, _) = text.split_once("[[notify]]").expect("it has one");
    let dispatcher = start(&world, "notify-reload", without).await;
    std::fs::write(world.dir.path().join("notify-reload.toml"), &text).expect("the config can be written");
    dispatcher.signal(Signal::HUP);
    let line = dispatcher.logged("the config has changed, and is in force").await;
    assert!(line.contains("notify[0].url"), "{line}");
    world.publish(updates(2, 1)).await;
    let event = notification(&receiver, "record_parked").await;
    assert_eq!(event["data"]["records"][0]["record_key"], "record-0", "{event}");
}

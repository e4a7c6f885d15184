//! The main job.

use std::time::Duration;

use lanekeeper_lab::receiver::ReceiverSettings;
use serde_json::json;

use crate::harness::{World, assert_flawless, updates};

#[tokio::test(flavor = "multi_thread")]
async fn five_thousand_updates_arrive_in_order() {
    let settings = ReceiverSettings { latency: Duration::from_millis(2), ..ReceiverSettings::default() };
    let world = World::with("order", settings).await;
    let _dispatcher = world.dispatcher("updates.partitions = 8").await;
    world.publish(updates(200, 25)).await;
    assert_flawless(&world.applied(5_000).await, 5_000);
}

#[tokio::test(flavor = "multi_thread")]
async fn strict_mode_keeps_the_order_of_the_whole_queue_through_a_failure() {
    let fail_records = vec!["record-0=503:1s".parse().expect("a failing record")];
    let world = World::with("strict", ReceiverSettings { fail_records, ..ReceiverSettings::default() }).await;
    let extra = "updates.partitions = 1\ndispatch.in_flight_max = 1\nretry.delay_initial = \"100ms\"";
    let _dispatcher = world.dispatcher(extra).await;
    world.publish(updates(1, 1)).await;
    world.publish((1..=50).map(|n| json!({"key": format!("other-{n}"), "body": {"sequence": 1}}))).await;
    world.applied(1).await;
    let first = world.receiver.record("record-0").expect("it was tried");
    assert_eq!(first.counts.updates, 1, "nothing passes it while it waits between attempts");
    assert_flawless(&world.applied(51).await, 51);
}

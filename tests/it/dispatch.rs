//! The main job.

use std::time::Duration;

use lanekeeper::receiver::ReceiverSettings;

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
async fn strict_mode_keeps_the_order_of_the_whole_queue() {
    let world = World::new("strict").await;
    let _dispatcher = world.dispatcher("updates.partitions = 1\ndispatch.in_flight_max = 1").await;
    world.publish(updates(20, 25)).await;
    let report = world.applied(500).await;
    assert_flawless(&report, 500);
}

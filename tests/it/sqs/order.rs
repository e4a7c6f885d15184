//! Order, one at a time per record, and nothing lost, whatever SQS and the processes do.

use super::SqsWorld;
use crate::harness::{Signal, assert_flawless, updates};

#[tokio::test(flavor = "multi_thread")]
async fn updates_flow_in_order_and_the_queue_is_empty() {
    let world = SqsWorld::new().await;
    let mut dispatcher = world.dispatcher("").await;
    world.send(updates(20, 10)).await;
    assert_flawless(&world.applied(200).await, 200);
    world.emptied().await;
    assert!(dispatcher.metric("lanekeeper_updates_received_total").await > 199.5);
    dispatcher.signal(Signal::TERM);
    assert_eq!(dispatcher.ended().await, Some(0));
    let log = dispatcher.log().concat();
    assert!(!log.contains("WARN") && !log.contains("ERROR"), "{log}");
}

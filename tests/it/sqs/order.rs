//! Order, one at a time per record, and nothing lost, whatever SQS and the processes do.

use std::time::Duration;

use lanekeeper_lab::receiver::ReceiverSettings;
use serde_json::json;

use super::SqsWorld;
use crate::harness::{Signal, assert_flawless, assert_in_order, pace, until, updates};

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

/// Two processes; answers are lost and calls fail, one process stands still for longer than the visibility timeout, one dies.
#[tokio::test(flavor = "multi_thread")]
async fn order_holds_while_processes_stop_and_die_and_sqs_fails() {
    let settings = ReceiverSettings {
        latency: Duration::from_millis(150),
        latency_jitter: 0.5,
        fail_share: 0.05,
        ..ReceiverSettings::default()
    };
    let world = SqsWorld::with(settings).await;
    let extra = "retry.delay_initial = \"20ms\"\nretry.delay_max = \"100ms\"\ndispatch.prefetch = 256\n";
    let one = world.start("one", extra);
    let mut other = world.start("other", extra);
    one.ready().await;
    other.ready().await;
    let sending = world.send(updates(60, 40));
    let failing = async {
        let throttled = json!({"how": "error", "code": "RequestThrottled", "status": 400});
        let broken = json!({"how": "error", "code": "InternalError", "status": 500});
        for round in 0..10 {
            for action in ["ReceiveMessage", "DeleteMessageBatch", "ChangeMessageVisibilityBatch"] {
                world.fault(action, 2, json!({"how": "drop_answer"})).await;
                world.fault(action, 1, if round % 2 == 0 { throttled.clone() } else { broken.clone() }).await;
            }
            pace(Duration::from_millis(400)).await;
        }
    };
    let dying = async {
        pace(Duration::from_millis(1500)).await;
        one.signal(Signal::STOP);
        pace(Duration::from_millis(2500)).await;
        other.kill();
        other = world.start("other", extra);
        // Longer than the visibility timeout: what it holds goes to the other one.
        pace(Duration::from_secs(9)).await;
        one.signal(Signal::CONT);
    };
    tokio::join!(sending, failing, dying);
    let report = world.applied(2400).await;
    assert_in_order(&report, 2400);
    world.emptied().await;
    // It stood still with updates in its hands, and has noticed.
    until("a loss that was noticed", || async {
        let log = one.log().concat();
        let noticed = ["partition lost", "the lease has lapsed"].iter().any(|text| log.contains(text));
        if noticed { Ok(()) } else { Err(log) }
    })
    .await;
}

//! Starting, stopping, dying, and a broker that goes away.

use std::sync::Arc;
use std::time::{Duration, Instant};

use lanekeeper_lab::receiver::ReceiverSettings;
use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;

use crate::harness::{Broker, Signal, World, assert_flawless, assert_in_order, http, until, updates};

fn slow(latency: Duration) -> ReceiverSettings {
    ReceiverSettings { latency, latency_jitter: 0.5, ..ReceiverSettings::default() }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_drain_in_the_middle_costs_neither_an_update_nor_a_duplicate() {
    let world = World::with("drain", slow(Duration::from_millis(20))).await;
    let mut first = world.dispatcher("updates.partitions = 4").await;
    world.publish(updates(100, 20)).await;
    world.applied(300).await;
    first.terminate();
    assert_eq!(first.ended().await, Some(0));
    let done = world.receiver.report(0);
    assert!(done.counts.updates < 2_000, "it was in the middle: {}", done.counts);
    assert_eq!(done.counts.disconnected, 0, "attempts in flight were finished");
    let _second = world.dispatcher("updates.partitions = 4").await;
    assert_flawless(&world.applied(2_000).await, 2_000);
}

#[tokio::test(flavor = "multi_thread")]
async fn with_a_log_that_keeps_everything_out_it_works_and_drains_all_the_same() {
    let world = World::new("quiet").await;
    let mut first = world.dispatcher("updates.partitions = 2").await;
    first.terminate();
    assert_eq!(first.ended().await, Some(0));
    world.publish(updates(10, 5)).await;
    let mut dispatcher = world.start(&world.config("updates.partitions = 2\nlog.filter = \"off\""));
    assert_flawless(&world.applied(50).await, 50);
    dispatcher.terminate();
    assert_eq!(dispatcher.ended().await, Some(0));
    assert_eq!(dispatcher.log(), [""; 0]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_drain_does_not_wait_longer_than_it_may() {
    let settings = ReceiverSettings {
        fail_records: vec!["record-0=hang:2s".parse().expect("a failing record")],
        hang_for: Duration::from_secs(60),
        ..ReceiverSettings::default()
    };
    let world = World::with("drain-timeout", settings).await;
    let extra = "updates.partitions = 1\ndispatch.drain_timeout = \"300ms\"";
    let config = world.config(extra).replace("timeout = \"1s\"", "timeout = \"50s\"");
    let mut first = world.start(&config);
    first.ready().await;
    world.publish(updates(1, 1)).await;
    until("a request in progress", || async {
        match world.receiver.report(0).in_progress {
            1 => Ok(()),
            other => Err(other.to_string()),
        }
    })
    .await;
    first.terminate();
    assert_eq!(first.ended().await, Some(0));
    first.logged("drain_timeout is over").await;
    let _second = world.dispatcher("updates.partitions = 1").await;
    assert_in_order(&world.applied(1).await, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_kill_in_the_middle_loses_nothing_and_reorders_nothing() {
    let world = World::with("kill", slow(Duration::from_millis(5))).await;
    let mut dispatcher = world.dispatcher("updates.partitions = 4").await;
    world.publish(updates(100, 30)).await;
    for kill_at in [400, 1_000, 1_800] {
        world.applied(kill_at).await;
        dispatcher.kill();
        dispatcher = world.dispatcher("updates.partitions = 4").await;
    }
    assert_in_order(&world.applied(3_000).await, 3_000);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broker_that_is_killed_and_comes_back_is_found_again() {
    let broker = Arc::new(Broker::start());
    let world = World::on(Arc::clone(&broker), "updates", slow(Duration::from_millis(5))).await;
    let dispatcher = world.dispatcher("updates.partitions = 4").await;
    // A quorum queue on a node that is killed soon after it was declared may not come back (RabbitMQ 3.10.8, measured).
    let node = Arc::clone(&broker);
    tokio::task::spawn_blocking(move || node.ctl(&["stop_app"])).await.expect("it does not panic");
    dispatcher.logged("broker connection lost").await;
    let node = Arc::clone(&broker);
    tokio::task::spawn_blocking(move || node.ctl(&["start_app"])).await.expect("it does not panic");
    world.publish(updates(100, 30)).await;
    world.applied(300).await;
    let node = Arc::clone(&broker);
    tokio::task::spawn_blocking(move || node.kill()).await.expect("it does not panic");
    tokio::task::spawn_blocking(move || broker.restart()).await.expect("it does not panic");
    // What was in flight when the broker died is not sent again: its outcome is matched to the redelivered copy.
    assert_flawless(&world.applied(3_000).await, 3_000);
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_that_are_closed_by_hand_cost_no_duplicate() {
    let broker = Arc::new(Broker::start());
    let world = World::on(Arc::clone(&broker), "updates", slow(Duration::from_millis(10))).await;
    let _dispatcher = world.dispatcher("updates.partitions = 4").await;
    world.publish(updates(100, 40)).await;
    for close_at in [300, 900, 1_500, 2_100, 2_700] {
        world.applied(close_at).await;
        let node = Arc::clone(&broker);
        let closing = move || node.ctl(&["close_all_connections", "by hand"]);
        tokio::task::spawn_blocking(closing).await.expect("it does not panic");
    }
    assert_flawless(&world.applied(4_000).await, 4_000);
}

#[tokio::test(flavor = "multi_thread")]
async fn ten_closings_with_updates_without_ids_lose_and_reorder_nothing_and_repeat_only_those() {
    let broker = Arc::new(Broker::start());
    let world = World::on(Arc::clone(&broker), "updates", slow(Duration::from_millis(10))).await;
    let _dispatcher = world.dispatcher("updates.partitions = 4").await;
    // Every other record's updates have no id: these are sent again when they come again.
    let lines = updates(100, 60).enumerate().map(|(number, mut line)| {
        if number % 2 == 1 {
            line.as_object_mut().expect("a line is an object").remove("id");
        }
        line
    });
    world.publish(lines).await;
    for close_at in (1..=10).map(|close| close * 500) {
        world.applied(close_at).await;
        let node = Arc::clone(&broker);
        let closing = move || node.ctl(&["close_all_connections", "by hand"]);
        tokio::task::spawn_blocking(closing).await.expect("it does not panic");
    }
    world.applied(6_000).await;
    // What comes again after the last closing is sent oldest first.
    let report = until("every record to hold its last update", || async {
        let report = world.receiver.report(0);
        let counts = &report.counts;
        if counts.outdated == 0 { Ok(report) } else { Err(counts.to_string()) }
    })
    .await;
    assert_in_order(&report, 6_000);
    for record in (0..100).step_by(2).map(|number| format!("record-{number}")) {
        let counts = world.receiver.record(&record).expect("it was sent").counts;
        assert_eq!(counts.duplicates, 0, "{record} has ids: {counts}");
    }
}

/// A busy or sleeping machine stops every process for a while: what was answered meanwhile lies in its sockets.
#[tokio::test(flavor = "multi_thread")]
async fn a_process_that_was_stopped_reads_the_answers_that_came_meanwhile() {
    const TIMEOUT: Duration = Duration::from_secs(1);
    let world = World::with("stops", slow(Duration::from_millis(300))).await;
    let dispatcher = world.dispatcher("updates.partitions = 4").await;
    world.publish(updates(100, 30)).await;
    for applied in (1..=5).map(|stop| stop * 500) {
        world.applied(applied).await;
        until("requests in progress", || async {
            let in_progress = world.receiver.report(0).in_progress;
            if in_progress >= 20 { Ok(()) } else { Err(in_progress.to_string()) }
        })
        .await;
        dispatcher.signal(Signal::STOP);
        let stopped = Instant::now();
        until("no request in progress, and later than the target's timeout", || async {
            let (in_progress, elapsed) = (world.receiver.report(0).in_progress, stopped.elapsed());
            let over = in_progress == 0 && elapsed > TIMEOUT + Duration::from_millis(500);
            if over { Ok(()) } else { Err(format!("{in_progress} in progress after {elapsed:?}")) }
        })
        .await;
        dispatcher.signal(Signal::CONT);
    }
    assert_flawless(&world.applied(3_000).await, 3_000);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backlog_takes_no_more_memory_than_the_window() {
    let world = World::new("backlog").await;
    let extra = "updates.partitions = 1\ndispatch.prefetch = 200";
    let mut dispatcher = world.dispatcher(extra).await;
    dispatcher.terminate();
    assert_eq!(dispatcher.ended().await, Some(0));
    let padding = "x".repeat(4_000);
    let lines = updates(500, 30).map(|mut line| {
        line["body"]["padding"] = padding.clone().into();
        line
    });
    world.publish(lines).await;
    let dispatcher = world.dispatcher(extra).await;
    world.applied(3_000).await;
    let early = dispatcher.memory().now_mb;
    world.applied(15_000).await;
    let most = dispatcher.memory().peak_mb;
    // 60 MB went through; 200 updates are held at a time.
    assert!(most < early * 1.5 + 10.0, "from {early} MiB to {most} MiB");
}

#[tokio::test(flavor = "multi_thread")]
async fn health_and_metrics_show_what_monitoring_needs() {
    let world = World::new("health").await;
    let dispatcher = world.dispatcher("updates.partitions = 2").await;
    world.publish(updates(5, 2)).await;
    world.applied(10).await;
    let address = dispatcher.admin().await;
    let get = async |path: &str| {
        let answer = http().get(format!("http://{address}{path}")).send().await.expect("it answers");
        (answer.status().as_u16(), answer.text().await.expect("with text"))
    };
    assert_eq!(get("/livez").await.0, 200);
    assert_eq!(get("/readyz").await, (200, "ready\n".to_owned()));
    let metrics = get("/metrics").await.1;
    assert!(metrics.contains("\nlanekeeper_ready 1\n"), "{metrics}");
    assert!(metrics.contains("lanekeeper_updates_delivered_total{target=\"receiver\"} 10"), "{metrics}");
    assert!(metrics.contains("lanekeeper_partition_active{layout=\"1\",partition=\"p000\"} 1"), "{metrics}");
    assert!(metrics.ends_with("# EOF\n"), "{metrics}");
    assert!(!metrics.contains("record-0"), "record keys are no labels");
    let log = dispatcher.log().join("\n");
    assert!(
        !log.contains("record-0") && !log.contains("guest:guest"),
        "neither keys nor passwords in the log"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_that_ask_for_nothing_do_not_keep_monitoring_out() {
    let world = World::new("monitored").await;
    let dispatcher = world.start(&world.config("updates.partitions = 1"));
    let address = dispatcher.admin().await;
    let mut silent = Vec::new();
    for _ in 0..100 {
        silent.push(TcpStream::connect(&address).await.expect("it listens"));
    }
    // They are more than are taken at once, and each is closed in time.
    let answer = http().get(format!("http://{address}/livez")).send().await.expect("it answers");
    assert!(answer.status().is_success());
    let first = silent[0].read(&mut [0; 16]).await;
    assert!(!matches!(first, Ok(1..)), "it was closed without an answer: {first:?}");
}

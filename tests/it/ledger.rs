//! With a ledger: what a killed process had applied is not sent again, whatever the ledger goes through nothing is lost,
//! and a row lock excludes what the broker does not. Judged by what the receiver saw.

use std::sync::Arc;
use std::time::{Duration, Instant};

use lanekeeper_lab::receiver::{ReceiverSettings, Report, Safeguards};

use crate::harness::{Dispatcher, Postgres, World, assert_in_order, until, updates};

const RECORDS: u64 = 50;

/// How often the dispatcher is killed: `LANEKEEPER_KILLS` for a long run.
fn kills() -> u64 {
    std::env::var("LANEKEEPER_KILLS").map_or(6, |text| text.parse().expect("a number"))
}

async fn world(name: &str) -> World {
    let latency = Duration::from_millis(6);
    World::with(
        name,
        ReceiverSettings {
            latency,
            latency_jitter: 0.5,
            safeguards: Safeguards { fencing: false, ..Safeguards::ALL },
            ..ReceiverSettings::default()
        },
    )
    .await
}

fn limits() -> String {
    "updates.partitions = 4\ndispatch.in_flight_max = 8\nbroker.heartbeat = \"2s\"\n".to_owned()
}

/// SIGKILL, again and again, at moments that have nothing to do with what is going on.
async fn killed(world: &World, extra: &str) -> Report {
    const EACH: usize = 40;
    let kills = kills();
    let rounds = usize::try_from(kills).expect("a small number") + 1;
    for kill in 0..kills {
        let mut dispatcher = world.dispatcher(extra).await;
        let skip = usize::try_from(kill).expect("a small number") * EACH * 50;
        world.publish(updates(50, rounds * EACH).skip(skip).take(EACH * 50)).await;
        let applied = kill * 2_000 + 300 + (kill * 977) % 1_300;
        world.applied(applied).await;
        dispatcher.kill();
    }
    let _dispatcher = world.dispatcher(extra).await;
    world.applied(kills * 2_000).await
}

#[track_caller]
fn assert_only_what_was_in_flight_was_repeated(report: &Report) {
    let kills = kills();
    assert_in_order(report, kills * 2_000);
    let counts = &report.counts;
    let repeated = counts.replayed + counts.duplicates;
    assert_eq!(counts.duplicates, 0, "the target knows idempotency keys: {counts}");
    // One update of a record is under way at a time: it is out, or its outcome is on its way to the disk.
    assert!(repeated <= kills * RECORDS, "{counts}");
    println!("{kills} kills: {repeated} requests repeated, of {}", counts.requests);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_killed_process_had_applied_is_not_sent_again_with_sqlite() {
    let world = world("killed-sqlite").await;
    let report = killed(&world, &(world.ledger() + &limits())).await;
    assert_only_what_was_in_flight_was_repeated(&report);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_killed_process_had_applied_is_not_sent_again_with_postgres() {
    let postgres = Postgres::start();
    let world = world("killed-postgres").await;
    let report = killed(&world, &(format!("ledger.url = \"{}\"\n", postgres.url()) + &limits())).await;
    assert_only_what_was_in_flight_was_repeated(&report);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_ledger_that_is_away_stops_everything_and_loses_nothing() {
    let away =
        std::env::var("LANEKEEPER_LEDGER_AWAY_SECONDS").map_or(5, |text| text.parse().expect("a number"));
    let postgres = Arc::new(Postgres::start());
    let world = Arc::new(world("away").await);
    let dispatcher = world.dispatcher(&(format!("ledger.url = \"{}\"\n", postgres.url()) + &limits())).await;
    let publishing = Arc::clone(&world);
    let publishing = tokio::spawn(async move { publishing.publish(updates(100, 60)).await });
    world.applied(1_000).await;
    let server = Arc::clone(&postgres);
    tokio::task::spawn_blocking(move || server.stop()).await.expect("it does not panic");
    dispatcher.logged("the ledger cannot be used").await;
    let stopped = Instant::now();
    until("some seconds", || async {
        let elapsed = stopped.elapsed();
        if elapsed >= Duration::from_secs(away) { Ok(()) } else { Err(format!("{elapsed:?}")) }
    })
    .await;
    let server = Arc::clone(&postgres);
    tokio::task::spawn_blocking(move || server.restart()).await.expect("it does not panic");
    let report = world.applied(6_000).await;
    publishing.await.expect("it does not panic");
    assert_in_order(&report, 6_000);
    assert_eq!(report.counts.duplicates + report.counts.replayed, 0, "{}", report.counts);
}

/// As an operator could, who knows Erlang. From then on the queue hands its updates to all of its consumers in turn.
fn switch_off_single_active_consumer(world: &World) {
    let queue = format!("{}.l1.p000", world.exchange);
    let server = format!("'%2F_{queue}'");
    let change = format!(
        "ra:process_command({{{server}, node()}}, rabbit_fifo:make_update_config(#{{name => {server}, \
         queue_resource => rabbit_misc:r(<<\"/\">>, queue, <<\"{queue}\">>), release_cursor_interval => 2048, \
         single_active_consumer_on => false, delivery_limit => 1000000, overflow_strategy => reject_publish}}))."
    );
    let output = world.broker.ctl(&["eval", &change]);
    assert!(output.starts_with("{ok,"), "{output}");
}

/// A wrong set-up: the queue has no single active consumer, so that two processes get its deliveries in turn.
#[tokio::test(flavor = "multi_thread")]
async fn two_owners_of_one_partition_never_overlap_where_rows_are_locked() {
    let postgres = Postgres::start();
    let world = world("two-owners").await;
    let config = |name: &str| {
        let extra = format!(
            "ledger.url = \"{}\"\nledger.row_lock = true\nledger.connections_max = 16\n{}",
            postgres.url(),
            limits().replace("partitions = 4", "partitions = 1")
        );
        let config = world.config(&extra);
        config.replace("instance.name = \"two-owners\"", &format!("instance.name = \"{name}\""))
    };
    let start = |name: &str| {
        let path = world.dir.path().join(format!("{name}.toml"));
        std::fs::write(&path, config(name)).expect("the config can be written");
        Dispatcher::start(&path)
    };
    let one = start("one");
    one.ready().await;
    switch_off_single_active_consumer(&world);
    let two = start("two");
    two.ready().await;
    world.publish(updates(5, 60)).await;
    let report = world.applied(300).await;
    assert_eq!(report.counts.overlaps, 0, "{}", report.counts);
}

//! PostgreSQL with a synchronous standby that takes over while updates flow, and one that is not there yet.

use std::time::{Duration, Instant};

use lanekeeper_lab::receiver::ReceiverSettings;
use serde_json::json;

use crate::harness::{
    Dispatcher, Postgres, World, assert_in_order, lanekeeper, pool_transactions, until, updates,
};

/// How long dispatch may stand when the ledger's server is replaced.
const FAIL_OVER_MAX: Duration = Duration::from_secs(30);
const RECORDS: usize = 40;
/// Of each record, before the fail-over and after it.
const EACH: usize = 60;

async fn world(name: &str) -> World {
    let fail_records = vec!["bad=422".parse().expect("a failing record")];
    let latency = Duration::from_millis(10);
    let settings = ReceiverSettings { latency, fail_records, ..ReceiverSettings::default() };
    World::with(name, settings).await
}

fn ledger(servers: &[&Postgres], more: &str) -> String {
    let urls: Vec<_> = servers.iter().map(|server| format!("\"{}\"", server.url())).collect();
    format!(
        "ledger.url = [{}]\nupdates.partitions = 2\ndispatch.in_flight_max = 16\ndispatch.prefetch = 200\n{more}\n",
        urls.join(", ")
    )
}

/// How the primary ends.
#[derive(Clone, Copy)]
enum End {
    Killed,
    Silent,
}

/// Publishes, replaces the server in the middle, and judges what the target saw.
async fn fails_over(name: &str, more: &str, end: End) {
    let primary = Postgres::start();
    let standby = primary.standby().await;
    let world = world(name).await;
    let dispatcher = world.dispatcher(&ledger(&[&primary, &standby], more)).await;
    dispatcher.ready().await;
    let half = RECORDS * EACH;
    world.publish(updates(RECORDS, 2 * EACH)).await;
    world.applied(half as u64 / 2).await;
    match end {
        End::Killed => primary.kill(),
        End::Silent => primary.signal("STOP"),
    }
    standby.promote().await;
    let replaced = Instant::now();
    let before = world.receiver.report(0).counts.updates;
    until("dispatch that goes on", || async {
        let applied = world.receiver.report(0).counts.updates;
        // More than what was in flight.
        if applied > before + 100 { Ok(()) } else { Err(format!("{applied} after {before}")) }
    })
    .await;
    let stood = replaced.elapsed();
    assert!(stood < FAIL_OVER_MAX, "{stood:?}");
    let report = world.applied(2 * half as u64).await;
    assert_in_order(&report, 2 * half as u64);
    drop(dispatcher);
    if let End::Silent = end {
        primary.signal("CONT"); // or it could not be stopped in order
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn dispatch_goes_on_in_order_when_the_standby_takes_over() {
    fails_over("fail-over", "", End::Killed).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn with_row_locks_dispatch_goes_on_in_order_when_the_standby_takes_over() {
    fails_over("fail-over-locks", "ledger.row_lock = true", End::Killed).await;
}

/// Its host has lost power: nobody closes a connection.
#[tokio::test(flavor = "multi_thread")]
async fn with_row_locks_dispatch_goes_on_in_order_when_the_primary_falls_silent() {
    fails_over("fail-silent-locks", "ledger.row_lock = true", End::Silent).await;
}

/// What it sets in a session is gone in the next one, so nothing may be sent.
#[tokio::test(flavor = "multi_thread")]
async fn a_pooler_that_changes_sessions_ends_the_process_with_exit_code_4() {
    let server = Postgres::start();
    server.trust().await;
    let pooler = pool_transactions(server.address().parse().expect("an address")).await;
    let world = world("pooled").await;
    let config = world.config(&ledger(&[&server], "").replace(server.address(), &pooler.to_string()));
    let mut dispatcher = Dispatcher::start(&world.write_config(&config));
    assert_eq!(dispatcher.ended().await, Some(4), "{:?}", dispatcher.log());
    dispatcher.logged("pool_mode = session").await;
}

/// The old primary takes no writes any more and answers reads, as after a switch-over.
#[tokio::test(flavor = "multi_thread")]
async fn no_later_update_overtakes_a_parked_one_after_a_switch_over() {
    let primary = Postgres::start();
    let standby = primary.standby().await;
    let world = world("switch-over").await;
    let dispatcher = world.dispatcher(&ledger(&[&primary, &standby], "")).await;
    dispatcher.ready().await;
    world.publish(updates(RECORDS, 1)).await;
    world.applied(RECORDS as u64).await;

    primary.execute("ALTER SYSTEM SET default_transaction_read_only = on").await;
    primary.execute("SELECT pg_reload_conf()").await;
    standby.promote().await;
    // What no target takes is parked, on the new primary.
    let bad = |sequence: u64| json!({"key": "bad", "id": format!("bad-{sequence}"), "type": "a", "body": {"sequence": sequence}});
    world.publish([bad(1)]).await;
    let parked = "SELECT count(*) FROM ledger_parked_update";
    until("a parked update on the new primary", || async {
        match standby.count(parked).await {
            1 => Ok(()),
            other => Err(other.to_string()),
        }
    })
    .await;
    world.publish((2..5).map(bad)).await;
    until("later updates behind it", || async {
        match standby.count(parked).await {
            4 => Ok(()),
            other => Err(other.to_string()),
        }
    })
    .await;
    let counts = world.receiver.report(0).counts;
    assert_eq!(counts.requests, RECORDS as u64 + 1, "one request of the parked record: {counts}");
    assert_eq!(primary.count("SELECT count(*) FROM ledger_parked_update").await, 0, "it answers reads");
}

/// Services that start together need no order.
#[tokio::test(flavor = "multi_thread")]
async fn a_ledger_that_is_not_there_yet_is_waited_for() {
    let server = Postgres::start();
    let world = world("ledger-later").await;
    server.stop();
    let config = world.config(&ledger(&[&server], ""));
    let dispatcher = Dispatcher::start(&world.write_config(&config));
    dispatcher.logged("the ledger cannot be used yet, trying again").await;
    // A command for a person says so at once.
    let path = world.write_config(&config);
    let listed = tokio::task::spawn_blocking(move || {
        lanekeeper(&["parked", "list", "--config", path.to_str().unwrap()], &[], b"")
    });
    assert_eq!(listed.await.unwrap().code, Some(4));
    server.restart();
    dispatcher.ready().await;
    world.publish(updates(4, 2)).await;
    world.applied(8).await;
}

//! Records that wait in the ledger until a person decides. Judged by what the receiver saw.

use std::time::{Duration, Instant};

use lanekeeper::config::{LedgerConfig, LedgerPlace};
use lanekeeper::ledger::{AnyLedger, Ledger, Selection};
use lanekeeper::receiver::{FailingRecord, ReceiverSettings};

use crate::harness::{World, assert_flawless, assert_in_order, until, updates};

/// Opened beside the dispatcher, as another process would.
async fn ledger(world: &World) -> AnyLedger {
    let config = LedgerConfig {
        place: LedgerPlace::Sqlite(world.dir.path().join("ledger.db")),
        retention: Duration::from_secs(3600),
        row_lock: false,
        parked_max: 100_000,
        connections_max: 1,
    };
    AnyLedger::open(config).await.expect("the ledger opens")
}

async fn parked(ledger: &AnyLedger, updates: u64) {
    until(&format!("{updates} updates parked"), || async {
        let records = ledger.parked_records(None, 100).await.map_err(|error| error.to_string())?;
        let parked: u64 = records.iter().map(|record| record.updates).sum();
        if parked == updates { Ok(()) } else { Err(format!("{parked} parked")) }
    })
    .await;
}

/// A world whose record `record-0` is rejected for so long.
async fn world(name: &str, rejected_for: &str) -> World {
    let failing: FailingRecord = format!("record-0=422:{rejected_for}").parse().expect("a failing record");
    World::with(name, ReceiverSettings { fail_records: vec![failing], ..ReceiverSettings::default() }).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_record_that_is_rejected_waits_in_order_until_it_is_released() {
    let world = world("rejected", "3s").await;
    let extra = format!("{}updates.partitions = 2", world.ledger());
    let mut dispatcher = world.dispatcher(&extra).await;
    world.publish(updates(10, 20)).await;
    // The others go on; of record 0 one request was made and nothing after it.
    world.applied(180).await;
    let ledger = ledger(&world).await;
    parked(&ledger, 20).await;
    let requests = || world.receiver.record("record-0").expect("it was sent").counts.requests;
    assert_eq!(requests(), 1, "what follows a parked update is not sent");
    let rejected_from = Instant::now();
    dispatcher.terminate();
    assert_eq!(dispatcher.ended().await, Some(0));
    let _dispatcher = world.dispatcher(&extra).await;
    // Newer ones, after a restart: behind the others.
    world.publish(updates(10, 25).skip(200)).await;
    world.applied(225).await;
    parked(&ledger, 25).await;
    assert_eq!(requests(), 1);
    until("the target takes record 0 again", || async {
        let elapsed = rejected_from.elapsed();
        if elapsed > Duration::from_secs(3) { Ok(()) } else { Err(format!("{elapsed:?}")) }
    })
    .await;
    assert_eq!(ledger.release(&Selection::All).await.expect("the ledger answers"), 1);
    let report = world.applied(250).await;
    assert_flawless(&report, 250);
    parked(&ledger, 0).await;
    // And from here on straight through.
    world.publish(updates(10, 27).skip(250)).await;
    assert_in_order(&world.applied(270).await, 270);
    parked(&ledger, 0).await;
}

//! Records that wait in the ledger until a person decides. Judged by what the receiver saw.

use std::sync::Arc;
use std::time::{Duration, Instant};

use lanekeeper_core::layout::{LayoutNumber, PartitionNumber};
use lanekeeper_core::update::{RecordKey, UpdateId};
use lanekeeper_lab::receiver::{FailingRecord, ReceiverSettings};
use lanekeeper_ledger::{
    AnyLedger, Entry, EntryKind, Ledger, LedgerConfig, LedgerPlace, Operations, ParkedState,
    StoredParkReason, StoredUpdate,
};
use serde_json::json;

use crate::harness::{Dispatcher, World, assert_flawless, assert_in_order, lanekeeper, until, updates};

/// Opened beside the dispatcher, as another process would. While the dispatcher makes it, or on a slow disk, it can be
/// locked for longer than the ledger itself waits.
async fn ledger(world: &World) -> AnyLedger {
    let config = LedgerConfig {
        place: LedgerPlace::Sqlite(world.dir.path().join("ledger.db")),
        retention: Duration::from_secs(3600),
        row_lock: false,
        parked_record_max: 1_000_000,
        parked_max: 100_000,
        connections_max: 1,
    };
    until("the ledger", || async {
        AnyLedger::open(config.clone()).await.map_err(|error| format!("{error:?}"))
    })
    .await
}

/// `lanekeeper parked release`, beside the dispatcher.
async fn release(world: &World, what: &[&str]) {
    let config = world.dir.path().join("lanekeeper.toml");
    let config = config.to_str().expect("temporary directories have plain names").to_owned();
    let what: Vec<String> = what.iter().map(|&what| what.to_owned()).collect();
    let releasing = move || {
        let arguments: Vec<&str> = ["parked", "release", "--config", &config]
            .into_iter()
            .chain(what.iter().map(String::as_str))
            .collect();
        lanekeeper(&arguments, &[], b"")
    };
    let output = tokio::task::spawn_blocking(releasing).await.expect("it does not panic");
    assert_eq!(output.code, Some(0), "{}", output.stderr);
}

async fn parked(ledger: &AnyLedger, updates: u64) {
    until(&format!("{updates} updates parked"), || async {
        let records = ledger.parked_records(None, 100).await.map_err(|error| error.to_string())?;
        let parked: u64 = records.iter().map(|record| record.updates).sum();
        if parked == updates { Ok(()) } else { Err(format!("{parked} parked")) }
    })
    .await;
}

async fn waited(since: Instant, seconds: u64) {
    until(&format!("{seconds} s"), || async {
        let elapsed = since.elapsed();
        if elapsed > Duration::from_secs(seconds) { Ok(()) } else { Err(format!("{elapsed:?}")) }
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
    let world = world("rejected-parked", "3s").await;
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
    waited(rejected_from, 3).await; // the target takes record 0 again
    release(&world, &["record-0"]).await;
    let report = world.applied(250).await;
    assert_flawless(&report, 250);
    parked(&ledger, 0).await;
    // And from here on straight through.
    world.publish(updates(10, 27).skip(250)).await;
    assert_in_order(&world.applied(270).await, 270);
    parked(&ledger, 0).await;
}

/// Nothing is published after the takeover, so that the standby would not learn by itself that it is the owner.
#[tokio::test(flavor = "multi_thread")]
async fn a_release_is_picked_up_by_a_standby_that_has_followed_without_traffic() {
    let world = world("idle-release", "3s").await;
    // The standby waits until the owner that was killed can have nothing at work: a lease, and the target's timeout of 1 s.
    let heartbeat = "broker.heartbeat = \"1s\"\n";
    let config = world.config(&format!("{}{heartbeat}updates.partitions = 2", world.ledger()));
    let mut owner = world.start(&config);
    owner.ready().await;
    let standby = world.start(&config);
    standby.logged("partition attached").await;
    let begun = Instant::now();
    world.publish(updates(1, 5)).await;
    parked(&ledger(&world).await, 5).await;
    waited(begun, 3).await;
    owner.kill();
    release(&world, &["--all"]).await;
    let released = Instant::now();
    let report = world.applied(5).await;
    assert!(released.elapsed() < Duration::from_secs(5), "{:?}", released.elapsed());
    assert_flawless(&report, 5);
}

#[tokio::test(flavor = "multi_thread")]
async fn fifty_records_are_parked_and_released_while_the_others_flow() {
    let failing = |record| format!("record-{record}=422:3s").parse().expect("a failing record");
    let fail_records: Vec<FailingRecord> = (0..50).map(failing).collect();
    let settings =
        ReceiverSettings { fail_records, latency: Duration::from_millis(2), ..ReceiverSettings::default() };
    let world = Arc::new(World::with("fifty", settings).await);
    let extra = format!("{}updates.partitions = 4", world.ledger());
    let _dispatcher = world.dispatcher(&extra).await;
    let begun = Instant::now();
    let publishing = Arc::clone(&world);
    let publishing = tokio::spawn(async move { publishing.publish(updates(200, 60)).await });
    world.applied(2_000).await;
    waited(begun, 5).await;
    release(&world, &["--all"]).await;
    publishing.await.expect("it does not panic");
    // Some may have been rejected once more, when they were first sent late.
    let ledger = ledger(&world).await;
    until("nothing parked", || async {
        let records = ledger.parked_records(None, 100).await.map_err(|error| error.to_string())?;
        if records.iter().any(|record| record.state == ParkedState::Parked) {
            release(&world, &["--all"]).await;
        }
        if records.is_empty() { Ok(()) } else { Err(format!("{} records parked", records.len())) }
    })
    .await;
    assert_flawless(&world.applied(12_000).await, 12_000);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_update_that_was_resolved_is_known_after_a_restart_and_a_stolen_id_is_parked() {
    let world = World::new("known").await;
    let extra = format!("{}updates.partitions = 1", world.ledger());
    let mut dispatcher = world.dispatcher(&extra).await;
    world.publish(updates(3, 2)).await;
    world.applied(6).await;
    dispatcher.terminate();
    assert_eq!(dispatcher.ended().await, Some(0));
    let dispatcher = world.dispatcher(&extra).await;
    world.publish(updates(3, 2)).await; // all again
    let stolen = serde_json::json!({"key": "record-0", "id": "0-2", "type": "record.updated", "body": {"sequence": 3}});
    world.publish([stolen]).await;
    let ledger = ledger(&world).await;
    parked(&ledger, 1).await;
    assert!((dispatcher.metric("lanekeeper_duplicates_suppressed_total").await - 6.0).abs() < 0.5);
    assert_eq!(world.receiver.report(0).counts.requests, 6, "nothing was sent again");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_outdated_version_is_settled_without_a_request() {
    let world = World::new("versions").await;
    let extra = format!("{}updates.partitions = 1", world.ledger());
    let dispatcher = world.dispatcher(&extra).await;
    let line = |id: u64, version: u64| serde_json::json!({"key": "r", "id": id.to_string(), "type": "record.updated", "version": version, "body": {"sequence": id}});
    world.publish([line(1, 7), line(2, 6), line(3, 7), line(4, 8)]).await;
    world.applied(2).await;
    until("two superseded", || async {
        let superseded = dispatcher.metric("lanekeeper_updates_superseded_total").await;
        if superseded > 1.5 { Ok(()) } else { Err(superseded.to_string()) }
    })
    .await;
    assert_eq!(world.receiver.report(0).counts.requests, 2, "versions 7 and 8");
}

#[tokio::test(flavor = "multi_thread")]
async fn another_ledger_on_the_same_exchange_is_refused_unless_it_is_adopted() {
    let world = World::new("another").await;
    let ledger = |name: &str| format!("ledger.url = \"sqlite://{}\"", world.dir.path().join(name).display());
    let mut dispatcher = world.dispatcher(&ledger("one.db")).await;
    dispatcher.terminate();
    assert_eq!(dispatcher.ended().await, Some(0));
    let config = world.write_config(&world.config(&ledger("two.db")));
    let mut other = Dispatcher::start(&config);
    assert_eq!(other.ended().await, Some(4));
    assert!(other.log().join("\n").contains("--adopt-ledger"), "{:?}", other.log());
    Dispatcher::start_with(&config, &["--adopt-ledger"]).ready().await;
    let mut first = Dispatcher::start(&world.write_config(&world.config(&ledger("one.db"))));
    assert_eq!(first.ended().await, Some(4), "it belongs here no more");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_under_the_ledger_loses_nothing() {
    let world = Arc::new(World::new("full").await);
    let disk = world.dir.path().join("disk");
    std::fs::create_dir(&disk).expect("a directory");
    let relieved = world.dir.path().join("relieved");
    let made = std::process::Command::new("mkfifo").arg(&relieved).status().expect("mkfifo can be run");
    assert!(made.success(), "a named pipe is made");
    let extra =
        format!("ledger.url = \"sqlite://{}\"\nupdates.partitions = 2", disk.join("ledger.db").display());
    let config = world.write_config(&world.config(&extra));
    let dispatcher = Dispatcher::start_on_a_small_disk(&config, &disk, &relieved);
    dispatcher.ready().await;
    let publishing = Arc::clone(&world);
    let publishing = tokio::spawn(async move { publishing.publish(updates(100, 80)).await });
    dispatcher.logged("its disk is full").await;
    std::fs::write(&relieved, "now\n").expect("somebody reads it");
    dispatcher.logged("the ledger can be used again").await;
    publishing.await.expect("it does not panic");
    let report = world.applied(8_000).await;
    assert_in_order(&report, 8_000);
}

/// Parks an update as a dispatcher does.
async fn park(
    ledger: &AnyLedger,
    (layout, partition): (LayoutNumber, PartitionNumber),
    record: &str,
    sequence: u8,
    update_type: &str,
) {
    let update = StoredUpdate {
        record_key: RecordKey::new(record).expect("a record key"),
        id: UpdateId::published(format!("{record}-{sequence}")),
        update_type: Some(update_type.to_owned()),
        content_type: None,
        content_encoding: None,
        if_match: None,
        version: None,
        published_at: None,
        headers: Vec::new(),
        body: format!("{{\"sequence\":{sequence}}}").into(),
    };
    let record_key = update.record_key.clone();
    let kind = EntryKind::Park { update, reason: StoredParkReason::behind(), only_behind: false };
    let entry = Entry { layout, partition, tenure: None, record_key, kind };
    ledger.record(entry).await.expect("it is written");
}

/// A target is down, and three hundred records of it were released before one of another target.
#[tokio::test(flavor = "multi_thread")]
async fn released_records_that_cannot_go_out_keep_no_later_one_from_going() {
    let world = World::new("starved").await;
    let ledger = ledger(&world).await;
    let of = (LayoutNumber(1), PartitionNumber(0));
    for record in 0..300 {
        park(&ledger, of, &format!("down-{record:03}"), 1, "down.updated").await;
    }
    // A record is read before another one if it was parked earlier.
    let parked_ms = ledger.parked_records(None, 1_000).await.expect("they are read");
    let newest = parked_ms.iter().map(|record| record.since_ms).max().expect("there are some");
    until("the next millisecond", || async {
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).expect("after 1970");
        if now.as_millis() > u128::from(newest.unsigned_abs()) { Ok(()) } else { Err(format!("{now:?}")) }
    })
    .await;
    park(&ledger, of, "record-0", 1, "record.updated").await;
    let config = world.config(&format!("{}updates.partitions = 1", world.ledger()));
    let down =
        "[[target]]\nname = \"down\"\ntypes = [\"down.*\"]\nurl = \"http://127.0.0.1:1/{record_key}\"\n";
    let dispatcher = world.start(&config.replacen("[[target]]", &format!("{down}[[target]]"), 1));
    dispatcher.ready().await;
    release(&world, &["--all"]).await;
    assert_flawless(&world.applied(1).await, 1);
}

/// The layouts began again, as in a vhost that was made again, and the ledger was kept.
#[tokio::test(flavor = "multi_thread")]
async fn what_a_layout_that_is_gone_has_parked_is_released_and_newer_updates_follow() {
    let world = World::new("began-again").await;
    let ledger = ledger(&world).await;
    for sequence in 1..=3 {
        park(&ledger, (LayoutNumber(2), PartitionNumber(9)), "record-0", sequence, "record.updated").await;
    }
    let dispatcher = world.dispatcher(&format!("{}updates.partitions = 4", world.ledger())).await;
    dispatcher.logged("records are parked by layouts that the broker knows no more").await;
    world.publish(updates(10, 5).filter(|update| update["key"] != "record-0")).await;
    world.publish(updates(1, 5).filter(|update| update["body"]["sequence"].as_u64() > Some(3))).await;
    parked(&ledger, 5).await;
    release(&world, &["record-0"]).await;
    assert_flawless(&world.applied(50).await, 50);
    parked(&ledger, 0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_version_given_by_mistake_is_warned_of_and_can_be_forgotten() {
    let world = World::new("huge-version").await;
    let dispatcher = world.dispatcher(&format!("{}updates.partitions = 1", world.ledger())).await;
    let versions: [i64; 3] = [7, 9_000_000_000, 8];
    for (sequence, version) in (1..).zip(versions) {
        let update = json!({
            "key": "record-0", "id": format!("0-{sequence}"), "type": "record.updated",
            "version": version, "body": {"sequence": sequence},
        });
        world.publish([update]).await;
    }
    let line = dispatcher.logged("record-version is far above the one before").await;
    assert!(line.contains("WARN") && line.contains("9000000000"), "{line}");
    until("the last one superseded", || async {
        match dispatcher.metric("lanekeeper_updates_superseded_total").await {
            1.0 => Ok(()),
            other => Err(other.to_string()),
        }
    })
    .await;
    let config = world.dir.path().join("lanekeeper.toml");
    let forgetting = move |record: &'static str| {
        let config = config.to_str().expect("temporary directories have plain names").to_owned();
        lanekeeper(&["ledger", "forget-version", "--config", &config, record], &[], b"")
    };
    let output = tokio::task::spawn_blocking(move || [forgetting("record-0"), forgetting("record-1")]).await;
    let [known, unknown] = output.expect("it does not panic");
    assert_eq!((known.code, known.stdout.as_str()), (Some(0), "record-0: version 9000000000 is forgotten\n"));
    assert_eq!(unknown.code, Some(1), "{}", unknown.stderr);
    let again = json!({
        "key": "record-0", "id": "0-3-again", "type": "record.updated", "version": 8, "body": {"sequence": 3},
    });
    assert_eq!(world.receiver.report(0).counts.requests, 2, "nothing with the lower version was sent");
    world.publish([again]).await;
    // This target compares versions, too, and has to forget them by itself.
    until("a third request", || async {
        match world.receiver.report(0).counts.requests {
            3 => Ok(()),
            other => Err(other.to_string()),
        }
    })
    .await;
}

//! Two layouts side by side: a partition that is slow to drain holds up the records that were in it, and no others.

use std::sync::Arc;
use std::time::{Duration, Instant};

use lanekeeper_core::phash2::partition_of;
use lanekeeper_lab::receiver::ReceiverSettings;

use super::{shown, topology, wants};
use crate::harness::{Output, World, assert_in_order, lanekeeper, pace, until, updates};

const RECORDS: usize = 24;
/// Partitions before the change, and after it.
const BEFORE: u16 = 4;
const AFTER: u16 = 6;

fn previous(record: usize) -> u16 {
    partition_of(format!("record-{record}").as_bytes(), BEFORE).0
}

/// Records whose former partition is the first one; they are some of all.
fn of_the_first() -> Vec<usize> {
    let all: Vec<usize> = (0..RECORDS).filter(|record| previous(*record) == 0).collect();
    assert!((3..RECORDS).contains(&all.len()), "{all:?}");
    all
}

fn fails(faults: &[(usize, &str)]) -> ReceiverSettings {
    let fault =
        |(record, fault): &(usize, &str)| format!("record-{record}={fault}").parse().expect("a fault");
    ReceiverSettings { fail_records: faults.iter().map(fault).collect(), ..ReceiverSettings::default() }
}

/// Applies in the background; done when the old layout is gone.
fn apply(world: &Arc<World>) -> tokio::task::JoinHandle<Output> {
    let world = Arc::clone(world);
    tokio::spawn(async move { topology(&world, &wants(&world, AFTER), &["apply"]).await })
}

/// Which partitions of the first layout are not drained.
async fn undrained(world: &World) -> Vec<u64> {
    let shown = shown(world, &wants(world, AFTER)).await;
    let layouts = shown["layouts"].as_array().cloned().unwrap_or_default();
    let old = layouts.iter().find(|layout| layout["number"] == 1);
    let rows = old.and_then(|old| old["partitions"].as_array()).cloned().unwrap_or_default();
    let left = rows.iter().enumerate().filter(|(_, row)| row["drained"] == false);
    left.map(|(place, _)| place as u64).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn records_of_drained_partitions_go_on_in_the_next_layout_while_one_partition_is_slow() {
    let (first, all) = (of_the_first(), RECORDS as u64);
    let slow = first[0];
    let world = Arc::new(World::with("beside", fails(&[(slow, "503:45s")])).await);
    let extra = format!("updates.partitions = {BEFORE}\nretry.delay_max = \"1s\"\nbroker.heartbeat = \"5s\"");
    let mut dispatcher = world.dispatcher(&extra).await;
    world.publish(updates(RECORDS, 2)).await;
    world.applied(2 * all - 2).await;
    let applying = apply(&world);
    dispatcher.logged("the layout drains").await;

    // All records have a new update; those that were in other partitions have it applied.
    let begun = Instant::now();
    world.publish(updates(RECORDS, 3).skip(2 * RECORDS)).await;
    let others = all - first.len() as u64;
    world.applied(2 * all - 2 + others).await;
    println!("applied {:.1} s after they were published", begun.elapsed().as_secs_f64());
    dispatcher.logged("a partition of the previous layout is drained").await;
    assert_eq!(undrained(&world).await, [0]);
    dispatcher.ready().await;
    pace(Duration::from_secs(1)).await;
    let report = world.receiver.report(0);
    assert_eq!(report.counts.updates, 2 * all - 2 + others, "the records of the slow partition wait");
    assert!(dispatcher.metric("lanekeeper_keys_former_undrained").await > 0.0);

    // A process that starts in the middle does the same.
    dispatcher.kill();
    let mut dispatcher = world.dispatcher(&extra).await;
    world.publish(updates(RECORDS, 4).skip(3 * RECORDS)).await;
    world.applied(2 * all - 2 + 2 * others).await;
    assert_eq!(undrained(&world).await, [0]);

    // The slow one is applied: all goes on, in order.
    let report = world.applied(4 * all).await;
    assert_in_order(&report, 4 * all);
    assert_eq!(report.counts.older_tenures, 0, "{}", report.counts);
    let applied = applying.await.expect("it does not panic");
    assert_eq!(applied.code, Some(0), "{}{}", applied.stdout, applied.stderr);
    assert_eq!(undrained(&world).await, [0; 0]);
    world.publish(updates(RECORDS, 5).skip(4 * RECORDS)).await;
    assert_in_order(&world.applied(5 * all).await, 5 * all);
    dispatcher.terminate();
    assert_eq!(dispatcher.ended().await, Some(0));
}

/// What is released while the former partition drains goes out there, and what is published since waits for it.
#[tokio::test(flavor = "multi_thread")]
async fn a_record_that_is_released_while_its_previous_partition_drains_goes_out_in_order() {
    let first = of_the_first();
    let (slow, parked) = (first[0], first[1]);
    let world = Arc::new(World::with("beside-parked", fails(&[(slow, "503:30s"), (parked, "422:5s")])).await);
    let extra = format!("{}updates.partitions = {BEFORE}\nretry.delay_max = \"1s\"", world.ledger());
    let dispatcher = world.dispatcher(&extra).await;
    let of = |record: usize, sequences: std::ops::Range<usize>| {
        updates(RECORDS, 9)
            .skip(record)
            .step_by(RECORDS)
            .skip(sequences.start - 1)
            .take(sequences.len())
            .collect::<Vec<_>>()
    };
    world.publish(of(slow, 1..3).into_iter().chain(of(parked, 1..4))).await;
    dispatcher.logged("record parked").await;
    let applying = apply(&world);
    dispatcher.logged("the layout drains").await;
    world.publish(of(slow, 3..5).into_iter().chain(of(parked, 4..6))).await;
    let config = world.dir.path().join("operator.toml");
    std::fs::write(&config, world.config(&extra)).expect("the config can be written");
    until("the released updates to be applied", || async {
        let config = config.display().to_string();
        lanekeeper(&["parked", "release", "--all", "--config", &config], &[], b"");
        let counts = world.receiver.report(0).counts;
        if counts.updates >= 3 { Ok(()) } else { Err(counts.to_string()) }
    })
    .await;
    assert!(undrained(&world).await.contains(&0), "the slow record holds it");
    assert_eq!(world.receiver.report(0).counts.updates, 3, "what came since waits");
    let report = world.applied(9).await;
    assert_in_order(&report, 9);
    assert_eq!(report.counts.older_tenures, 0, "{}", report.counts);
    let applied = applying.await.expect("it does not panic");
    assert_eq!(applied.code, Some(0), "{}{}", applied.stdout, applied.stderr);
}

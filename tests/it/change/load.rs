//! One change after another, under load, with kills: what issue-sized proofs are made of.

use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use lanekeeper_lab::receiver::ReceiverSettings;

use super::publishers::{Publishers, audit, audited};
use super::{topology, topology_command, wants};
use crate::harness::{Broker, Dispatcher, World, assert_in_order, pace, until};

/// Of three publishers together, in a second. The suite's machines are small and its binary is not optimized; the whole
/// of 3,000 is run with `LANEKEEPER_CHANGE_RATE=3000 cargo test --release --test it change::load`.
const RATE: usize = 450;
/// What two kills may cost: what the dispatcher held and had not settled.
const DUPLICATES_MAX: u64 = 2 * 1_000;

fn rate() -> usize {
    let asked = std::env::var("LANEKEEPER_CHANGE_RATE").ok();
    asked.map_or(RATE, |rate| rate.parse().expect("LANEKEEPER_CHANGE_RATE is a number"))
}

fn replica(world: &World, name: &str) -> Dispatcher {
    let config = world
        .config("updates.partitions = 4\nbroker.heartbeat = \"5s\"")
        .replace(&format!("instance.name = \"{}\"", world.exchange), &format!("instance.name = \"{name}\""));
    let path = world.dir.path().join(format!("{name}.toml"));
    std::fs::write(&path, config).expect("the config can be written");
    Dispatcher::start(&path)
}

async fn apply(world: &World, partitions: u16) -> String {
    let applied = topology(world, &wants(world, partitions), &["apply"]).await;
    println!("{}{}", applied.stdout, applied.stderr);
    assert_eq!(applied.code, Some(0), "{}", applied.stderr);
    assert!(applied.stdout.contains(&format!("with {partitions} partitions")), "{}", applied.stdout);
    applied.stdout
}

/// The layout drains: publishes go to the next one.
async fn is_draining(dispatcher: &Dispatcher, layout: u32) {
    dispatcher.logged(&format!("the layout drains: publishes go to the next one, where a record waits until its partition here is drained layout={layout}")).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn changes_under_load_with_kills_of_dispatchers_and_of_apply_lose_and_reorder_nothing() {
    let settings = ReceiverSettings { latency: Duration::from_millis(2), ..ReceiverSettings::default() };
    let world = Arc::new(World::on(Arc::new(Broker::start()), "load", settings).await);
    let mut one = replica(&world, "one");
    one.ready().await;
    let mut two = replica(&world, "two");
    two.ready().await;
    let audit_queue = audit(&world).await;
    let publishers = Publishers::begin(&world, 3, rate() / 3);
    world.applied(500).await;

    // A dispatcher is killed while the old layout drains.
    let changing = {
        let world = Arc::clone(&world);
        tokio::spawn(async move { apply(&world, 16).await })
    };
    is_draining(&one, 1).await;
    one.kill();
    one = replica(&world, "one");
    changing.await.expect("it does not panic");

    // `apply` is killed as soon as it has begun; the next one brings to an end what it began.
    let config = wants(&world, 6);
    let mut killed =
        topology_command(&world, &config, &["apply"]).stdout(Stdio::null()).spawn().expect("it starts");
    until("a change to be begun", || async {
        let shown = topology(&world, &config, &["show"]).await.stdout;
        let begun = shown.contains(" began a change to ") || shown.contains("layout 3:");
        if begun { Ok(()) } else { Err(shown) }
    })
    .await;
    killed.kill().expect("it can be killed");
    killed.wait().expect("it ends");
    apply(&world, 6).await;

    // The other dispatcher is killed.
    let layout =
        1 + u32::try_from(two.log().iter().filter(|line| line.contains(" dispatching layout=")).count())
            .expect("few");
    let changing = {
        let world = Arc::clone(&world);
        tokio::spawn(async move { apply(&world, 1).await })
    };
    until("the next layout to drain", || async {
        let log = two.log();
        let drains = log.iter().filter(|line| line.contains("the layout drains")).count();
        if drains >= 3 { Ok(()) } else { Err(format!("{drains} have, {layout} dispatched from")) }
    })
    .await;
    two.kill();
    pace(Duration::from_millis(500)).await;
    two = replica(&world, "two");
    changing.await.expect("it does not panic");

    apply(&world, 8).await;
    let published = publishers.end().await;
    println!("{} updates published, {} unroutable", published.updates, published.unroutable);
    // However long the backlog is, as long as it gets shorter.
    let mut report = world.receiver.report(0);
    while report.counts.updates < published.updates {
        report = world.applied((report.counts.updates + 500).min(published.updates)).await;
    }
    println!("{}", report.counts);
    assert_eq!(published.unroutable, 0);
    assert_in_order(&report, published.updates);
    assert!(report.counts.duplicates <= DUPLICATES_MAX, "{}", report.counts);
    assert_eq!(report.counts.older_tenures, 0, "{}", report.counts);
    assert_eq!(audited(&world, &audit_queue, published.updates).await, (published.updates, 0));
    for dispatcher in [&mut one, &mut two] {
        dispatcher.terminate();
        assert_eq!(dispatcher.ended().await, Some(0));
    }
}

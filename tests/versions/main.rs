//! This program beside one of before, on one broker and one ledger. `scripts/versions` builds that one and runs this test;
//! `cargo test` alone does not.

#[path = "../it/harness/mod.rs"]
#[allow(dead_code, unused_imports, reason = "the tests of one version use all of it")]
mod harness;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use lanekeeper_lab::receiver::ReceiverSettings;

use harness::{Dispatcher, World, updates};

const RECORDS: usize = 50;
const EACH: usize = 100;
const EXTRA: &str = "updates.partitions = 4\nbroker.heartbeat = \"2s\"\n";

/// Where the program of before is.
fn before() -> PathBuf {
    std::env::var_os("LANEKEEPER_BEFORE").expect("run scripts/versions, which sets LANEKEEPER_BEFORE").into()
}

async fn replica(world: &World, name: &str, program: &Path) -> Dispatcher {
    let config = world
        .config(&format!("{EXTRA}{}", world.ledger()))
        .replace(&format!("instance.name = \"{}\"", world.exchange), &format!("instance.name = \"{name}\""));
    let path = world.dir.path().join(format!("{name}.toml"));
    std::fs::write(&path, config).expect("the config can be written");
    let replica = Dispatcher::start_program(program, &path, &[]);
    replica.ready().await;
    replica
}

/// Each version follows the other one, which stops in order or is killed.
#[tokio::test(flavor = "multi_thread")]
async fn two_versions_follow_each_other_on_one_broker_and_one_ledger() {
    let (before, now) = (before(), PathBuf::from(env!("CARGO_BIN_EXE_lanekeeper")));
    let settings = ReceiverSettings { latency: Duration::from_millis(20), ..ReceiverSettings::default() };
    let world = Arc::new(World::with("versions", settings).await);
    let mut owner = replica(&world, "one", &before).await;
    let publishing = Arc::clone(&world);
    let publishing = tokio::spawn(async move { publishing.publish(updates(RECORDS, EACH)).await });
    // Forward and back, in order and not, twice each.
    let followers =
        [("two", &now, true), ("one", &before, true), ("two", &now, false), ("one", &before, false)];
    let mut applied = 0;
    for (name, program, in_order) in followers.into_iter().chain(followers) {
        applied += 400;
        world.applied(applied).await;
        let follower = replica(&world, name, program).await;
        if in_order {
            owner.terminate();
            assert_eq!(owner.ended().await, Some(0));
        } else {
            owner.kill();
        }
        owner = follower;
    }
    publishing.await.expect("it does not panic");
    let counts = world.applied((RECORDS * EACH) as u64).await.counts;
    // A program of before does not wait for what its predecessor had at work: overlaps are its limit.
    assert_eq!((counts.updates, counts.reorders, counts.gaps), ((RECORDS * EACH) as u64, 0, 0), "{counts}");
    assert_eq!((counts.outdated, counts.key_mismatches), (0, 0), "{counts}");
    println!("{counts}");
}

//! A change where the management API is not seen: what is bound to the ingress is not known then.

use std::path::Path;

use super::{shown, wants};
use crate::harness::{Output, World, assert_flawless, lanekeeper, updates};

/// Nothing listens there.
const NOWHERE: &str = "http://127.0.0.1:1";

async fn unseen(config: &Path, arguments: &'static [&str]) -> Output {
    let config = config.display().to_string();
    let running = move || {
        let all = [&["topology"], arguments, &["--config", &config]].concat();
        lanekeeper(&all, &[("LANEKEEPER_MANAGEMENT_URL", NOWHERE.to_owned())], b"")
    };
    tokio::task::spawn_blocking(running).await.expect("it does not panic")
}

#[tokio::test(flavor = "multi_thread")]
async fn apply_changes_nothing_unless_a_person_says_that_the_bindings_were_looked_at() {
    let world = World::new("unseen").await;
    let _dispatcher = world.dispatcher("updates.partitions = 2").await;
    world.publish(updates(20, 2)).await;
    let config = wants(&world, 3);
    let refused = unseen(&config, &["apply"]).await;
    assert_eq!(refused.code, Some(1), "{}", refused.stdout);
    let expected = "blocks the change unless --without-management is given (LK901)";
    assert!(refused.stderr.contains(expected), "{}", refused.stderr);
    assert_eq!(shown(&world, &config).await["in_force"], 1);
    let plan = unseen(&config, &["plan"]).await;
    assert!(plan.stdout.contains("refuses to while something blocks the change"), "{}", plan.stdout);

    let applied = unseen(&config, &["apply", "--without-management"]).await;
    assert_eq!(applied.code, Some(0), "{}", applied.stderr);
    assert_eq!(shown(&world, &config).await["in_force"], 2);
    world.publish(updates(20, 4).skip(40)).await;
    assert_flawless(&world.applied(80).await, 80);
    assert_eq!(unseen(&config, &["apply"]).await.code, Some(0), "nothing is to be done");
}

#[tokio::test(flavor = "multi_thread")]
async fn auto_apply_changes_nothing_and_names_the_command_that_does() {
    let world = World::new("auto-unseen").await;
    let mut before = world.dispatcher("updates.partitions = 2").await;
    before.terminate();
    assert_eq!(before.ended().await, Some(0));
    let extra =
        format!("updates.partitions = 3\nupdates.auto_apply = true\nbroker.management_url = \"{NOWHERE}\"");
    let after = world.dispatcher(&extra).await;
    let line = after.logged("the layout is not changed because of this obstacle").await;
    for part in ["LK901", "lanekeeper topology apply --without-management"] {
        assert!(line.contains(part), "{part}: {line}");
    }
    assert_eq!(shown(&world, &wants(&world, 3)).await["in_force"], 1);
    world.publish(updates(20, 2)).await;
    assert_flawless(&world.applied(40).await, 40);
}

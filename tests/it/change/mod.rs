//! The layout changes under load: `lanekeeper topology`.

mod beside;
mod faults;
mod load;
mod publishers;
mod show;
mod unseen;

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use lanekeeper_lab::receiver::{FailingRecord, ReceiverSettings};
use serde_json::Value;

use crate::harness::{Output, World, assert_flawless, http, lanekeeper, lanekeeper_command, updates};

fn failing(record: &str) -> ReceiverSettings {
    let failing: FailingRecord = record.parse().expect("a failing record");
    ReceiverSettings { fail_records: vec![failing], ..ReceiverSettings::default() }
}

/// `lanekeeper topology …` with this config.
async fn topology(world: &World, config: &Path, arguments: &[&str]) -> Output {
    let environment = [("LANEKEEPER_MANAGEMENT_URL", world.broker.management_url().to_owned())];
    let mut all: Vec<String> = ["topology"].iter().chain(arguments).map(ToString::to_string).collect();
    all.extend(["--config".to_owned(), config.display().to_string()]);
    let running = move || {
        let all: Vec<&str> = all.iter().map(String::as_str).collect();
        lanekeeper(&all, &environment, b"")
    };
    tokio::task::spawn_blocking(running).await.expect("it does not panic")
}

/// The same, to be started.
fn topology_command(world: &World, config: &Path, arguments: &[&str]) -> Command {
    let mut command = lanekeeper_command();
    command.env("LANEKEEPER_MANAGEMENT_URL", world.broker.management_url());
    command.arg("topology").args(arguments).arg("--config").arg(config);
    command
}

/// A config that wants so many partitions, beside that of the dispatcher.
fn wants(world: &World, partitions: u16) -> PathBuf {
    let path = world.dir.path().join(format!("wants-{partitions}.toml"));
    let config = world.config(&format!("updates.partitions = {partitions}"));
    std::fs::write(&path, config).expect("the config can be written");
    path
}

async fn shown(world: &World, config: &Path) -> Value {
    let output = topology(world, config, &["show", "--json"]).await;
    assert_eq!(output.code, Some(0), "{}", output.stderr);
    serde_json::from_str(&output.stdout).expect("it prints JSON")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_layout_is_changed_under_load_and_nothing_is_lost_doubled_or_reordered() {
    let settings = ReceiverSettings { latency: Duration::from_millis(2), ..ReceiverSettings::default() };
    let world = Arc::new(World::with("change", settings).await);
    let dispatcher = world.dispatcher("updates.partitions = 2").await;
    let config = wants(&world, 5);

    let plan = topology(&world, &config, &["plan"]).await;
    assert_eq!(plan.code, Some(10), "{}", plan.stderr);
    for part in
        ["2 partitions, prefetch 1000 (layout 1)", "declare  change.l2", "from change.l1 to change.l2"]
    {
        assert!(plan.stdout.contains(part), "{part}: {}", plan.stdout);
    }

    let publishing = Arc::clone(&world);
    let publishing = tokio::spawn(async move { publishing.publish(updates(200, 60)).await });
    world.applied(1_000).await;
    let applied = topology(&world, &config, &["apply"]).await;
    println!("{}{}", applied.stdout, applied.stderr);
    assert_eq!(applied.code, Some(0), "{}", applied.stderr);
    assert!(applied.stdout.contains("layout 2 with 5 partitions"), "{}", applied.stdout);
    publishing.await.expect("it does not panic");
    assert_flawless(&world.applied(12_000).await, 12_000);
    dispatcher.logged("the layout drains").await;
    assert_eq!(world.receiver.report(0).counts.older_tenures, 0);

    let shown = shown(&world, &config).await;
    assert_eq!(shown["in_force"], 2, "{shown}");
    assert_eq!(shown["layouts"].as_array().map(Vec::len), Some(1), "{shown}");
    assert_eq!(shown["layouts"][0]["partitions"].as_array().map(Vec::len), Some(5), "{shown}");
    assert_eq!(topology(&world, &config, &["plan"]).await.code, Some(0));
    assert_eq!(topology(&world, &config, &["apply"]).await.code, Some(0));
    let queues = world.broker.ctl(&["list_queues", "name"]);
    assert!(!queues.contains("change.l1.p"), "{queues}");
}

/// Publishers begin before the first dispatcher does, on a broker that has imported what `export` prints.
#[tokio::test(flavor = "multi_thread")]
async fn exported_definitions_are_imported_and_publishers_begin_before_the_first_dispatcher() {
    let world = World::new("exported").await;
    let config = wants(&world, 3);
    let exported = topology(&world, &config, &["export"]).await;
    assert_eq!(exported.code, Some(0), "{}", exported.stderr);
    let url = format!("{}/api/definitions", world.broker.management_url());
    let posting = http().post(url).header("content-type", "application/json").body(exported.stdout);
    let answer = posting.send().await.expect("the management API answers");
    assert!(answer.status().is_success(), "{}: {}", answer.status(), answer.text().await.unwrap_or_default());

    world.publish(updates(30, 4)).await;
    let dispatcher = world.start(&std::fs::read_to_string(&config).expect("it was written"));
    dispatcher.ready().await;
    assert_flawless(&world.applied(120).await, 120);
    let log = dispatcher.log().join("\n");
    assert!(!log.contains("keys have moved"), "{log}");
    assert_eq!(
        topology(&world, &config, &["plan"]).await.code,
        Some(0),
        "it is the layout that was exported"
    );
}

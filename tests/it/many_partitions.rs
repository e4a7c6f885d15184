//! More partitions than the broker has open files for: before RabbitMQ 4.0 it then accepts no connection any more.

use std::process::Command;
use std::sync::Arc;

use lanekeeper_lab::receiver::ReceiverSettings;

use crate::harness::{Broker, Output, World, assert_flawless, lanekeeper, updates};

/// A process has it by default.
const FILES_MAX: u32 = 1024;

/// A broker whose process may open so many files.
fn with_few_files() -> Broker {
    let broker = Broker::start();
    broker.kill();
    let restart = format!("ulimit -n {FILES_MAX} && exec scripts/broker restart --dir \"$0\"");
    let started =
        Command::new("sh").args(["-c", &restart]).arg(broker.dir()).output().expect("sh can be run");
    assert!(started.status.success(), "{started:?}");
    broker
}

fn call(world: &World, partitions: u16, arguments: &[&str]) -> Output {
    let path = world.dir.path().join("call.toml");
    let config = world.config(&format!("updates.partitions = {partitions}"));
    std::fs::write(&path, config).expect("the config can be written");
    let path = path.display().to_string();
    let all = [arguments, &["--config", &path]].concat();
    let management = world.broker.management_url().to_owned();
    lanekeeper(&all, &[("LANEKEEPER_MANAGEMENT_URL", management)], b"")
}

#[tokio::test(flavor = "multi_thread")]
async fn no_layout_is_made_that_leaves_the_broker_no_open_files_for_connections() {
    let broker = Arc::new(tokio::task::spawn_blocking(with_few_files).await.expect("it does not panic"));
    if broker.moves_partitions() {
        return; // from 4.0 on, quorum queues reserve nothing
    }
    let world = World::on(Arc::clone(&broker), "many", ReceiverSettings::default()).await;
    let seen = format!("broker.management_url = \"{}\"", broker.management_url());
    let mut refused = world.start(&world.config(&format!("updates.partitions = 400\n{seen}")));
    assert_eq!(refused.ended().await, Some(3));
    let line = refused.logged("no layout is made").await;
    for part in ["may open 1024 files", "LimitNOFILE=65536", "fit"] {
        assert!(line.contains(part), "{part}: {line}");
    }
    let unseen = "broker.management_url = \"http://127.0.0.1:1\"";
    let mut refused = world.start(&world.config(&format!("updates.partitions = 300\n{unseen}")));
    assert_eq!(refused.ended().await, Some(3));
    refused.logged("without the management API it cannot be seen how many files").await;
    let queues = broker.ctl(&["list_queues", "--quiet", "name"]);
    assert!(!queues.contains("many.l1.p001"), "{queues}");
    let doctor = call(&world, 400, &["doctor"]);
    assert!(doctor.stdout.contains("LK115"), "{}{}", doctor.stdout, doctor.stderr);

    let _dispatcher = world.dispatcher(&format!("updates.partitions = 100\n{seen}")).await;
    let plan = call(&world, 200, &["topology", "plan"]);
    assert!(plan.stdout.contains("blocks the change (LK115)"), "{}", plan.stdout);
    let apply = call(&world, 200, &["topology", "apply"]);
    assert_eq!(apply.code, Some(1), "{}", apply.stderr);
    assert!(apply.stderr.contains("LK115"), "{}", apply.stderr);
    world.publish(updates(50, 2)).await;
    assert_flawless(&world.applied(100).await, 100);
}

//! The config and its secrets change while the process runs: nothing is lost, parked or out of order.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use lanekeeper_lab::receiver::ReceiverSettings;
use serde_json::Value;

use crate::harness::{
    Dispatcher, Door, Postgres, Signal, World, assert_flawless, lanekeeper_command, pace, until, updates,
};

/// Replaces a file in one step, as secret managers do.
fn replace(path: &Path, content: &str) {
    let next = path.with_extension("next");
    std::fs::write(&next, content).expect("the directory is ours");
    std::fs::rename(next, path).expect("the directory is ours");
}

async fn assert_nothing_parked(dispatcher: &Dispatcher) {
    for metric in ["lanekeeper_updates_parked_total", "lanekeeper_updates_dead_lettered_total"] {
        let count = dispatcher.metric(metric).await;
        assert!(count < 0.5, "{metric} {count}");
    }
}

/// Publishes in the background, a part each tenth of a second.
async fn publish_steadily(world: &World, lines: Vec<Value>, each: usize) {
    for part in lines.chunks(each) {
        world.publish(part.to_vec()).await;
        pace(Duration::from_millis(100)).await;
    }
}

async fn applied_last(dispatcher: &Dispatcher, key: &str) {
    until(&format!("{key} in force"), || async {
        let log = dispatcher.log();
        let last = log.iter().rev().find(|line| line.contains("is in force"));
        match last {
            Some(line) if line.contains(key) => Ok(()),
            other => Err(format!("{other:?}")),
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_that_is_replaced_under_load_is_used_at_once() {
    let world = World::new("rotated-token").await;
    let (door, address) = Door::before(&world.target).await;
    let (bearer, header) = (world.dir.path().join("bearer"), world.dir.path().join("header"));
    replace(&bearer, "one\n");
    replace(&header, "Bearer two\n");
    door.accept(&["Bearer one", "Bearer two"]);
    let extra =
        world.ledger() + "updates.partitions = 4\nbreaker.wait_max = \"2s\"\nretry.delay_max = \"2s\"\n";
    let first = world.config(&extra).replace(&world.target, &format!("http://{address}"));
    let config = first.replace("types = [\"*\"]", "types = [\"record.updated\"]")
        + "[target.auth]\nbearer = \"file:bearer\"\n\
           [[target]]\nname = \"other\"\ntypes = [\"*\"]\nmethod = \"PUT\"\n"
        + &format!(
            "url = \"http://{address}/records/{{record_key}}\"\nheaders = {{ authorization = \"file:header\" }}\n"
        );
    let dispatcher = world.start(&config);
    dispatcher.ready().await;
    let mut lines: Vec<Value> = updates(40, 30).collect();
    for line in &mut lines {
        if line["key"].as_str().is_some_and(|key| key.ends_with('3')) {
            line["type"] = "other".into();
        }
    }
    let rotating = async {
        for number in 3..8 {
            pace(Duration::from_millis(700)).await;
            // The old tokens are worth nothing from this moment on, and the file comes later.
            let (one, two) = (format!("Bearer {number}"), format!("Bearer b{number}"));
            door.accept(&[&one, &two]);
            pace(Duration::from_millis(100)).await;
            replace(&bearer, &format!("{number}\n"));
            replace(&header, &two);
        }
    };
    tokio::join!(publish_steadily(&world, lines, 40), rotating);
    assert_flawless(&world.applied(1200).await, 1200);
    assert!(door.refused() > 0, "an old token was seen to be refused");
    assert_nothing_parked(&dispatcher).await;
    applied_last(&dispatcher, "target[").await;
    let log = dispatcher.log().concat();
    assert!(!log.contains("Bearer") && !log.contains("b7"), "no token is in the log");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_config_is_applied_whole_or_not_at_all() {
    let world = World::new("reloaded").await;
    let config = world.config("updates.partitions = 4\n");
    let mut dispatcher = world.start(&config);
    dispatcher.ready().await;
    world.publish(updates(20, 2)).await;
    world.applied(40).await;
    let admin = dispatcher.admin().await;
    let path = world.dir.path().join("lanekeeper.toml");
    let checked = || {
        let mut command: Command = lanekeeper_command();
        command.arg("check").arg("--against-running").arg("--config").arg(&path);
        command.env("LANEKEEPER_ADMIN__LISTEN", &admin);
        let output = command.output().expect("the binary starts");
        let text = [output.stdout, output.stderr].concat();
        (output.status.code(), String::from_utf8(text).expect("it prints text"))
    };
    assert_eq!(checked().0, Some(0), "{}", checked().1);

    // A fault: the one before stays.
    world.write_config(&config.replace("method = \"PUT\"", "method = \"put\""));
    let (code, text) = checked();
    assert!(code == Some(2) && text.contains("target[0].method"), "{code:?} {text}");
    dispatcher.signal(Signal::HUP);
    let line = dispatcher.logged("the changed config is not applied").await;
    assert!(line.contains("target[0].method"), "{line}");
    assert!(dispatcher.metric("lanekeeper_config_last_reload_successful").await < 0.5);

    // A change that needs a restart, and one that does not: neither is applied.
    let restart = config.replace(
        "updates.partitions = 4",
        "updates.partitions = 4\nbroker.heartbeat = \"7s\"\nretry.jitter = 0.1",
    );
    world.write_config(&restart);
    let (code, text) = checked();
    assert_eq!(code, Some(10), "{text}");
    for part in ["broker.heartbeat", "after a restart", "retry.jitter", "SIGHUP applies none of them"] {
        assert!(text.contains(part), "{part}: {text}");
    }
    dispatcher.signal(Signal::HUP);
    dispatcher.logged("only a restart applies broker.heartbeat").await;

    // What requests depend on.
    world.write_config(&(config.clone() + "headers = { x-tenant = \"7\" }\n"));
    dispatcher.signal(Signal::HUP);
    applied_last(&dispatcher, "target[0].headers").await;
    assert!(dispatcher.metric("lanekeeper_config_last_reload_successful").await > 0.5);
    world.publish(updates(20, 3).filter(|line| line["body"]["sequence"] == 3).collect::<Vec<_>>()).await;
    world.applied(60).await;

    // What partitions depend on, while updates flow: another target takes what the first had before.
    let second = config.replace("types = [\"*\"]", "types = [\"nothing\"]")
        + &format!(
            "[[target]]\nname = \"second\"\ntypes = [\"*\"]\nurl = \"{}/records/{{record_key}}\"\n",
            world.target
        );
    world.write_config(&second);
    let more = updates(20, 60).filter(|line| line["body"]["sequence"].as_u64() > Some(3)).collect();
    let reloading = async {
        pace(Duration::from_millis(400)).await;
        dispatcher.signal(Signal::HUP);
    };
    tokio::join!(publish_steadily(&world, more, 40), reloading);
    applied_last(&dispatcher, "target[1].name").await;
    assert_flawless(&world.applied(1200).await, 1200);
    dispatcher.ready().await;
    let delivered = dispatcher.metrics().await;
    assert!(delivered.contains("lanekeeper_updates_delivered_total{target=\"second\"}"), "{delivered}");
    assert_nothing_parked(&dispatcher).await;
    assert_eq!(checked().0, Some(0), "{}", checked().1);
    dispatcher.terminate();
    assert_eq!(dispatcher.ended().await, Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_process_that_is_killed_while_it_takes_in_a_config_loses_nothing() {
    let world = World::with(
        "reload-killed",
        ReceiverSettings { latency: Duration::from_millis(20), ..ReceiverSettings::default() },
    )
    .await;
    let config = world.config(&(world.ledger() + "updates.partitions = 4\n"));
    let mut dispatcher = world.start(&config);
    dispatcher.ready().await;
    world.publish(updates(40, 25)).await;
    for round in 0..4 {
        let jitter = format!("updates.partitions = 4\nretry.jitter = 0.{round}1\n");
        world.write_config(&config.replace("updates.partitions = 4\n", &jitter));
        dispatcher.signal(Signal::HUP);
        if round % 2 == 0 {
            dispatcher.logged("then all partitions are attached again").await;
        }
        dispatcher.kill();
        dispatcher = Dispatcher::start(&world.dir.path().join("lanekeeper.toml"));
        dispatcher.ready().await;
    }
    let report = world.applied(1000).await;
    assert_eq!(
        (report.counts.gaps, report.counts.reorders, report.counts.overlaps),
        (0, 0, 0),
        "{}",
        report.counts
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn passwords_of_broker_and_ledger_are_used_when_a_connection_is_opened() {
    let postgres = Postgres::start();
    let world = World::new("rotated-passwords").await;
    world.broker.ctl(&["add_user", "rotated", "one"]);
    world.broker.ctl(&["set_permissions", "rotated", ".*", ".*", ".*"]);
    let (broker, ledger) = (world.dir.path().join("broker"), world.dir.path().join("ledger"));
    let broker_url = |password: &str| {
        let (_, host) = world.broker.url().split_once('@').expect("the harness makes URLs");
        format!("amqp://rotated:{password}@{host}")
    };
    let ledger_url =
        |password: &str| format!("postgres://rotated:{password}@{}/postgres", postgres.address());
    postgres.execute("CREATE ROLE rotated SUPERUSER LOGIN PASSWORD 'one'").await;
    replace(&broker, &broker_url("one"));
    replace(&ledger, &ledger_url("one"));
    let config = world.config("ledger.url = \"file:ledger\"\nupdates.partitions = 4\n");
    let config = config.replace(&format!("\"{}\"", world.broker.url()), "\"file:broker\"");
    let dispatcher = world.start(&config);
    dispatcher.ready().await;
    world.publish(updates(20, 5)).await;
    world.applied(100).await;

    let lines: Vec<Value> =
        updates(20, 40).filter(|line| line["body"]["sequence"].as_u64() > Some(5)).collect();
    let rotating = async {
        pace(Duration::from_millis(300)).await;
        world.broker.ctl(&["change_password", "rotated", "two"]);
        postgres.execute("ALTER ROLE rotated PASSWORD 'two'").await;
        world.broker.ctl(&["close_all_user_connections", "rotated", "rotation"]);
        postgres
            .execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'rotated'")
            .await;
        dispatcher.logged("access refused").await;
        replace(&broker, &broker_url("two"));
        replace(&ledger, &ledger_url("two"));
        applied_last(&dispatcher, "ledger.url").await;
    };
    tokio::join!(publish_steadily(&world, lines, 40), rotating);
    assert_flawless(&world.applied(800).await, 800);
    assert_nothing_parked(&dispatcher).await;
    dispatcher.ready().await;
}

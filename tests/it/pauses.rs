//! Targets and records that a person pauses and resumes, beside running dispatchers. Judged by what the receiver saw.

use std::time::Duration;

use lanekeeper_lab::receiver::ReceiverSettings;
use serde_json::Value;

use crate::harness::{Dispatcher, World, assert_flawless, assert_in_order, http, lanekeeper, until, updates};

/// Runs `lanekeeper` with the config of the dispatchers.
async fn operate(world: &World, arguments: &[&str]) -> String {
    let config = world.dir.path().join("lanekeeper.toml");
    let config = config.to_str().expect("temporary directories have plain names").to_owned();
    let arguments: Vec<String> = arguments.iter().map(|&argument| argument.to_owned()).collect();
    let running = move || {
        let arguments: Vec<&str> =
            arguments.iter().map(String::as_str).chain(["--config", config.as_str()]).collect();
        lanekeeper(&arguments, &[], b"")
    };
    let output = tokio::task::spawn_blocking(running).await.expect("it does not panic");
    assert_eq!(output.code, Some(0), "{}", output.stderr);
    output.stdout
}

/// A second target at the same receiver, for the types `other.*`.
fn with_other_target(world: &World, extra: &str) -> String {
    let config = world.config(extra);
    let other = format!(
        "[[target]]\nname = \"other\"\ntypes = [\"other.*\"]\nmethod = \"PUT\"\nurl = \"{}/records/{{record_key}}\"\n\n[[target]]\n",
        world.target
    );
    config.replacen("[[target]]\n", &other, 1)
}

/// Updates for the other target, of records of their own.
fn others(number: usize) -> impl Iterator<Item = Value> {
    updates(5, number).map(|mut update| {
        let key = update["key"].as_str().expect("a key").replace("record", "other");
        update["id"] = format!("other-{}", update["id"].as_str().expect("an id")).into();
        (update["key"], update["type"]) = (key.into(), "other.updated".into());
        update
    })
}

async fn readiness(dispatcher: &Dispatcher) -> String {
    let url = format!("http://{}/readyz", dispatcher.admin().await);
    http().get(url).send().await.expect("it answers").text().await.expect("with a text")
}

/// Every record of the target waits, and no request is out.
async fn rests(dispatchers: &[&Dispatcher], records: f64) {
    until("records that wait for the paused target alone", || async {
        let (mut waiting, mut in_flight) = (0.0, 0.0);
        for dispatcher in dispatchers {
            waiting += dispatcher.metric("lanekeeper_keys_target_paused").await;
            in_flight += dispatcher.metric("lanekeeper_in_flight").await;
        }
        if waiting >= records && in_flight < 0.5 {
            Ok(())
        } else {
            Err(format!("{waiting} wait, {in_flight} in flight"))
        }
    })
    .await;
}

/// Requests for the records of the target that is paused.
fn requests_of(world: &World, records: usize) -> u64 {
    let requests = |record| {
        world.receiver.record(&format!("record-{record}")).map_or(0, |record| record.counts.requests)
    };
    (0..records).map(requests).sum()
}

async fn is_paused_under_load(name: &str, breaker: &str) {
    let settings = ReceiverSettings { latency: Duration::from_millis(20), ..ReceiverSettings::default() };
    let world = World::with(name, settings).await;
    let extra = format!("{}{breaker}broker.heartbeat = \"1s\"\nupdates.partitions = 2\n", world.ledger());
    let config = with_other_target(&world, &extra);
    let mut first = world.start(&config);
    first.ready().await;
    let second = world.start(&config);
    second.ready().await;
    world.publish(updates(20, 30)).await;
    world.applied(20).await;
    let text = operate(&world, &["target", "pause", "receiver", "--who", "ada", "--why", "upgrade"]).await;
    assert!(text.contains("receiver is paused"), "{text}");
    for dispatcher in [&first, &second] {
        let line = dispatcher.logged("target paused by a person").await;
        assert!(line.contains("ada") && line.contains("upgrade") && line.contains("INFO"), "{line}");
        until("the gauge", || async {
            let text = dispatcher.metrics().await;
            let line = "lanekeeper_target_paused{target=\"receiver\"} 1";
            if text.contains(line) { Ok(()) } else { Err(text) }
        })
        .await;
        assert!(dispatcher.metrics().await.contains("lanekeeper_target_paused{target=\"other\"} 0"));
        let text = readiness(dispatcher).await;
        assert!(text.starts_with("ready\npaused: receiver since 2"), "{text}");
        assert!(text.ends_with("Z by ada: upgrade\n"), "{text}");
    }
    rests(&[&first, &second], 20.0).await;
    let (before, sent) = (world.receiver.report(0).counts, requests_of(&world, 20));
    assert!(before.updates < 600, "it was paused under load: {before}");
    // Other targets go on.
    world.publish(others(4)).await;
    world.applied(before.updates + 20).await;
    assert_eq!(requests_of(&world, 20), sent, "nothing was sent to the paused target");

    // What a process did not learn itself, it reads before it begins.
    first.kill();
    let third = world.start(&config);
    third.ready().await;
    third.logged("target paused by a person").await;
    rests(&[&second, &third], 20.0).await;
    assert_eq!(requests_of(&world, 20), sent, "nor after a SIGKILL");

    operate(&world, &["target", "resume", "receiver", "--who", "grace", "--why", "done"]).await;
    let report = world.applied(620).await;
    assert_in_order(&report, 620);
    assert!(report.counts.duplicates <= 16, "those in flight at the SIGKILL alone: {}", report.counts);
    for dispatcher in [&second, &third] {
        let line = dispatcher.logged("target resumed by a person").await;
        assert!(line.contains("grace") && line.contains("done"), "{line}");
        assert_eq!(readiness(dispatcher).await, "ready\n");
    }
    assert!(second.metrics().await.contains("lanekeeper_target_paused{target=\"receiver\"} 0"));
    let listed = operate(&world, &["ledger", "changes"]).await;
    for change in ["pause_target", "resume_target"] {
        assert!(listed.contains(change), "{listed}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_target_that_is_paused_under_load_gets_nothing_and_then_everything_in_order() {
    is_paused_under_load("target-paused", "").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_target_is_paused_and_resumed_without_breakers_too() {
    is_paused_under_load("target-paused-alone", "breaker.enabled = false\n").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn updates_of_a_paused_record_are_parked_while_others_flow_and_go_out_in_order() {
    let world = World::new("record-paused").await;
    let extra = format!("{}updates.partitions = 2\n", world.ledger());
    let mut dispatcher = world.dispatcher(&extra).await;
    operate(&world, &["parked", "pause", "record-0", "--who", "ada", "--why", "merged by hand"]).await;
    world.publish(updates(5, 20)).await;
    let report = world.applied(80).await;
    assert_eq!(report.counts.requests, 80);
    let parked = async |number: usize| {
        until("parked updates", || async {
            let listed = operate(&world, &["parked", "paused", "--json"]).await;
            let line: Value = serde_json::from_str(listed.trim()).map_err(|error| error.to_string())?;
            let is_so = line["updates"] == number && line["record_key"] == "record-0" && line["who"] == "ada";
            if is_so { Ok(()) } else { Err(listed) }
        })
        .await;
    };
    parked(20).await;
    dispatcher.kill();
    let _dispatcher = world.dispatcher(&extra).await;
    world.publish(updates(5, 30).skip(100)).await;
    world.applied(120).await;
    parked(30).await;
    assert!(world.receiver.record("record-0").is_none(), "nothing of it was sent");
    let text = operate(&world, &["parked", "resume", "record-0"]).await;
    assert!(text.contains("30 released"), "{text}");
    assert_flawless(&world.applied(150).await, 150);
    assert_eq!(operate(&world, &["parked", "paused"]).await, "No record is paused.\n");
}

//! What `topology show` tells comes from the owners of the partitions, over the broker alone.

use std::path::Path;

use lapin::options::QueueDeleteOptions;
use serde_json::Value;

use super::{failing, wants};
use crate::harness::{Output, Signal, World, lanekeeper, until, updates};

/// Without the management API.
async fn show(config: &Path, options: &[&str]) -> Output {
    let mut all: Vec<String> = ["topology", "show"].iter().chain(options).map(ToString::to_string).collect();
    all.extend(["--config".to_owned(), config.display().to_string()]);
    let running = move || {
        let all: Vec<&str> = all.iter().map(String::as_str).collect();
        lanekeeper(&all, &[("LANEKEEPER_MANAGEMENT_URL", "http://127.0.0.1:1".to_owned())], b"")
    };
    tokio::task::spawn_blocking(running).await.expect("it does not panic")
}

/// The rows of the layout in force.
async fn rows(config: &Path) -> Vec<Value> {
    let shown = show(config, &["--json"]).await;
    assert_eq!(shown.code, Some(0), "{}", shown.stderr);
    let shown: Value = serde_json::from_str(&shown.stdout).expect("it prints JSON");
    assert_eq!(shown["not_asked"], Value::Null, "{shown}");
    let layouts = shown["layouts"].as_array().expect("a list");
    layouts.last().expect("one is in force")["partitions"].as_array().cloned().expect("a list")
}

#[tokio::test(flavor = "multi_thread")]
async fn owners_report_what_they_hold_and_for_how_long() {
    let world = World::with("shown", failing("record-0=500")).await;
    let dispatcher = world.dispatcher("updates.partitions = 2\nretry.delay_max = \"1s\"").await;
    let config = wants(&world, 2);
    world.publish(updates(10, 3)).await;
    world.applied(27).await;
    let stuck = until("a record that is held for two seconds", || async {
        let rows = rows(&config).await;
        let held = |row: &Value| row["oldest_held_seconds"].as_u64().is_some_and(|age| age >= 2);
        let unsettled: u64 = rows.iter().filter_map(|row| row["unsettled"].as_u64()).sum();
        match rows.iter().find(|row| held(row)) {
            // What is applied may be settled a moment later.
            Some(row) if unsettled == 3 => Ok(row.clone()),
            _ => Err(format!("{rows:?}")),
        }
    })
    .await;
    assert_eq!(stuck["unsettled"], 3, "{stuck}");
    assert_eq!(stuck["ready"], 0, "{stuck}");
    assert_eq!(stuck["records"], 1, "{stuck}");
    assert_eq!(stuck["owner"], "shown", "{stuck}");
    assert!(stuck["tenure"].is_u64(), "{stuck}");
    assert!(stuck["oldest_published_seconds"].as_u64() >= stuck["oldest_held_seconds"].as_u64(), "{stuck}");
    let age = stuck["oldest_held_seconds"].as_u64();
    until("an age that grows", || async {
        let rows = rows(&config).await;
        let row = rows.iter().find(|row| row["partition"] == stuck["partition"]).expect("it is there");
        if row["oldest_held_seconds"].as_u64() > age { Ok(()) } else { Err(row.to_string()) }
    })
    .await;
    let text = show(&config, &[]).await.stdout;
    assert!(text.contains("shown (tenure "), "{text}");
    // A key can be personal data: it is told where it holds a change up, and nowhere else.
    assert!(!text.contains("record-0"), "{text}");

    dispatcher.signal(Signal::STOP);
    let text = show(&config, &[]).await.stdout;
    dispatcher.signal(Signal::CONT);
    assert!(text.contains("did not answer within 2 s"), "{text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_dispatcher_nobody_is_asked() {
    let world = World::new("shown-alone").await;
    let mut dispatcher = world.dispatcher("updates.partitions = 2").await;
    dispatcher.terminate();
    assert_eq!(dispatcher.ended().await, Some(0));
    world.publish(updates(10, 1)).await;
    // Whoever asked would say that it is not there.
    let channel = world.channel().await;
    channel.queue_delete("shown-alone.members".into(), QueueDeleteOptions::default()).await.unwrap();
    let rows = rows(&wants(&world, 2)).await;
    assert_eq!(rows.iter().filter_map(|row| row["ready"].as_u64()).sum::<u64>(), 10, "{rows:?}");
    for row in rows {
        assert_eq!((&row["consumed"], &row["owner"]), (&Value::Bool(false), &Value::Null), "{row}");
        assert_eq!(row["unsettled"], Value::Null, "{row}");
    }
}

//! Confirms that do not come, brokers and doors that end, and senders that do not wait.

use std::time::{Duration, Instant};

use lanekeeper_lab::testbed::Signal;
use reqwest::StatusCode;
use serde_json::json;

use super::{Ingest, answer, metric_is};
use crate::harness::{Proxy, ProxyMode, World, assert_flawless, until};

pub fn code((status, body): (StatusCode, serde_json::Value)) -> (u16, String) {
    (status.as_u16(), body["code"].as_str().unwrap_or_default().to_owned())
}

/// The broker behind a proxy that can be silent, or closed.
pub async fn behind_a_proxy(world: &World, extra: &str) -> (Proxy, Ingest) {
    let url = world.broker.url();
    let (before, rest) = url.rsplit_once('@').expect("the URL has a user");
    let (host, after) = rest.split_once('/').map_or((rest, ""), |(host, after)| (host, after));
    let proxy = Proxy::start(host.to_owned()).await.expect("a port is free");
    let door = Ingest::start_at(world, &format!("{before}@{}/{after}", proxy.address), extra).await;
    door.process.ready().await;
    (proxy, door)
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_confirm_nothing_is_accepted_and_what_was_not_published_never_arrives() {
    let world = World::new("ingest-silent").await;
    let _dispatcher = world.dispatcher(&world.ledger()).await;
    let (proxy, door) = behind_a_proxy(&world, "confirm_timeout = \"1s\"").await;
    assert_eq!(answer(door.put("r", "1", &json!({"sequence": 1}))).await.0, StatusCode::ACCEPTED);
    proxy.set(ProxyMode::Stall);
    let begun = Instant::now();
    // The first one is published, and nobody knows if it arrives; the second one waits behind it.
    let (published, behind) = tokio::join!(answer(door.put("r", "2", &json!({"sequence": 2}))), async {
        metric_is(&door, "lanekeeper_ingest_pending", 1.0).await;
        answer(door.put("r", "3", &json!({"sequence": 3}))).await
    });
    assert_eq!(code(published), (503, "outcome_unknown".to_owned()));
    assert_eq!(code(behind), (503, "not_accepted".to_owned()));
    assert!(begun.elapsed() < Duration::from_secs(10), "{:?}", begun.elapsed());
    proxy.set(ProxyMode::Forward);
    metric_is(&door, "lanekeeper_ingest_pending", 0.0).await;
    door.process.ready().await;
    // Its sender sends it again, and goes on.
    assert_eq!(answer(door.put("r", "2", &json!({"sequence": 2}))).await.0, StatusCode::ACCEPTED);
    assert_eq!(answer(door.put("r", "3", &json!({"sequence": 3}))).await.0, StatusCode::ACCEPTED);
    assert_flawless(&world.applied(3).await, 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_door_waits_for_its_broker_and_for_the_exchange() {
    let world = World::new("ingest-early").await;
    let door = Ingest::start(&world, "confirm_timeout = \"1s\"").await;
    door.process.logged("does not exist").await;
    assert_eq!(
        code(answer(door.put("r", "1", &json!({"sequence": 1}))).await),
        (503, "not_accepted".to_owned())
    );
    let _dispatcher = world.dispatcher("").await;
    door.process.ready().await;
    assert_eq!(answer(door.put("r", "1", &json!({"sequence": 1}))).await.0, StatusCode::ACCEPTED);
    assert_flawless(&world.applied(1).await, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_nobody_waits_for_is_not_published_later() {
    let world = World::new("ingest-hang-up").await;
    let _dispatcher = world.dispatcher("").await;
    let (proxy, door) = behind_a_proxy(&world, "").await;
    proxy.set(ProxyMode::Refuse);
    until("a door without a broker", || async {
        door.process.metrics().await.contains("lanekeeper_ready 0").then_some(()).ok_or_else(String::new)
    })
    .await;
    let hung_up =
        door.put("r", "1", &json!({"sequence": 1})).timeout(Duration::from_millis(200)).send().await;
    assert!(hung_up.is_err_and(|error| error.is_timeout()));
    metric_is(&door, "lanekeeper_ingest_pending", 0.0).await;
    proxy.set(ProxyMode::Forward);
    door.process.ready().await;
    assert_eq!(answer(door.put("r", "2", &json!({"sequence": 2}))).await.0, StatusCode::ACCEPTED);
    assert_eq!(world.applied(1).await.counts.updates, 1);
    assert_eq!(world.receiver.record("r").expect("it is known").highest_sequence, 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stop_answers_whoever_waits() {
    let world = World::new("ingest-stop").await;
    let _dispatcher = world.dispatcher("").await;
    let (proxy, mut door) = behind_a_proxy(&world, "drain_timeout = \"500ms\"").await;
    proxy.set(ProxyMode::Stall);
    let waiting = tokio::spawn(answer(door.put("r", "1", &json!({"sequence": 1}))));
    metric_is(&door, "lanekeeper_ingest_pending", 1.0).await;
    door.process.terminate();
    assert_eq!(code(waiting.await.unwrap()), (503, "outcome_unknown".to_owned()));
    assert_eq!(door.process.ended().await, Some(0));

    let mut door = Ingest::ready(&world, "").await;
    assert_eq!(answer(door.put("s", "1", &json!({"sequence": 1}))).await.0, StatusCode::ACCEPTED);
    door.process.signal(Signal::TERM);
    assert_eq!(door.process.ended().await, Some(0), "nothing waits");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_waits_is_bounded() {
    let world = World::new("ingest-full").await;
    let _dispatcher = world.dispatcher("").await;
    let extra = "confirm_timeout = \"3s\"\npending_max = 4\nbatch_lines_max = 4\npending_per_record_max = 2";
    let (proxy, door) = behind_a_proxy(&world, extra).await;
    proxy.set(ProxyMode::Stall);
    let mut waiting = Vec::new();
    for (number, record) in ["a", "a", "b", "c"].into_iter().enumerate() {
        waiting.push(tokio::spawn(answer(door.put(record, &number.to_string(), &json!({"sequence": 1})))));
        metric_is(&door, "lanekeeper_ingest_pending", number as f64 + 1.0).await;
    }
    assert_eq!(code(answer(door.put("a", "9", &json!({}))).await), (429, "too_many".to_owned()));
    assert_eq!(code(answer(door.put("d", "9", &json!({}))).await), (503, "full".to_owned()));
    for waiting in waiting {
        assert_eq!(waiting.await.unwrap().0, StatusCode::SERVICE_UNAVAILABLE);
    }
}

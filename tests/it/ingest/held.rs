//! Confirms that are held back while many wait, an alarm, and a queue without a leader.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use lanekeeper_core::phash2::partition_of;
use lanekeeper_lab::receiver::ReceiverSettings;
use reqwest::StatusCode;
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;

use super::loss::{behind_a_proxy, code};
use super::{Ingest, answer, metric_is};
use crate::harness::{Broker, ProxyMode, World, assert_flawless, until};
use crate::refusals::set_alarm;

const SENDERS: usize = 200;
/// A sender waits for longer than the client of the harness.
const PATIENCE: Duration = Duration::from_secs(120);
/// Partitions that a world has.
const PARTITIONS: u16 = 8;

/// Sends an update, and counts its answer.
fn send(
    door: &Ingest,
    record: &str,
    sequence: u64,
    answered: &Arc<AtomicUsize>,
) -> JoinHandle<(StatusCode, Value)> {
    let request = door.put(record, &sequence.to_string(), &json!({ "sequence": sequence })).timeout(PATIENCE);
    let answered = Arc::clone(answered);
    tokio::spawn(async move {
        let answer = answer(request).await;
        answered.fetch_add(1, Ordering::SeqCst);
        answer
    })
}

fn record(number: usize) -> String {
    format!("record-{number}")
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_accepted_before_its_confirm_even_if_the_target_has_it() {
    let world = World::new("ingest-held").await;
    let _dispatcher = world.dispatcher("").await;
    let (proxy, door) = behind_a_proxy(&world, "confirm_timeout = \"60s\"\nconnections_max = 1000").await;
    proxy.set(ProxyMode::Hold);
    let answered = Arc::default();
    let sent: Vec<_> = (0..SENDERS).map(|number| send(&door, &record(number), 1, &answered)).collect();
    // The broker has all of them, and its confirms are on their way.
    world.applied(SENDERS as u64).await;
    metric_is(&door, "lanekeeper_ingest_pending", SENDERS as f64).await;
    assert_eq!(answered.load(Ordering::SeqCst), 0, "an answer without a confirm");
    proxy.set(ProxyMode::Forward);
    for sent in sent {
        assert_eq!(sent.await.unwrap().0, StatusCode::ACCEPTED);
    }
    assert_flawless(&world.applied(SENDERS as u64).await, SENDERS as u64);
}

#[tokio::test(flavor = "multi_thread")]
async fn who_waits_too_long_for_confirms_is_answered_what_is_true() {
    let world = World::new("ingest-late").await;
    let _dispatcher = world.dispatcher("").await;
    let (proxy, door) = behind_a_proxy(&world, "confirm_timeout = \"3s\"\nconnections_max = 1000").await;
    proxy.set(ProxyMode::Hold);
    let answered = Arc::default();
    let first: Vec<_> = (0..SENDERS).map(|number| send(&door, &record(number), 1, &answered)).collect();
    metric_is(&door, "lanekeeper_ingest_pending", SENDERS as f64).await;
    let second: Vec<_> = (0..SENDERS).map(|number| send(&door, &record(number), 2, &answered)).collect();
    for first in first {
        assert_eq!(code(first.await.unwrap()), (503, "outcome_unknown".to_owned()));
    }
    for second in second {
        assert_eq!(code(second.await.unwrap()), (503, "not_accepted".to_owned()));
    }
    proxy.set(ProxyMode::Forward);
    metric_is(&door, "lanekeeper_ingest_pending", 0.0).await;
    assert_eq!(world.applied(SENDERS as u64).await.counts.updates, SENDERS as u64, "the first ones alone");
    // Their senders send both again: the first ones are known by now.
    for number in 0..SENDERS {
        let (status, body) = answer(door.put(&record(number), "1", &json!({"sequence": 1}))).await;
        assert_eq!((status, &body["state"]), (StatusCode::ACCEPTED, &json!("known")));
        let (status, body) = answer(door.put(&record(number), "2", &json!({"sequence": 2}))).await;
        assert_eq!((status, &body["state"]), (StatusCode::ACCEPTED, &json!("accepted")));
    }
    assert_flawless(&world.applied(2 * SENDERS as u64).await, 2 * SENDERS as u64);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stop_waits_for_confirms() {
    let world = World::new("ingest-stop-held").await;
    let _dispatcher = world.dispatcher("").await;
    let (proxy, mut door) = behind_a_proxy(&world, "drain_timeout = \"1m\"").await;
    proxy.set(ProxyMode::Hold);
    let answered = Arc::default();
    let sent: Vec<_> = (0..20).map(|number| send(&door, &record(number), 1, &answered)).collect();
    metric_is(&door, "lanekeeper_ingest_pending", 20.0).await;
    door.process.terminate();
    until("a door that takes no connections", || async {
        match TcpStream::connect(&door.address).await {
            Ok(_) => Err("it takes them".to_owned()),
            Err(_) => Ok(()),
        }
    })
    .await;
    assert_eq!(answered.load(Ordering::SeqCst), 0);
    proxy.set(ProxyMode::Forward);
    for sent in sent {
        assert_eq!(sent.await.unwrap().0, StatusCode::ACCEPTED);
    }
    assert_eq!(door.process.ended().await, Some(0));
    assert_flawless(&world.applied(20).await, 20);
}

#[tokio::test(flavor = "multi_thread")]
async fn under_an_alarm_a_door_fills_up_and_afterwards_everything_flows() {
    let world = World::on(Arc::new(Broker::start()), "ingest-alarm", ReceiverSettings::default()).await;
    let _dispatcher = world.dispatcher("").await;
    let door =
        Ingest::ready(&world, "confirm_timeout = \"2m\"\npending_max = 20\nbatch_lines_max = 20").await;
    assert_eq!(answer(door.put("before", "1", &json!({"sequence": 1}))).await.0, StatusCode::ACCEPTED);
    set_alarm(&world.broker, true).await;
    let answered = Arc::default();
    let sent: Vec<_> = (0..20).map(|number| send(&door, &record(number), 1, &answered)).collect();
    metric_is(&door, "lanekeeper_ingest_pending", 20.0).await;
    assert_eq!(code(answer(door.put("after", "1", &json!({"sequence": 1}))).await), (503, "full".to_owned()));
    assert_eq!(answered.load(Ordering::SeqCst), 0);
    set_alarm(&world.broker, false).await;
    for sent in sent {
        assert_eq!(sent.await.unwrap().0, StatusCode::ACCEPTED);
    }
    assert_eq!(answer(door.put("after", "1", &json!({"sequence": 1}))).await.0, StatusCode::ACCEPTED);
    assert_flawless(&world.applied(22).await, 22);
}

/// Stops or starts the only member of a partition's queue, which then has no leader.
async fn set_leader(world: &World, partition: u16, there: bool) {
    let call = if there { "restart_server" } else { "stop_server" };
    let queue = format!("%2F_{}.l1.p{partition:03}", world.exchange);
    let eval = format!("ra:{call}(quorum_queues, {{'{queue}', node()}}).");
    let broker = Arc::clone(&world.broker);
    let said = tokio::task::spawn_blocking(move || broker.ctl(&["eval", &eval])).await.unwrap();
    assert_eq!(said.trim(), "ok");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_queue_without_a_leader_takes_the_room_that_its_updates_wait_in_and_no_more() {
    let world = World::on(Arc::new(Broker::start()), "ingest-leaderless", ReceiverSettings::default()).await;
    let _dispatcher = world.dispatcher("").await;
    let door = Ingest::ready(&world, "confirm_timeout = \"2m\"\npending_max = 8\nbatch_lines_max = 8").await;
    let (stuck, others): (Vec<String>, Vec<String>) =
        (0..200).map(record).partition(|key| partition_of(key.as_bytes(), PARTITIONS).0 == 0);
    for record in [&stuck[0], &others[0]] {
        assert_eq!(answer(door.put(record, "1", &json!({"sequence": 1}))).await.0, StatusCode::ACCEPTED);
    }
    set_leader(&world, 0, false).await;
    let answered = Arc::default();
    let mut sent = Vec::new();
    for (number, record) in stuck[1..9].iter().enumerate() {
        sent.push(send(&door, record, 1, &answered));
        metric_is(&door, "lanekeeper_ingest_pending", number as f64 + 1.0).await;
        // Records of other queues are accepted as long as there is room.
        let other = answer(door.put(&others[number + 1], "1", &json!({"sequence": 1}))).await;
        let expected = if number < 7 { (202, String::new()) } else { (503, "full".to_owned()) };
        assert_eq!(code(other), expected, "with {} of 8 waiting", number + 1);
    }
    assert_eq!(answered.load(Ordering::SeqCst), 0);
    set_leader(&world, 0, true).await;
    for sent in sent {
        assert_eq!(sent.await.unwrap().0, StatusCode::ACCEPTED);
    }
    assert_eq!(answer(door.put(&others[8], "1", &json!({"sequence": 1}))).await.0, StatusCode::ACCEPTED);
    assert_flawless(&world.applied(18).await, 18);
}

//! Many senders, two doors, and everything that ends under them. Judged by the receiver.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use lanekeeper_lab::receiver::ReceiverSettings;
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use tokio::sync::Mutex;

use super::{Ingest, TOKEN, WithJson as _, config};
use crate::harness::{Broker, World, assert_flawless, http, pace};

const CLIENTS: usize = 50;
const RECORDS_EACH: usize = 4;
/// A number that decides which requests are repeated, and how they are sent.
const SEED: u64 = 7;

/// The doors, which come and go.
struct Doors {
    world: World,
    processes: [Mutex<Option<Ingest>>; 2],
    addresses: [String; 2],
}

impl Doors {
    async fn start(world: World) -> Arc<Self> {
        let mut addresses = Vec::new();
        let mut doors = Vec::new();
        for number in 0..2 {
            let port = {
                let free = std::net::TcpListener::bind("127.0.0.1:0").expect("a port is free");
                free.local_addr().expect("it is bound").port()
            };
            let address = format!("127.0.0.1:{port}");
            let text = config(&world, world.broker.url(), "confirm_timeout = \"3s\"\ndrain_timeout = \"2s\"")
                .replacen(
                    "[ingest]\nlisten = \"127.0.0.1:0\"",
                    &format!("[ingest]\nlisten = \"{address}\""),
                    1,
                );
            std::fs::write(world.dir.path().join(format!("door-{number}.toml")), text)
                .expect("it can be written");
            addresses.push(address);
            doors.push(Mutex::new(None));
        }
        let [Ok(first), Ok(second)] = [doors.pop(), doors.pop()].map(|door| door.ok_or(())) else {
            unreachable!()
        };
        let addresses = addresses.try_into().expect("there are two");
        let all = Arc::new(Self { world, processes: [first, second], addresses });
        for number in 0..2 {
            all.restart(number).await;
        }
        all
    }

    async fn restart(&self, number: usize) {
        let path = self.world.dir.path().join(format!("door-{number}.toml"));
        *self.processes[number].lock().await = Some(Ingest::start_file(&path).await);
    }

    async fn kill(&self, number: usize) {
        if let Some(mut door) = self.processes[number].lock().await.take() {
            door.process.kill();
        }
    }

    async fn stop(&self, number: usize) {
        if let Some(mut door) = self.processes[number].lock().await.take() {
            door.process.terminate();
            assert_eq!(door.process.ended().await, Some(0));
        }
    }
}

#[derive(Debug, Default)]
struct Tally {
    accepted: AtomicUsize,
    known: AtomicUsize,
    repeated: AtomicUsize,
    failed: AtomicUsize,
    no_answer: AtomicUsize,
}

/// A few bits that look like chance, the same in each run.
fn chance(client: usize, sequence: usize, salt: u64) -> u64 {
    let mut mixed = SEED ^ (client as u64) << 40 ^ (sequence as u64) << 8 ^ salt;
    for _ in 0..3 {
        mixed = (mixed ^ (mixed >> 31)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    }
    mixed >> 33
}

/// Sends an update until it is accepted, each time to the other door, and now and then once more after that.
async fn send(doors: &Doors, tally: &Tally, client: usize, record: usize, sequence: usize) {
    let (key, id) = (format!("record-{record}"), format!("{record}-{sequence}"));
    let body = json!({ "sequence": sequence });
    let first = usize::try_from(chance(client, sequence, 1) % 2).expect("a bit");
    let repeats = chance(client, sequence, 2) % 100 < 30;
    let mut accepted = 0;
    for number in first.. {
        let url = format!("http://{}", doors.addresses[number % 2]);
        let request = match chance(client, sequence, 3) % 3 {
            0 => http().request(Method::PUT, format!("{url}/updates/{key}/{id}")).json(&body),
            1 => http()
                .request(Method::POST, format!("{url}/updates/{key}"))
                .header("idempotency-key", format!("\"{id}\""))
                .json(&body),
            _ => http()
                .request(Method::POST, format!("{url}/updates"))
                .header("content-type", "application/x-ndjson")
                .body(json!({"key": key, "id": id, "body": body}).to_string()),
        };
        match request.bearer_auth(TOKEN).send().await {
            Ok(answer) if answer.status() == StatusCode::ACCEPTED => {
                let body = answer.bytes().await.unwrap_or_default();
                let body: Value = serde_json::from_slice(&body).unwrap_or_default();
                let is_known = body["state"] == "known" || body["known"] == 1;
                let counter = if is_known { &tally.known } else { &tally.accepted };
                counter.fetch_add(1, Ordering::Relaxed);
                accepted += 1;
                if accepted == 1 + usize::from(repeats) {
                    return;
                }
                tally.repeated.fetch_add(1, Ordering::Relaxed);
            }
            Ok(answer) => {
                let status = answer.status();
                let again = matches!(status, StatusCode::SERVICE_UNAVAILABLE | StatusCode::TOO_MANY_REQUESTS);
                let body = answer.bytes().await.unwrap_or_default();
                let body: Value = serde_json::from_slice(&body).unwrap_or_default();
                assert!(again, "{key} {id}: {status} {body}");
                tally.failed.fetch_add(1, Ordering::Relaxed);
                pace(Duration::from_millis(100)).await;
            }
            Err(_) => {
                tally.no_answer.fetch_add(1, Ordering::Relaxed);
                pace(Duration::from_millis(100)).await;
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn senders_that_wait_keep_their_order_through_killed_doors_and_a_killed_broker() {
    let updates_each: usize =
        std::env::var("LANEKEEPER_INGEST_UPDATES").ok().and_then(|text| text.parse().ok()).unwrap_or(60);
    let world = World::on(Arc::new(Broker::start()), "ingest-load", ReceiverSettings::default()).await;
    let dispatcher = world.dispatcher(&world.ledger()).await;
    let doors = Doors::start(world).await;
    let (tally, done) = (Arc::new(Tally::default()), Arc::new(AtomicU64::new(0)));
    let mut senders = Vec::new();
    for client in 0..CLIENTS {
        let (doors, tally, done) = (Arc::clone(&doors), Arc::clone(&tally), Arc::clone(&done));
        senders.push(tokio::spawn(async move {
            for number in 0..updates_each {
                let record = client * RECORDS_EACH + number % RECORDS_EACH;
                send(&doors, &tally, client, record, number / RECORDS_EACH + 1).await;
                done.fetch_add(1, Ordering::Relaxed);
            }
        }));
    }
    let total = (CLIENTS * updates_each) as u64;
    let reached = async |share: u64| {
        crate::harness::until("a share of the updates", || async {
            let done = done.load(Ordering::Relaxed);
            if done * 100 >= total * share { Ok(()) } else { Err(format!("{done} of {total}, {tally:?}")) }
        })
        .await;
    };
    reached(15).await;
    doors.kill(0).await;
    reached(25).await;
    doors.restart(0).await;
    reached(40).await;
    doors.world.broker.kill();
    pace(Duration::from_secs(5)).await;
    doors.world.broker.restart();
    reached(60).await;
    doors.stop(1).await;
    doors.restart(1).await;
    reached(80).await;
    doors.kill(1).await;
    doors.restart(1).await;
    for sender in senders {
        sender.await.expect("a sender does not panic");
    }
    println!("{tally:?}");
    assert_flawless(&doors.world.applied(total).await, total);
    assert!(tally.repeated.load(Ordering::Relaxed) > usize::try_from(total).expect("small") / 5);
    drop(dispatcher);
}

//! A sender that behaves, beside those that do not.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use reqwest::{Method, StatusCode};
use serde_json::json;
use tokio::task::JoinHandle;

use super::{Ingest, TOKEN, WithJson as _};
use crate::harness::{http, until};

/// No answer may take longer while somebody else floods the door. The machine can have other work.
const SLOWEST_MAX: Duration = Duration::from_secs(5);

/// Sends updates of one record, each after the answer to the one before, until it is stopped.
pub struct Sender {
    stop: Arc<AtomicBool>,
    sent: Arc<AtomicUsize>,
    task: JoinHandle<Vec<Duration>>,
}

impl Sender {
    pub fn start(door: &Ingest, record: &'static str) -> Self {
        let (stop, sent) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
        let address = door.address.clone();
        let (stopped, counted) = (Arc::clone(&stop), Arc::clone(&sent));
        let task = tokio::spawn(async move {
            let mut took = Vec::new();
            while !stopped.load(Ordering::Relaxed) {
                let sequence = took.len() + 1;
                let url = format!("http://{address}/updates/{record}/{sequence}");
                let request = http().request(Method::PUT, url).bearer_auth(TOKEN);
                let begun = Instant::now();
                let answer = request.json(&json!({"sequence": sequence})).send().await;
                let answer = answer.expect("the door answers whoever behaves");
                let (status, body) = (answer.status(), answer.bytes().await.unwrap_or_default());
                assert_eq!(status, StatusCode::ACCEPTED, "update {sequence}: {body:?}");
                took.push(begun.elapsed());
                counted.fetch_add(1, Ordering::Relaxed);
            }
            took
        });
        Self { stop, sent, task }
    }

    /// Waits until so many more updates are accepted.
    pub async fn sends(&self, updates: usize) {
        let enough = self.sent.load(Ordering::Relaxed) + updates;
        until("further updates of the sender that behaves", || async {
            let sent = self.sent.load(Ordering::Relaxed);
            if sent >= enough || self.task.is_finished() {
                Ok(())
            } else {
                Err(format!("{sent} of {enough}"))
            }
        })
        .await;
    }

    /// Stops it; how many updates were accepted. Each was, and in time.
    pub async fn stopped(self, beside: &str) -> u64 {
        self.stop.store(true, Ordering::Relaxed);
        let mut took = self.task.await.expect("every update of the sender that behaves is accepted");
        took.sort();
        let (median, slowest) = (took[took.len() / 2], took[took.len() - 1]);
        println!("beside {beside}: {} updates, median {median:?}, slowest {slowest:?}", took.len());
        assert!(slowest < SLOWEST_MAX, "{slowest:?}");
        took.len() as u64
    }
}

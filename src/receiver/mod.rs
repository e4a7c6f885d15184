//! The reference target: keeps records in memory and judges the order in which their updates came.
//!
//! The last segment of a request's path names the record. A request with any method but GET and HEAD writes it: its body
//! becomes the record's value. Where the body is a JSON object with an integer member `sequence` (1, 2, 3, … per
//! record), the order is judged by it; without one only repetition is, by update id.
//!
//! An update is *applied* at one moment: after the latency and before the answer. A sender that goes away earlier has
//! not changed anything; one that goes away later has, although it will never know.
//!
//! A request is in progress from its head to its answer, or until the receiver sees that its sender is gone. A sender
//! that gives up and asks again within the same moment, over another connection, can look like an overlap.
//!
//! For measuring and for tests: no log line per request, memory per record is bounded, records are spread over locks.

mod faults;
mod handle;
mod records;
mod report;
mod sequences;
mod settings;

use std::hash::{DefaultHasher, Hash, Hasher};
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use axum::serve::ListenerExt;
use tokio::net::TcpListener;
use tokio::sync::watch;

pub use faults::{FailingRecord, Fault, FaultAnswer, FaultFault};
use records::Records;
pub use report::{Counts, RecordReport, Report};
pub use settings::ReceiverSettings;

/// Locks that the records are spread over.
const SHARDS: usize = 32;
/// How long requests in progress may take when the receiver is stopped.
const STOP_GRACE: Duration = Duration::from_secs(1);

/// A reference target. Clones are the same one.
#[derive(Clone, Debug)]
pub struct Receiver {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    settings: ReceiverSettings,
    shards: [Mutex<Records>; SHARDS],
    started: Instant,
    /// Ends requests that hang on purpose.
    stopping: watch::Sender<bool>,
}

impl Receiver {
    /// One that has seen nothing.
    #[must_use]
    pub fn new(settings: ReceiverSettings) -> Self {
        let shards = std::array::from_fn(|_| Mutex::default());
        let stopping = watch::Sender::new(false);
        Self { shared: Arc::new(Shared { settings, shards, started: Instant::now(), stopping }) }
    }

    /// Serves requests until `shutdown` ends, then lets those in progress finish for a moment.
    ///
    /// When it has returned, the port is free and the report is complete but for requests that took longer. It may run
    /// again, with what it knows.
    ///
    /// # Errors
    /// The listener failed for good.
    pub async fn run(
        &self,
        listener: TcpListener,
        shutdown: impl Future<Output = ()> + Send + 'static,
    ) -> io::Result<()> {
        self.shared.stopping.send_replace(false);
        let shared = self.shared.clone();
        let mut stopping = self.shared.stopping.subscribe();
        let listener = listener.tap_io(|stream| {
            // Only latency is at stake.
            let _ = stream.set_nodelay(true);
        });
        let serve =
            axum::serve(listener, handle::router(shared.clone())).with_graceful_shutdown(async move {
                shutdown.await;
                shared.stopping.send_replace(true);
            });
        let grace = async {
            // An error would mean that the sender is gone; `self` holds it.
            let _ = stopping.wait_for(|stopping| *stopping).await;
            tokio::time::sleep(STOP_GRACE).await;
        };
        tokio::select! {
            served = serve => served,
            () = grace => Ok(()),
        }
    }

    /// What it saw, with at most `records_max` records one by one: those with something wrong first, then by key.
    #[must_use]
    pub fn report(&self, records_max: usize) -> Report {
        let mut report = Report::default();
        let mut keys = Vec::new();
        for shard in &self.shared.shards {
            for (key, counts, in_progress) in lock(shard).counts() {
                report.counts += &counts;
                report.records += 1;
                report.in_progress += in_progress;
                if records_max > 0 {
                    keys.push((counts.violations() == 0, counts.duplicates == 0, key.to_owned()));
                }
            }
        }
        keys.sort_unstable();
        keys.truncate(records_max);
        report.by_record = keys
            .into_iter()
            .filter_map(|(_, _, key)| self.record(&key).map(|record| (key, record)))
            .collect();
        report
    }

    /// What it saw of one record; `None` where there was no request.
    #[must_use]
    pub fn record(&self, record_key: &str) -> Option<RecordReport> {
        self.shared.records(record_key).report(record_key)
    }

    /// Forgets all records; requests in progress go on.
    pub fn reset(&self) {
        for shard in &self.shared.shards {
            lock(shard).reset();
        }
    }
}

impl Shared {
    fn records(&self, record_key: &str) -> MutexGuard<'_, Records> {
        let mut hasher = DefaultHasher::new();
        record_key.hash(&mut hasher);
        #[expect(clippy::cast_possible_truncation, reason = "any bits will do")]
        let shard = hasher.finish() as usize % SHARDS;
        lock(&self.shards[shard])
    }
}

/// The record book is whole after a panic elsewhere: what it counts wrong, the panic itself reports.
fn lock(shard: &Mutex<Records>) -> MutexGuard<'_, Records> {
    shard.lock().unwrap_or_else(PoisonError::into_inner)
}

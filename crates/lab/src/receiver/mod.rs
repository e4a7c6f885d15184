//! The reference target: keeps records, honours the remedies against races, and judges the order in which updates came.
//!
//! The last segment of a request's path names the record. A request with any method but GET and HEAD writes it: its body
//! becomes the record's value. Where the body is a JSON object with an integer member `sequence` (1, 2, 3, … per
//! record), the order is judged by it; without one only repetition is, by update id. One with an integer member `add`
//! does not become the value: its number is added to the member `total` of the value that was read before. One with an
//! integer member `sent_us`, microseconds since 1970, tells when it was published: the report says how long such took.
//!
//! Records are kept in memory, in SQLite or in PostgreSQL; the judgement is always in memory, of this receiver's life.
//!
//! An update is *applied* at one moment: after the latency and before the answer. A sender that goes away earlier has
//! not changed anything; one that goes away later has, although it will never know.
//!
//! A request is in progress from its head to its answer, or until the receiver sees that its sender is gone. A sender
//! that gives up and asks again within the same moment, over another connection, can look like an overlap.
//!
//! For measuring and for tests: no log line per request, memory per record is bounded, records are spread over locks.

mod answer;
mod body;
pub mod command;
mod delays;
mod faults;
mod handle;
mod judge;
mod latest;
mod report;
mod rules;
mod sequences;
mod settings;
mod shards;
mod store;
mod write;

use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use axum::serve::ListenerExt;
use tokio::net::TcpListener;
use tokio::sync::watch;

use delays::Delays;
pub use faults::{FailingRecord, Fault, FaultAnswer, InjectedFaultError};
use judge::Judge;
pub use report::{Counts, DelayReport, RecordReport, Report};
pub use rules::{Safeguard, SafeguardFault, Safeguards};
pub use settings::ReceiverSettings;
use shards::Shards;
use store::Store;
pub use store::{StoreAddress, StoreAddressFault, StoreError, StoreFault};

/// How long requests in progress may take when the receiver is stopped.
const STOP_GRACE: Duration = Duration::from_secs(1);

/// A reference target. Clones are the same one.
#[derive(Clone, Debug)]
pub struct Receiver {
    shared: Arc<ReceiverState>,
}

#[derive(Debug)]
struct ReceiverState {
    settings: ReceiverSettings,
    judges: Judges,
    store: Store,
    started: Instant,
    /// From publishing to here, of updates that say when they were published.
    delays: Mutex<Delays>,
    /// Ends requests that hang on purpose.
    stopping: watch::Sender<bool>,
}

/// What was seen of all records.
type Judges = Shards<Judge>;

impl Receiver {
    /// One that keeps its records in memory, and has none.
    #[must_use]
    pub fn new(settings: ReceiverSettings) -> Self {
        Self::with(settings, Store::memory())
    }

    /// One that keeps its records in this store, with those that are there. It has seen nothing yet. When it has returned,
    /// the store has its tables.
    ///
    /// # Errors
    /// The store cannot be opened, or a later program has made its tables.
    pub async fn open(settings: ReceiverSettings, address: &StoreAddress) -> Result<Self, StoreError> {
        Ok(Self::with(settings, Store::open(address).await?))
    }

    fn with(settings: ReceiverSettings, store: Store) -> Self {
        let (judges, stopping) = (Judges::default(), watch::Sender::new(false));
        let (started, delays) = (Instant::now(), Mutex::default());
        Self { shared: Arc::new(ReceiverState { settings, judges, store, started, delays, stopping }) }
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

    /// Serves requests on a free port of 127.0.0.1, until the runtime ends; the address.
    ///
    /// # Errors
    /// It cannot listen.
    pub async fn spawn(&self) -> io::Result<SocketAddr> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let serving = self.clone();
        tokio::spawn(async move { serving.run(listener, std::future::pending()).await });
        Ok(address)
    }

    /// What it saw, with at most `records_max` records one by one: those with something wrong first, then by key.
    #[must_use]
    pub fn report(&self, records_max: usize) -> Report {
        let mut report = Report::default();
        let mut keys = Vec::new();
        let mut span: Option<judge::Span> = None;
        let mut busiest = Duration::ZERO;
        for judge in self.shared.judges.each() {
            span = judge.span().map(|of| span.map_or(of, |span| span.and(of))).or(span);
            busiest = busiest.max(judge.busiest());
            for (key, counts, in_progress) in judge.counts() {
                report.counts += &counts;
                report.records += 1;
                report.in_progress += in_progress;
                if records_max > 0 {
                    keys.push((counts.violations() == 0, counts.duplicates == 0, key.to_owned()));
                }
            }
        }
        report.span_us = span.map_or(0, |span| micros(span.last.saturating_sub(span.first)));
        report.busiest_us = micros(busiest);
        report.delays = self.delays().report();
        keys.sort_unstable();
        keys.truncate(records_max);
        report.by_record = keys
            .into_iter()
            .filter_map(|(_, _, key)| self.record(&key).map(|record| (key, record)))
            .collect();
        report
    }

    /// Forgets all records, in the store too, and what it saw of them; requests in progress go on.
    ///
    /// # Errors
    /// The store could not be emptied; everything is as it was.
    pub async fn forget(&self) -> Result<(), StoreFault> {
        self.shared.store.clear().await?;
        self.shared.judges.each().for_each(|mut judge| judge.reset());
        *self.delays() = Delays::default();
        Ok(())
    }

    fn delays(&self) -> MutexGuard<'_, Delays> {
        self.shared.delays.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What it saw of one record; `None` where there was no request.
    #[must_use]
    pub fn record(&self, record_key: &str) -> Option<RecordReport> {
        self.shared.judges.of(record_key).report(record_key)
    }
}

fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

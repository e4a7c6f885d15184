//! The server: it listens, and hands requests over.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpListener;

use super::handle;
use super::limit::RateLimitReport;
use super::outage::{Outage, PlannedOutage};
use super::report::{RecordReport, Report};
use super::settings::ReceiverSettings;
use super::state::ReceiverState;
use super::store::{OpenStoreError, Store, StoreAddress, StoreError};
use super::wire::WireListener;

/// How long requests in progress may take when the receiver is stopped.
const STOP_GRACE: Duration = Duration::from_secs(1);

/// A reference target. Clones are the same one.
#[derive(Clone, Debug)]
pub struct Receiver {
    state: Arc<ReceiverState>,
}

impl Receiver {
    /// A receiver that keeps its records in memory, and has none.
    #[must_use]
    pub fn new(settings: ReceiverSettings) -> Self {
        Self::with_store(settings, Store::memory())
    }

    /// A receiver that keeps its records in this store, and has those that are there. It has seen nothing yet. When this
    /// has returned, the store has its tables.
    ///
    /// # Errors
    /// The store cannot be opened, or its tables are of a newer program.
    pub async fn open(settings: ReceiverSettings, address: &StoreAddress) -> Result<Self, OpenStoreError> {
        Ok(Self::with_store(settings, Store::open(address).await?))
    }

    fn with_store(settings: ReceiverSettings, store: Store) -> Self {
        Self { state: Arc::new(ReceiverState::new(settings, store)) }
    }

    /// Serves requests until `shutdown` ends, then lets those in progress finish for a moment.
    ///
    /// When this has returned, the port is free and the report is complete, but for requests that took longer. The receiver
    /// can run again, and still knows what it has seen.
    ///
    /// # Errors
    /// The listener fails for good, or the certificate of the settings cannot be used.
    pub async fn run(
        &self,
        listener: TcpListener,
        shutdown: impl Future<Output = ()> + Send + 'static,
    ) -> io::Result<()> {
        self.state.stopping.send_replace(false);
        let state = Arc::clone(&self.state);
        let mut stopping = self.state.stopping.subscribe();
        let listener = WireListener::new(listener, &state.settings, Arc::clone(&state.periods))?;
        let serve =
            axum::serve(listener, handle::router(Arc::clone(&state))).with_graceful_shutdown(async move {
                shutdown.await;
                state.stopping.send_replace(true);
            });
        let grace = async {
            // It cannot fail: `self` holds the sender.
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

    /// What it saw, with at most `records_max` single records: those with violations first, then by key.
    #[must_use]
    pub fn report(&self, records_max: usize) -> Report {
        self.state.report(records_max)
    }

    /// What the rate limit did so far; `None`: there is no limit.
    #[must_use]
    pub fn rate_limit(&self) -> Option<RateLimitReport> {
        self.state.rate_limit()
    }

    /// From now on requests fail in this way, until [`Self::end_outage`]. It replaces an outage that goes on or is planned.
    pub fn begin_outage(&self, outage: Outage) {
        let after = self.state.started.elapsed();
        self.state.set_outage(Some(PlannedOutage { outage, after, lasts: None }));
    }

    /// Ends the outage, also one that is only planned. Requests that have met it get their answers still.
    pub fn end_outage(&self) {
        self.state.set_outage(None);
    }

    /// The connections that exist say nothing any more, until they are closed after `hang_for`. New ones work.
    pub fn hang_connections(&self) {
        self.state.periods.end();
    }

    /// Deletes all records, in the store too, and what it saw of them. Requests in progress go on.
    ///
    /// # Errors
    /// The store could not be emptied; everything is as it was.
    pub async fn forget(&self) -> Result<(), StoreError> {
        self.state.forget().await
    }

    /// What it saw of one record; `None`: no request.
    #[must_use]
    pub fn record(&self, record_key: &str) -> Option<RecordReport> {
        self.state.record(record_key)
    }
}

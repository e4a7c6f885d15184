//! The door: takes updates by HTTP, publishes them, and answers when the broker has confirmed them.
//!
//! `lanekeeper_core::publish::intake` decides what is taken and answered, and `outbox` what is published when. Here is what
//! surrounds them: begin with [`run`]. `routes` is the table of what is served, `request` makes updates of requests, `door`
//! joins requests and publisher, `serve` bounds the connections, `reporting` tells dispatchers how the door is.

mod batch;
mod body;
mod clients;
mod cloud_events;
mod connections;
mod door;
mod guesses;
mod health;
mod hooks;
mod metrics;
mod parts;
mod problem;
mod publishing;
mod reload;
mod reporting;
mod request;
mod routes;
mod senders;
mod serve;
mod statistics;

use std::time::Duration;

use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::admin::Access;
use crate::config::{Config, Loaded};
use crate::config_requests::ConfigRequests;
use crate::reload::{LogFilter, begin};
use body::BodyBudget;
use door::Door;
use guesses::Guesses;
pub use health::DoorHealth;
use lanekeeper_broker::DoorReporter;
use lanekeeper_broker::publisher::{PublishError, Publisher, PublisherSettings, ShortText};
pub use metrics::IngestMetrics;
use reload::DoorParts;
use reporting::Reporting;
use routes::{Common, CurrentServed};
use serve::DoorTls;
use statistics::DoorStatistics;

/// What was withdrawn has so long to get its answer, and what is in flight to be confirmed.
const END_TIMEOUT: Duration = Duration::from_secs(5);

/// Why a door ends by itself.
#[derive(Debug, thiserror::Error)]
pub enum IngestError {
    /// Somebody else has the address, or it is not of this host.
    #[error("cannot listen on {key} = {address}")]
    Listen {
        /// Which key.
        key: &'static str,
        /// Its value.
        address: std::net::SocketAddr,
        /// Why.
        source: std::io::Error,
    },
    /// Nothing can be published.
    #[error(transparent)]
    Publish(#[from] PublishError),
}

/// What the caller of [`run`] gives, beside the config.
#[derive(Debug)]
pub struct DoorOptions {
    /// Sets the filter of the log.
    pub log_filter: LogFilter,
    /// Requests to read the config again.
    pub requests: ConfigRequests,
}

/// Takes updates until `stop`; then no new ones, and what waits has `ingest.drain_timeout`.
///
/// # Errors
/// It cannot listen, or publishing is refused. A broker that is not there is waited for.
pub async fn run(
    loaded: Loaded,
    metrics: IngestMetrics,
    options: DoorOptions,
    stop: CancellationToken,
) -> Result<(), IngestError> {
    let Config { instance, broker, updates, ingest, admin, .. } = loaded.config.clone();
    let DoorOptions { log_filter, requests: ConfigRequests { sender: requests, received } } = options;
    let (health, access) = (DoorHealth::default(), Access::new(&admin));
    if let Some(address) = admin.listen {
        let listener = listen("admin.listen", address).await?;
        info!(address = %local(&listener), "health and metrics are served");
        let access = access.clone();
        tokio::spawn(crate::admin::serve_probes(listener, access, health.clone(), metrics.clone(), requests));
    }
    let address = ingest.listen.expect("the config's check has seen an address");
    let listener = listen("ingest.listen", address).await?;
    let exchange =
        ShortText::new(updates.exchange.clone()).expect("the config's check bounds the exchange's name");
    let (door, orders) = Door::new(&ingest, metrics.clone());
    let statistics = DoorStatistics::default();
    let reporting =
        Reporting::new(instance.clone(), &ingest, door.clone(), statistics.clone(), health.clone());
    let settings = PublisherSettings {
        connection: broker.connection,
        instance: instance.clone(),
        exchange,
        limits: publishing::outbox_limits(&ingest),
    };
    let publisher = Publisher::unconnected(settings)?;
    let (end, broker) = (CancellationToken::new(), publisher.address());
    let reporter = DoorReporter::new(broker.clone(), &instance, &updates.exchange);
    let report_end = CancellationToken::new();
    let reporting = tokio::spawn(reporting.run(reporter, report_end.clone()));
    let counted = (statistics.clone(), metrics.clone());
    let mut publishing = tokio::spawn(publishing::publish(
        publisher,
        orders,
        door.clone(),
        health.clone(),
        counted,
        end.clone(),
    ));
    let common = Common {
        door: door.clone(),
        guesses: Guesses::default(),
        budget: BodyBudget::new(ingest.pending_bytes_max),
        hook_budget: BodyBudget::new((ingest.pending_bytes_max / 2).max(updates.body_bytes_max)),
        body_bytes_max: updates.body_bytes_max,
        metrics: metrics.clone(),
        statistics,
    };
    let (current, tls) = (CurrentServed::new(common.served(&ingest)), DoorTls::new(&ingest));
    info!(address = %local(&listener), tls = ingest.tls.is_some(), "updates are taken");
    let (router, connections_max) = (routes::router(current.clone()), ingest.connections_max.get());
    let serving = tokio::spawn(serve::serve(listener, tls.clone(), connections_max, router, stop.clone()));
    let (in_force, ingest) = watch::channel(ingest);
    let config_metrics = metrics.config();
    let parts =
        DoorParts { common, current, tls, broker, access, log_filter, in_force, metrics: config_metrics };
    let reloading = begin(loaded, parts, received);
    let ended = tokio::select! {
        ended = &mut publishing => ended.expect("publishing does not panic").map_err(Into::into),
        () = stop.cancelled() => {
            health.set_stopping();
            drop(reloading);
            let drain_timeout = ingest.borrow().drain_timeout;
            finish((publishing, serving), drain_timeout, &door, &end).await
        }
    };
    if ended.is_err() {
        // Its silence is noticed. A last word would say that all is in order.
        reporting.abort();
    }
    report_end.cancel();
    // It ends by itself soon; at the latest with the process.
    let _ = reporting.await;
    ended
}

/// What waits comes to its end.
async fn finish(
    (mut publishing, mut serving): (JoinHandle<Result<(), PublishError>>, JoinHandle<()>),
    drain_timeout: Duration,
    door: &Door,
    end: &CancellationToken,
) -> Result<(), IngestError> {
    drain(drain_timeout, door, &mut serving).await;
    door.close();
    let ended = tokio::time::timeout(END_TIMEOUT, &mut publishing).await;
    end.cancel();
    match ended {
        Ok(ended) => ended.expect("publishing does not panic")?,
        // What is still in flight was answered as unknown.
        Err(_) => {
            let _ = tokio::time::timeout(END_TIMEOUT, publishing).await;
        }
    }
    Ok(())
}

/// Waits until all requests have their answers, and withdraws what waits for too long.
async fn drain(drain_timeout: Duration, door: &Door, serving: &mut JoinHandle<()>) {
    door.stop();
    if tokio::time::timeout(drain_timeout, &mut *serving).await.is_ok() {
        return;
    }
    let withdrawn = door.withdraw_all();
    if withdrawn > 0 {
        warn!(updates = withdrawn, "not confirmed in time, withdrawn: their senders are answered 503");
    }
    let _ = tokio::time::timeout(END_TIMEOUT, serving).await;
}

async fn listen(key: &'static str, address: std::net::SocketAddr) -> Result<TcpListener, IngestError> {
    TcpListener::bind(address).await.map_err(|source| IngestError::Listen { key, address, source })
}

fn local(listener: &TcpListener) -> String {
    listener.local_addr().map_or_else(|error| error.to_string(), |address| address.to_string())
}

//! The door: takes updates by HTTP, publishes them, and answers when the broker has confirmed them.
//!
//! `lanekeeper_core::publish::intake` decides what is taken and answered, and `outbox` what is published when. Here is what
//! surrounds them: begin with [`run`]. `routes` is the table of what is served, `request` makes updates of requests, `door`
//! joins requests and publisher, `serve` bounds the connections.

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
mod request;
mod routes;
mod serve;

use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::config::{Config, IngestConfig};
use body::BodyBudget;
use clients::Clients;
use door::Door;
use guesses::Guesses;
pub use health::DoorHealth;
use hooks::Hooks;
use lanekeeper_broker::publisher::{PublishError, PublisherSettings, ShortText};
pub use metrics::IngestMetrics;
use routes::Served;

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

/// Takes updates until `stop`; then no new ones, and what waits has `ingest.drain_timeout`.
///
/// # Errors
/// It cannot listen, or publishing is refused. A broker that is not there is waited for.
pub async fn run(config: Config, metrics: IngestMetrics, stop: CancellationToken) -> Result<(), IngestError> {
    let Config { instance, broker, updates, ingest, admin, .. } = config;
    let health = DoorHealth::default();
    if let Some(address) = admin.listen {
        let listener = listen("admin.listen", address).await?;
        info!(address = %local(&listener), "health and metrics are served");
        tokio::spawn(crate::admin::serve_probes(listener, admin, health.clone(), metrics.clone()));
    }
    let address = ingest.listen.expect("the config's check has seen an address");
    let listener = listen("ingest.listen", address).await?;
    let exchange = ShortText::new(updates.exchange).expect("the config's check bounds the exchange's name");
    let (door, orders) = Door::new(&ingest, metrics.clone());
    let settings = PublisherSettings {
        connection: broker.connection,
        instance,
        exchange,
        limits: publishing::outbox_limits(&ingest),
    };
    let end = CancellationToken::new();
    let mut publishing =
        tokio::spawn(publishing::publish(settings, orders, door.clone(), health.clone(), end.clone()));
    let served = Served {
        door: door.clone(),
        clients: Arc::new(Clients::new(&ingest.clients)),
        guesses: Guesses::default(),
        hooks: Arc::new(Hooks::new(&ingest)),
        budget: BodyBudget::new(ingest.pending_bytes_max),
        hook_budget: BodyBudget::new((ingest.pending_bytes_max / 2).max(updates.body_bytes_max)),
        limits: request::RequestLimits::new(&ingest, updates.body_bytes_max),
        metrics,
    };
    info!(address = %local(&listener), tls = ingest.tls.is_some(), "updates are taken");
    let (router, stopping, config) = (routes::router(served), stop.clone(), ingest.clone());
    let mut serving = tokio::spawn(async move { serve::serve(listener, &config, router, stopping).await });
    tokio::select! {
        ended = &mut publishing => return ended.expect("publishing does not panic").map_err(Into::into),
        () = stop.cancelled() => {}
    }
    health.set_stopping();
    drain(&ingest, &door, &mut serving).await;
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
async fn drain(ingest: &IngestConfig, door: &Door, serving: &mut tokio::task::JoinHandle<()>) {
    door.stop();
    if tokio::time::timeout(ingest.drain_timeout, &mut *serving).await.is_ok() {
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

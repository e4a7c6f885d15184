//! The HTTP port for operators: health and metrics for programs that watch, pages for people, a JSON API for both, and
//! `/config/changes` for clients of this host. Begin with [`serve`] and `routes.rs`.

mod access;
mod config_changes;
mod connections;
mod fields;
mod guard;
pub mod health;
mod inquiry;
mod live;
pub mod metrics;
mod page;
mod parked;
mod paused;
mod problem;
mod routes;
mod serve;
#[cfg(test)]
mod tests;

use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::IntoResponse;
use axum::routing::{get, post};
use tokio::net::TcpListener;
use tokio::sync::watch;

use crate::config::{Config, Purpose};
use crate::config_requests::ConfigRequestSender;
use crate::ingest::{DoorHealth, IngestMetrics};
use crate::inspect::admin_ports;
pub use access::Access;
pub use config_changes::{Compared, ComparedChange, ConfigAnswer, command_of};
use health::Health;
pub use inquiry::{Answerer, AnswererSlot};
pub use live::Live;
use metrics::Metrics;
pub use parked::LedgerSlot;
pub use parked::found::FoundRelease;

/// Media type of the OpenMetrics text format 1.0.
const OPENMETRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// What is served. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Parts {
    /// Who may read and change.
    pub access: Access,
    /// All metrics.
    pub metrics: Metrics,
    /// Whether the process is ready.
    pub health: Health,
    /// Asks what the config file would change.
    pub requests: ConfigRequestSender,
    /// The config in force.
    pub config: watch::Receiver<Config>,
    /// Asks all processes.
    pub live: Live,
    /// The ledger, as soon as it is open.
    pub ledger: LedgerSlot,
    /// Answers questions of other processes, as soon as partitions are attached.
    pub answerer: AnswererSlot,
    /// The release by a search, of which one runs at a time.
    pub found_release: FoundRelease,
}

/// Serves until the process ends, also while it stops; `/readyz` says so then. Only clients of this host get `/config/changes`.
pub async fn serve(listener: TcpListener, parts: Parts) {
    let (health, metrics) = (parts.health.clone(), parts.metrics.clone());
    let everywhere = Router::new()
        .route("/livez", get(|| async { "alive\n" }))
        .route("/readyz", get(readyz).with_state(health.clone()))
        .route("/metrics", get(encoded).with_state((metrics, health)))
        .route(admin_ports::PATH, post(inquiry::answer).with_state(parts.clone()))
        .merge(routes::router(&parts));
    let of_this_host = everywhere.clone().route(
        "/config/changes",
        get(config_changes::answer).with_state((Purpose::Dispatch, parts.requests.clone())),
    );
    serve::serve(listener, parts.access, everywhere, of_this_host).await;
}

/// As [`serve`], for a door: health and metrics alone.
pub async fn serve_probes(
    listener: TcpListener,
    access: Access,
    health: DoorHealth,
    metrics: IngestMetrics,
    requests: ConfigRequestSender,
) {
    let ready = health.clone();
    let router = Router::new()
        .route("/livez", get(|| async { "alive\n" }))
        .route(
            "/readyz",
            get(async move || match ready.unready() {
                None => (StatusCode::OK, "ready\n".to_owned()),
                Some(why) => (StatusCode::SERVICE_UNAVAILABLE, why + "\n"),
            }),
        )
        .route(
            "/metrics",
            get(async move || {
                ([(header::CONTENT_TYPE, OPENMETRICS)], metrics.encode(health.unready().is_none()))
            }),
        );
    let changes = get(config_changes::answer).with_state((Purpose::Ingest, requests));
    let of_this_host = router.clone().route("/config/changes", changes);
    serve::serve(listener, access, router, of_this_host).await;
}

async fn readyz(State(health): State<Health>) -> impl IntoResponse {
    let (status, body) = match health.unready() {
        None => (StatusCode::OK, "ready".to_owned()),
        Some(why) => (StatusCode::SERVICE_UNAVAILABLE, why),
    };
    // A target that is shut or paused does not make this process unready, but whoever asks should know of it.
    let lines = std::iter::once(body).chain(health.shut()).chain(health.paused());
    (status, lines.fold(String::new(), |body, line| body + &line + "\n"))
}

async fn encoded(State((metrics, health)): State<(Metrics, Health)>) -> impl IntoResponse {
    metrics.ready(health.unready().is_none());
    ([(header::CONTENT_TYPE, OPENMETRICS)], metrics.encode())
}

//! Serves `/livez`, `/readyz` and `/metrics`, and `/config/changes` for clients of this host. Begin with [`serve`].

mod config_changes;
pub mod health;
pub mod metrics;
mod serve;

use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::IntoResponse;
use axum::routing::get;
use tokio::net::TcpListener;

use crate::config_requests::ConfigRequestSender;
pub use config_changes::{Compared, ComparedChange};
use health::Health;
use metrics::Metrics;

/// Media type of the OpenMetrics text format 1.0.
const OPENMETRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Serves until the process ends, also while it stops; `/readyz` says so then. Only clients of this host get `/config/changes`.
pub async fn serve(listener: TcpListener, metrics: Metrics, health: Health, requests: ConfigRequestSender) {
    let everywhere = Router::new()
        .route("/livez", get(|| async { "alive\n" }))
        .route("/readyz", get(readyz).with_state(health))
        .route("/metrics", get(encoded).with_state(metrics));
    let of_this_host =
        everywhere.clone().route("/config/changes", get(config_changes::answer).with_state(requests));
    serve::serve(listener, everywhere, of_this_host).await;
}

async fn readyz(State(health): State<Health>) -> impl IntoResponse {
    let (status, body) = match health.unready() {
        None => (StatusCode::OK, "ready".to_owned()),
        Some(why) => (StatusCode::SERVICE_UNAVAILABLE, why),
    };
    // A shut target does not make this process unready, but whoever asks should know of it.
    let lines = std::iter::once(body).chain(health.shut());
    (status, lines.fold(String::new(), |body, line| body + &line + "\n"))
}

async fn encoded(State(metrics): State<Metrics>) -> impl IntoResponse {
    ([(header::CONTENT_TYPE, OPENMETRICS)], metrics.encode())
}

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
        .route("/readyz", get(readyz).with_state(health.clone()))
        .route("/metrics", get(encoded).with_state((metrics, health)));
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

async fn encoded(State((metrics, health)): State<(Metrics, Health)>) -> impl IntoResponse {
    metrics.ready(health.unready().is_none());
    ([(header::CONTENT_TYPE, OPENMETRICS)], metrics.encode())
}

#[cfg(test)]
mod tests {
    use axum::body::to_bytes;
    use lanekeeper_core::layout::{LayoutNumber, PartitionNumber};

    use super::*;

    #[tokio::test]
    async fn the_metric_of_readiness_is_what_readyz_answers() {
        let (metrics, health, partition) = (Metrics::new(), Health::default(), PartitionNumber(0));
        let check = async |status, line: &str| {
            assert_eq!(readyz(State(health.clone())).await.into_response().status(), status);
            let answer = encoded(State((metrics.clone(), health.clone()))).await.into_response();
            let body = to_bytes(answer.into_body(), usize::MAX).await.expect("a body in memory");
            let text = String::from_utf8(body.into()).expect("metrics are text");
            assert!(text.lines().any(|found| found == line), "{line} in\n{text}");
        };
        check(StatusCode::SERVICE_UNAVAILABLE, "lanekeeper_ready 0").await;
        health.begin(LayoutNumber(1), [partition]);
        health.set_attached(LayoutNumber(1), partition, true);
        check(StatusCode::OK, "lanekeeper_ready 1").await;
        health.set_lease(LayoutNumber(1), false);
        check(StatusCode::SERVICE_UNAVAILABLE, "lanekeeper_ready 0").await;
    }
}

//! What probes see.

use axum::body::to_bytes;
use lanekeeper_core::layout::{LayoutNumber, PartitionNumber};

use super::super::*;

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

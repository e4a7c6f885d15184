//! `Collector`: what is posted to a collector of traces, and what its answers mean.

use std::time::Duration;

use bytes::Bytes;
use lanekeeper::config::{Environment, Purpose, TelemetryConfig};
use lanekeeper::http::collector::{Collector, Posted};

use crate::authority::Authority;
use crate::https_target::HttpsTarget;
use crate::server::{Server, answer};

/// A collector as in a config file, with these lines.
fn telemetry(endpoint: &str, lines: &str) -> TelemetryConfig {
    // Another test of this process may have installed it.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("lk.toml");
    std::fs::write(&file, format!("[telemetry]\nendpoint = \"{endpoint}\"\n{lines}\n")).unwrap();
    let loaded = lanekeeper::config::load(Some(&file), &Environment::default(), Purpose::Publish);
    loaded.unwrap_or_else(|faults| panic!("{faults}")).config.telemetry.expect("it is on")
}

async fn posted(endpoint: &str, lines: &str) -> Posted {
    Collector::new(&telemetry(endpoint, lines)).unwrap().post(Bytes::from_static(b"spans")).await
}

#[tokio::test]
async fn spans_are_posted_with_the_headers_of_the_config() {
    let mut server = Server::answering(answer("200 OK", "", "taken"), false).await;
    let endpoint = format!("http://{}/otlp", server.address);
    let posted = posted(&endpoint, "headers = { x-api-key = \"s3cret\" }").await;
    assert_eq!(posted, Posted::Taken(Bytes::from_static(b"taken")));
    let request = server.next_request().await;
    assert!(request.starts_with("POST /otlp/v1/traces HTTP/1.1\r\n"), "{request}");
    assert!(request.ends_with("\r\n\r\nspans"), "{request}");
    for header in ["content-type: application/x-protobuf", "x-api-key: s3cret", "user-agent: lanekeeper/"] {
        assert!(request.contains(&format!("\r\n{header}")), "{header} in {request}");
    }
}

#[tokio::test]
async fn an_answer_is_for_good_or_for_now() {
    let check = async |status: &str, headers: &str, expected: Result<&str, (&str, Option<u64>)>| {
        let server = Server::answering(answer(status, headers, "x"), false).await;
        let expected = match expected {
            Ok(why) => Posted::Refused(why.to_owned()),
            Err((why, seconds)) => {
                Posted::Unavailable { why: why.to_owned(), retry_after: seconds.map(Duration::from_secs) }
            }
        };
        assert_eq!(posted(&format!("http://{}", server.address), "").await, expected);
    };
    check("503 Unavailable", "", Err(("the collector answers status 503", None))).await;
    check("429 Slow", "retry-after: 7\r\n", Err(("the collector answers status 429", Some(7)))).await;
    check("400 Bad", "", Ok("the collector answers status 400")).await;
    check("307 Elsewhere", "location: /x\r\n", Ok("the collector answers status 307")).await;
}

#[tokio::test]
async fn a_collector_that_is_away_or_silent_is_given_up_in_time() {
    let silent = Server::start(async |mut connection| {
        connection.request().await;
        connection.closed().await;
    })
    .await;
    let late = posted(&format!("http://{}", silent.address), "timeout = \"50ms\"").await;
    assert_eq!(late, Posted::Unavailable { why: "timeout".to_owned(), retry_after: None });
    match posted("http://127.0.0.1:1", "").await {
        Posted::Unavailable { why, .. } => assert!(why.contains("connection refused"), "{why}"),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_collector_is_trusted_by_the_authority_of_the_config() {
    let authority = Authority::new("ours");
    let server = HttpsTarget::start(b"h2", &authority.issue("localhost")).await;
    let endpoint = format!("https://localhost:{}", server.port);
    match posted(&endpoint, "").await {
        Posted::Unavailable { why, .. } => {
            assert!(why.contains("ours"), "who has issued its certificate: {why}");
        }
        other => panic!("{other:?}"),
    }
    let ca = format!("ca = \"file:{}\"", authority.file().display());
    assert_eq!(posted(&endpoint, &ca).await, Posted::Taken(Bytes::new()));
    let paths: Vec<_> = server.seen().into_iter().map(|(_, path)| path).collect();
    assert_eq!(paths, ["/v1/traces"]);
}

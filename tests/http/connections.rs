//! Time, memory and connections.

use std::time::{Duration, Instant};

use lanekeeper::config::TargetConfig;
use lanekeeper::http::Target;
use lanekeeper_core::outcome::{Cause, Outcome, OutcomeKind};
use tokio::net::TcpListener;
use tokio::sync::mpsc;

use crate::server::{Server, answer};
use crate::{TEST_TIMEOUT, attempt, attempt_of, target, targets, update};

const SHORT: Duration = Duration::from_millis(150);

fn assert_timed_out(outcome: &Outcome, since: Instant) {
    match outcome {
        Outcome::Retryable { failure, .. } => assert_eq!(failure.cause, Cause::Timeout),
        other => panic!("{other:?}"),
    }
    assert!(since.elapsed() >= SHORT && since.elapsed() < TEST_TIMEOUT / 2, "{:?}", since.elapsed());
}

#[tokio::test]
async fn a_silent_target_times_out_and_its_request_is_cut_off() {
    let (sender, mut abort_connection) = mpsc::unbounded_channel();
    let server = Server::start(move |mut connection| {
        let sender = sender.clone();
        async move {
            connection.request().await;
            connection.closed().await;
            let _ = sender.send(());
        }
    })
    .await;
    let mut config = target(server.address);
    config.timeout = SHORT;
    let since = Instant::now();
    let targets = targets(config).unwrap();
    assert_timed_out(&targets.attempt(attempt_of(update("k"))).await, since);
    let seen = tokio::time::timeout(TEST_TIMEOUT, abort_connection.recv()).await;
    assert_eq!(seen, Ok(Some(())), "the target sees the connection close while the client lives on");
}

#[tokio::test]
async fn an_attempt_that_is_dropped_is_cut_off() {
    let (sender, mut seen_by_server) = mpsc::unbounded_channel();
    let server = Server::start(move |mut connection| {
        let sender = sender.clone();
        async move {
            connection.request().await;
            let _ = sender.send("request");
            connection.closed().await;
            let _ = sender.send("closed");
        }
    })
    .await;
    let targets = targets(target(server.address)).unwrap();
    {
        let attempt = targets.attempt(attempt_of(update("k")));
        tokio::pin!(attempt);
        tokio::select! {
            outcome = &mut attempt => panic!("{outcome:?}"),
            seen = seen_by_server.recv() => assert_eq!(seen, Some("request")),
        }
    }
    let seen = tokio::time::timeout(TEST_TIMEOUT, seen_by_server.recv()).await;
    assert_eq!(seen, Ok(Some("closed")));
}

#[tokio::test]
async fn dripping_heads_and_bodies_time_out() {
    for (start, drip) in [
        ("HTTP/1.1 200 OK\r\n", "x: y\r\n"),
        ("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n", "1\r\nx\r\n"),
        ("", "HTTP/1.1 100 Continue\r\n\r\n"),
    ] {
        let server = Server::start(move |mut connection| async move {
            connection.request().await;
            connection.send(start.as_bytes()).await;
            let mut drops = tokio::time::interval(SHORT / 10);
            while connection.send(drip.as_bytes()).await {
                drops.tick().await;
            }
        })
        .await;
        let mut config = target(server.address);
        config.timeout = SHORT;
        let since = Instant::now();
        assert_timed_out(&attempt(config).await, since);
    }
}

#[tokio::test]
async fn a_connection_that_is_never_accepted_times_out() {
    // The kernel completes the handshake; nobody ever reads.
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mut config = target(listener.local_addr().unwrap());
    config.timeout = SHORT;
    let since = Instant::now();
    assert_timed_out(&attempt(config).await, since);
}

#[tokio::test]
async fn the_failure_of_a_dripping_target_keeps_its_status() {
    let server = Server::start(|mut connection| async move {
        connection.request().await;
        connection.send(b"HTTP/1.1 503 No\r\nretry-after: 9\r\ncontent-length: 100\r\n\r\nbusy").await;
        connection.closed().await;
    })
    .await;
    let mut config = target(server.address);
    config.timeout = SHORT;
    match attempt(config).await {
        Outcome::Retryable { failure, retry_after } => {
            assert_eq!(failure.cause, Cause::Status(503));
            assert_eq!(failure.detail, "busy");
            assert_eq!(retry_after, Some(Duration::from_secs(9)));
        }
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn an_endless_body_is_cut_off() {
    for (head, kind) in [
        ("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n", OutcomeKind::Applied),
        ("HTTP/1.1 200 OK\r\ncontent-length: 99999999999\r\n\r\n", OutcomeKind::Applied),
        ("HTTP/1.1 200 OK\r\n\r\n", OutcomeKind::Applied),
        ("HTTP/1.1 400 No\r\ntransfer-encoding: chunked\r\n\r\n", OutcomeKind::Rejected),
    ] {
        let (sender, mut sent) = mpsc::unbounded_channel();
        let server = Server::start(move |mut connection| {
            let sender = sender.clone();
            async move {
                connection.request().await;
                connection.send(head.as_bytes()).await;
                let chunk = format!("1000\r\n{}\r\n", "x".repeat(0x1000));
                let mut bytes = 0_usize;
                while connection.send(chunk.as_bytes()).await {
                    bytes += chunk.len();
                }
                let _ = sender.send(bytes);
            }
        })
        .await;
        let since = Instant::now();
        let targets = targets(target(server.address)).unwrap();
        let outcome = targets.attempt(attempt_of(update("k"))).await;
        assert_eq!(outcome.kind(), kind, "{head}");
        assert!(since.elapsed() < TEST_TIMEOUT, "it does not wait for the timeout");
        let bytes = tokio::time::timeout(TEST_TIMEOUT, sent.recv()).await.expect("cut off").unwrap();
        // What we read, and what the kernel's buffers took.
        assert!(bytes < 32 << 20, "{bytes}");
    }
}

#[tokio::test]
async fn a_target_that_is_not_there_or_resets_is_a_connection_fault() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let gone = listener.local_addr().unwrap();
    drop(listener);
    let resetting = Server::start(|mut connection| async move {
        connection.request().await;
        connection.stream.set_zero_linger().unwrap();
    })
    .await;
    for address in [gone, resetting.address] {
        match attempt(target(address)).await {
            Outcome::Retryable { failure, retry_after: None } => {
                assert_eq!(failure.cause, Cause::Connection);
                assert!(!failure.detail.is_empty(), "it says why");
                assert!(
                    !failure.detail.contains("customers"),
                    "but not for which record: {}",
                    failure.detail
                );
            }
            other => panic!("{other:?}"),
        }
    }
    let mut nowhere = target(gone);
    nowhere.url =
        lanekeeper_core::template::UrlTemplate::parse("http://nowhere.invalid/{record_key}").unwrap();
    assert_eq!(attempt(nowhere).await.kind(), OutcomeKind::Retryable);
}

#[tokio::test]
async fn a_connection_is_kept_over_successes_and_failures() {
    for status in ["204 No Content", "200 OK", "503 No", "422 No", "302 Found"] {
        let body = if status.starts_with("204") { String::new() } else { "x".repeat(10_000) };
        let server = Server::answering(answer(status, "", &body), false).await;
        let targets = targets(target(server.address)).unwrap();
        for _ in 0..20 {
            targets.attempt(attempt_of(update("k"))).await;
        }
        assert_eq!(server.connections(), 1, "{status}");
    }
}

#[tokio::test]
async fn a_connection_that_is_too_old_is_not_used_any_more() {
    let server = Server::answering(answer("200 OK", "", ""), false).await;
    let config = TargetConfig { connection_age_max: Duration::ZERO, ..target(server.address) };
    let targets = targets(config).unwrap();
    for _ in 0..3 {
        assert_eq!(targets.attempt(attempt_of(update("k"))).await, Outcome::Applied);
    }
    assert_eq!(server.connections(), 3);
}

#[tokio::test]
async fn a_kept_connection_that_the_target_closed_is_not_a_failure() {
    let (sender, mut closed) = mpsc::unbounded_channel();
    let server = Server::start(move |mut connection| {
        let sender = sender.clone();
        async move {
            connection.request().await;
            connection.send(answer("200 OK", "", "").as_bytes()).await;
            drop(connection);
            let _ = sender.send(());
        }
    })
    .await;
    let targets = targets(target(server.address)).unwrap();
    for round in 0..20 {
        let outcome = targets.attempt(attempt_of(update("k"))).await;
        assert_eq!(outcome, Outcome::Applied, "round {round}");
        closed.recv().await;
        // The client's own task has to see the close, too; its runtime is this one.
        for _ in 0..20 {
            tokio::task::yield_now().await;
        }
    }
    assert_eq!(server.connections(), 20);
}

//! Whether a request is sent, and what becomes of its answer, if this process is stopped at that time.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpListener;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use bytes::Bytes;
use lanekeeper::config::IfMatch;
use lanekeeper::http::{Attempt, SendGuard, Target};
use lanekeeper_core::outcome::{Cause, Outcome};
use lanekeeper_core::update::Update;

use crate::server::{Server, answer};
use crate::{TEST_TIMEOUT, attempt_of, target, targets, update};

const SHORT: Duration = Duration::from_millis(300);

/// Keeps all threads of the client from doing anything until then, as in a stopped process.
fn stop_until(end: Instant) {
    while Instant::now() < end {
        thread::yield_now();
    }
}

#[tokio::test]
async fn a_request_whose_clearance_is_gone_sends_not_one_byte() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let config = target(listener.local_addr().unwrap());
    let cleared = Arc::new(AtomicBool::new(false));
    let asked = Arc::clone(&cleared);
    let send_guard = SendGuard::new(move || {
        asked.store(true, Ordering::SeqCst);
        false
    });
    let server = thread::spawn(move || {
        let mut seen = Vec::new();
        listener.accept().unwrap().0.read_to_end(&mut seen).unwrap();
        seen
    });
    let targets = targets(config).unwrap();
    let outcome = targets.attempt(Attempt { send_guard, ..attempt_of(update("k")) }).await;
    assert_eq!(outcome, Outcome::Withheld);
    assert!(cleared.load(Ordering::SeqCst), "it was asked, and at the connection");
    drop(targets);
    let seen = tokio::task::spawn_blocking(move || server.join().unwrap()).await.unwrap();
    assert_eq!(String::from_utf8_lossy(&seen), "");
}

/// An empty update, as a deletion is.
fn empty() -> Update {
    Update { content_type: None, body: Bytes::new(), ..update("k") }
}

/// A guard that allows this many requests, and counts how often it was asked.
fn allowing(requests: usize) -> (SendGuard, Arc<AtomicUsize>) {
    let asked = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&asked);
    (SendGuard::new(move || counted.fetch_add(1, Ordering::SeqCst) < requests), asked)
}

#[tokio::test]
async fn a_request_without_a_body_is_withheld_too_on_new_and_on_kept_connections() {
    let mut server = Server::answering(answer("204 No Content", "", ""), false).await;
    for method in ["DELETE", "PUT", "POST", "GET"] {
        let mut config = target(server.address);
        config.method = method.into();
        let targets = targets(config).unwrap();
        for (allowed, expected) in [(0, Outcome::Withheld), (1, Outcome::Applied), (0, Outcome::Withheld)] {
            let (send_guard, asked) = allowing(allowed);
            let outcome = targets.attempt(Attempt { send_guard, ..attempt_of(empty()) }).await;
            assert_eq!(outcome, expected, "{method}");
            assert_eq!(asked.load(Ordering::SeqCst), 1, "{method}: it is asked once for each request");
        }
        let request = server.next_request().await;
        assert!(request.starts_with(&format!("{method} /customers/k HTTP/1.1\r\n")), "{request}");
        assert!(!request.contains("transfer-encoding") && !request.contains("content-length"), "{request}");
        assert!(server.no_further_request(), "{method}: what was withheld left no trace");
    }
}

#[tokio::test]
async fn each_request_of_an_attempt_is_checked() {
    let answer = answer("200 OK", "etag: \"v1\"\r\n", "");
    let mut server = Server::answering(answer, false).await;
    let mut config = target(server.address);
    config.if_match = IfMatch::Auto;
    let targets = targets(config).unwrap();
    for (allowed, seen) in [(0, 0), (1, 1), (2, 2)] {
        let (send_guard, asked) = allowing(allowed);
        let outcome = targets.attempt(Attempt { send_guard, ..attempt_of(update("k")) }).await;
        assert_eq!(outcome, if allowed == 2 { Outcome::Applied } else { Outcome::Withheld });
        assert_eq!(asked.load(Ordering::SeqCst), (allowed + 1).min(2));
        for method in &["GET", "PUT"][..seen] {
            assert!(server.next_request().await.starts_with(method));
        }
        assert!(server.no_further_request());
    }
}

/// The client takes another connection if the one of the pool was closed. The guard is asked where bytes are written.
#[tokio::test]
async fn a_request_that_finds_its_connection_closed_is_checked_where_it_is_written() {
    let (sender, mut closed) = tokio::sync::mpsc::unbounded_channel();
    let mut server = Server::start(move |mut connection| {
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
    for round in 0..40 {
        let allowed = usize::from(round % 4 != 3);
        let (send_guard, asked) = allowing(allowed);
        let update = if round % 2 == 0 { update("k") } else { empty() };
        let outcome = targets.attempt(Attempt { send_guard, ..attempt_of(update) }).await;
        assert_eq!(outcome, if allowed == 1 { Outcome::Applied } else { Outcome::Withheld }, "{round}");
        assert_eq!(asked.load(Ordering::SeqCst), 1, "{round}: it is asked once, whatever the pool had");
        // The client's task has not always seen the close when the next request comes.
        closed.recv().await;
        for _ in 0..round / 8 {
            tokio::task::yield_now().await;
        }
    }
    for _ in 0..30 {
        server.next_request().await;
    }
    assert!(server.no_further_request());
}

#[tokio::test]
async fn an_answer_that_came_while_this_process_was_stopped_counts() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let mut config = target(listener.local_addr().unwrap());
    config.timeout = SHORT;
    let (received, mut requests) = tokio::sync::mpsc::unbounded_channel();
    let (answered, answers) = mpsc::channel();
    let (go_on, waits) = mpsc::channel::<()>();
    thread::spawn(move || {
        let mut stream = BufReader::new(listener.accept().unwrap().0);
        let mut line = String::new();
        while line != "\r\n" {
            line.clear();
            stream.read_line(&mut line).unwrap();
        }
        received.send(()).unwrap();
        waits.recv().unwrap();
        // In two parts: the second is waited for, too.
        stream.get_mut().write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n").unwrap();
        stream.get_mut().write_all(b"{}").unwrap();
        answered.send(()).unwrap();
        stream.read_to_end(&mut Vec::new()).unwrap();
    });
    let since = Instant::now();
    let targets = targets(config).unwrap();
    let attempt = tokio::spawn(async move { targets.attempt(attempt_of(update("k"))).await });
    requests.recv().await.unwrap();
    go_on.send(()).unwrap();
    answers.recv_timeout(TEST_TIMEOUT).unwrap();
    stop_until(since + 2 * SHORT);
    assert_eq!(attempt.await.unwrap(), Outcome::Applied);
}

#[tokio::test]
async fn a_request_that_was_not_sent_before_its_deadline_is_not_sent() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let mut config = target(listener.local_addr().unwrap());
    config.connect_timeout = SHORT;
    let targets = Arc::new(targets(config).unwrap());
    let since = Instant::now();
    let sending = Arc::clone(&targets);
    let attempt = tokio::spawn(async move { sending.attempt(attempt_of(update("k"))).await });
    // It begins to connect; the kernel accepts for the listener.
    tokio::task::yield_now().await;
    stop_until(since + 2 * SHORT);
    match attempt.await.unwrap() {
        Outcome::Retryable { failure, .. } => assert_eq!(failure.cause, Cause::Timeout),
        other => panic!("{other:?}"),
    }
    drop(targets);
    let mut seen = Vec::new();
    let reading = tokio::task::spawn_blocking(move || {
        listener.set_nonblocking(true).unwrap();
        if let Ok((mut stream, _)) = listener.accept() {
            stream.set_nonblocking(false).unwrap();
            stream.read_to_end(&mut seen).unwrap();
        }
        seen
    });
    assert_eq!(String::from_utf8_lossy(&reading.await.unwrap()), "");
}

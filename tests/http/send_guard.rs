//! Whether a request is sent, and what becomes of its answer, if this process is stopped at that time.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpListener;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use lanekeeper::http::{Attempt, SendGuard, Target};
use lanekeeper_core::outcome::{Cause, Outcome};

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
    config.timeout = SHORT;
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

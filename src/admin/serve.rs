//! Accepts connections for health and metrics within bounds, so that clients cannot exhaust the process.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{sleep, timeout};

/// Connections at once; further ones wait in the listener's backlog. Monitoring needs few.
const CONNECTIONS_MAX: usize = 64;
/// How long the headers of a request may take, and how long a connection may be idle.
const HEADERS_TIMEOUT: Duration = Duration::from_secs(5);
/// How long a connection may be used. A client that reads its answer byte by byte is disconnected then.
const CONNECTION_LIFE_MAX: Duration = Duration::from_secs(60);
const HEADERS_BYTES_MAX: usize = 16 * 1024;
/// If the process has no file descriptors left, trying again at once would not help.
const ACCEPT_DELAY: Duration = Duration::from_secs(1);

/// Serves until the process ends.
pub(super) async fn serve(listener: TcpListener, router: Router) {
    let slots = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    loop {
        let slot = Arc::clone(&slots).acquire_owned().await.expect("the semaphore is never closed");
        match listener.accept().await {
            Ok((stream, _)) => drop(tokio::spawn(answer(stream, router.clone(), slot))),
            Err(_) => sleep(ACCEPT_DELAY).await,
        }
    }
}

async fn answer(stream: TcpStream, router: Router, slot: OwnedSemaphorePermit) {
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADERS_TIMEOUT)
        .max_buf_size(HEADERS_BYTES_MAX)
        .serve_connection(TokioIo::new(stream), TowerToHyperService::new(router));
    let mut connection = std::pin::pin!(connection);
    if timeout(CONNECTION_LIFE_MAX, connection.as_mut()).await.is_err() {
        // Let it finish the answer that it is sending.
        connection.as_mut().graceful_shutdown();
        let _ = timeout(HEADERS_TIMEOUT, connection).await;
    }
    drop(slot);
}

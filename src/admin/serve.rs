//! Accepts connections for health and metrics within bounds, so that clients can neither exhaust the process nor keep probes
//! out.

use std::collections::VecDeque;
use std::time::Duration;

use axum::Router;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::AbortHandle;
use tokio::time::{sleep, timeout};

/// Connections at once. Monitoring needs few. A further one takes the place of the oldest: a probe has its answer within
/// milliseconds, so what is oldest is idle, silent or slow.
const CONNECTIONS_MAX: usize = 64;
/// How long the headers of a request may take, and how long a connection may be idle.
const HEADERS_TIMEOUT: Duration = Duration::from_secs(5);
/// How long a connection may be used. A client that reads its answer byte by byte is disconnected then.
const CONNECTION_LIFE_MAX: Duration = Duration::from_secs(60);
const HEADERS_BYTES_MAX: usize = 16 * 1024;
/// If the process has no file descriptors left, trying again at once would not help.
const ACCEPT_DELAY: Duration = Duration::from_secs(1);

/// Serves until the process ends: `everywhere` to all, and `of_this_host` to clients on this host.
pub(super) async fn serve(listener: TcpListener, everywhere: Router, of_this_host: Router) {
    // Oldest first.
    let mut connections: VecDeque<AbortHandle> = VecDeque::with_capacity(CONNECTIONS_MAX);
    loop {
        let Ok((stream, client)) = listener.accept().await else {
            sleep(ACCEPT_DELAY).await;
            continue;
        };
        connections.retain(|connection| !connection.is_finished());
        if connections.len() == CONNECTIONS_MAX
            && let Some(oldest) = connections.pop_front()
        {
            oldest.abort();
        }
        let router = if client.ip().to_canonical().is_loopback() { &of_this_host } else { &everywhere };
        connections.push_back(tokio::spawn(answer(stream, router.clone())).abort_handle());
    }
}

async fn answer(stream: TcpStream, router: Router) {
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADERS_TIMEOUT)
        .max_buf_size(HEADERS_BYTES_MAX)
        // It panics if the system's clock is before 1970.
        .auto_date_header(false)
        .serve_connection(TokioIo::new(stream), TowerToHyperService::new(router));
    let mut connection = std::pin::pin!(connection);
    if timeout(CONNECTION_LIFE_MAX, connection.as_mut()).await.is_err() {
        // Let it finish the answer that it is sending.
        connection.as_mut().graceful_shutdown();
        let _ = timeout(HEADERS_TIMEOUT, connection).await;
    }
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use axum::routing::get;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use super::*;

    /// Kubernetes gives a probe a second by default.
    const PROBE_TIMEOUT: Duration = Duration::from_secs(1);

    async fn probe(address: SocketAddr) -> Option<String> {
        let asked = timeout(PROBE_TIMEOUT, async {
            let mut stream = TcpStream::connect(address).await.unwrap();
            stream.write_all(b"GET /livez HTTP/1.1\r\nhost: h\r\nconnection: close\r\n\r\n").await.unwrap();
            let mut answer = String::new();
            stream.read_to_string(&mut answer).await.map(|_| answer)
        });
        asked.await.ok()?.ok()
    }

    #[tokio::test]
    async fn silent_and_slow_connections_keep_no_probe_out() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let router = Router::new().route("/livez", get(|| async { "alive\n" }));
        tokio::spawn(serve(listener, Router::new(), router));
        let mut held = Vec::new();
        for number in 0..3 * CONNECTIONS_MAX {
            let mut stream = TcpStream::connect(address).await.unwrap();
            // Some say nothing, some begin a request.
            if number % 2 == 0 {
                stream.write_all(b"GET /livez HTTP/1.1\r\nx: ").await.unwrap();
            }
            held.push(stream);
            if number % CONNECTIONS_MAX == CONNECTIONS_MAX - 1 {
                let answer = probe(address).await.expect("an answer in time");
                assert!(answer.starts_with("HTTP/1.1 200 OK") && answer.ends_with("alive\n"), "{answer}");
            }
        }
        let mut closed = 0;
        for stream in &mut held {
            // What was not evicted is still open.
            let read = timeout(Duration::ZERO, stream.read(&mut [0; 1])).await;
            closed += usize::from(read.is_ok());
        }
        assert!(closed >= held.len() - CONNECTIONS_MAX, "{closed} of {} are closed", held.len());
        assert!(probe(address).await.is_some());
    }
}

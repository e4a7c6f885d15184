//! Accepts connections within bounds, so that clients can neither exhaust the process nor keep probes out.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::{sleep, timeout};
use tower_service::Service as _;

use super::access::Access;
use super::connections::{Client, Connections};

/// How long a TLS handshake and the headers of a request may take each, and how long a connection may be idle.
const HEADERS_TIMEOUT: Duration = Duration::from_secs(5);
/// How long a connection may be used. A client that reads its answer byte by byte is disconnected then.
const CONNECTION_LIFE_MAX: Duration = Duration::from_secs(60);
/// The same of one with a long answer, in addition. A page that follows events connects again.
pub(super) const LONG_LIFE_MAX: Duration = Duration::from_secs(600);
const HEADERS_BYTES_MAX: usize = 16 * 1024;
/// If the process has no file descriptors left, trying again at once would not help.
const ACCEPT_DELAY: Duration = Duration::from_secs(1);

/// Serves until the process ends: `everywhere` to all, and `of_this_host` to clients on this host.
pub(super) async fn serve(listener: TcpListener, access: Access, everywhere: Router, of_this_host: Router) {
    let connections = Arc::new(Connections::default());
    for number in 0_u64.. {
        let (stream, address) = loop {
            match listener.accept().await {
                Ok(accepted) => break accepted,
                Err(_) => sleep(ACCEPT_DELAY).await,
            }
        };
        let router = if address.ip().to_canonical().is_loopback() { &of_this_host } else { &everywhere };
        let task = handle(stream, address, number, access.clone(), Arc::clone(&connections), router.clone());
        connections.add(number, tokio::spawn(task).abort_handle());
    }
}

async fn handle(
    stream: TcpStream,
    address: SocketAddr,
    number: u64,
    access: Access,
    connections: Arc<Connections>,
    router: Router,
) {
    match access.tls() {
        None => answer(stream, connections.client(number, address.ip(), false), router).await,
        Some(acceptor) => {
            let handshake = timeout(HEADERS_TIMEOUT, acceptor.accept(stream));
            if let Ok(Ok(stream)) = handshake.await {
                answer(stream, connections.client(number, address.ip(), true), router).await;
            }
        }
    }
}

async fn answer(stream: impl AsyncRead + AsyncWrite + Unpin, client: Client, router: Router) {
    let of_requests = client.clone();
    let service = service_fn(move |mut request: Request<Incoming>| {
        request.extensions_mut().insert(of_requests.clone());
        let mut router = router.clone();
        async move {
            let answer: Result<Response<Body>, Infallible> = router.call(request).await;
            answer
        }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADERS_TIMEOUT)
        .max_buf_size(HEADERS_BYTES_MAX)
        // It panics if the system's clock is before 1970.
        .auto_date_header(false)
        .serve_connection(TokioIo::new(stream), service);
    let mut connection = std::pin::pin!(connection);
    if timeout(CONNECTION_LIFE_MAX, connection.as_mut()).await.is_ok() {
        return;
    }
    if client.is_long() && timeout(LONG_LIFE_MAX, connection.as_mut()).await.is_ok() {
        return;
    }
    // Let it finish the answer that it is sending.
    connection.as_mut().graceful_shutdown();
    let _ = timeout(HEADERS_TIMEOUT, connection).await;
}

#[cfg(test)]
mod tests {
    use axum::Extension;
    use axum::routing::get;
    use futures_util::StreamExt as _;
    use futures_util::stream;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use super::super::connections::{CONNECTIONS_MAX, LONG_ANSWERS_MAX};
    use super::*;
    use crate::config::AdminConfig;

    /// Kubernetes gives a probe a second by default.
    const PROBE_TIMEOUT: Duration = Duration::from_secs(1);

    async fn begin(of_this_host: Router) -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let access = Access::new(&AdminConfig::default());
        tokio::spawn(serve(listener, access, Router::new(), of_this_host));
        address
    }

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
        let address = begin(Router::new().route("/livez", get(|| async { "alive\n" }))).await;
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

    #[tokio::test]
    async fn long_answers_have_places_of_their_own() {
        let long = |Extension(client): Extension<Client>| async move {
            let permit = client.answers_long();
            let first = if permit.is_some() { "begun" } else { "too many" };
            let rest = stream::pending::<Result<&str, Infallible>>().map(move |item| {
                let _held = &permit;
                item
            });
            Body::from_stream(stream::iter([Ok(first)]).chain(rest))
        };
        let router = Router::new().route("/livez", get(|| async { "alive\n" })).route("/long", get(long));
        let address = begin(router).await;
        let mut held = Vec::new();
        for number in 0..=LONG_ANSWERS_MAX {
            let mut stream = TcpStream::connect(address).await.unwrap();
            stream.write_all(b"GET /long HTTP/1.1\r\nhost: h\r\n\r\n").await.unwrap();
            let mut answer = String::new();
            while !answer.contains("begun") && !answer.contains("too many") {
                let mut bytes = [0; 1024];
                let read = stream.read(&mut bytes).await.unwrap();
                assert!(read > 0, "{number}: {answer}");
                answer += std::str::from_utf8(&bytes[..read]).unwrap();
            }
            assert_eq!(answer.contains("too many"), number == LONG_ANSWERS_MAX, "{number}: {answer}");
            held.push(stream);
        }
        for _ in 0..2 * CONNECTIONS_MAX {
            assert!(probe(address).await.is_some());
        }
        for (number, stream) in held.iter_mut().take(LONG_ANSWERS_MAX).enumerate() {
            let read = timeout(Duration::ZERO, stream.read(&mut [0; 1])).await;
            assert!(read.is_err(), "{number}: no probe pushes it out");
        }
    }
}

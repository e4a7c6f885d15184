//! Accepts connections within bounds, until it is asked to stop.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::{TokioIo, TokioTimer};
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::{sleep, timeout};
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tower_service::Service as _;
use tracing::debug;

use super::connections::{Activity, DoorConnections};
use super::guesses::Peer;
use crate::config::{IngestConfig, IngestTls};

/// How long a TLS handshake may take.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(5);
/// How long a connection may be idle, or take for the headers of a request.
const HEADERS_TIMEOUT: Duration = Duration::from_secs(30);
/// Also what is read of a body at once.
const HEADERS_BYTES_MAX: usize = 64 * 1024;
const HEADERS_MAX: usize = 128;
/// If the process has no file descriptors left, trying again at once would not help.
const ACCEPT_DELAY: Duration = Duration::from_secs(1);

/// Serves until `stop`, and ends when all requests have their answers.
pub(super) async fn serve(
    listener: TcpListener,
    tls: DoorTls,
    connections_max: usize,
    router: Router,
    stop: CancellationToken,
) {
    let connections = Arc::new(DoorConnections::new(connections_max));
    let tasks = TaskTracker::new();
    for number in 0_u64.. {
        let (stream, address) = tokio::select! {
            accepted = accept(&listener) => accepted,
            () = stop.cancelled() => break,
        };
        if !connections.make_room() {
            debug!("all connections are at work, a further one is closed");
            continue;
        }
        let activity = Activity::default();
        let service =
            DoorService { router: router.clone(), peer: Peer(address.ip()), activity: activity.clone() };
        let task = handle(stream, tls.get(), service, stop.clone());
        let (ended, all) = (number, Arc::clone(&connections));
        let task = tasks.spawn(async move {
            task.await;
            all.remove(ended);
        });
        connections.add(number, activity, task.abort_handle());
        if task.is_finished() {
            connections.remove(number);
        }
    }
    drop(listener);
    tasks.close();
    tasks.wait().await;
}

async fn accept(listener: &TcpListener) -> (TcpStream, SocketAddr) {
    loop {
        match listener.accept().await {
            Ok(accepted) => return accepted,
            Err(_) => sleep(ACCEPT_DELAY).await,
        }
    }
}

/// What the door shows to the next connection. Cheap to clone.
#[derive(Clone)]
pub(super) struct DoorTls(Arc<RwLock<Option<TlsAcceptor>>>);

impl DoorTls {
    pub(super) fn new(config: &IngestConfig) -> Self {
        Self(Arc::new(RwLock::new(config.tls.as_ref().map(acceptor))))
    }

    /// Connections that are open stay as they are.
    pub(super) fn change(&self, config: &IngestConfig) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = config.tls.as_ref().map(acceptor);
    }

    /// `None`: it speaks plain HTTP.
    fn get(&self) -> Option<TlsAcceptor> {
        self.0.read().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// Each has sessions of its own: whoever was let in under the one before shows a certificate again.
fn acceptor(tls: &IngestTls) -> TlsAcceptor {
    let builder = ServerConfig::builder();
    let builder = if tls.client_authorities.is_empty() {
        builder.with_no_client_auth()
    } else {
        let mut roots = RootCertStore::empty();
        for authority in &tls.client_authorities {
            roots.add(authority.clone()).expect("the config's check has read it");
        }
        let verifier = WebPkiClientVerifier::builder(Arc::new(roots)).build();
        builder.with_client_cert_verifier(verifier.expect("there is an authority"))
    };
    let config = builder.with_single_cert(tls.own.chain.clone(), tls.own.key.clone_key());
    let mut config = config.expect("the config's check has put both together");
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    TlsAcceptor::from(Arc::new(config))
}

/// What answers the requests of one connection.
struct DoorService {
    router: Router,
    peer: Peer,
    activity: Activity,
}

async fn handle(stream: TcpStream, tls: Option<TlsAcceptor>, service: DoorService, stop: CancellationToken) {
    // An answer is one small packet.
    let _ = stream.set_nodelay(true);
    match tls {
        None => answer(stream, service, stop).await,
        Some(acceptor) => {
            if let Ok(Ok(stream)) = timeout(HANDSHAKE_TIMEOUT, acceptor.accept(stream)).await {
                answer(stream, service, stop).await;
            }
        }
    }
}

async fn answer(
    stream: impl AsyncRead + AsyncWrite + Unpin,
    DoorService { router, peer, activity }: DoorService,
    stop: CancellationToken,
) {
    let service = service_fn(move |mut request: Request<Incoming>| {
        let (mut router, activity) = (router.clone(), activity.clone());
        request.extensions_mut().insert(peer);
        request.extensions_mut().insert(activity.clone());
        async move {
            let answer: Result<Response<Body>, Infallible> = router.call(request).await;
            activity.end();
            answer
        }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADERS_TIMEOUT)
        .max_buf_size(HEADERS_BYTES_MAX)
        .max_headers(HEADERS_MAX)
        // It panics if the system's clock is before 1970.
        .auto_date_header(false)
        .serve_connection(TokioIo::new(stream), service);
    let mut connection = std::pin::pin!(connection);
    tokio::select! {
        _ = connection.as_mut() => {}
        () = stop.cancelled() => {
            connection.as_mut().graceful_shutdown();
            let _ = connection.await;
        }
    }
}

//! Opens connections to one target.

use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use http::Uri;
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder, MaybeHttpsStream};
use hyper_util::rt::TokioIo;
use rustls::ClientConfig;
use socket2::{SockRef, TcpKeepalive};
use tokio::net::{TcpStream, lookup_host};
use tokio::time::{Instant, timeout, timeout_at};
use tower_service::Service;

use super::error::ConnectFault;
use super::gate::GatedIo;
use super::race;
use crate::config::TargetConfig;

/// Finds out that the machine of an idle connection is gone.
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(15);
const KEEPALIVE_PROBES: u32 = 3;

type BoxError = Box<dyn std::error::Error + Send + Sync>;
type Boxed<T, E> = Pin<Box<dyn Future<Output = Result<T, E>> + Send>>;

/// Gives the addresses of a name; `None`: the system is asked.
pub type Names = Arc<dyn Fn(&str) -> Option<Vec<SocketAddr>> + Send + Sync>;

/// Opens connections to a target, each within its `connect_timeout`.
#[derive(Clone, Debug)]
pub(super) struct Connector {
    https: HttpsConnector<TcpConnector>,
    connect_timeout: Duration,
}

impl Connector {
    pub(super) fn new(target: &TargetConfig, tls: ClientConfig, names: Names) -> Self {
        let https = HttpsConnectorBuilder::new().with_tls_config(tls).https_or_http().enable_all_versions();
        let tcp = TcpConnector {
            names,
            connect_timeout: target.connect_timeout,
            unacknowledged_max: target.timeout,
        };
        Self { https: https.wrap_connector(tcp), connect_timeout: target.connect_timeout }
    }

    pub(super) fn connect_timeout(&self) -> Duration {
        self.connect_timeout
    }
}

impl Service<Uri> for Connector {
    type Response = GatedIo<MaybeHttpsStream<TokioIo<TcpStream>>>;
    type Error = BoxError;
    type Future = Boxed<Self::Response, BoxError>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.https.poll_ready(context)
    }

    fn call(&mut self, target: Uri) -> Self::Future {
        let within = self.connect_timeout;
        // The call begins the time of `TcpConnector`, which therefore ends first: what is left is TLS.
        let connecting = timeout(within, self.https.call(target));
        Box::pin(async move {
            Ok(GatedIo::new(connecting.await.map_err(|_| ConnectFault::Handshake { within })??))
        })
    }
}

/// Opens TCP connections.
#[derive(Clone)]
struct TcpConnector {
    names: Names,
    connect_timeout: Duration,
    /// The kernel sends what is in the socket's buffer even if this process has died. After this time it gives up.
    unacknowledged_max: Duration,
}

impl std::fmt::Debug for TcpConnector {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("TcpConnector")
    }
}

impl Service<Uri> for TcpConnector {
    type Response = TokioIo<TcpStream>;
    type Error = BoxError;
    type Future = Boxed<Self::Response, BoxError>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, target: Uri) -> Self::Future {
        let (connector, began) = (self.clone(), Instant::now());
        Box::pin(async move { Ok(TokioIo::new(connector.connect(&target, began).await?)) })
    }
}

impl TcpConnector {
    async fn connect(&self, target: &Uri, began: Instant) -> Result<TcpStream, BoxError> {
        let within = self.connect_timeout;
        let host = target.host().unwrap_or_default();
        let resolving = timeout_at(began + within, self.resolve(target, host)).await;
        let late = || ConnectFault::Resolving { host: host.to_owned(), within };
        let addresses = resolving.map_err(|_| late())??;
        if addresses.is_empty() {
            return Err(ConnectFault::NoAddress { host: host.to_owned() }.into());
        }
        let left = within.checked_sub(began.elapsed()).filter(|left| !left.is_zero()).ok_or_else(late)?;
        let tcp = race::connect(addresses, left).await.map_err(|tried| {
            if began.elapsed() < within {
                ConnectFault::Addresses(tried)
            } else {
                ConnectFault::Connecting { within, tried }
            }
        })?;
        tcp.set_nodelay(true)?;
        let keepalive = TcpKeepalive::new().with_time(KEEPALIVE_INTERVAL).with_interval(KEEPALIVE_INTERVAL);
        SockRef::from(&tcp).set_tcp_keepalive(&keepalive.with_retries(KEEPALIVE_PROBES))?;
        // Not before it is connected: it would bound connecting, too.
        #[cfg(target_os = "linux")]
        SockRef::from(&tcp).set_tcp_user_timeout(Some(self.unacknowledged_max))?;
        Ok(tcp)
    }

    /// The addresses of a host, in the order in which the system prefers them (RFC 6724).
    async fn resolve(&self, target: &Uri, host: &str) -> Result<Vec<SocketAddr>, ConnectFault> {
        let default_port = if target.scheme_str() == Some("https") { 443 } else { 80 };
        let port = target.port_u16().unwrap_or(default_port);
        let bare = host.trim_start_matches('[').trim_end_matches(']');
        if let Ok(address) = bare.parse::<IpAddr>() {
            return Ok(vec![SocketAddr::new(address, port)]);
        }
        if let Some(mut addresses) = (self.names)(host) {
            // A port that the URL names takes precedence.
            for address in
                addresses.iter_mut().filter(|address| target.port().is_some() || address.port() == 0)
            {
                address.set_port(port);
            }
            return Ok(addresses);
        }
        match lookup_host((host, port)).await {
            Ok(addresses) => Ok(addresses.collect()),
            Err(source) => Err(ConnectFault::Unresolved { host: host.to_owned(), source }),
        }
    }
}

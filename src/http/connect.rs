//! Opens connections to one target.

use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use http::Uri;
use hyper_rustls::{FixedServerNameResolver, HttpsConnector, HttpsConnectorBuilder, MaybeHttpsStream};
use hyper_util::client::legacy::connect::Connection as _;
use hyper_util::rt::TokioIo;
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use socket2::{SockRef, TcpKeepalive};
use tokio::net::{TcpStream, lookup_host};
use tokio::time::{Instant, timeout, timeout_at};
use tower_service::Service;

use super::error::{BoxError, ConnectFault};
use super::gate::{EarlyAlerts, GatedIo};
use super::race;
use super::tunnel::{self, Stream};
use crate::config::{HttpVersion, ProxyConfig, TargetConfig};

/// Finds out that the machine of an idle connection is gone.
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(15);
const KEEPALIVE_PROBES: u32 = 3;

type Boxed<T, E> = Pin<Box<dyn Future<Output = Result<T, E>> + Send>>;

/// Gives the addresses of a name; `None`: the system is asked.
pub type Names = Arc<dyn Fn(&str) -> Option<Vec<SocketAddr>> + Send + Sync>;

/// Opens connections to a target, each within its `connect_timeout`.
#[derive(Clone, Debug)]
pub(super) struct Connector {
    https: HttpsConnector<TcpConnector>,
    connect_timeout: Duration,
    version: HttpVersion,
    early_alerts: EarlyAlerts,
}

impl Connector {
    /// For the target's token server: through the same proxy, with the same times. The rest is the server's own.
    pub(super) fn to_token_server(target: &TargetConfig, tls: ClientConfig, names: Names) -> Self {
        Self::with(target, tls, names, (None, HttpVersion::Auto))
    }

    pub(super) fn new(target: &TargetConfig, tls: ClientConfig, names: Names) -> Self {
        Self::with(target, tls, names, (target.tls.server_name.as_ref(), target.http_version))
    }

    /// To a collector of traces. The times are those to connect, and for a whole request.
    pub(super) fn to_collector(
        (connect_timeout, unacknowledged_max): (Duration, Duration),
        tls: ClientConfig,
        names: Names,
    ) -> Self {
        let tcp = TcpConnector { names, proxy: None, connect_timeout, unacknowledged_max };
        Self::over(tcp, tls, (None, HttpVersion::Auto))
    }

    fn with(
        target: &TargetConfig,
        tls: ClientConfig,
        names: Names,
        of_server: (Option<&ServerName<'static>>, HttpVersion),
    ) -> Self {
        let tcp = TcpConnector {
            names,
            proxy: target.proxy.clone().map(Arc::new),
            connect_timeout: target.connect_timeout,
            unacknowledged_max: target.timeout,
        };
        Self::over(tcp, tls, of_server)
    }

    fn over(
        tcp: TcpConnector,
        tls: ClientConfig,
        (server_name, version): (Option<&ServerName<'static>>, HttpVersion),
    ) -> Self {
        let connect_timeout = tcp.connect_timeout;
        let mut https = HttpsConnectorBuilder::new().with_tls_config(tls).https_or_http();
        if let Some(name) = server_name {
            https = https.with_server_name_resolver(FixedServerNameResolver::new(name.clone()));
        }
        let https = match version {
            HttpVersion::Auto => https.enable_all_versions().wrap_connector(tcp),
            HttpVersion::Http1 => https.enable_http1().wrap_connector(tcp),
            HttpVersion::Http2 => https.enable_http2().wrap_connector(tcp),
        };
        Self { https, connect_timeout, version, early_alerts: EarlyAlerts::default() }
    }

    /// Returns true if the client writes HTTP/2 to every connection.
    pub(super) fn is_http2_only(&self) -> bool {
        self.version == HttpVersion::Http2
    }

    pub(super) fn early_alerts(&self) -> &EarlyAlerts {
        &self.early_alerts
    }

    pub(super) fn connect_timeout(&self) -> Duration {
        self.connect_timeout
    }
}

impl Service<Uri> for Connector {
    type Response = GatedIo<MaybeHttpsStream<Stream>>;
    type Error = BoxError;
    type Future = Boxed<Self::Response, BoxError>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.https.poll_ready(context)
    }

    fn call(&mut self, target: Uri) -> Self::Future {
        let (within, is_http2_only) = (self.connect_timeout, self.is_http2_only());
        // The call begins the time of `TcpConnector`, which therefore ends first: what is left is TLS.
        let (connecting, early_alerts) =
            (timeout(within, self.https.call(target)), self.early_alerts.clone());
        Box::pin(async move {
            let stream = connecting.await.map_err(|_| ConnectFault::Handshake { within })??;
            let has_negotiated_http2 = stream.connected().is_negotiated_h2();
            if is_http2_only && !has_negotiated_http2 && matches!(stream, MaybeHttpsStream::Https(_)) {
                return Err(ConnectFault::NoHttp2.into());
            }
            Ok(GatedIo::new(stream, is_http2_only || has_negotiated_http2, early_alerts))
        })
    }
}

/// Opens TCP connections, through a proxy if there is one.
#[derive(Clone)]
struct TcpConnector {
    names: Names,
    proxy: Option<Arc<ProxyConfig>>,
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
    type Response = Stream;
    type Error = BoxError;
    type Future = Boxed<Self::Response, BoxError>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, target: Uri) -> Self::Future {
        let (connector, began) = (self.clone(), Instant::now());
        Box::pin(async move { connector.connect(&target, began).await })
    }
}

impl TcpConnector {
    async fn connect(&self, target: &Uri, began: Instant) -> Result<Stream, BoxError> {
        let host = target.host().unwrap_or_default();
        let default_port = if target.scheme_str() == Some("https") { 443 } else { 80 };
        let Some(proxy) = self.proxy.as_deref() else {
            let tcp = self.open(host, target.port_u16(), default_port, began).await?;
            return Ok(Stream::Direct(TokioIo::new(tcp)));
        };
        let tcp = self.open(&proxy.host, Some(proxy.port), proxy.port, began).await;
        let tcp =
            tcp.map_err(|source| ConnectFault::ProxyUnreachable { proxy: proxy.to_string(), source })?;
        let within = self.connect_timeout;
        let authority = format!("{host}:{}", target.port_u16().unwrap_or(default_port));
        let opening = timeout_at(began + within, tunnel::open(tcp, proxy, authority)).await;
        let silent = |_| ConnectFault::ProxySilent { proxy: proxy.to_string(), within };
        Ok(Stream::Tunnel(opening.map_err(silent)??))
    }

    /// Opens a TCP connection to a host. `port`: as written.
    async fn open(
        &self,
        host: &str,
        port: Option<u16>,
        default_port: u16,
        began: Instant,
    ) -> Result<TcpStream, BoxError> {
        let within = self.connect_timeout;
        let resolving = timeout_at(began + within, self.resolve(host, port, default_port)).await;
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
    async fn resolve(
        &self,
        host: &str,
        written_port: Option<u16>,
        default_port: u16,
    ) -> Result<Vec<SocketAddr>, ConnectFault> {
        let port = written_port.unwrap_or(default_port);
        let bare = host.trim_start_matches('[').trim_end_matches(']');
        if let Ok(address) = bare.parse::<IpAddr>() {
            return Ok(vec![SocketAddr::new(address, port)]);
        }
        if let Some(mut addresses) = (self.names)(host) {
            // A port that the URL names takes precedence.
            for address in
                addresses.iter_mut().filter(|address| written_port.is_some() || address.port() == 0)
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

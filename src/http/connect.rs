//! Opens connections to one target.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use http::Uri;
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder, MaybeHttpsStream};
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::client::legacy::connect::dns::{GaiResolver, Name};
use hyper_util::rt::TokioIo;
use rustls::ClientConfig;
use tokio::net::TcpStream;
use tower_service::Service;

use super::gate::GatedIo;
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
        let mut http = HttpConnector::new_with_resolver(Resolver { names, system: GaiResolver::new() });
        http.enforce_http(false);
        http.set_nodelay(true);
        // Divided among the addresses of a name.
        http.set_connect_timeout(Some(target.connect_timeout));
        http.set_keepalive(Some(KEEPALIVE_INTERVAL));
        http.set_keepalive_interval(Some(KEEPALIVE_INTERVAL));
        http.set_keepalive_retries(Some(KEEPALIVE_PROBES));
        let https = HttpsConnectorBuilder::new().with_tls_config(tls).https_or_http().enable_all_versions();
        let tcp = TcpConnector { http, unacknowledged_max: target.timeout };
        Self { https: https.wrap_connector(tcp), connect_timeout: target.connect_timeout }
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
        let connecting = tokio::time::timeout(self.connect_timeout, self.https.call(target));
        Box::pin(async move {
            let time_up = |_| io::Error::new(io::ErrorKind::TimedOut, "no connection within connect_timeout");
            Ok(GatedIo::new(connecting.await.map_err(time_up)??))
        })
    }
}

/// Opens TCP connections.
#[derive(Clone, Debug)]
struct TcpConnector {
    http: HttpConnector<Resolver>,
    /// The kernel sends what is in the socket's buffer even if this process has died. After this time it gives up.
    unacknowledged_max: Duration,
}

impl Service<Uri> for TcpConnector {
    type Response = TokioIo<TcpStream>;
    type Error = BoxError;
    type Future = Boxed<Self::Response, BoxError>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.http.poll_ready(context).map_err(Into::into)
    }

    fn call(&mut self, target: Uri) -> Self::Future {
        let (connecting, unacknowledged_max) = (self.http.call(target), self.unacknowledged_max);
        Box::pin(async move {
            let tcp = connecting.await?;
            // Not before it is connected: it would bound connecting, too.
            #[cfg(target_os = "linux")]
            socket2::SockRef::from(tcp.inner()).set_tcp_user_timeout(Some(unacknowledged_max))?;
            Ok(tcp)
        })
    }
}

/// Looks up names.
#[derive(Clone)]
struct Resolver {
    names: Names,
    system: GaiResolver,
}

impl std::fmt::Debug for Resolver {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Resolver")
    }
}

impl Service<Name> for Resolver {
    type Response = std::vec::IntoIter<SocketAddr>;
    type Error = io::Error;
    type Future = Boxed<Self::Response, io::Error>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.system.poll_ready(context)
    }

    fn call(&mut self, name: Name) -> Self::Future {
        if let Some(addresses) = (self.names)(name.as_str()) {
            return Box::pin(std::future::ready(Ok(addresses.into_iter())));
        }
        let looking_up = self.system.call(name);
        Box::pin(async move { Ok(looking_up.await?.collect::<Vec<_>>().into_iter()) })
    }
}

//! Why targets cannot be used as configured, and why there is no connection to one.

use std::io;
use std::time::Duration;

use super::race::Tried;
use crate::templates::TemplateFault;

pub(super) type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// Why targets cannot be used as configured.
#[derive(Debug, thiserror::Error)]
pub enum TargetsFault {
    /// The method is not one of HTTP.
    #[error("target {target:?}: {method:?} is not an HTTP method; write one such as PUT or POST")]
    Method {
        /// Name of the target.
        target: String,
        /// As configured.
        method: String,
    },
    /// The header cannot be sent, or the config may not set it.
    #[error(
        "target {target:?}: the header {name:?} cannot be set: its name or value is not valid in HTTP, or the HTTP client \
         or Lanekeeper (lanekeeper-…) sets it; correct it or leave it out"
    )]
    Header {
        /// Name of the target.
        target: String,
        /// Name of the header; its value may be secret.
        name: String,
    },
    /// A template does not fit what it is for.
    #[error("target {target:?}: the template of {name} is wrong at {fault}; correct it")]
    Template {
        /// Name of the target.
        target: String,
        /// Such as `body`.
        name: String,
        /// What is wrong.
        fault: TemplateFault,
    },
    /// The HTTP client could not be set up, mostly because the system has no usable certificates.
    #[error("cannot set up the HTTP client; check the system's CA certificates")]
    Client(#[source] rustls::Error),
}

/// Why there is no connection to a target. It names the host of the URL, which never has the record key.
#[derive(Debug, thiserror::Error)]
pub(super) enum ConnectFault {
    #[error("the name {host} cannot be resolved")]
    Unresolved {
        host: String,
        #[source]
        source: io::Error,
    },
    #[error("the name {host} has no address")]
    NoAddress { host: String },
    #[error("the name {host} was not resolved within {within:?}")]
    Resolving { host: String, within: Duration },
    #[error("{0}")]
    Addresses(Tried),
    #[error("no connection within {within:?}: {tried}")]
    Connecting { within: Duration, tried: Tried },
    #[error(
        "no TLS session within {within:?}: the target has accepted the connection, and did not finish the handshake"
    )]
    Handshake { within: Duration },
    #[error("the target does not offer HTTP/2, and http_version = \"2\" allows nothing else")]
    NoHttp2,
    #[error("the proxy {proxy} cannot be reached")]
    ProxyUnreachable {
        proxy: String,
        #[source]
        source: BoxError,
    },
    #[error("the proxy {proxy} has accepted the connection, and did not answer CONNECT within {within:?}")]
    ProxySilent { proxy: String, within: Duration },
    #[error("the proxy {proxy} does not connect us to {authority}: {}", refusal(*status))]
    ProxyRefused { proxy: String, authority: String, status: u16 },
    #[error("the proxy {proxy} does not answer CONNECT as an HTTP proxy does")]
    ProxyBroken {
        proxy: String,
        #[source]
        source: hyper::Error,
    },
}

/// What the answer of a proxy to CONNECT means.
fn refusal(status: u16) -> String {
    let words = match status {
        407 => "it wants other user and password than those in the target's `proxy`",
        403 | 405 => "its rules do not allow it; many proxies allow port 443 only",
        502..=504 => "it cannot reach the target",
        _ => "this is no answer to CONNECT that helps",
    };
    format!("it answered {status}: {words}")
}

impl ConnectFault {
    /// Returns true if a time was up, and false if the fault is certain.
    pub(super) fn timed_out(&self) -> bool {
        match self {
            Self::Unresolved { .. }
            | Self::NoAddress { .. }
            | Self::NoHttp2
            | Self::ProxyRefused { .. }
            | Self::ProxyBroken { .. } => false,
            Self::Addresses(tried) => tried.timed_out(),
            Self::ProxyUnreachable { source, .. } => {
                source.downcast_ref::<Self>().is_some_and(Self::timed_out)
            }
            Self::Resolving { .. }
            | Self::Connecting { .. }
            | Self::Handshake { .. }
            | Self::ProxySilent { .. } => true,
        }
    }

    /// Returns true if nothing but another config, or another one of the proxy or the target, makes a connection.
    pub(super) fn is_refusal(&self) -> bool {
        match self {
            Self::ProxyRefused { status, .. } => matches!(status, 300..=399 | 401 | 403 | 405 | 407),
            Self::NoHttp2 => true,
            _ => false,
        }
    }
}

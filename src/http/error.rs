//! Why targets cannot be used as configured, and why there is no connection to one.

use std::io;
use std::time::Duration;

use super::race::Tried;

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
}

impl ConnectFault {
    /// Returns true if a time was up, and false if the fault is certain.
    pub(super) fn timed_out(&self) -> bool {
        match self {
            Self::Unresolved { .. } | Self::NoAddress { .. } => false,
            Self::Addresses(tried) => tried.timed_out(),
            Self::Resolving { .. } | Self::Connecting { .. } | Self::Handshake { .. } => true,
        }
    }
}

//! Why targets cannot be used as configured.

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

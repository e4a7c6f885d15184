//! The TLS settings of one target's connections.

use std::sync::Arc;
use std::time::SystemTime;

use rustls::ClientConfig;
use rustls::client::danger::ServerCertVerifier;
use rustls::pki_types::UnixTime;
use rustls::time_provider::TimeProvider;

use super::verifier::NamingVerifier;

/// `trust` decides which servers are believed.
pub(super) fn client_config(trust: &Arc<dyn ServerCertVerifier>) -> ClientConfig {
    let tls = ClientConfig::builder().dangerous();
    let tls = tls.with_custom_certificate_verifier(Arc::new(NamingVerifier(Arc::clone(trust))));
    let mut tls = tls.with_no_client_auth();
    tls.time_provider = Arc::new(WallClock);
    tls
}

/// The time for which certificates are checked. The one of rustls panics if the system's clock is before 1970; without a time
/// the connection fails.
#[derive(Debug)]
struct WallClock;

impl TimeProvider for WallClock {
    fn current_time(&self) -> Option<UnixTime> {
        SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).ok().map(UnixTime::since_unix_epoch)
    }
}

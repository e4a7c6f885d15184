//! The TLS settings of one target's connections.

use std::sync::Arc;
use std::time::SystemTime;

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::ServerCertVerifier;
use rustls::pki_types::{CertificateDer, UnixTime};
use rustls::time_provider::TimeProvider;
use rustls::{ClientConfig, RootCertStore};

use super::verifier::NamingVerifier;
use crate::config::TlsConfig;

/// `trust` decides which servers are believed, unless the config names authorities.
///
/// # Panics
/// If the config's check lets a certificate through that cannot be used: a fault of ours.
pub(super) fn client_config(config: &TlsConfig, trust: &Arc<dyn ServerCertVerifier>) -> ClientConfig {
    let has_own_authorities = !config.authorities.is_empty();
    let inner = if has_own_authorities { of_authorities(&config.authorities) } else { Arc::clone(trust) };
    let has_own_name = config.server_name.is_some();
    let verifier = NamingVerifier { inner, beside: None, has_own_authorities, has_own_name };
    let tls = ClientConfig::builder().dangerous().with_custom_certificate_verifier(Arc::new(verifier));
    let mut tls = match &config.client {
        None => tls.with_no_client_auth(),
        Some(client) => tls
            .with_client_auth_cert(client.chain.clone(), client.key.clone_key())
            .expect("the config's check has put both together"),
    };
    tls.time_provider = Arc::new(WallClock);
    tls
}

/// For the token server of a target, which is another server: the target's authorities are trusted beside those of `trust`, and
/// it is shown no certificate of ours.
///
/// # Panics
/// As [`client_config`].
pub(super) fn token_server_config(config: &TlsConfig, trust: &Arc<dyn ServerCertVerifier>) -> ClientConfig {
    let listed = (!config.authorities.is_empty()).then(|| of_authorities(&config.authorities));
    let verifier = NamingVerifier {
        inner: Arc::clone(trust),
        beside: listed,
        has_own_authorities: false,
        has_own_name: false,
    };
    let tls = ClientConfig::builder().dangerous().with_custom_certificate_verifier(Arc::new(verifier));
    let mut tls = tls.with_no_client_auth();
    tls.time_provider = Arc::new(WallClock);
    tls
}

fn of_authorities(authorities: &[CertificateDer<'static>]) -> Arc<dyn ServerCertVerifier> {
    let mut roots = RootCertStore::empty();
    for authority in authorities {
        roots.add(authority.clone()).expect("the config's check has added it once");
    }
    WebPkiServerVerifier::builder(Arc::new(roots)).build().expect("there is an authority, and no CRL")
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

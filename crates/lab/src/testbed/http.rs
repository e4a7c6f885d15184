//! The HTTP client for servers on this machine: receivers, and the dispatcher's health and metrics.

#![expect(clippy::disallowed_types, reason = "this is the HTTP client of the lab")]

use std::sync::OnceLock;
use std::time::Duration;

use reqwest::Client;

/// Time limit of a request, body included.
const TIMEOUT: Duration = Duration::from_secs(10);

/// The client, one per process. It uses no proxy and does not follow redirects.
///
/// # Panics
/// If the TLS library refuses its own defaults.
pub fn client() -> &'static Client {
    static CLIENT: OnceLock<Client> = OnceLock::new();
    CLIENT.get_or_init(|| {
        // An error means that this process has a provider already, which serves as well.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let builder =
            Client::builder().no_proxy().redirect(reqwest::redirect::Policy::none()).timeout(TIMEOUT);
        builder.build().expect("the TLS library accepts its defaults")
    })
}

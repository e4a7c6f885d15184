//! Posts traces to a collector (OTLP over HTTP).

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use http::header::{CONTENT_TYPE, DATE, HeaderMap, HeaderName, HeaderValue, RETRY_AFTER, USER_AGENT};
use http::{Method, Request, Uri};
use rustls::ClientConfig;
use rustls_platform_verifier::Verifier;

use super::SendGuard;
use super::answer;
use super::client::Names;
use super::connect::Connector;
use super::deadline::Deadline;
use super::error::TargetsFault;
use super::exchange::exchange;
use super::judge::{BodyEnd, Bounds};
use super::renewed_client::RenewedClient;
use super::retry_after;
use super::tls;
use crate::config::TelemetryConfig;

/// How long a connection is used, so that requests follow a change of addresses.
const CONNECTION_AGE_MAX: Duration = Duration::from_secs(5 * 60);
/// The longest time to get a connection.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// Of an answer: it has a number and a message.
const ANSWER_BYTES_MAX: usize = 16 * 1024;

/// A collector, and how it is reached.
#[derive(Debug)]
pub struct Collector {
    client: RenewedClient,
    url: Uri,
    headers: HeaderMap,
    connect_timeout: Duration,
    timeout: Duration,
}

/// What a collector did with a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Posted {
    /// It has taken it; the start of its answer.
    Taken(Bytes),
    /// It will never take it.
    Refused(String),
    /// It does not take it now, or cannot be reached.
    Unavailable {
        /// In words.
        why: String,
        /// How long it wants us to wait.
        retry_after: Option<Duration>,
    },
}

impl Collector {
    /// Opens no connection.
    ///
    /// # Errors
    /// The system has no CA certificates.
    pub fn new(config: &TelemetryConfig) -> Result<Self, TargetsFault> {
        let provider = Arc::clone(ClientConfig::builder().crypto_provider());
        let trust = Arc::new(Verifier::new(provider).map_err(TargetsFault::Client)?);
        let system: Names = Arc::new(|_| None);
        let connect_timeout = config.timeout.min(CONNECT_TIMEOUT);
        let tls = tls::client_config(&config.tls, &(trust as _));
        let connector = Connector::to_collector((connect_timeout, config.timeout), tls, system);
        let mut headers = HeaderMap::new();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/x-protobuf"));
        let agent = concat!("lanekeeper/", env!("CARGO_PKG_VERSION"));
        headers.insert(USER_AGENT, HeaderValue::from_static(agent));
        for (name, value) in &config.headers {
            let name = HeaderName::from_bytes(name.as_bytes()).expect("the config's check parsed it");
            let mut value = HeaderValue::from_str(value.reveal()).expect("the config's check parsed it");
            value.set_sensitive(true);
            headers.insert(name, value);
        }
        Ok(Self {
            client: RenewedClient::new(connector, CONNECTION_AGE_MAX),
            url: config.traces_url().parse().expect("the config's check parsed it"),
            headers,
            connect_timeout,
            timeout: config.timeout,
        })
    }

    /// Sends one request, within the times of the config. Redirects are not followed.
    pub async fn post(&self, body: Bytes) -> Posted {
        let unavailable = |why| Posted::Unavailable { why, retry_after: None };
        let mut request = Request::new(body);
        *request.method_mut() = Method::POST;
        *request.uri_mut() = self.url.clone();
        *request.headers_mut() = self.headers.clone();
        let mut deadline = Deadline::new(self.connect_timeout, self.timeout);
        let exchanged = exchange(&self.client, request, &SendGuard::always(), &mut deadline).await;
        let mut response = match exchanged {
            Ok(response) => response,
            Err(outcome) => {
                let failure = outcome.failure().map(ToString::to_string).unwrap_or_default();
                // The words are those for targets.
                return unavailable(failure.replace("the target", "the collector"));
            }
        };
        let status = response.status();
        let why = format!("the collector answers status {}", status.as_u16());
        match status.as_u16() {
            200..=299 => {}
            // Those that the protocol calls retryable.
            429 | 502..=504 => {
                let text = |name| response.headers().get(name).and_then(|value| value.to_str().ok());
                let retry_after = text(RETRY_AFTER)
                    .and_then(|after| retry_after::parse(after, text(DATE), SystemTime::now()));
                return Posted::Unavailable { why, retry_after };
            }
            _ => return Posted::Refused(why),
        }
        let mut answer = Vec::new();
        let bounds = Bounds { kept_max: ANSWER_BYTES_MAX, read_max: ANSWER_BYTES_MAX };
        match answer::read(response.body_mut(), &mut answer, bounds, false, &mut deadline).await {
            BodyEnd::Complete | BodyEnd::Longer => Posted::Taken(answer.into()),
            BodyEnd::Broken(_) => unavailable("the collector's answer breaks off".to_owned()),
        }
    }
}

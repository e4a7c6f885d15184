//! Sends attempts over HTTP. Each target has a client of its own, which pools and keeps its connections.

#![expect(clippy::disallowed_types, reason = "this is the HTTP client of the targets")]

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use http::{Request, Response};
use hyper::body::Incoming;
use hyper_util::client::legacy::connect::capture_connection;
use hyper_util::client::legacy::{Client, Error};
use hyper_util::rt::{TokioExecutor, TokioTimer};
use rustls::ClientConfig;
use rustls::client::danger::ServerCertVerifier;
use rustls::pki_types::UnixTime;
use rustls::time_provider::TimeProvider;
use rustls_platform_verifier::Verifier;
use tokio::time::Instant;

use super::conditional::{FETCHES_MAX, FirstStep, Precondition, asks_for_etag, first, name_weak_etag};
use super::connect::Connector;
pub use super::connect::Names;
use super::deadline::{Deadline, TimeUp};
pub use super::error::TargetsFault;
use super::gate::GatedBody;
use super::request::RequestTemplate;
use super::send_guard::Withheld;
use super::verifier::NamingVerifier;
use super::{Attempt, AttemptReceipt, SendGuard, Target, answer};
use crate::config::{AnswerBody, TargetConfig};
use lanekeeper_core::outcome::{Cause, Failure, Outcome};
use lanekeeper_core::policy::FailurePolicy;

/// Idle connections kept per host. It matters only when the load goes down, and is above the number of attempts that a
/// dispatcher usually has in flight (`in_flight_max` × partitions).
const IDLE_PER_HOST_MAX: usize = 1024;
/// We close idle connections before usual servers do (nginx 75 s, AWS load balancers 60 s): an attempt on a connection
/// that the server is just closing fails, and nobody knows whether the update was applied.
const IDLE_TIMEOUT: Duration = Duration::from_secs(30);
/// HTTP/2: unread bytes of one answer.
const STREAM_WINDOW_BYTES: u32 = 64 * 1024;
/// HTTP/2: unread bytes of all answers of one connection.
const CONNECTION_WINDOW_BYTES: u32 = 1024 * 1024;
/// HTTP/2: headers of one answer. For HTTP/1 the client has a bound of its own, about 400 KiB.
const HEADERS_BYTES_MAX: u32 = 64 * 1024;
/// HTTP/1: headers of one answer.
const HEADERS_MAX: usize = 1000;
/// HTTP/2: how often a connection with requests is asked for a sign of life (PING), and how long that may take. Without it,
/// all requests that share a dead connection end with their timeouts, and the next ones go to it too.
const PING_INTERVAL: Duration = Duration::from_secs(5);
const PING_TIMEOUT: Duration = Duration::from_secs(5);

/// All `[[target]]` of the config.
#[derive(Debug)]
pub struct HttpTargets {
    targets: Vec<HttpTarget>,
}

/// A target. It shares no connection and no setting with others, not even with those of the same host.
#[derive(Debug)]
struct HttpTarget {
    client: RenewedClient,
    template: RequestTemplate,
    answer_body: AnswerBody,
    /// If it answers that the record has changed (412), its `ETag` is fetched and the update sent again.
    refetch: bool,
    connect_timeout: Duration,
    timeout: Duration,
}

/// How a request ended, if it is not with an answer.
type AttemptEnd = (Outcome, AttemptReceipt);

impl HttpTargets {
    /// Prepares the clients and the targets. Opens no connection. The process's TLS provider must be installed.
    ///
    /// # Errors
    /// A setting is not valid in HTTP, or the system has no CA certificates.
    pub fn new(targets: &[TargetConfig]) -> Result<Self, TargetsFault> {
        let system: Names = Arc::new(|_| None);
        Self::with_names(targets, &system)
    }

    /// As `new`, with addresses of names that take precedence over the system's.
    ///
    /// # Errors
    /// As for `new`.
    pub fn with_names(targets: &[TargetConfig], names: &Names) -> Result<Self, TargetsFault> {
        let provider = Arc::clone(ClientConfig::builder().crypto_provider());
        let verifier = Verifier::new(provider).map_err(TargetsFault::Client)?;
        Self::with_verifier(targets, names, Arc::new(verifier))
    }

    /// As `with_names`, with a verifier that says whom to trust.
    ///
    /// # Errors
    /// A setting is not valid in HTTP.
    pub fn with_verifier(
        targets: &[TargetConfig],
        names: &Names,
        verifier: Arc<dyn ServerCertVerifier>,
    ) -> Result<Self, TargetsFault> {
        let tls = ClientConfig::builder().dangerous();
        let tls = tls.with_custom_certificate_verifier(Arc::new(NamingVerifier(verifier)));
        let mut tls = tls.with_no_client_auth();
        tls.time_provider = Arc::new(WallClock);
        let targets = targets.iter().map(|config| {
            Ok(HttpTarget {
                client: RenewedClient::new(
                    Connector::new(config, tls.clone(), Arc::clone(names)),
                    config.connection_age_max,
                ),
                template: RequestTemplate::new(config)?,
                answer_body: config.answer_body,
                connect_timeout: config.connect_timeout,
                timeout: config.timeout,
                refetch: config.failure.conflict == FailurePolicy::Refetch,
            })
        });
        Ok(Self { targets: targets.collect::<Result<_, _>>()? })
    }
}

/// The client follows no redirects, knows no proxies, and sends a request a second time in one case only: if a connection
/// of the pool turns out to be closed before the request was queued at it. Then no byte was written and the check was not
/// asked; it is asked where the request is written.
fn client(connector: Connector) -> Client<Connector, GatedBody> {
    Client::builder(TokioExecutor::new())
        .timer(TokioTimer::new())
        .pool_timer(TokioTimer::new())
        .pool_max_idle_per_host(IDLE_PER_HOST_MAX)
        .pool_idle_timeout(IDLE_TIMEOUT)
        .http2_initial_stream_window_size(STREAM_WINDOW_BYTES)
        .http2_initial_connection_window_size(CONNECTION_WINDOW_BYTES)
        .http2_max_header_list_size(HEADERS_BYTES_MAX)
        .http2_keep_alive_interval(PING_INTERVAL)
        .http2_keep_alive_timeout(PING_TIMEOUT)
        // RFC 9112, section 5.2: the lines are joined.
        .http1_allow_obsolete_multiline_headers_in_responses(true)
        .http1_max_headers(HEADERS_MAX)
        .build(connector)
}

/// A client that is replaced by another one when its connections may be too old: requests go on to a new connection, and look
/// up the name again. Requests on the old ones end as they would have.
#[derive(Debug)]
struct RenewedClient {
    connector: Connector,
    age_max: Duration,
    current: Mutex<(Instant, Client<Connector, GatedBody>)>,
}

impl RenewedClient {
    fn new(connector: Connector, age_max: Duration) -> Self {
        let current = Mutex::new((Instant::now(), client(connector.clone())));
        Self { connector, age_max, current }
    }

    fn get(&self) -> Client<Connector, GatedBody> {
        let mut current = self.current.lock().unwrap_or_else(PoisonError::into_inner);
        if current.0.elapsed() >= self.age_max {
            *current = (Instant::now(), client(self.connector.clone()));
        }
        current.1.clone()
    }
}

impl HttpTarget {
    /// Sends a request and waits for the head of its answer.
    async fn exchange(
        &self,
        request: Request<Bytes>,
        send_guard: &SendGuard,
        deadline: &mut Deadline,
    ) -> Result<Response<Incoming>, Outcome> {
        let check = deadline.check(send_guard.clone());
        let (head, body) = request.into_parts();
        let mut request = Request::from_parts(head, ());
        let connection = capture_connection(&mut request);
        let request = request.map(|()| GatedBody::new(body, check.clone(), connection));
        let ended: Result<Result<_, Error>, TimeUp> =
            deadline.wait_for_head(&check, self.client.get().request(request)).await;
        Err(match (ended, check.withheld()) {
            (Ok(Ok(response)), _) => return Ok(response),
            (_, Some(Withheld::Denied)) => Outcome::Withheld,
            (Err(TimeUp), _) | (_, Some(Withheld::Late)) => answer::time_up(),
            (Ok(Err(error)), None) => answer::broken(&error),
        })
    }

    /// Sends one request with the update.
    async fn request(
        &self,
        attempt: &Attempt,
        precondition: &Precondition,
        deadline: &mut Deadline,
    ) -> AttemptEnd {
        let request = match self.template.request(attempt, precondition) {
            Ok(request) => request,
            Err(detail) => return unsendable(detail),
        };
        let response = match self.exchange(request, &attempt.send_guard, deadline).await {
            Ok(response) => response,
            Err(outcome) => return (outcome, AttemptReceipt::default()),
        };
        let receipt = answer::receipt_of(&response, &self.template.outcomes);
        let kind = super::classify::classify(receipt.status, &self.template.outcomes);
        let outcome = answer::outcome_of(response, kind, self.answer_body, deadline).await;
        (name_weak_etag(outcome, precondition), receipt)
    }

    /// Gets the record's `ETag` from the target.
    async fn fetch(&self, attempt: &Attempt, deadline: &mut Deadline) -> Result<Precondition, AttemptEnd> {
        let request = self.template.fetch(&attempt.update).map_err(unsendable)?;
        let exchanged = self.exchange(request, &attempt.send_guard, deadline).await;
        let response = exchanged.map_err(|outcome| (outcome, AttemptReceipt::default()))?;
        let receipt = answer::receipt_of(&response, &self.template.outcomes);
        match (receipt.status, &receipt.etag) {
            (404 | 410, _) => Ok(Precondition::Absent),
            (200..=299, Some(etag)) => Ok(Precondition::Match(etag.as_str().into())),
            (200..=299, None) => Ok(Precondition::None),
            (status, _) => {
                let kind = super::classify::classify(status, &self.template.outcomes);
                Err((answer::outcome_of(response, kind, self.answer_body, deadline).await, receipt))
            }
        }
    }
}

fn unsendable(detail: String) -> AttemptEnd {
    (Outcome::Rejected(Failure { cause: Cause::Unsendable, detail }), AttemptReceipt::default())
}

impl Target for HttpTargets {
    /// # Panics
    /// If the update names an unknown target: a fault of ours, since routes and targets come from the same config.
    async fn send(&self, attempt: Attempt) -> (Outcome, AttemptReceipt) {
        let target = &self.targets[attempt.update.target.0];
        let mut deadline = Deadline::new(target.connect_timeout, target.timeout);
        let mut next = first(&attempt, target.template.if_match, target.template.first_contact);
        let mut fetches = 0;
        loop {
            let precondition = match next {
                FirstStep::Send(precondition) => precondition,
                FirstStep::Fetch => match target.fetch(&attempt, &mut deadline).await {
                    Ok(precondition) => precondition,
                    Err(ended) => return ended,
                },
            };
            let ended = target.request(&attempt, &precondition, &mut deadline).await;
            if fetches == FETCHES_MAX || !asks_for_etag(&ended.0, target.refetch) {
                return ended;
            }
            fetches += 1;
            next = FirstStep::Fetch;
        }
    }
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

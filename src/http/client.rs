//! Targets behind HTTP: one client for all of them, so that connections are shared and kept.

use std::time::Duration;

use reqwest::{Client, redirect, retry};
use tokio::time::Instant;

use super::conditional::{FETCHES_MAX, FirstStep, Precondition, asks_for_etag, first};
use super::request::RequestTemplate;
use super::send_guard::{Deadline, GuardedBody, SendState, TimeUp};
use super::{Attempt, AttemptReceipt, Target, answer};
use crate::config::TargetConfig;
use lanekeeper_core::outcome::{Cause, Failure, Outcome};

/// Idle connections kept per host. An open connection is an attempt in flight or an idle one, so this only matters when
/// the load goes down: more than the attempts that a dispatcher usually has in flight (`in_flight_max` × partitions).
const IDLE_PER_HOST_MAX: usize = 1024;
/// Idle connections are closed by us before usual servers do (nginx 75 s, AWS load balancers 60 s): an attempt on a
/// connection that the server is just closing fails, and nobody knows whether it was applied.
const IDLE_TIMEOUT: Duration = Duration::from_secs(30);
/// Stands in for a timeout that no clock can hold.
const TIMEOUT_MAX: Duration = Duration::from_secs(365 * 24 * 3600);
/// HTTP/2: unread bytes of one answer.
const STREAM_WINDOW_BYTES: u32 = 64 * 1024;
/// HTTP/2: unread bytes of all answers of one connection.
const CONNECTION_WINDOW_BYTES: u32 = 1024 * 1024;
/// HTTP/2: headers of one answer. HTTP/1 is bounded by the client: 100 headers, about 400 KiB.
const HEADERS_BYTES_MAX: u32 = 64 * 1024;

/// All `[[target]]`s.
#[derive(Debug)]
pub struct HttpTargets {
    client: Client,
    targets: Vec<RequestTemplate>,
    /// `failure.conflict = "refetch"`.
    refetch: bool,
}

/// Why the targets cannot be used as configured.
#[derive(Debug, thiserror::Error)]
pub enum TargetsFault {
    /// No HTTP method.
    #[error("target {target:?}: {method:?} is not an HTTP method; write one such as PUT or POST")]
    Method {
        /// Name of the target.
        target: String,
        /// As configured.
        method: String,
    },
    /// A header that cannot be sent, or that is not the operator's to set.
    #[error(
        "target {target:?}: the header {name:?} cannot be set: its name or value is not valid in HTTP, or it is one that \
         the HTTP client or Lanekeeper (lanekeeper-…) sets itself"
    )]
    Header {
        /// Name of the target.
        target: String,
        /// Name of the header; its value may be secret.
        name: String,
    },
    /// The client could not be set up: mostly the system's certificates.
    #[error("the HTTP client cannot be set up")]
    Client(#[source] reqwest::Error),
}

impl HttpTargets {
    /// Makes ready to send. Opens no connection. Needs the process's TLS provider to be installed. `refetch`: where the
    /// target says that a record has changed (412), its `ETag` is fetched and the update sent again.
    ///
    /// # Errors
    /// A setting that HTTP does not allow, or no certificates to trust on this system.
    pub fn new(targets: &[TargetConfig], refetch: bool) -> Result<Self, TargetsFault> {
        let targets = targets.iter().map(RequestTemplate::new).collect::<Result<Vec<_>, _>>()?;
        let timeout_max = targets.iter().map(|target| target.timeout).max().unwrap_or_default();
        let client = Client::builder()
            .user_agent(concat!("lanekeeper/", env!("CARGO_PKG_VERSION")))
            .redirect(redirect::Policy::none())
            // One attempt is one request: counted, logged and retried by the schedule alone. (What stays is hyper's
            // second try for a kept connection that was closed before anything was written to it.)
            .retry(retry::never())
            // HTTP_PROXY and its like come from whoever started the process; where updates go is in the config alone.
            .no_proxy()
            .referer(false)
            .tcp_nodelay(true)
            // Ends connects whose attempt has timed out and that the pool would otherwise go on with.
            .connect_timeout(timeout_max)
            .pool_max_idle_per_host(IDLE_PER_HOST_MAX)
            .pool_idle_timeout(IDLE_TIMEOUT)
            .http2_initial_stream_window_size(STREAM_WINDOW_BYTES)
            .http2_initial_connection_window_size(CONNECTION_WINDOW_BYTES)
            .http2_max_header_list_size(HEADERS_BYTES_MAX)
            .build()
            .map_err(TargetsFault::Client)?;
        Ok(Self { client, targets, refetch })
    }

    /// One request with an update.
    async fn request(
        &self,
        target: &RequestTemplate,
        attempt: &Attempt,
        precondition: &Precondition,
        deadline: &mut Deadline,
    ) -> (Outcome, AttemptReceipt) {
        let (body, send_progress) =
            GuardedBody::new(attempt.update.body.clone(), deadline.instant(), attempt.send_guard.clone());
        let request = match target.request(attempt, precondition, body) {
            Ok(request) => request,
            Err(detail) => {
                return (
                    Outcome::Rejected(Failure { cause: Cause::Unsendable, detail }),
                    AttemptReceipt::default(),
                );
            }
        };
        let left = || send_progress.progress() == SendState::Left;
        let outcome = match deadline.wait_for_answer(left, self.client.execute(request)).await {
            Ok(Ok(response)) => {
                let receipt = answer::receipt_of(&response);
                let kind = super::classify::classify(receipt.status, &target.outcomes);
                return (answer::outcome_of(response, kind, deadline).await, receipt);
            }
            Ok(Err(error)) => match send_progress.progress() {
                SendState::Withheld => Outcome::Withheld,
                SendState::Late => answer::time_up(),
                SendState::Waiting | SendState::Left => answer::broken(error),
            },
            Err(TimeUp) => answer::time_up(),
        };
        (outcome, AttemptReceipt::default())
    }

    /// Asks the target for the record's `ETag`.
    async fn fetch(
        &self,
        target: &RequestTemplate,
        attempt: &Attempt,
        deadline: &mut Deadline,
    ) -> Result<Precondition, (Outcome, AttemptReceipt)> {
        let request = target.fetch(&attempt.update).map_err(|detail| {
            (Outcome::Rejected(Failure { cause: Cause::Unsendable, detail }), AttemptReceipt::default())
        })?;
        let response = match deadline.wait(self.client.execute(request)).await {
            Ok(Ok(response)) => response,
            Ok(Err(error)) => return Err((answer::broken(error), AttemptReceipt::default())),
            Err(TimeUp) => return Err((answer::time_up(), AttemptReceipt::default())),
        };
        let receipt = answer::receipt_of(&response);
        match (receipt.status, &receipt.etag) {
            (404 | 410, _) => Ok(Precondition::Absent),
            (200..=299, Some(etag)) => Ok(Precondition::Match(etag.as_str().into())),
            (200..=299, None) => Ok(Precondition::None),
            (status, _) => {
                let kind = super::classify::classify(status, &target.outcomes);
                Err((answer::outcome_of(response, kind, deadline).await, receipt))
            }
        }
    }
}

impl Target for HttpTargets {
    /// # Panics
    /// If the update names a target that is not there: a fault of ours, since the same config made both.
    async fn send(&self, attempt: Attempt) -> (Outcome, AttemptReceipt) {
        let target = &self.targets[attempt.update.target.0];
        let now = Instant::now();
        let mut deadline = Deadline::until(now.checked_add(target.timeout).unwrap_or(now + TIMEOUT_MAX));
        let mut next = first(&attempt, target.if_match, target.first_contact);
        let mut fetches = 0;
        loop {
            let precondition = match next {
                FirstStep::Send(precondition) => precondition,
                FirstStep::Fetch => match self.fetch(target, &attempt, &mut deadline).await {
                    Ok(precondition) => precondition,
                    Err(ended) => return ended,
                },
            };
            let ended = self.request(target, &attempt, &precondition, &mut deadline).await;
            if fetches == FETCHES_MAX || !asks_for_etag(&ended.0, self.refetch) {
                return ended;
            }
            fetches += 1;
            next = FirstStep::Fetch;
        }
    }
}

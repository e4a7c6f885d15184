//! Sends attempts over HTTP. All targets share one client, so that connections are pooled and kept.

#![expect(clippy::disallowed_types, reason = "this is the HTTP client of the targets")]

use std::time::Duration;

use reqwest::{Client, redirect, retry};
use tokio::time::Instant;

use super::conditional::{FETCHES_MAX, FirstStep, Precondition, asks_for_etag, first};
pub use super::error::TargetsFault;
use super::request::RequestTemplate;
use super::send_guard::{Deadline, GuardedBody, SendState, TimeUp};
use super::{Attempt, AttemptReceipt, Target, answer};
use crate::config::TargetConfig;
use lanekeeper_core::outcome::{Cause, Failure, Outcome};

/// Idle connections kept per host. It matters only when the load goes down, and is above the number of attempts that a
/// dispatcher usually has in flight (`in_flight_max` × partitions).
const IDLE_PER_HOST_MAX: usize = 1024;
/// We close idle connections before usual servers do (nginx 75 s, AWS load balancers 60 s): an attempt on a connection
/// that the server is just closing fails, and nobody knows whether the update was applied.
const IDLE_TIMEOUT: Duration = Duration::from_secs(30);
/// Used instead of a timeout that the clock cannot represent.
const TIMEOUT_MAX: Duration = Duration::from_secs(365 * 24 * 3600);
/// HTTP/2: unread bytes of one answer.
const STREAM_WINDOW_BYTES: u32 = 64 * 1024;
/// HTTP/2: unread bytes of all answers of one connection.
const CONNECTION_WINDOW_BYTES: u32 = 1024 * 1024;
/// HTTP/2: headers of one answer. For HTTP/1 the client has a bound of its own: 100 headers, about 400 KiB.
const HEADERS_BYTES_MAX: u32 = 64 * 1024;

/// All `[[target]]` of the config.
#[derive(Debug)]
pub struct HttpTargets {
    client: Client,
    targets: Vec<RequestTemplate>,
    /// `failure.conflict = "refetch"`.
    refetch: bool,
}

impl HttpTargets {
    /// Prepares the client and the targets. Opens no connection. The process's TLS provider must be installed.
    ///
    /// `refetch`: if a target answers that the record has changed (412), fetch its `ETag` and send the update again.
    ///
    /// # Errors
    /// A setting is not valid in HTTP, or the system has no CA certificates.
    pub fn new(targets: &[TargetConfig], refetch: bool) -> Result<Self, TargetsFault> {
        let targets = targets.iter().map(RequestTemplate::new).collect::<Result<Vec<_>, _>>()?;
        let timeout_max = targets.iter().map(|target| target.timeout).max().unwrap_or_default();
        let client = Client::builder()
            .user_agent(concat!("lanekeeper/", env!("CARGO_PKG_VERSION")))
            .redirect(redirect::Policy::none())
            // One attempt is one request: only the retry schedule retries. (hyper still tries once more if a pooled
            // connection turns out to be closed before anything was written to it.)
            .retry(retry::never())
            // Only the config decides where updates go, not HTTP_PROXY of whoever started the process.
            .no_proxy()
            .referer(false)
            .tcp_nodelay(true)
            // Ends the connects of attempts that have timed out; without it the pool would go on with them.
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

    /// Sends one request with the update.
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
        let was_sent = || send_progress.state() == SendState::Sent;
        let outcome = match deadline.wait_for_answer(was_sent, self.client.execute(request)).await {
            Ok(Ok(response)) => {
                let receipt = answer::receipt_of(&response);
                let kind = super::classify::classify(receipt.status, &target.outcomes);
                return (answer::outcome_of(response, kind, deadline).await, receipt);
            }
            Ok(Err(error)) => match send_progress.state() {
                SendState::Withheld => Outcome::Withheld,
                SendState::Late => answer::time_up(),
                SendState::Waiting | SendState::Sent => answer::broken(error),
            },
            Err(TimeUp) => answer::time_up(),
        };
        (outcome, AttemptReceipt::default())
    }

    /// Gets the record's `ETag` from the target.
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
    /// If the update names an unknown target: a fault of ours, since routes and targets come from the same config.
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

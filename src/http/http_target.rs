//! One target: its connections, its requests, and what its answers mean.

use std::sync::Arc;

use bytes::Bytes;
use http::{Request, Response};
use hyper::body::Incoming;
use hyper_util::client::legacy::Error;
use hyper_util::client::legacy::connect::capture_connection;
use rustls::client::danger::ServerCertVerifier;

use super::auth::Authenticator;
use super::conditional::{FETCHES_MAX, FirstStep, Precondition, asks_for_etag, first, name_weak_etag};
use super::connect::{Connector, Names};
use super::deadline::{Deadline, TimeUp};
use super::error::TargetsFault;
use super::gate::GatedBody;
use super::renewed_client::RenewedClient;
use super::request::RequestTemplate;
use super::send_guard::Withheld;
use super::tls;
use super::{Attempt, AttemptEnd, AttemptReceipt, SendGuard, answer};
use crate::config::TargetConfig;
use lanekeeper_core::outcome::{Cause, Failure, Outcome};
use lanekeeper_core::policy::FailurePolicy;

/// A target. It shares no connection and no setting with others, not even with those of the same host.
#[derive(Debug)]
pub(super) struct HttpTarget {
    pub(super) config: TargetConfig,
    client: Arc<RenewedClient>,
    auth: Arc<Authenticator>,
    template: RequestTemplate,
    /// If it answers that the record has changed (412), its `ETag` is fetched and the update sent again.
    refetch: bool,
}

impl HttpTarget {
    /// `before`: the same target with its config of before.
    pub(super) fn new(
        config: &TargetConfig,
        trust: &Arc<dyn ServerCertVerifier>,
        names: &Names,
        before: Option<&Self>,
    ) -> Result<Self, TargetsFault> {
        let client = before.filter(|before| before.config.connects_like(config));
        let client = client.map_or_else(
            || {
                let connector = Connector::new(config, tls::client_config(trust), Arc::clone(names));
                Arc::new(RenewedClient::new(connector, config.connection_age_max))
            },
            |before| Arc::clone(&before.client),
        );
        let auth = match before.filter(|before| before.config.auth == config.auth) {
            Some(before) => Arc::clone(&before.auth),
            None => Arc::new(Authenticator::new(&config.auth)),
        };
        let template = RequestTemplate::new(config)?;
        let refetch = config.failure.conflict == FailurePolicy::Refetch;
        Ok(Self { config: config.clone(), client, auth, template, refetch })
    }

    /// Makes the requests of an attempt.
    pub(super) async fn send(&self, attempt: &Attempt) -> AttemptEnd {
        let mut deadline = Deadline::new(self.config.connect_timeout, self.config.timeout);
        let mut next = first(attempt, self.template.if_match, self.template.first_contact);
        let (mut fetches, mut renewed) = (0, false);
        loop {
            let precondition = match next {
                FirstStep::Send(precondition) => precondition,
                FirstStep::Fetch => match self.fetch(attempt, &mut deadline).await {
                    Ok(precondition) => precondition,
                    Err(ended) => return ended,
                },
            };
            let ended = self.request(attempt, &precondition, &mut deadline).await;
            if !renewed && is_unauthorized(&ended.0) && self.auth.renew().await {
                renewed = true;
                next = FirstStep::Send(precondition);
                continue;
            }
            if fetches == FETCHES_MAX || !asks_for_etag(&ended.0, self.refetch) {
                return ended;
            }
            fetches += 1;
            next = FirstStep::Fetch;
        }
    }

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
        let mut request = match self.template.request(attempt, precondition) {
            Ok(request) => request,
            Err(detail) => return unsendable(detail),
        };
        if let Err(outcome) = self.auth.authorize(request.headers_mut()).await {
            return (outcome, AttemptReceipt::default());
        }
        let response = match self.exchange(request, &attempt.send_guard, deadline).await {
            Ok(response) => response,
            Err(outcome) => return (outcome, AttemptReceipt::default()),
        };
        let mut receipt = answer::receipt_of(&response, &self.config.outcomes);
        let judged = answer::judge(response, &self.config, true, deadline).await;
        receipt.of_target |= judged.row.is_some();
        (name_weak_etag(judged.outcome, precondition), receipt)
    }

    /// Gets the record's `ETag` from the target.
    async fn fetch(&self, attempt: &Attempt, deadline: &mut Deadline) -> Result<Precondition, AttemptEnd> {
        let mut request = self.template.fetch(&attempt.update).map_err(unsendable)?;
        let authorized = self.auth.authorize(request.headers_mut()).await;
        authorized.map_err(|outcome| (outcome, AttemptReceipt::default()))?;
        let exchanged = self.exchange(request, &attempt.send_guard, deadline).await;
        let response = exchanged.map_err(|outcome| (outcome, AttemptReceipt::default()))?;
        let receipt = answer::receipt_of(&response, &self.config.outcomes);
        match (receipt.status, &receipt.etag) {
            (404 | 410, _) => Ok(Precondition::Absent),
            (200..=299, Some(etag)) => Ok(Precondition::Match(etag.as_str().into())),
            (200..=299, None) => Ok(Precondition::None),
            _ => Err((answer::judge(response, &self.config, false, deadline).await.outcome, receipt)),
        }
    }
}

fn unsendable(detail: String) -> AttemptEnd {
    (Outcome::Rejected(Failure { cause: Cause::Unsendable, detail }), AttemptReceipt::default())
}

/// The target does not accept who we are.
fn is_unauthorized(outcome: &Outcome) -> bool {
    matches!(outcome, Outcome::Refused(Failure { cause: Cause::Status(401), .. }))
}

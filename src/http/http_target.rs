//! One target: its connections, its requests, and what its answers mean.

use std::sync::Arc;
use std::time::SystemTime;

use rustls::client::danger::ServerCertVerifier;

use super::auth::{Authenticator, Credential, Renewal};
use super::conditional::{FETCHES_MAX, FirstStep, Precondition, asks_for_etag, first, name_weak_etag};
use super::connect::{Connector, Names};
use super::deadline::Deadline;
use super::error::TargetsFault;
use super::exchange::exchange;
use super::renewed_client::RenewedClient;
use super::request::RequestTemplate;
use super::shape::RequestShape;
use super::signature::Signer;
use super::tls;
use super::{Attempt, AttemptEnd, AttemptReceipt, answer};
use crate::config::TargetConfig;
use lanekeeper_core::outcome::{Cause, Failure, Outcome};
use lanekeeper_core::policy::FailurePolicy;

/// A target. It shares no connection and no setting with others, not even with those of the same host.
#[derive(Debug)]
pub(super) struct HttpTarget {
    pub(super) config: TargetConfig,
    client: Arc<RenewedClient>,
    auth: Authenticator,
    signer: Signer,
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
        let connector = || Connector::new(config, tls::client_config(&config.tls, trust), Arc::clone(names));
        let client = before.filter(|before| before.config.connects_like(config));
        let client = client.map_or_else(
            || Arc::new(RenewedClient::new(connector(), config.connection_age_max)),
            |before| Arc::clone(&before.client),
        );
        let same = before.filter(|before| before.config.auth == config.auth).map(|before| &before.auth);
        let to_token_server = || {
            let tls = tls::token_server_config(&config.tls, trust);
            Connector::to_token_server(config, tls, Arc::clone(names))
        };
        let auth = Authenticator::new(&config.auth, &config.name, to_token_server, same);
        let signer = Signer::new(&config.signature);
        let template = RequestTemplate::new(config)?;
        let refetch = config.failure.conflict == FailurePolicy::Refetch;
        Ok(Self { config: config.clone(), client, auth, signer, template, refetch })
    }

    /// What requests with updates of this type are, for traces.
    pub(super) fn shape(&self, update_type: Option<&str>) -> Arc<RequestShape> {
        self.template.shape(update_type)
    }

    /// Makes the requests of an attempt.
    pub(super) async fn send(&self, attempt: &Attempt) -> AttemptEnd {
        let mut deadline = Deadline::new(self.config.connect_timeout, self.config.timeout);
        let mut next = first(attempt, self.template.if_match, self.template.first_contact);
        let (mut fetches, mut renewed) = (0, false);
        loop {
            let mut credential = Credential::Fixed;
            let ended = match &next {
                FirstStep::Send(precondition) => {
                    self.request(attempt, precondition, &mut deadline, &mut credential).await
                }
                FirstStep::Fetch => match self.fetch(attempt, &mut deadline, &mut credential).await {
                    Ok(precondition) => {
                        next = FirstStep::Send(precondition);
                        continue;
                    }
                    Err(ended) => ended,
                },
            };
            if ended.1.status == 401 && ended.0 != Outcome::Applied && !renewed {
                match self.auth.renew(&credential, &mut deadline).await {
                    Renewal::Renewed => {
                        renewed = true;
                        continue;
                    }
                    Renewal::Unchanged => {}
                    Renewal::Failed(outcome) => return (outcome, ended.1),
                }
            }
            if ended.0 == Outcome::Applied {
                self.auth.accepted(&credential);
            }
            let fetched = matches!(next, FirstStep::Fetch);
            if fetched || fetches == FETCHES_MAX || !asks_for_etag(&ended.0, self.refetch) {
                return ended;
            }
            fetches += 1;
            next = FirstStep::Fetch;
        }
    }

    /// Sends one request with the update.
    async fn request(
        &self,
        attempt: &Attempt,
        precondition: &Precondition,
        deadline: &mut Deadline,
        credential: &mut Credential,
    ) -> AttemptEnd {
        let mut request = match self.template.request(attempt, precondition) {
            Ok(request) => request,
            Err(detail) => return unsendable(detail),
        };
        match self.auth.authorize(request.headers_mut(), deadline).await {
            Ok(carried) => *credential = carried,
            Err(outcome) => return (outcome, AttemptReceipt::default()),
        }
        if let Err(detail) = self.signer.sign(&mut request, attempt.update.id.as_str(), SystemTime::now()) {
            return unsendable(detail);
        }
        let response = match exchange(&self.client, request, &attempt.send_guard, deadline).await {
            Ok(response) => response,
            Err(outcome) => return (outcome, AttemptReceipt::default()),
        };
        let mut receipt = answer::receipt_of(&response, &self.config.outcomes);
        let judged = answer::judge(response, &self.config, true, deadline).await;
        receipt.of_target |= judged.row.is_some();
        (name_weak_etag(judged.outcome, precondition), receipt)
    }

    /// Gets the record's `ETag` from the target.
    async fn fetch(
        &self,
        attempt: &Attempt,
        deadline: &mut Deadline,
        credential: &mut Credential,
    ) -> Result<Precondition, AttemptEnd> {
        let unsent = |outcome| (outcome, AttemptReceipt::default());
        let mut request = self.template.fetch(attempt).map_err(unsendable)?;
        *credential = self.auth.authorize(request.headers_mut(), deadline).await.map_err(unsent)?;
        let signed = self.signer.sign(&mut request, attempt.update.id.as_str(), SystemTime::now());
        signed.map_err(unsendable)?;
        let exchanged = exchange(&self.client, request, &attempt.send_guard, deadline).await;
        let response = exchanged.map_err(unsent)?;
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

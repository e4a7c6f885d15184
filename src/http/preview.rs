//! What would be sent, and what an answer would mean: without a connection, by the code that sends.

use bytes::Bytes;
use http::{HeaderMap, Request};

use super::Attempt;
use super::conditional::{FirstStep, Precondition, first};
use super::error::TargetsFault;
use super::judge::{Answer, BodyEnd, judge};
use super::request::RequestTemplate;
use crate::config::TargetConfig;
use lanekeeper_core::outcome::Outcome;
use lanekeeper_core::routes::TargetId;

/// The targets of a config.
#[derive(Debug)]
pub struct Previews(Vec<(TargetConfig, RequestTemplate)>);

/// A request that an update would become.
#[derive(Debug)]
pub struct Preview {
    /// With its headers; those that may be secret are marked as sensitive.
    pub request: Request<Bytes>,
    /// First the record's `ETag` would be fetched, and the request sent with it in `If-Match`.
    pub fetches_etag: bool,
}

impl Previews {
    /// Opens nothing.
    ///
    /// # Errors
    /// A setting is not valid in HTTP.
    pub fn new(targets: &[TargetConfig]) -> Result<Self, TargetsFault> {
        let targets = targets.iter().map(|config| Ok((config.clone(), RequestTemplate::new(config)?)));
        Ok(Self(targets.collect::<Result<_, _>>()?))
    }

    /// The name of a target.
    ///
    /// # Panics
    /// As [`Self::request`].
    #[must_use]
    pub fn name(&self, target: TargetId) -> &str {
        &self.0[target.0].0.name
    }

    /// The request of an attempt.
    ///
    /// # Errors
    /// Why the update cannot be sent, in words: it would be rejected.
    ///
    /// # Panics
    /// If the update was routed by another config.
    pub fn request(&self, attempt: &Attempt) -> Result<Preview, String> {
        let (_, template) = &self.0[attempt.update.target.0];
        let (precondition, fetches_etag) = match first(attempt, template.if_match, template.first_contact) {
            FirstStep::Send(precondition) => (precondition, false),
            FirstStep::Fetch => (Precondition::None, true),
        };
        Ok(Preview { request: template.request(attempt, &precondition)?, fetches_etag })
    }

    /// What a complete answer would mean, before the breaker and the pacer have a say.
    ///
    /// # Panics
    /// As [`Self::request`].
    #[must_use]
    pub fn judge(&self, target: TargetId, status: u16, headers: &HeaderMap, body: &[u8]) -> Outcome {
        judge(&self.0[target.0].0, &Answer { status, headers, body, end: BodyEnd::Complete }).outcome
    }
}

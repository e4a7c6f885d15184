//! What would be sent, and what an answer would mean: without a connection, by the code that sends.

use std::time::SystemTime;

use bytes::Bytes;
use http::Request;
use http::header::{AUTHORIZATION, HeaderMap, HeaderValue};

use super::Attempt;
use super::auth::fixed_header;
use super::conditional::{FirstStep, Precondition, first};
use super::error::TargetsFault;
use super::judge::{Answer, BodyEnd, judge};
use super::request::RequestTemplate;
use super::signature::Signer;
use crate::config::TargetConfig;
use lanekeeper_core::outcome::Outcome;
use lanekeeper_core::routes::TargetId;

/// The targets of a config.
#[derive(Debug)]
pub struct Previews(Vec<Previewed>);

#[derive(Debug)]
struct Previewed {
    config: TargetConfig,
    template: RequestTemplate,
    signer: Signer,
}

/// What stands for the token that a token server would give.
const TOKEN: HeaderValue = HeaderValue::from_static("Bearer");

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
        let targets = targets.iter().map(|config| {
            let (template, signer) = (RequestTemplate::new(config)?, Signer::new(&config.signature));
            Ok(Previewed { config: config.clone(), template, signer })
        });
        Ok(Self(targets.collect::<Result<_, _>>()?))
    }

    /// The name of a target.
    ///
    /// # Panics
    /// As [`Self::request`].
    #[must_use]
    pub fn name(&self, target: TargetId) -> &str {
        &self.0[target.0].config.name
    }

    /// The request of an attempt, signed as of now. Nobody is asked for a token.
    ///
    /// # Errors
    /// Why the update cannot be sent, in words: it would be rejected.
    ///
    /// # Panics
    /// If the update was routed by another config.
    pub fn request(&self, attempt: &Attempt) -> Result<Preview, String> {
        let Previewed { config, template, signer } = &self.0[attempt.update.target.0];
        let (precondition, fetches_etag) = match first(attempt, template.if_match, template.first_contact) {
            FirstStep::Send(precondition) => (precondition, false),
            FirstStep::Fetch => (Precondition::None, true),
        };
        let mut request = template.request(attempt, &precondition)?;
        if let Some((name, value)) = fixed_header(&config.auth) {
            request.headers_mut().insert(name, value);
        } else if config.auth.header_name().is_some() {
            let mut token = TOKEN;
            token.set_sensitive(true);
            request.headers_mut().insert(AUTHORIZATION, token);
        }
        signer.sign(&mut request, attempt.update.id.as_str(), SystemTime::now())?;
        Ok(Preview { request, fetches_etag })
    }

    /// What a complete answer would mean, before the breaker and the pacer have a say.
    ///
    /// # Panics
    /// As [`Self::request`].
    #[must_use]
    pub fn judge(&self, target: TargetId, status: u16, headers: &HeaderMap, body: &[u8]) -> Outcome {
        judge(&self.0[target.0].config, &Answer { status, headers, body, end: BodyEnd::Complete }).outcome
    }
}

//! What would be sent, and what an answer would mean: without a connection, by the code that sends.

use std::collections::BTreeMap;
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
use crate::config::{OnConfig, Shown, TargetConfig};
use lanekeeper_core::outcome::Outcome;
use lanekeeper_core::routes::TargetId;
use lanekeeper_core::secret::MASK;
use lanekeeper_core::template::{PLACEHOLDER, encode_record_key};
use lanekeeper_core::update::Update;

/// The targets of a config.
#[derive(Debug)]
pub struct Previews {
    targets: Vec<Previewed>,
    /// URLs with what may be a secret masked, by the section that they are in; only those that have something to mask.
    masked_urls: BTreeMap<String, String>,
}

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
    /// Its URL as it may be shown: with what may be a secret masked, as `lanekeeper check` shows it.
    pub shown_url: String,
    /// First the record's `ETag` would be fetched, and the request sent with it in `If-Match`.
    pub fetches_etag: bool,
}

impl Previews {
    /// Opens nothing. `shown`: the keys of the config as they may be shown.
    ///
    /// # Errors
    /// A setting is not valid in HTTP.
    pub fn new(targets: &[TargetConfig], shown: &[Shown]) -> Result<Self, TargetsFault> {
        let targets = targets.iter().map(|config| {
            let (template, signer) = (RequestTemplate::new(config)?, Signer::new(&config.signature));
            Ok(Previewed { config: config.clone(), template, signer })
        });
        let urls = shown.iter().filter(|shown| shown.key == "url");
        let urls = urls.filter_map(|shown| Some((shown.section.clone(), shown.value.as_str()?.to_owned())));
        let masked_urls = urls.filter(|(_, url)| url.contains(MASK)).collect();
        Ok(Self { targets: targets.collect::<Result<_, _>>()?, masked_urls })
    }

    /// The name of a target.
    ///
    /// # Panics
    /// As [`Self::request`].
    #[must_use]
    pub fn name(&self, target: TargetId) -> &str {
        &self.targets[target.0].config.name
    }

    /// The request of an attempt, signed as of now. Nobody is asked for a token.
    ///
    /// # Errors
    /// Why the update cannot be sent, in words: it would be rejected.
    ///
    /// # Panics
    /// If the update was routed by another config.
    pub fn request(&self, attempt: &Attempt) -> Result<Preview, String> {
        let Previewed { config, template, signer } = &self.targets[attempt.update.target.0];
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
        let shown_url = self.masked_url(&attempt.update).unwrap_or_else(|| request.uri().to_string());
        Ok(Preview { request, shown_url, fetches_etag })
    }

    /// `None`: the URL has nothing to mask.
    fn masked_url(&self, update: &Update) -> Option<String> {
        let (target, on) = (update.target.0, &self.targets[update.target.0].config.on);
        let is_of = |row: &OnConfig| row.types.iter().any(|t| t.matches(update.update_type.as_deref()));
        let section = match on.iter().position(is_of).filter(|row| on[*row].url.is_some()) {
            Some(row) => format!("target[{target}].on[{row}]"),
            None => format!("target[{target}]"),
        };
        let masked = self.masked_urls.get(&section)?;
        Some(masked.replace(PLACEHOLDER, &encode_record_key(&update.record_key)))
    }

    /// What a complete answer would mean, before the breaker and the pacer have a say.
    ///
    /// # Panics
    /// As [`Self::request`].
    #[must_use]
    pub fn judge(&self, target: TargetId, status: u16, headers: &HeaderMap, body: &[u8]) -> Outcome {
        judge(&self.targets[target.0].config, &Answer { status, headers, body, end: BodyEnd::Complete })
            .outcome
    }
}

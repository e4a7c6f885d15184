//! What would be sent, and what an answer would mean: without a connection, by the code that sends.

use std::collections::BTreeMap;
use std::time::SystemTime;

use bytes::Bytes;
use http::header::{AUTHORIZATION, HeaderMap, HeaderValue};
use http::{Request, Uri};

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
use lanekeeper_core::update::Update;

/// The targets of a config.
#[derive(Debug)]
pub struct Previews {
    targets: Vec<Previewed>,
    /// URLs as `lanekeeper check` shows them, by the section that they are in.
    urls: BTreeMap<String, String>,
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
        Ok(Self { targets: targets.collect::<Result<_, _>>()?, urls: urls.collect() })
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
        let shown_url = masked(request.uri(), self.url(&attempt.update));
        Ok(Preview { request, shown_url, fetches_etag })
    }

    /// The URL for such updates, as `lanekeeper check` shows it.
    fn url(&self, update: &Update) -> &str {
        let (target, on) = (update.target.0, &self.targets[update.target.0].config.on);
        let is_of = |row: &OnConfig| row.types.iter().any(|t| t.matches(update.update_type.as_deref()));
        let section = match on.iter().position(is_of).filter(|row| on[*row].url.is_some()) {
            Some(row) => format!("target[{target}].on[{row}]"),
            None => format!("target[{target}]"),
        };
        self.urls.get(&section).map_or(MASK, String::as_str)
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

/// A URL with what is masked in the config's: segments of the path, and values of the query. A value that the config's URL
/// does not have may be a secret, too.
fn masked(url: &Uri, of_config: &str) -> String {
    let Some((_, of_config)) = of_config.split_once("://") else { return MASK.to_owned() };
    let (location, query) = of_config.split_once('?').unwrap_or((of_config, ""));
    let (authority, path) = location.split_at(location.find('/').unwrap_or(location.len()));
    let (segments, found): (Vec<_>, Vec<_>) = (path.split('/').collect(), url.path().split('/').collect());
    let is_shown = |config: &str| !config.contains(MASK);
    let path = if path.is_empty() || segments.iter().all(|segment| is_shown(segment)) {
        url.path().to_owned()
    } else if segments.len() == found.len() {
        let each = segments.iter().zip(found);
        each.map(|(config, found)| if is_shown(config) { found } else { MASK }).collect::<Vec<_>>().join("/")
    } else {
        format!("/{MASK}")
    };
    let parameters = url.query().into_iter().flat_map(|found| found.split('&'));
    let parameters = parameters.map(|found| match found.split_once('=') {
        Some((_, "")) => found.to_owned(),
        _ if query.split('&').any(|config| config == found) => found.to_owned(),
        Some((name, _)) => format!("{name}={MASK}"),
        None => MASK.to_owned(),
    });
    let query = parameters.collect::<Vec<_>>().join("&");
    let scheme = url.scheme_str().unwrap_or_default();
    let host = url.authority().filter(|_| is_shown(authority)).map_or(MASK, |authority| authority.as_str());
    let mark = if url.query().is_some() { "?" } else { "" };
    format!("{scheme}://{host}{path}{mark}{query}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_masked_in_the_config_is_masked_in_a_request() {
        let check = |url: &str, of_config: &str, expected: &str| {
            assert_eq!(masked(&url.parse().unwrap(), of_config), expected);
        };
        check("http://h/a/k%2F1", "http://h/a/{record_key}", "http://h/a/k%2F1");
        check("http://h/s3cret/k", "http://h/***/{record_key}", "http://h/***/k");
        check("http://h/s3cret/x/k", "http://h/***/{record_key}", "http://h/***");
        check("http://h/k?key=s3cret&x=", "http://h/{record_key}?key=***&x=", "http://h/k?key=***&x=");
        check("http://h/k?s3cret&of=query", "http://h/{record_key}?***", "http://h/k?***&of=***");
        check("http://s3cret.example/k", "http://***/{record_key}", "http://***/k");
        check("http://s3cret.example/s3cret", "***", "***");
    }
}

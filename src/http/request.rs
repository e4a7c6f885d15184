//! Builds the requests of a target. What is the same for every attempt is prepared once.

use bytes::Bytes;
use http::header::{
    ACCEPT, CONTENT_ENCODING, CONTENT_TYPE, Entry, HeaderMap, HeaderName, HeaderValue, IF_MATCH,
    IF_NONE_MATCH, USER_AGENT,
};
use http::{Method, Request, Uri};

use super::Attempt;
use super::conditional::Precondition;
use super::error::TargetsFault;
use crate::config::{FirstContact, IdempotencyKeyStyle, IfMatch, OnConfig, TargetConfig};
use lanekeeper_core::routes::TypePattern;
use lanekeeper_core::template::{UrlTemplate, encode_record_key};
use lanekeeper_core::update::Update;

const RECORD_KEY: HeaderName = HeaderName::from_static("lanekeeper-record-key");
const RECORD_VERSION: HeaderName = HeaderName::from_static("record-version");
const UPDATE_ID: HeaderName = HeaderName::from_static("lanekeeper-update-id");
const ATTEMPT: HeaderName = HeaderName::from_static("lanekeeper-attempt");
const TENURE: HeaderName = HeaderName::from_static("lanekeeper-tenure");

/// Sent unless the target's headers set others.
const DEFAULT_HEADERS: [(HeaderName, HeaderValue); 2] = [
    (ACCEPT, HeaderValue::from_static("*/*")),
    (USER_AGENT, HeaderValue::from_static(concat!("lanekeeper/", env!("CARGO_PKG_VERSION")))),
];

/// Prefix of header names that only Lanekeeper sets.
const OURS: &str = "lanekeeper-";

/// Headers that frame the request or belong to one connection (RFC 9110, section 7.6.1). Only the HTTP client sets them.
const FRAMING: [&str; 10] = [
    "connection",
    "content-length",
    "expect",
    "keep-alive",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "host",
];

/// What is the same for all requests with updates of some types.
#[derive(Debug)]
struct Parts {
    method: Method,
    url: UrlTemplate,
    /// `headers` of the config, and the default ones.
    headers: HeaderMap,
}

/// The fixed parts of a target's requests.
#[derive(Debug)]
pub(super) struct RequestTemplate {
    own: Parts,
    /// For updates of these types instead of `own`; the first match counts.
    on: Vec<(Vec<TypePattern>, Parts)>,
    idempotency: Option<(HeaderName, IdempotencyKeyStyle)>,
    pub(super) if_match: IfMatch,
    pub(super) first_contact: FirstContact,
}

impl Parts {
    /// Of a target's own keys, with those of `row` instead where it has them.
    fn new(target: &TargetConfig, row: Option<&OnConfig>) -> Result<Self, TargetsFault> {
        let mut headers = HeaderMap::with_capacity(16);
        for (name, value) in target.headers.iter().chain(row.into_iter().flat_map(|row| &row.headers)) {
            let unfit = || unfit_header(target, name);
            let mut value = HeaderValue::from_str(value.reveal()).map_err(|_| unfit())?;
            value.set_sensitive(true);
            headers.insert(header_name(name).ok_or_else(unfit)?, value);
        }
        for (name, value) in DEFAULT_HEADERS {
            headers.entry(name).or_insert(value);
        }
        let method = row.and_then(|row| row.method.as_ref()).unwrap_or(&target.method);
        let method = Method::from_bytes(method.as_bytes())
            .map_err(|_| TargetsFault::Method { target: target.name.clone(), method: method.clone() })?;
        let url = row.and_then(|row| row.url.as_ref()).unwrap_or(&target.url).clone();
        Ok(Self { method, url, headers })
    }

    fn url(&self, record_key: &str) -> Result<Uri, String> {
        let url = self.url.expand_encoded(record_key).map_err(|fault| fault.to_string())?;
        Uri::try_from(url.as_str())
            .map_err(|fault| format!("its URL is not valid in HTTP ({fault}); nothing was sent"))
    }
}

/// `None`: the name is not valid in HTTP, or the config may not set it.
fn header_name(name: &str) -> Option<HeaderName> {
    let name = HeaderName::from_bytes(name.as_bytes()).ok()?;
    (!name.as_str().starts_with(OURS) && !is_framing(&name)).then_some(name)
}

fn unfit_header(target: &TargetConfig, name: &str) -> TargetsFault {
    TargetsFault::Header { target: target.name.clone(), name: name.to_owned() }
}

impl RequestTemplate {
    pub(super) fn new(target: &TargetConfig) -> Result<Self, TargetsFault> {
        let idempotency = match target.idempotency_key {
            IdempotencyKeyStyle::Off => None,
            style => {
                let name = header_name(&target.idempotency_header);
                Some((name.ok_or_else(|| unfit_header(target, &target.idempotency_header))?, style))
            }
        };
        let on = target.on.iter().map(|row| Ok((row.types.clone(), Parts::new(target, Some(row))?)));
        Ok(Self {
            own: Parts::new(target, None)?,
            on: on.collect::<Result<_, _>>()?,
            idempotency,
            if_match: target.if_match,
            first_contact: target.first_contact,
        })
    }

    /// The parts for an update of this type.
    fn parts(&self, update_type: Option<&str>) -> &Parts {
        let matches = |(types, _): &&(Vec<TypePattern>, _)| types.iter().any(|t| t.matches(update_type));
        self.on.iter().find(matches).map_or(&self.own, |(_, parts)| parts)
    }

    /// A GET request for the record, to the target's own URL.
    ///
    /// # Errors
    /// As for [`Self::request`].
    pub(super) fn fetch(&self, update: &Update) -> Result<Request<Bytes>, String> {
        let url = self.own.url(&encode_record_key(&update.record_key))?;
        Ok(request(Method::GET, url, self.own.headers.clone(), Bytes::new()))
    }

    /// The request of an attempt.
    ///
    /// # Errors
    /// Why the update cannot be sent, in words. Most such updates are refused as malformed earlier.
    pub(super) fn request(
        &self,
        attempt: &Attempt,
        precondition: &Precondition,
    ) -> Result<Request<Bytes>, String> {
        let record_key = encode_record_key(&attempt.update.record_key);
        let parts = self.parts(attempt.update.update_type.as_deref());
        let url = parts.url(&record_key)?;
        let headers = self
            .headers(parts, attempt, precondition, &record_key)
            .map_err(|name| format!("the value of header {name} is not valid in HTTP; nothing was sent"))?;
        Ok(request(parts.method.clone(), url, headers, attempt.update.body.clone()))
    }

    /// The config's headers take precedence over the update's, and ours over both.
    fn headers(
        &self,
        parts: &Parts,
        attempt: &Attempt,
        precondition: &Precondition,
        record_key: &str,
    ) -> Result<HeaderMap, HeaderName> {
        let update = &*attempt.update;
        let mut headers = parts.headers.clone();
        for (name, value) in update_headers(update) {
            if let Entry::Vacant(entry) = headers.entry(&name) {
                entry.insert(value_of(&name, value)?);
            }
        }
        match precondition {
            Precondition::None => {}
            Precondition::Match(etag) => drop(headers.insert(IF_MATCH, value_of(&IF_MATCH, etag)?)),
            Precondition::Absent => drop(headers.insert(IF_NONE_MATCH, HeaderValue::from_static("*"))),
        }
        let id = update.id.as_str();
        if let Some((name, style)) = &self.idempotency {
            let value = match style {
                IdempotencyKeyStyle::Quoted => value_of(name, &quoted(id))?,
                IdempotencyKeyStyle::Bare | IdempotencyKeyStyle::Off => value_of(name, id)?,
            };
            headers.insert(name.clone(), value);
        }
        if let Some(version) = update.version {
            headers.insert(RECORD_VERSION, HeaderValue::from(version));
        }
        headers.insert(RECORD_KEY, value_of(&RECORD_KEY, record_key)?);
        headers.insert(UPDATE_ID, value_of(&UPDATE_ID, id)?);
        headers.insert(ATTEMPT, HeaderValue::from(attempt.number));
        if let Some(tenure) = attempt.tenure {
            headers.insert(TENURE, HeaderValue::from(tenure));
        }
        Ok(headers)
    }
}

fn request(method: Method, url: Uri, headers: HeaderMap, body: Bytes) -> Request<Bytes> {
    let mut request = Request::new(body);
    *request.method_mut() = method;
    *request.uri_mut() = url;
    *request.headers_mut() = headers;
    request
}

/// The publisher's headers. A name that a publisher may not set is left out; decoding a delivery has refused it already.
fn update_headers(update: &Update) -> impl Iterator<Item = (HeaderName, &str)> {
    let typed = [
        (CONTENT_TYPE, update.content_type.as_deref()),
        (CONTENT_ENCODING, update.content_encoding.as_deref()),
    ];
    let typed = typed.into_iter().filter_map(|(name, value)| Some((name, value?)));
    let further = update.headers.iter().filter_map(|(name, value)| {
        let name = HeaderName::from_bytes(name.as_bytes()).ok()?;
        (!is_framing(&name) && !name.as_str().starts_with(OURS)).then_some((name, value.as_str()))
    });
    typed.chain(further)
}

fn is_framing(name: &HeaderName) -> bool {
    FRAMING.contains(&name.as_str())
}

fn value_of(name: &HeaderName, value: &str) -> Result<HeaderValue, HeaderName> {
    // Only visible ASCII, space and tab: all servers read these in the same way (RFC 9110, section 5.5).
    if value.bytes().any(|byte| !matches!(byte, b'\t' | b' '..=b'~')) {
        return Err(name.clone());
    }
    HeaderValue::from_str(value).map_err(|_| name.clone())
}

/// A String as in RFC 9651, section 3.3.3.
fn quoted(text: &str) -> String {
    let mut quoted = String::with_capacity(text.len() + 2);
    quoted.push('"');
    for c in text.chars() {
        if matches!(c, '"' | '\\') {
            quoted.push('\\');
        }
        quoted.push(c);
    }
    quoted.push('"');
    quoted
}

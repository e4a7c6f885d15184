//! Builds the requests of a target. What is the same for every attempt is prepared once.

use std::sync::Arc;

use bytes::Bytes;
use http::header::{
    CONTENT_ENCODING, CONTENT_TYPE, Entry, HeaderMap, HeaderName, HeaderValue, IF_MATCH, IF_NONE_MATCH,
};
use http::{Method, Request, Uri};

use super::Attempt;
use super::conditional::Precondition;
use super::error::TargetsFault;
use super::parts::{Made, Parts, unfit_value};
use super::record_keys::RecordKeys;
use super::shape::RequestShape;
use crate::config::{Content, FirstContact, IdempotencyKeyStyle, IfMatch, TargetConfig};
use lanekeeper_core::routes::TypePattern;
use lanekeeper_core::template::encode_record_key;
use lanekeeper_core::update::Update;

const RECORD_KEY: HeaderName = HeaderName::from_static("lanekeeper-record-key");
const RECORD_VERSION: HeaderName = HeaderName::from_static("record-version");
const UPDATE_ID: HeaderName = HeaderName::from_static("lanekeeper-update-id");
const ATTEMPT: HeaderName = HeaderName::from_static("lanekeeper-attempt");
const TENURE: HeaderName = HeaderName::from_static("lanekeeper-tenure");
/// As SQS numbers it; decoding a message puts it among the headers of the update, and no publisher can.
const SEQUENCE: HeaderName = HeaderName::from_static("lanekeeper-sequence");

/// W3C Trace Context.
const TRACE: [HeaderName; 2] =
    [HeaderName::from_static("traceparent"), HeaderName::from_static("tracestate")];

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

/// The fixed parts of a target's requests.
#[derive(Debug)]
pub(super) struct RequestTemplate {
    own: Parts,
    /// For updates of these types instead of `own`; the first match counts.
    on: Vec<(Vec<TypePattern>, Parts)>,
    record_keys: RecordKeys,
    content: Content,
    idempotency: Option<(HeaderName, IdempotencyKeyStyle)>,
    pub(super) if_match: IfMatch,
    pub(super) first_contact: FirstContact,
}

/// `None`: the name is not valid in HTTP, or the config may not set it.
pub(super) fn header_name(name: &str) -> Option<HeaderName> {
    let name = HeaderName::from_bytes(name.as_bytes()).ok()?;
    (!name.as_str().starts_with(OURS) && !is_framing(&name)).then_some(name)
}

pub(super) fn unfit_header(target: &TargetConfig, name: &str) -> TargetsFault {
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
            record_keys: RecordKeys::new(target),
            content: target.content,
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

    /// What requests with updates of this type are, for traces.
    pub(super) fn shape(&self, update_type: Option<&str>) -> Arc<RequestShape> {
        Arc::clone(&self.parts(update_type).shape)
    }

    /// A GET request for the record, to the target's own URL.
    ///
    /// # Errors
    /// As for [`Self::request`].
    pub(super) fn fetch(&self, attempt: &Attempt) -> Result<Request<Bytes>, String> {
        self.record_keys.check(&attempt.update, self.own.has_key_in_path())?;
        let mut made = Made::new(attempt);
        let url = self.own.url(&encode_record_key(&attempt.update.record_key), &mut made)?;
        let mut headers = self.own.headers(&mut made)?;
        add_trace(&mut headers, attempt);
        Ok(request(Method::GET, url, headers, Bytes::new()))
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
        self.record_keys.check(&attempt.update, parts.has_key_in_path())?;
        let mut made = Made::new(attempt);
        let url = parts.url(&record_key, &mut made)?;
        let headers = parts.headers(&mut made)?;
        let as_published = parts.has_body_as_published();
        let headers = self
            .headers(headers, as_published, attempt, precondition, &record_key)
            .map_err(|name| unfit_value(&name))?;
        Ok(request(parts.method.clone(), url, headers, parts.body(&mut made)?))
    }

    /// The config's headers, which are `headers`, take precedence over the update's, and ours over both. `as_published`: the
    /// body is.
    fn headers(
        &self,
        mut headers: HeaderMap,
        as_published: bool,
        attempt: &Attempt,
        precondition: &Precondition,
        record_key: &str,
    ) -> Result<HeaderMap, HeaderName> {
        let update = &*attempt.update;
        for (name, value) in update_headers(update) {
            // Those of the attempt take their place.
            if attempt.trace.is_some() && TRACE.contains(&name) {
                continue;
            }
            // These say what the publisher's body is.
            if !as_published && (name == CONTENT_TYPE || name == CONTENT_ENCODING) {
                continue;
            }
            if let Entry::Vacant(entry) = headers.entry(&name) {
                entry.insert(value_of(&name, value)?);
            }
        }
        add_trace(&mut headers, attempt);
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
        if self.content == Content::Updates {
            headers.insert(RECORD_KEY, value_of(&RECORD_KEY, record_key)?);
            headers.insert(UPDATE_ID, value_of(&UPDATE_ID, id)?);
        }
        headers.insert(ATTEMPT, HeaderValue::from(attempt.number));
        if let Some(tenure) = attempt.tenure {
            headers.insert(TENURE, HeaderValue::from(tenure));
        }
        Ok(headers)
    }
}

/// Names the attempt's trace, unless the config's headers name one.
fn add_trace(headers: &mut HeaderMap, attempt: &Attempt) {
    let Some(trace) = &attempt.trace else { return };
    let [parent, state] = TRACE;
    if let Entry::Vacant(entry) = headers.entry(parent) {
        entry.insert(trace.traceparent.clone());
        if let Some(of_trace) = &trace.tracestate {
            headers.entry(state).or_insert_with(|| of_trace.clone());
        }
    }
}

fn request(method: Method, url: Uri, headers: HeaderMap, body: Bytes) -> Request<Bytes> {
    let mut request = Request::new(body);
    *request.method_mut() = method;
    *request.uri_mut() = url;
    *request.headers_mut() = headers;
    request
}

/// The publisher's headers, and the sequence number of SQS. A name that a publisher may not set is left out; decoding a delivery
/// has refused it already.
fn update_headers(update: &Update) -> impl Iterator<Item = (HeaderName, &str)> {
    let typed = [
        (CONTENT_TYPE, update.content_type.as_deref()),
        (CONTENT_ENCODING, update.content_encoding.as_deref()),
    ];
    let typed = typed.into_iter().filter_map(|(name, value)| Some((name, value?)));
    let further = update.headers.iter().filter_map(|(name, value)| {
        let name = HeaderName::from_bytes(name.as_bytes()).ok()?;
        let is_ours = name.as_str().starts_with(OURS) && name != SEQUENCE;
        (!is_framing(&name) && !is_ours).then_some((name, value.as_str()))
    });
    typed.chain(further)
}

fn is_framing(name: &HeaderName) -> bool {
    FRAMING.contains(&name.as_str())
}

pub(super) fn value_of(name: &HeaderName, value: &str) -> Result<HeaderValue, HeaderName> {
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

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Instant;

    use super::super::SendGuard;
    use super::*;
    use crate::config::{Environment, Purpose, load};
    use lanekeeper_core::routes::TargetId;
    use lanekeeper_core::update::{RecordKey, UpdateId};

    const REQUESTS: u32 = 2_000;

    /// Of a target with these lines.
    fn template_of(lines: &str) -> RequestTemplate {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("lk.toml");
        std::fs::write(&file, format!("[[target]]\nname = \"crm\"\ntypes = [\"*\"]\n{lines}\n")).unwrap();
        let loaded = load(Some(&file), &Environment::default(), Purpose::Dispatch).unwrap();
        RequestTemplate::new(&loaded.config.targets[0]).unwrap()
    }

    /// Microseconds for each request.
    fn cost(template: &RequestTemplate, attempt: &Attempt) -> f64 {
        let since = Instant::now();
        for _ in 0..REQUESTS {
            std::hint::black_box(template.request(attempt, &Precondition::None).unwrap());
        }
        since.elapsed().as_secs_f64() * 1e6 / f64::from(REQUESTS)
    }

    /// docs/performance.md has the figures. Of times, nothing is asserted.
    #[test]
    fn what_a_request_costs_with_and_without_templates() {
        let line = r#"{"sku": "B-4", "price": 10.10, "note": "a text of some length, as notes are"}"#;
        let body = format!(r#"{{"name": "Zoë", "lines": [{}]}}"#, [line; 10].join(","));
        let update = Update {
            record_key: RecordKey::new("customer-17").unwrap(),
            id: UpdateId::published("u-1"),
            target: TargetId(0),
            update_type: None,
            version: Some(4),
            content_type: Some("application/json".into()),
            content_encoding: None,
            if_match: None,
            published_at: Some(1_700_000_000),
            headers: Vec::new(),
            body: body.into(),
        };
        let update = Arc::new(update);
        let attempt = Attempt {
            update,
            number: 1,
            tenure: Some(1),
            etag: None,
            send_guard: SendGuard::always(),
            trace: None,
        };
        let url = "url = \"http://h/customers/{record_key}\"";
        let header = r#"headers = { x-v = "{{ version }}" }"#;
        let two = r#"body = '{"n": {{ body.name }}, "l": {{ body.lines }}}'"#;
        let each = r#"body = '[{% for l in body.lines %}{% if not loop.first %},{% endif %}{"s": {{ l.sku }}, "p": {{ l.price }}}{% endfor %}]'"#;
        for (name, lines) in [
            ("no template", url.to_owned()),
            ("a header with the version", format!("{url}\n{header}")),
            ("a segment of the URL from the body", "url = \"http://h/{{ body.name }}\"".to_owned()),
            ("a body of two members of the body", format!("{url}\n{two}")),
            ("a body with two values of each of 10 lines", format!("{url}\n{each}")),
        ] {
            let template = template_of(&lines);
            let request = template.request(&attempt, &Precondition::None).expect("it can be sent");
            let made = serde_json::from_slice::<serde_json::Value>(request.body()).expect("it is JSON");
            let lines_made = made.as_array().or(made["lines"].as_array()).or(made["l"].as_array());
            assert_eq!(lines_made.map(Vec::len), Some(10), "{name}");
            println!("{:6.1} µs  {name}, of {} bytes", cost(&template, &attempt), attempt.update.body.len());
        }
    }
}

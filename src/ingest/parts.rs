//! The parts of an update that the head of a request has: record key, id, type, version, and headers that are passed on.

use axum::http::{HeaderMap, HeaderName, header, request};
use bytes::Bytes;
use percent_encoding::percent_decode_str;
use sfv::{BareItem, Item, Parser};

use super::problem::{DoorProblem, DoorProblemCode};
use lanekeeper_broker::publisher::{HeaderValue, Outgoing, ShortText};
use lanekeeper_core::update::RecordKey;

/// The headers that may have the update id, in the order of their names in faults.
const IDS: [&str; 3] = ["idempotency-key", "webhook-id", "ce-id"];
const TYPES: [&str; 2] = ["lanekeeper-type", "ce-type"];
const VERSION: &str = "record-version";
/// Passed on as they are.
const PASSED_ON: [&str; 3] = ["if-match", "traceparent", "tracestate"];
/// Of binary `CloudEvents`.
const CLOUD_EVENTS: &str = "ce-";
pub(super) const SPEC_VERSION: &str = "1.0";

/// The head of a request, as far as it is about the update.
#[derive(Debug)]
pub(super) struct Head<'a> {
    headers: &'a HeaderMap,
    query: Vec<(String, String)>,
}

impl<'a> Head<'a> {
    pub(super) fn new(parts: &'a request::Parts) -> Self {
        let query = parts.uri.query().unwrap_or_default();
        let query = url::form_urlencoded::parse(query.as_bytes()).into_owned().collect();
        Self { headers: &parts.headers, query }
    }

    /// Returns true if it is the head of a `CloudEvent` in binary mode.
    pub(super) fn is_cloud_event(&self) -> bool {
        self.headers.contains_key("ce-specversion")
    }

    /// The record key of a binary `CloudEvent` that has none in its path.
    pub(super) fn cloud_event_key(&self) -> Result<RecordKey, DoorProblem> {
        let named =
            ["ce-partitionkey", "ce-subject"].into_iter().find(|name| self.headers.contains_key(*name));
        let Some(name) = named else {
            let detail = "name the record in the path, or in ce-partitionkey or ce-subject";
            return Err(DoorProblem::new(DoorProblemCode::NoKey, detail));
        };
        record_key(decoded(&HeaderName::from_static(name), self.headers)?)
    }

    /// The update that the request is. `id` is that of the path, which counts with those of the headers.
    pub(super) fn update(
        &self,
        record_key: RecordKey,
        id: Option<String>,
        require_id: bool,
        body: Bytes,
        now: u64,
    ) -> Result<Outgoing, DoorProblem> {
        if let Some(version) = self.text("ce-specversion")?.filter(|version| *version != SPEC_VERSION) {
            let detail = format!("ce-specversion is {version:?}: only {SPEC_VERSION} is understood");
            return Err(DoorProblem::new(DoorProblemCode::BadEvent, detail));
        }
        Ok(Outgoing {
            record_key,
            id: self.id(id, require_id)?,
            update_type: self.update_type()?.map(|text| short("the type", text)).transpose()?,
            content_type: self.own(&header::CONTENT_TYPE)?,
            content_encoding: self.own(&header::CONTENT_ENCODING)?,
            published_at: now,
            headers: self.passed_on()?,
            body,
        })
    }

    /// Content type and encoding.
    pub(super) fn content(&self) -> Result<(Option<ShortText>, Option<ShortText>), DoorProblem> {
        Ok((self.own(&header::CONTENT_TYPE)?, self.own(&header::CONTENT_ENCODING)?))
    }

    /// The type, for the check of what a client may send.
    pub(super) fn update_type(&self) -> Result<Option<String>, DoorProblem> {
        let mut found = TYPES.iter().map(|name| self.text(name)).collect::<Result<Vec<_>, _>>()?;
        found.push(self.of_query("type"));
        one_of(found, DoorProblemCode::HeaderUnfit, "lanekeeper-type, ce-type and the query's type")
    }

    fn id(&self, of_path: Option<String>, require_id: bool) -> Result<ShortText, DoorProblem> {
        let mut found = vec![of_path];
        for name in IDS {
            let id = self.text(name)?;
            found.push(if name == "idempotency-key" {
                id.map(|id| idempotency_key(&id)).transpose()?
            } else {
                id
            });
        }
        found.push(self.of_query("id"));
        let names = "the path, Idempotency-Key, webhook-id, ce-id and the query's id";
        match one_of(found, DoorProblemCode::IdUnfit, names)? {
            Some(id) => update_id(id),
            None if require_id => {
                let detail = "give the update an id, the same whenever it is sent: in Idempotency-Key, or by PUT in the path";
                Err(DoorProblem::new(DoorProblemCode::NoId, detail))
            }
            None => update_id(uuid::Uuid::new_v4().to_string()),
        }
    }

    fn passed_on(&self) -> Result<Vec<(ShortText, HeaderValue)>, DoorProblem> {
        let mut passed = Vec::new();
        if let Some(version) = self.text(VERSION)? {
            let version = version
                .parse()
                .map_err(|_| unfit(format!("{VERSION} is {version:?}, and must be an integer of 64 bits")))?;
            passed.push((name(VERSION)?, HeaderValue::Integer(version)));
        }
        for header in PASSED_ON {
            if let Some(value) = self.text(header)? {
                passed.push((name(header)?, HeaderValue::Text(value)));
            }
        }
        for header in self.headers.keys() {
            if let Some(attribute) = header.as_str().strip_prefix(CLOUD_EVENTS) {
                let value = decoded(header, self.headers)?;
                passed.push((name(&format!("cloudEvents_{attribute}"))?, HeaderValue::Text(value)));
            }
        }
        Ok(passed)
    }

    fn own(&self, header: &HeaderName) -> Result<Option<ShortText>, DoorProblem> {
        self.text(header.as_str())?.map(|value| short(header.as_str(), value)).transpose()
    }

    /// The value of a header that comes once.
    fn text(&self, header: &str) -> Result<Option<String>, DoorProblem> {
        text(header, self.headers)
    }

    fn of_query(&self, name: &str) -> Option<String> {
        self.query.iter().find(|(known, _)| known == name).map(|(_, value)| value.clone())
    }
}

/// A segment of a path, as it is written there.
pub(super) fn decoded_segment(segment: &str) -> Result<String, DoorProblem> {
    let text = percent_decode_str(segment).decode_utf8().map_err(|_| {
        DoorProblem::new(DoorProblemCode::KeyUnfit, "the path is not UTF-8 when it is percent-decoded")
    })?;
    Ok(text.into_owned())
}

/// A record key. Clients and servers take `.` and `..` for steps in the path.
pub(super) fn record_key(key: String) -> Result<RecordKey, DoorProblem> {
    if key == "." || key == ".." {
        let detail = "the record key is \".\" or \"..\", which is a step in a path";
        return Err(DoorProblem::new(DoorProblemCode::KeyUnfit, detail));
    }
    RecordKey::new(key).map_err(|fault| DoorProblem::new(DoorProblemCode::KeyUnfit, fault.to_string()))
}

/// An update id: what an AMQP `message_id` and an idempotency key can be.
pub(super) fn update_id(id: String) -> Result<ShortText, DoorProblem> {
    let is_printable = !id.is_empty() && id.bytes().all(|byte| matches!(byte, b' '..=b'~'));
    let text = ShortText::new(id).ok().filter(|_| is_printable);
    text.ok_or_else(|| {
        let detail = "an update id is 1 to 255 characters of printable ASCII";
        DoorProblem::new(DoorProblemCode::IdUnfit, detail)
    })
}

/// A Structured Field string (RFC 9651), or the id as it is.
fn idempotency_key(value: &str) -> Result<String, DoorProblem> {
    if !value.starts_with('"') {
        return Ok(value.to_owned());
    }
    if let Ok(Item { bare_item: BareItem::String(id), .. }) = Parser::new(value).parse::<Item>() {
        return Ok(id.as_str().to_owned());
    }
    let detail = "Idempotency-Key begins with a double quote, and is no string as in RFC 9651";
    Err(DoorProblem::new(DoorProblemCode::IdUnfit, detail))
}

/// The one value that is there, perhaps several times.
fn one_of(
    found: Vec<Option<String>>,
    code: DoorProblemCode,
    names: &str,
) -> Result<Option<String>, DoorProblem> {
    let mut found = found.into_iter().flatten();
    let Some(first) = found.next() else { return Ok(None) };
    if found.all(|other| other == first) {
        return Ok(Some(first));
    }
    Err(DoorProblem::new(code, format!("{names} differ: give one of them")))
}

pub(super) fn text(header: &str, headers: &HeaderMap) -> Result<Option<String>, DoorProblem> {
    let mut values = headers.get_all(header).iter();
    let Some(value) = values.next() else { return Ok(None) };
    if values.next().is_some() {
        return Err(unfit(format!("{header} comes several times")));
    }
    match value.to_str() {
        Ok(text) => Ok(Some(text.to_owned())),
        Err(_) => Err(unfit(format!("{header} has characters other than printable ASCII"))),
    }
}

/// The value of an attribute of a `CloudEvent` (HTTP binding 1.0.2, 3.1.3.2).
fn decoded(header: &HeaderName, headers: &HeaderMap) -> Result<String, DoorProblem> {
    let value = text(header.as_str(), headers)?.unwrap_or_default();
    let is_quoted = value.len() >= 2 && value.starts_with('"') && value.ends_with('"');
    let value = if is_quoted { &value[1..value.len() - 1] } else { value.as_str() };
    let decoded = percent_decode_str(value).decode_utf8();
    let decoded = decoded.map_err(|_| unfit(format!("{header} is not UTF-8 when it is percent-decoded")))?;
    Ok(decoded.into_owned())
}

fn name(header: &str) -> Result<ShortText, DoorProblem> {
    short("the name of a header", header.to_owned())
}

pub(super) fn short(what: &str, text: String) -> Result<ShortText, DoorProblem> {
    if text.is_empty() {
        return Err(unfit(format!("{what} is empty")));
    }
    ShortText::new(text).map_err(|_| unfit(format!("{what} is longer than 255 bytes")))
}

pub(super) fn unfit(detail: impl Into<String>) -> DoorProblem {
    DoorProblem::new(DoorProblemCode::HeaderUnfit, detail)
}

#[cfg(test)]
mod tests;

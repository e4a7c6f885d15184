//! A parked update: everything that is needed to send it, or to publish it again.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use percent_encoding::percent_decode_str;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::error::LedgerError;
use super::fingerprint::Fingerprint;
use lanekeeper_core::routes::TargetId;
use lanekeeper_core::update::{RecordKey, Update, UpdateId};

/// A parked update.
#[derive(Clone, PartialEq, Eq)]
pub struct StoredUpdate {
    /// The record that it changes.
    pub record_key: RecordKey,
    /// Its id, and whether the publisher chose it.
    pub id: UpdateId,
    /// AMQP `type`: picks the target.
    pub update_type: Option<String>,
    /// AMQP `content_type`.
    pub content_type: Option<String>,
    /// AMQP `content_encoding`.
    pub content_encoding: Option<String>,
    /// Header `if-match`.
    pub if_match: Option<String>,
    /// Header `record-version`.
    pub version: Option<i64>,
    /// AMQP `timestamp`: seconds since 1970-01-01 UTC.
    pub published_at: Option<u64>,
    /// Other headers to send: `traceparent`, `tracestate`, `ce-*`.
    pub headers: Vec<(String, String)>,
    /// The body, unchanged.
    pub body: Bytes,
}

impl StoredUpdate {
    /// The fingerprint of its body.
    #[must_use]
    pub fn fingerprint(&self) -> Fingerprint {
        Fingerprint::of(&self.body)
    }

    /// The update, for this target: which one takes it is not kept.
    #[must_use]
    pub fn into_update(self, target: TargetId) -> Update {
        Update {
            record_key: self.record_key,
            id: self.id,
            target,
            update_type: self.update_type,
            version: self.version,
            content_type: self.content_type,
            content_encoding: self.content_encoding,
            if_match: self.if_match,
            published_at: self.published_at,
            headers: self.headers,
            body: self.body,
        }
    }

    /// Everything without a column of its own (record key, id and body have one), as JSON.
    pub(super) fn envelope(&self) -> String {
        let envelope = Envelope {
            update_type: self.update_type.clone(),
            content_type: self.content_type.clone(),
            content_encoding: self.content_encoding.clone(),
            if_match: self.if_match.clone(),
            version: self.version,
            published_at: self.published_at,
            headers: self.headers.clone(),
        };
        serde_json::to_string(&envelope).expect("strings and numbers are JSON")
    }

    /// The AMQP `type` in an envelope.
    pub(super) fn type_in(envelope: &str) -> Result<Option<String>, LedgerError> {
        let envelope: serde_json::Result<Envelope> = serde_json::from_str(envelope);
        envelope
            .map(|envelope| envelope.update_type)
            .map_err(|_| LedgerError::Damaged { what: "a parked update" })
    }

    /// The update from its columns; `None`: the envelope is not valid.
    pub(super) fn restored(record_key: RecordKey, id: UpdateId, envelope: &str, body: Bytes) -> Option<Self> {
        let envelope: Envelope = serde_json::from_str(envelope).ok()?;
        Some(Self {
            record_key,
            id,
            update_type: envelope.update_type,
            content_type: envelope.content_type,
            content_encoding: envelope.content_encoding,
            if_match: envelope.if_match,
            version: envelope.version,
            published_at: envelope.published_at,
            headers: envelope.headers,
            body,
        })
    }

    /// The update as a line that `lanekeeper publish` reads. It includes the id, so that the published update is a repeat
    /// and not a new one.
    ///
    /// A body that is JSON on one line is written as it is, any other body in base64. A line has no `published_at` and no
    /// `content_encoding`: the former is set when the line is published, the latter is lost.
    #[must_use]
    pub fn json_line(&self) -> String {
        let raw = std::str::from_utf8(&self.body)
            .ok()
            .filter(|text| !text.contains(['\n', '\r']))
            .and_then(|text| serde_json::from_str::<&RawValue>(text).ok())
            .filter(|raw| raw.get().len() == self.body.len());
        let headers = self.if_match.iter().map(|value| ("if-match".to_owned(), value.clone()));
        let headers = headers.chain(self.headers.iter().map(|(name, value)| as_published(name, value)));
        let headers: serde_json::Map<_, _> = headers.map(|(name, value)| (name, value.into())).collect();
        let line = ExportLine {
            key: self.record_key.as_str(),
            id: self.id.as_str(),
            update_type: self.update_type.as_deref(),
            version: self.version,
            headers: (!headers.is_empty()).then_some(headers),
            content_type: self.content_type.as_deref(),
            body_base64: raw.is_none().then(|| STANDARD.encode(&self.body)),
            body: raw,
        };
        serde_json::to_string(&line).expect("strings and numbers are JSON")
    }
}

/// The AMQP header that a publisher sets for this HTTP header. `ce-*` headers have another name, and are percent-encoded in
/// HTTP only (CloudEvents 1.0.2, AMQP binding, 3.1.3, and HTTP binding, 3.1.3.2).
fn as_published(name: &str, value: &str) -> (String, String) {
    match name.strip_prefix("ce-") {
        Some(attribute) => {
            let value = percent_decode_str(value).decode_utf8_lossy().into_owned();
            (format!("cloudEvents_{attribute}"), value)
        }
        None => (name.to_owned(), value.to_owned()),
    }
}

impl fmt::Debug for StoredUpdate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StoredUpdate")
            .field("record_key", &self.record_key)
            .field("id", &self.id)
            .field("body_bytes", &self.body.len())
            .finish_non_exhaustive()
    }
}

/// Stored as JSON in one column: no query looks into it, and a new member needs no migration.
#[derive(Debug, Deserialize, Serialize)]
struct Envelope {
    #[serde(rename = "type")]
    update_type: Option<String>,
    content_type: Option<String>,
    content_encoding: Option<String>,
    if_match: Option<String>,
    version: Option<i64>,
    published_at: Option<u64>,
    headers: Vec<(String, String)>,
}

#[derive(Debug, Serialize)]
struct ExportLine<'a> {
    key: &'a str,
    id: &'a str,
    #[serde(rename = "type", skip_serializing_if = "Option::is_none")]
    update_type: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    version: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    headers: Option<serde_json::Map<String, serde_json::Value>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    content_type: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    body: Option<&'a RawValue>,
    #[serde(skip_serializing_if = "Option::is_none")]
    body_base64: Option<String>,
}

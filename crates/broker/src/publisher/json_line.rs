//! One JSON line of `lanekeeper publish`: `{"key", "id"?, "type"?, "version"?, "headers"?, "body"}`.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;
use uuid::Uuid;

use super::outgoing::{HEADER_BYTES_MAX, HeaderValue, Outgoing, ShortText};
use lanekeeper_core::update::{RecordKey, RecordKeyFault};

/// The header that carries `version`.
const VERSION_HEADER: &str = "record-version";

/// A line as written. `docs/wire.md` and `lanekeeper publish --help` say the same.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct LineFields<'a> {
    key: String,
    id: Option<String>,
    #[serde(rename = "type")]
    update_type: Option<String>,
    version: Option<i64>,
    #[serde(default)]
    headers: BTreeMap<String, LineHeader>,
    content_type: Option<String>,
    #[serde(borrow, default, deserialize_with = "even_null")]
    body: Option<&'a RawValue>,
    body_base64: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(untagged, expecting = "a header is a string, an integer or a boolean")]
enum LineHeader {
    Flag(bool),
    Integer(i64),
    Text(String),
}

/// `"body": null` is a body: the JSON text `null`.
fn even_null<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<&'de RawValue>, D::Error> {
    <&RawValue>::deserialize(deserializer).map(Some)
}

/// Why a line is no update: what is wrong, and what to do.
#[derive(Debug, thiserror::Error)]
pub enum BadLine {
    /// Not JSON, an unknown or missing member, or a member of the wrong kind.
    #[error("{0}")]
    Json(String),
    /// See [`RecordKeyFault`].
    #[error("\"key\": {0}")]
    Key(#[from] RecordKeyFault),
    /// A short text is empty or over 255 bytes.
    #[error("\"{member}\" {fault}")]
    Text {
        /// Which member, or header.
        member: String,
        /// What is wrong with it.
        fault: &'static str,
    },
    /// Neither or both of `body` and `body_base64`.
    #[error("exactly one of \"body\" (any JSON) and \"body_base64\" (bytes) is needed")]
    Bodies,
    /// Not base64.
    #[error("\"body_base64\" is not base64 with padding (RFC 4648, section 4)")]
    Base64,
    /// Over `updates.body_bytes_max`.
    #[error(
        "the body has {bytes} bytes, over updates.body_bytes_max = {bytes_max}: raise it or split the update"
    )]
    BodyTooLarge {
        /// Its size.
        bytes: usize,
        /// The bound.
        bytes_max: usize,
    },
    /// The line itself is too long to be looked at.
    #[error("the line has {bytes} bytes, over {bytes_max}: its body cannot be within updates.body_bytes_max")]
    LineTooLong {
        /// Its length.
        bytes: u64,
        /// The bound.
        bytes_max: usize,
    },
    /// Headers travel in one frame.
    #[error("the headers have {0} bytes, over {HEADER_BYTES_MAX}")]
    HeadersTooLarge(usize),
    /// `version` and a header `record-version`.
    #[error("\"version\" and the header \"record-version\" mean the same: give one of them")]
    VersionTwice,
    /// RabbitMQ would route the update by these too, and Lanekeeper dead-letters it.
    #[error("the header \"{0}\" changes how RabbitMQ routes the update: leave it out")]
    RoutingHeader(String),
}

/// The longest line that is looked at: a body of `body_bytes_max` fits in every spelling, with room for the rest.
#[must_use]
pub fn line_bytes_max(body_bytes_max: usize) -> usize {
    body_bytes_max.saturating_mul(2).saturating_add(64 * 1024)
}

/// Reads one line. `now` is in seconds since 1970-01-01 UTC.
///
/// The body is the text of `body` exactly as written, so that numbers such as `1.10` stay as they are; a string
/// too is sent as JSON, with its quotes. `body_base64` is for bytes that are not JSON. A line without an `id` gets
/// a UUID, which stays the same when the update is published again by this process.
///
/// # Errors
/// The line is no update.
pub fn parse(line: &[u8], body_bytes_max: usize, now: u64) -> Result<Outgoing, BadLine> {
    let fields: LineFields<'_> =
        serde_json::from_slice(line).map_err(|error| BadLine::Json(without_line_number(&error)))?;
    let (body, content_type_default) = match (fields.body, fields.body_base64) {
        (Some(json), None) => (Bytes::copy_from_slice(json.get().as_bytes()), "application/json"),
        (None, Some(text)) => {
            (Bytes::from(STANDARD.decode(text).map_err(|_| BadLine::Base64)?), "application/octet-stream")
        }
        (Some(_), Some(_)) | (None, None) => return Err(BadLine::Bodies),
    };
    if body.len() > body_bytes_max {
        return Err(BadLine::BodyTooLarge { bytes: body.len(), bytes_max: body_bytes_max });
    }
    let outgoing = Outgoing {
        record_key: RecordKey::new(fields.key)?,
        id: match fields.id {
            Some(id) => text("id", id)?,
            None => text("id", Uuid::new_v4().to_string())?,
        },
        update_type: fields.update_type.map(|name| text("type", name)).transpose()?,
        content_type: Some(match fields.content_type {
            Some(content_type) => text("content_type", content_type)?,
            None => text("content_type", content_type_default.to_owned())?,
        }),
        published_at: now,
        headers: headers(fields.headers, fields.version)?,
        body,
    };
    match outgoing.header_bytes() {
        0..=HEADER_BYTES_MAX => Ok(outgoing),
        bytes => Err(BadLine::HeadersTooLarge(bytes)),
    }
}

fn headers(
    fields: BTreeMap<String, LineHeader>,
    version: Option<i64>,
) -> Result<Vec<(ShortText, HeaderValue)>, BadLine> {
    let mut headers = Vec::with_capacity(fields.len() + 1);
    if let Some(version) = version {
        if fields.contains_key(VERSION_HEADER) {
            return Err(BadLine::VersionTwice);
        }
        headers.push((text("version", VERSION_HEADER.to_owned())?, HeaderValue::Integer(version)));
    }
    for (name, value) in fields {
        if name == "CC" || name == "BCC" {
            return Err(BadLine::RoutingHeader(name));
        }
        let value = match value {
            LineHeader::Flag(flag) => HeaderValue::Flag(flag),
            LineHeader::Integer(integer) => HeaderValue::Integer(integer),
            LineHeader::Text(text) => HeaderValue::Text(text),
        };
        headers.push((text("headers", name)?, value));
    }
    Ok(headers)
}

fn text(member: &str, text: String) -> Result<ShortText, BadLine> {
    let fault = |fault| BadLine::Text { member: member.to_owned(), fault };
    if text.is_empty() {
        return Err(fault("is empty: leave it out or fill it in"));
    }
    ShortText::new(text).map_err(|_| fault("is longer than 255 bytes"))
}

/// serde counts lines within what it was given, which is always line 1 here.
fn without_line_number(error: &serde_json::Error) -> String {
    let text = error.to_string();
    match text.rsplit_once(" at line 1 column ") {
        Some((what, column)) => format!("{what} (column {column})"),
        None => text,
    }
}

#[cfg(test)]
#[path = "json_line_tests.rs"]
mod tests;

//! One JSON line of `lanekeeper publish`: `{"key", "id"?, "type"?, "version"?, "headers"?, "body"}`.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;
use uuid::Uuid;

use lanekeeper_core::publish::outgoing::{HEADER_BYTES_MAX, HeaderValue, Outgoing, ShortText};
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
    /// It has no `id`, and needs one.
    #[error("\"id\" is missing: give each update an id, the same whenever it is sent")]
    NoId,
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
    /// RabbitMQ would also route the update by these, and Lanekeeper would dead-letter it.
    #[error("the header \"{0}\" changes how RabbitMQ routes the update: leave it out")]
    RoutingHeader(String),
}

/// The longest line that is looked at: a body of `body_bytes_max` fits in every spelling, with room for the rest.
#[must_use]
pub fn line_bytes_max(body_bytes_max: usize) -> usize {
    body_bytes_max.saturating_mul(2).saturating_add(64 * 1024)
}

/// What becomes of lines without an `id`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MissingIds {
    /// They get a UUID, which stays the same when the update is published again by this process.
    Made,
    /// They are bad.
    Refused,
}

/// Reads one line, as [`parse_with`], with [`MissingIds::Made`].
///
/// # Errors
/// The line is no update.
pub fn parse(line: &[u8], body_bytes_max: usize, now: u64) -> Result<Outgoing, BadLine> {
    parse_with(MissingIds::Made, line, body_bytes_max, now)
}

/// Reads one line. `now` is in seconds since 1970-01-01 UTC.
///
/// The body is the text of `body` exactly as written, so that numbers such as `1.10` stay as they are; a string
/// too is sent as JSON, with its quotes. `body_base64` is for bytes that are not JSON.
///
/// # Errors
/// The line is no update.
pub fn parse_with(
    ids: MissingIds,
    line: &[u8],
    body_bytes_max: usize,
    now: u64,
) -> Result<Outgoing, BadLine> {
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
        id: match (fields.id, ids) {
            (Some(id), _) => text("id", id)?,
            (None, MissingIds::Made) => text("id", Uuid::new_v4().to_string())?,
            (None, MissingIds::Refused) => return Err(BadLine::NoId),
        },
        update_type: fields.update_type.map(|name| text("type", name)).transpose()?,
        content_type: Some(match fields.content_type {
            Some(content_type) => text("content_type", content_type)?,
            None => text("content_type", content_type_default.to_owned())?,
        }),
        content_encoding: None,
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
mod tests {
    use super::*;
    use proptest::prelude::*;

    const NOW: u64 = 1_700_000_000;

    fn parsed(line: &str) -> Outgoing {
        parse(line.as_bytes(), 100, NOW).unwrap_or_else(|error| panic!("{line}: {error}"))
    }

    /// The body and content type that a line is sent with.
    fn check_body(line: &str, body: &str, content_type: &str) {
        let outgoing = parsed(line);
        assert_eq!(outgoing.body, body.as_bytes(), "{line}");
        assert_eq!(outgoing.content_type.as_ref().map(ShortText::as_str), Some(content_type), "{line}");
    }

    /// A part of the error of a bad line.
    fn check_bad(line: &str, expected: &str) {
        let message = parse(line.as_bytes(), 100, NOW).expect_err(line).to_string();
        assert!(message.contains(expected), "{line}\n error: {message}\n expected: {expected}");
        assert!(!message.contains("line 1"), "the command names the line: {message}");
    }

    #[test]
    fn the_body_is_sent_as_written() {
        const JSON: &str = "application/json";
        check_body(
            r#"{"key":"a","body":{"n":1.10,"big":123456789012345678901234567890}}"#,
            r#"{"n":1.10,"big":123456789012345678901234567890}"#,
            JSON,
        );
        check_body(r#"{"key":"a","body": { "b" : 1 , "a":2 } }"#, r#"{ "b" : 1 , "a":2 }"#, JSON);
        check_body(r#"{"key":"a","body":"text \u00e9"}"#, r#""text \u00e9""#, JSON);
        check_body(r#"{"key":"a","body":null}"#, "null", JSON);
        check_body(r#"{"key":"a","body":-0.0}"#, "-0.0", JSON);
        check_body(
            r#"{"key":"a","body":[],"content_type":"application/merge-patch+json"}"#,
            "[]",
            "application/merge-patch+json",
        );
        check_body(r#"{"key":"a","body_base64":"aGVsbG8="}"#, "hello", "application/octet-stream");
        check_body(r#"{"key":"a","body_base64":"","content_type":"text/plain"}"#, "", "text/plain");
    }

    #[test]
    fn every_member_has_its_place() {
        let outgoing = parsed(
            r#"{"key":"clé","id":"u-1","type":"customer.updated","version":9007199254740993,
            "headers":{"if-match":"\"e1\"","tries":-2,"dry":true},"body":1}"#,
        );
        assert_eq!(outgoing.record_key.as_str(), "clé");
        assert_eq!(outgoing.id.as_str(), "u-1");
        assert_eq!(outgoing.update_type.as_ref().map(ShortText::as_str), Some("customer.updated"));
        assert_eq!(outgoing.published_at, NOW);
        let headers: Vec<(&str, &HeaderValue)> =
            outgoing.headers.iter().map(|(name, value)| (name.as_str(), value)).collect();
        assert_eq!(
            headers,
            [
                ("record-version", &HeaderValue::Integer(9_007_199_254_740_993)),
                ("dry", &HeaderValue::Flag(true)),
                ("if-match", &HeaderValue::Text("\"e1\"".to_owned())),
                ("tries", &HeaderValue::Integer(-2)),
            ]
        );
    }

    #[test]
    fn a_line_without_an_id_gets_one_of_its_own() {
        let ids = [parsed(r#"{"key":"a","body":1}"#).id, parsed(r#"{"key":"a","id":null,"body":1}"#).id];
        assert_ne!(ids[0], ids[1]);
        assert!(ids.iter().all(|id| Uuid::parse_str(id.as_str()).is_ok()));
    }

    #[test]
    fn a_bad_line_says_what_to_do() {
        let long = "x".repeat(256);
        check_bad("", "EOF");
        check_bad("{", "EOF");
        check_bad("[]", "expected");
        check_bad("{\"key\":\"a\",\"body\":1} {}", "trailing characters");
        check_bad(r#"{"body":1}"#, "missing field `key`");
        check_bad(r#"{"key":1,"body":1}"#, "expected a string");
        check_bad(r#"{"key":"","body":1}"#, "\"key\": the record key is empty");
        check_bad(&format!(r#"{{"key":"{long}","body":1}}"#), "longer than 255 bytes");
        check_bad(r#"{"key":"a"}"#, "exactly one of");
        check_bad(r#"{"key":"a","body":1,"body_base64":"YQ=="}"#, "exactly one of");
        check_bad(r#"{"key":"a","body_base64":"a"}"#, "not base64");
        check_bad(r#"{"key":"a","body":1,"colour":2}"#, "unknown field `colour`");
        check_bad(r#"{"key":"a","key":"b","body":1}"#, "duplicate field `key`");
        check_bad(r#"{"key":"a","version":1.5,"body":1}"#, "expected i64");
        check_bad(r#"{"key":"a","version":9223372036854775808,"body":1}"#, "expected i64");
        check_bad(r#"{"key":"a","id":"","body":1}"#, "\"id\" is empty");
        check_bad(&format!(r#"{{"key":"a","id":"{long}","body":1}}"#), "\"id\" is longer");
        check_bad(&format!(r#"{{"key":"a","type":"{long}","body":1}}"#), "\"type\" is longer");
        check_bad(
            r#"{"key":"a","headers":{"a":1.5},"body":1}"#,
            "a header is a string, an integer or a boolean",
        );
        check_bad(
            r#"{"key":"a","headers":{"a":null},"body":1}"#,
            "a header is a string, an integer or a boolean",
        );
        check_bad(&format!(r#"{{"key":"a","headers":{{"{long}":1}},"body":1}}"#), "\"headers\" is longer");
        check_bad(r#"{"key":"a","headers":{"CC":"b"},"body":1}"#, "changes how RabbitMQ routes");
        check_bad(r#"{"key":"a","version":1,"headers":{"record-version":2},"body":1}"#, "give one of them");
        check_bad(
            &format!(r#"{{"key":"a","body":"{}"}}"#, "x".repeat(99)),
            "101 bytes, over updates.body_bytes_max = 100",
        );
        check_bad(
            &format!(r#"{{"key":"a","headers":{{"a":"{}"}},"body":1}}"#, "x".repeat(40_000)),
            "headers have 40001",
        );
    }

    #[test]
    fn bytes_that_are_not_utf_8_are_a_bad_line() {
        for line in [&b"{\"key\":\"\xff\",\"body\":1}"[..], b"{\"key\":\"a\",\"body\":\"\xff\"}"] {
            assert!(matches!(parse(line, 100, NOW), Err(BadLine::Json(_))));
        }
    }

    proptest! {
        #[test]
        fn no_input_makes_it_panic(line in ".*") {
            let _ = parse(line.as_bytes(), 100, NOW);
        }

        #[test]
        fn any_bytes_travel_as_base64(body in prop::collection::vec(any::<u8>(), 0..100)) {
            let line = format!(r#"{{"key":"a","body_base64":"{}"}}"#, STANDARD.encode(&body));
            prop_assert_eq!(&parsed(&line).body[..], &body[..]);
        }
    }
}

//! Bodies for people: text as text, anything else as bytes, and no more than can be read.

use axum::Extension;
use axum::extract::State;
use axum::http::{HeaderValue, header};
use axum::response::{IntoResponse, Response};
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use serde::Serialize;

use super::super::Parts;
use super::super::fields::QueryFields;
use super::super::guard::Visitor;
use super::super::problem::{AdminProblem, ProblemCode};
use super::{failed, record_key};
use crate::printable::printable_lines;
use lanekeeper_ledger::{Ledger as _, ParkedSeq};

/// How much of a body is shown.
const TEXT_BYTES_MAX: usize = 16 * 1024;
const BINARY_BYTES_MAX: usize = 512;
/// Bytes in a line of a dump.
const DUMP_WIDTH: usize = 16;

/// What is shown of a body.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in super::super) enum BodyShown {
    Empty,
    /// As text, with control characters escaped.
    Text(String),
    /// As lines of hexadecimal numbers.
    Dump(String),
}

/// What is shown of a body, and if that is all.
pub(in super::super) fn shown(body: &[u8]) -> (BodyShown, bool) {
    if body.is_empty() {
        return (BodyShown::Empty, true);
    }
    match text_of(body) {
        Some((text, is_all)) => (BodyShown::Text(printable_lines(&text.replace("\r\n", "\n"))), is_all),
        None => {
            (BodyShown::Dump(dump(&body[..body.len().min(BINARY_BYTES_MAX)])), body.len() <= BINARY_BYTES_MAX)
        }
    }
}

/// The text that a body begins with, if all of it is text.
fn text_of(body: &[u8]) -> Option<(&str, bool)> {
    let text = std::str::from_utf8(body).ok()?;
    let is_text = |c: char| !c.is_control() || matches!(c, '\n' | '\r' | '\t');
    if !text.chars().all(is_text) {
        return None;
    }
    let mut end = text.len().min(TEXT_BYTES_MAX);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    Some((&text[..end], end == text.len()))
}

fn dump(bytes: &[u8]) -> String {
    let lines = bytes.chunks(DUMP_WIDTH).enumerate().map(|(index, line)| {
        let hex: Vec<String> = line.iter().map(|byte| format!("{byte:02x}")).collect();
        let text: String =
            line.iter().map(|byte| if byte.is_ascii_graphic() { char::from(*byte) } else { '.' }).collect();
        format!("{:04x}  {:<47}  {text}", index * DUMP_WIDTH, hex.join(" "))
    });
    lines.collect::<Vec<_>>().join("\n")
}

/// The same for programs.
#[derive(Debug, Serialize)]
pub(in super::super) struct BodyJson {
    bytes: usize,
    /// It is cut: the path `/api/parked/body` has all of it.
    is_cut: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    text: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    base64: Option<String>,
}

impl BodyJson {
    pub(super) fn of(body: &[u8]) -> Self {
        if let Some((text, is_all)) = text_of(body) {
            return Self { bytes: body.len(), is_cut: !is_all, text: Some(text.to_owned()), base64: None };
        }
        let part = &body[..body.len().min(TEXT_BYTES_MAX)];
        let base64 = Some(BASE64_STANDARD.encode(part));
        Self { bytes: body.len(), is_cut: part.len() < body.len(), text: None, base64 }
    }
}

/// `GET /api/parked/body`: the bytes, to be stored and not shown by a browser.
pub(in super::super) async fn download(
    State(parts): State<Parts>,
    Extension(visitor): Extension<Visitor>,
    QueryFields(fields): QueryFields,
) -> Result<Response, AdminProblem> {
    let (ledger, record_key) = (parts.ledger.open()?, record_key(fields.require("key")?)?);
    let seq: i64 = fields.require("seq")?.parse().map_err(|_| {
        AdminProblem::new(
            ProblemCode::InvalidRequest,
            "`seq` is not understood: it is the number of a parked update",
        )
    })?;
    // A body may be large, and a client slow.
    let permit = visitor.client.answers_long().ok_or_else(too_many)?;
    let after = ParkedSeq(seq.saturating_sub(1));
    let found = ledger.parked_updates(&record_key, Some(after), 1).await.map_err(|fault| failed(&fault))?;
    let update = found.into_iter().find(|found| found.seq.0 == seq).ok_or_else(super::not_parked)?;
    let length = update.update.body.len();
    let whole = futures_util::stream::once(async move {
        let _held = permit; // until the body is handed over
        Ok::<_, std::convert::Infallible>(update.update.body)
    });
    let mut answer = axum::body::Body::from_stream(whole).into_response();
    let headers = answer.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/octet-stream"));
    // The key and the id may have anything in them, and the name of a file may not.
    let name = HeaderValue::try_from(format!("attachment; filename=\"parked-{seq}.bin\""));
    headers.insert(header::CONTENT_DISPOSITION, name.expect("it is ASCII"));
    headers.insert(header::CONTENT_LENGTH, HeaderValue::from(length));
    headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
    Ok(answer)
}

/// There are too many event streams and exports.
pub(in super::super) fn too_many() -> AdminProblem {
    AdminProblem::new(
        ProblemCode::TooManyStreams,
        "other clients follow events or export at this moment: close some of their pages, or try again later",
    )
    .retry_after(10)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_body_is_shown_as_what_it_is() {
        let check = |body: &[u8], expected: BodyShown, is_all| {
            assert_eq!(shown(body), (expected, is_all), "{body:?}");
        };
        check(b"", BodyShown::Empty, true);
        check(b"<script>alert(1)</script>", BodyShown::Text("<script>alert(1)</script>".into()), true);
        check("ü\r\n\tb\u{202e}".as_bytes(), BodyShown::Text("ü\n\\tb\\u{202e}".into()), true);
        let dump = "0000  00 41 ff                                         .A.";
        check(b"\0A\xff", BodyShown::Dump(dump.into()), true);
        check(
            b"\x1b[2J",
            BodyShown::Dump("0000  1b 5b 32 4a                                      .[2J".into()),
            true,
        );
        let long = "ü".repeat(TEXT_BYTES_MAX);
        let (BodyShown::Text(text), false) = shown(long.as_bytes()) else { panic!("it is cut") };
        assert_eq!(text.len(), TEXT_BYTES_MAX);
        let (BodyShown::Dump(lines), false) = shown(&vec![0; 10_000]) else { panic!("it is cut") };
        assert_eq!(lines.lines().count(), BINARY_BYTES_MAX / DUMP_WIDTH);
    }

    #[test]
    fn programs_get_text_or_base64() {
        let json = |body: &[u8]| serde_json::to_value(BodyJson::of(body)).unwrap();
        assert_eq!(json(b"{}"), serde_json::json!({ "bytes": 2, "is_cut": false, "text": "{}" }));
        assert_eq!(json(b"\0"), serde_json::json!({ "bytes": 1, "is_cut": false, "base64": "AA==" }));
        let cut = json(&vec![255; TEXT_BYTES_MAX + 1]);
        assert_eq!((&cut["is_cut"], &cut["bytes"]), (&true.into(), &(TEXT_BYTES_MAX + 1).into()));
    }
}

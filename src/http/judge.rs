//! Makes an outcome of an answer: a pure function of the target's config, the answer's status, headers and body.
//!
//! The target's `answers` come first, then its `outcomes`, then the table of statuses (`classify`).

use std::time::SystemTime;

use http::header::{CONTENT_ENCODING, CONTENT_TYPE, DATE, HeaderMap, HeaderName, RETRY_AFTER};
use serde_json::Value as Json;

use super::{classify, detail, retry_after};
use crate::config::{AnswerBody, AnswerRow, BodyTest, TargetConfig};
use lanekeeper_core::outcome::{Cause, Failure, Outcome, OutcomeKind};

/// Bytes of a body with which rows of `answers` are compared. A longer one cannot be judged.
const BODY_BYTES_JUDGED_MAX: usize = 1024 * 1024;
/// Bytes of a failure's body that are kept for its reason.
const BODY_BYTES_KEPT_MAX: usize = 4 * 1024;
/// Bytes of a body that are read, so that the connection can be used again. After a longer body it is closed.
const BODY_BYTES_READ_MAX: usize = 64 * 1024;
/// Some servers begin their JSON with it. A reader may pass over it (RFC 8259, section 8.1).
const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";

/// An answer as far as it was read.
#[derive(Debug)]
pub struct Answer<'a> {
    /// Its status.
    pub status: u16,
    /// Its headers.
    pub headers: &'a HeaderMap,
    /// Its body, or the start of it: as many bytes as [`Bounds::kept_max`] says.
    pub body: &'a [u8],
    /// How reading the body ended.
    pub end: BodyEnd,
}

/// How reading a body ended.
#[derive(Debug)]
pub enum BodyEnd {
    /// With its end.
    Complete,
    /// At the bound: there is more.
    Longer,
    /// It broke off, or its end did not come in time. This is the outcome if it was needed.
    Broken(Outcome),
}

/// How much of a body is needed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bounds {
    /// Bytes to keep, from the start.
    pub kept_max: usize,
    /// Bytes to read.
    pub read_max: usize,
}

/// What an answer means.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Judgement {
    /// The outcome.
    pub outcome: Outcome,
    /// The row of `answers` that matched, from 0.
    pub row: Option<usize>,
}

/// How much of the body of an answer with this status is needed. `answers`: rows count for this answer.
pub(super) fn bounds(config: &TargetConfig, status: u16, answers: bool) -> Bounds {
    let rows = if answers { config.answers.as_slice() } else { &[] };
    let of_status = rows.iter().filter(|row| row.status.matches(status));
    // A row that is for the status alone ends the search.
    if { of_status }.next().is_some_and(|row| row.body != BodyTest::Any) {
        return Bounds { kept_max: BODY_BYTES_JUDGED_MAX, read_max: BODY_BYTES_JUDGED_MAX };
    }
    let is_applied = kind_of(config, status) == OutcomeKind::Applied;
    let kept_max = if is_applied { 0 } else { BODY_BYTES_KEPT_MAX };
    Bounds { kept_max, read_max: BODY_BYTES_READ_MAX }
}

/// What an answer to an update means at this target.
#[must_use]
pub fn judge(config: &TargetConfig, answer: &Answer<'_>) -> Judgement {
    match find(&config.answers, answer) {
        Found::Row { row, detail } => {
            let kind = config.answers[row].outcome;
            let failure = Failure { cause: Cause::Status(answer.status), detail };
            Judgement { outcome: outcome_of(kind, failure, answer.headers), row: Some(row) }
        }
        Found::None => Judgement { outcome: by_status(config, answer), row: None },
        Found::CannotJudge { row, why } => {
            let by_status = by_status(config, answer);
            // What the rows were made to find may be in this answer, so that it cannot count as applied.
            let outcome = match (by_status, &answer.end) {
                (Outcome::Applied, BodyEnd::Broken(outcome)) => outcome.clone(),
                (Outcome::Applied, BodyEnd::Complete | BodyEnd::Longer) => {
                    let detail = format!("answers[{row}] cannot judge this answer: {why}");
                    let failure = Failure { cause: Cause::Status(answer.status), detail };
                    outcome_of(OutcomeKind::Retryable, failure, answer.headers)
                }
                (other, _) => other,
            };
            Judgement { outcome, row: None }
        }
    }
}

/// As [`judge`], by the status alone.
pub(super) fn by_status(config: &TargetConfig, answer: &Answer<'_>) -> Outcome {
    let (kind, headers) = (kind_of(config, answer.status), answer.headers);
    let failure = || Failure { cause: Cause::Status(answer.status), detail: of_body(answer) };
    match kind {
        // With Retry-After, 409 means that the first request with this idempotency key is still being processed
        // (draft-ietf-httpapi-idempotency-key-header, 2.7), not that states conflict.
        OutcomeKind::Conflict if answer.status == 409 && headers.contains_key(RETRY_AFTER) => {
            outcome_of(OutcomeKind::Retryable, failure(), headers)
        }
        OutcomeKind::Applied if config.answer_body == AnswerBody::Ignore => Outcome::Applied,
        OutcomeKind::Applied => match &answer.end {
            BodyEnd::Complete | BodyEnd::Longer => Outcome::Applied,
            BodyEnd::Broken(outcome) => outcome.clone(),
        },
        kind => outcome_of(kind, failure(), headers),
    }
}

fn kind_of(config: &TargetConfig, status: u16) -> OutcomeKind {
    classify::classify(status, &config.outcomes)
}

fn outcome_of(kind: OutcomeKind, failure: Failure, headers: &HeaderMap) -> Outcome {
    match kind {
        OutcomeKind::Applied => Outcome::Applied,
        OutcomeKind::Retryable => {
            let retry_after = text(headers, RETRY_AFTER)
                .and_then(|value| retry_after::parse(value, text(headers, DATE), SystemTime::now()));
            Outcome::Retryable { failure, retry_after }
        }
        OutcomeKind::Refused => Outcome::Refused(failure),
        OutcomeKind::Rejected => Outcome::Rejected(failure),
        OutcomeKind::Conflict => Outcome::Conflict(failure),
        OutcomeKind::Known | OutcomeKind::Withheld => unreachable!("no answer means either"),
    }
}

/// What the rows of `answers` find.
enum Found {
    None,
    Row { row: usize, detail: String },
    CannotJudge { row: usize, why: &'static str },
}

fn find(rows: &[AnswerRow], answer: &Answer<'_>) -> Found {
    let mut parsed = None;
    for (row, AnswerRow { body: test, .. }) in
        rows.iter().enumerate().filter(|(_, row)| row.status.matches(answer.status))
    {
        if *test == BodyTest::Any {
            let detail = format!("answers[{row}]: {}", of_body(answer));
            return Found::Row { row, detail: detail.trim_end_matches([':', ' ']).to_owned() };
        }
        // These have no body (RFC 9110, sections 15.3.5 and 15.3.6), and nothing to find.
        if matches!(answer.status, 204 | 205) && answer.body.is_empty() {
            continue;
        }
        if let Some(why) = unreadable(answer) {
            return Found::CannotJudge { row, why };
        }
        let body = answer.body.strip_prefix(BYTE_ORDER_MARK).unwrap_or(answer.body);
        let found = match test {
            BodyTest::Any => None,
            BodyTest::TextMatches(pattern) => {
                let text = String::from_utf8_lossy(body);
                pattern.find(&text).map(|part| quote("", part))
            }
            BodyTest::Present(pointer) | BodyTest::Equals(pointer, _) | BodyTest::Matches(pointer, _) => {
                let json = parsed.get_or_insert_with(|| serde_json::from_slice::<Json>(body));
                let Ok(json) = json else {
                    return Found::CannotJudge { row, why: "its body is not JSON" };
                };
                json.pointer(pointer.as_str())
                    .filter(|value| fits(test, value))
                    .map(|value| quote(pointer.as_str(), &scalar(value)))
            }
        };
        if let Some(found) = found {
            return Found::Row { row, detail: format!("answers[{row}]: {found}") };
        }
    }
    Found::None
}

/// Why rows cannot be compared with the body; `None`: they can.
fn unreadable(answer: &Answer<'_>) -> Option<&'static str> {
    match answer.end {
        BodyEnd::Broken(_) => return Some("its body broke off"),
        BodyEnd::Longer => return Some("its body is longer than 1 MiB"),
        BodyEnd::Complete => {}
    }
    let encoding = text(answer.headers, CONTENT_ENCODING).unwrap_or("");
    let plain = encoding.is_empty() || encoding.eq_ignore_ascii_case("identity");
    (!plain).then_some("its body has a content-encoding")
}

fn fits(test: &BodyTest, found: &Json) -> bool {
    match test {
        BodyTest::Any | BodyTest::TextMatches(_) => false,
        BodyTest::Present(_) => !found.is_null(),
        BodyTest::Equals(_, value) => equal(value, found),
        BodyTest::Matches(_, pattern) => {
            !(found.is_null() || found.is_array() || found.is_object())
                && pattern.find(&scalar(found)).is_some()
        }
    }
}

/// Numbers are equal by value: 0 is 0.0. Two whole numbers are compared exactly.
fn equal(value: &Json, found: &Json) -> bool {
    let has_fraction = value.is_f64() || found.is_f64();
    value == found || (has_fraction && value.is_number() && value.as_f64() == found.as_f64())
}

/// A value's text; a list or an object is not put out.
fn scalar(value: &Json) -> String {
    match value {
        Json::String(text) => text.clone(),
        Json::Array(_) => "a list".to_owned(),
        Json::Object(_) => "an object".to_owned(),
        other => other.to_string(),
    }
}

fn quote(pointer: &str, text: &str) -> String {
    let text = detail::part(text);
    if pointer.is_empty() { text } else { format!("{pointer} is {text}") }
}

fn of_body(answer: &Answer<'_>) -> String {
    let header = |name| text(answer.headers, name).unwrap_or("");
    let start = &answer.body[..answer.body.len().min(BODY_BYTES_KEPT_MAX)];
    detail::of_body(header(CONTENT_TYPE), header(CONTENT_ENCODING), start)
}

fn text(headers: &HeaderMap, name: HeaderName) -> Option<&str> {
    headers.get(name)?.to_str().ok()
}

//! Requests, from the head to the answer.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::{Body, Bytes, HttpBody, to_bytes};
use axum::extract::{Request, State};
use axum::http::header::{CONTENT_TYPE, ETAG, IF_MATCH, RETRY_AFTER};
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, Uri};
use axum::response::{IntoResponse, Json, Response};
use axum::routing::{get, post};
use percent_encoding::percent_decode_str;
use serde::Deserialize;
use serde_json::Value;

use super::faults::{Chance, Fault, FaultAnswer};
use super::records::{End, Write, Written, etag_of};
use super::{Receiver, Shared};

/// Largest body taken.
const BODY_BYTES_MAX: usize = 16 * 1024 * 1024;

/// What [`Chance`] is asked about; any numbers that differ.
mod purpose {
    pub(super) const LATENCY: u64 = 1;
    pub(super) const FAILS: u64 = 2;
    pub(super) const FAULT: u64 = 3;
}

pub(super) fn router(shared: Arc<Shared>) -> Router {
    Router::new()
        .route("/report", get(report).delete(reset))
        .route("/reset", post(reset))
        .fallback(record)
        .with_state(shared)
}

/// `?records=N` lists N records, `?records=all` all of them.
async fn report(State(shared): State<Arc<Shared>>, uri: Uri) -> Response {
    let query = url::form_urlencoded::parse(uri.query().unwrap_or_default().as_bytes());
    let records = query.last().map(|(name, value)| match (&*name, &*value) {
        ("records", "all") => Some(usize::MAX),
        ("records", number) => number.parse().ok(),
        _ => None,
    });
    match records.unwrap_or(Some(0)) {
        Some(records_max) => Json(Receiver { shared }.report(records_max)).into_response(),
        None => problem(StatusCode::BAD_REQUEST, "write ?records=10 or ?records=all, or nothing"),
    }
}

async fn reset(State(shared): State<Arc<Shared>>) -> StatusCode {
    Receiver { shared }.reset();
    StatusCode::NO_CONTENT
}

async fn record(State(shared): State<Arc<Shared>>, request: Request) -> Response {
    let segment = request.uri().path().rsplit('/').next().unwrap_or_default();
    let record_key = percent_decode_str(segment).decode_utf8_lossy().into_owned();
    if record_key.is_empty() {
        let help =
            "the last segment of the path names the record, as in /customers/42; the report is at /report\n";
        return (StatusCode::NOT_FOUND, help).into_response();
    }
    if matches!(*request.method(), Method::GET | Method::HEAD) {
        return value(&shared, &record_key);
    }
    write(shared, record_key, request).await
}

fn value(shared: &Shared, record_key: &str) -> Response {
    let records = shared.records(record_key);
    let Some(value) = records.value(record_key) else { return StatusCode::NOT_FOUND.into_response() };
    let mut response = Body::from(value.body.to_vec()).into_response();
    response.headers_mut().insert(ETAG, etag(value.version));
    if let Some(content_type) = value.content_type.and_then(|text| HeaderValue::from_str(text).ok()) {
        response.headers_mut().insert(CONTENT_TYPE, content_type);
    }
    response
}

/// A request of a record, in progress until this is dropped: with the answer made, or with the connection.
struct InProgress {
    shared: Arc<Shared>,
    record_key: String,
    end: End,
}

impl InProgress {
    fn answer(mut self, end: End, response: impl IntoResponse) -> Response {
        self.end = end;
        response.into_response()
    }
}

impl Drop for InProgress {
    fn drop(&mut self) {
        self.shared.records(&self.record_key).end(&self.record_key, self.end);
    }
}

async fn write(shared: Arc<Shared>, record_key: String, request: Request) -> Response {
    let (head, body) = request.into_parts();
    let headers = &head.headers;
    let named_as =
        text(headers, "lanekeeper-record-key").map(|key| percent_decode_str(key).decode_utf8_lossy());
    let now = shared.started.elapsed();
    let tenure = text(headers, "lanekeeper-tenure").and_then(|number| number.parse().ok());
    let begun = shared.records(&record_key).begin(&record_key, named_as.as_deref(), tenure, now);
    let in_progress = InProgress { shared: shared.clone(), record_key, end: End::Disconnected };
    let record_key = in_progress.record_key.as_str();

    if body.size_hint().lower() > BODY_BYTES_MAX as u64 {
        return in_progress.answer(End::Rejected, StatusCode::PAYLOAD_TOO_LARGE);
    }
    let Ok(body) = to_bytes(body, BODY_BYTES_MAX).await else {
        // It broke off, so that nobody sees this answer, or it was too long without having said so.
        return in_progress.answer(End::Disconnected, StatusCode::BAD_REQUEST);
    };

    let settings = &shared.settings;
    let idempotency_key = text(headers, "idempotency-key").map(|key| key.trim_matches('"'));
    let update_id = idempotency_key.or_else(|| text(headers, "lanekeeper-update-id"));
    let attempt = text(headers, "lanekeeper-attempt").and_then(|number| number.parse::<u64>().ok());
    let chance = Chance::of_attempt(
        settings.seed,
        record_key,
        update_id.unwrap_or_default(),
        attempt.unwrap_or(begun.number),
    );
    if !settings.latency.is_zero() {
        let vary = settings.latency_jitter.clamp(0.0, 1.0) * (2.0 * chance.unit(purpose::LATENCY) - 1.0);
        tokio::time::sleep(settings.latency.mul_f64(1.0 + vary)).await;
    }

    let fault = shared.fault(record_key, begun.age, attempt, chance);
    if fault.is_none_or(|fault| fault.applied) {
        let write = Write {
            update_id,
            sequence: sequence_of(&body),
            if_match: text(headers, IF_MATCH.as_str()),
            honour_id: settings.honour_idempotency_key && idempotency_key.is_some(),
            body: &body,
            content_type: text(headers, CONTENT_TYPE.as_str()).filter(|text| text.len() <= 255),
        };
        let written = shared.records(record_key).apply(record_key, &write);
        if fault.is_none() {
            return answer(in_progress, written);
        }
    }
    let status = match fault.map(|fault| fault.answer) {
        Some(FaultAnswer::Status(status)) => status,
        Some(FaultAnswer::Hang) | None => {
            shared.hang().await;
            503
        }
    };
    in_progress.answer(End::Failed, shared.failure(status))
}

fn answer(in_progress: InProgress, written: Written) -> Response {
    match written {
        Written::Applied { version } | Written::Replayed { version } => {
            in_progress.answer(End::Answered, [(ETAG, etag(version))])
        }
        Written::PreconditionFailed { version } => {
            let detail = "If-Match names another version than the record has";
            let problem = problem(StatusCode::PRECONDITION_FAILED, detail);
            in_progress.answer(End::Rejected, ([(ETAG, etag(version))], problem))
        }
        Written::IdReused => {
            let detail = "the idempotency key was used before with another body";
            in_progress.answer(End::Rejected, problem(StatusCode::UNPROCESSABLE_ENTITY, detail))
        }
    }
}

impl Shared {
    /// What goes wrong with this attempt, if anything.
    fn fault(&self, record_key: &str, age: Duration, attempt: Option<u64>, chance: Chance) -> Option<Fault> {
        let settings = &self.settings;
        let failing = settings.fail_records.iter().find(|failing| {
            failing.record_key == record_key && failing.lasts.is_none_or(|lasts| age < lasts)
        });
        if let Some(failing) = failing {
            return Some(failing.fault);
        }
        let spared = settings.first_attempts_only && attempt.unwrap_or(1) != 1;
        if spared || chance.unit(purpose::FAILS) >= settings.fail_share {
            return None;
        }
        let usual = Fault { applied: false, answer: FaultAnswer::Status(500) };
        Some(chance.pick(purpose::FAULT, &settings.fail_with).unwrap_or(usual))
    }

    /// Takes `hang_for`, or until the receiver stops.
    async fn hang(&self) {
        let mut stopping = self.stopping.subscribe();
        // Either way the time is over; the sender of `stopping` is in `self`.
        let _ = tokio::time::timeout(self.settings.hang_for, stopping.wait_for(|stopping| *stopping)).await;
    }

    fn failure(&self, status: u16) -> Response {
        let status = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let mut response = problem(status, "the receiver was told to fail this request");
        if let Some(wait) = self.settings.retry_after
            && matches!(status, StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE)
        {
            let seconds = wait.as_secs() + u64::from(wait.subsec_nanos() > 0);
            response.headers_mut().insert(RETRY_AFTER, HeaderValue::from(seconds));
        }
        response
    }
}

fn problem(status: StatusCode, detail: &str) -> Response {
    let title = status.canonical_reason().unwrap_or("Failure");
    let body = serde_json::json!({ "title": title, "status": status.as_u16(), "detail": detail });
    let content_type = HeaderValue::from_static("application/problem+json");
    (status, [(CONTENT_TYPE, content_type)], body.to_string()).into_response()
}

fn etag(version: u64) -> HeaderValue {
    HeaderValue::try_from(etag_of(version)).expect("digits in quotes are a header value")
}

fn text<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    headers.get(name)?.to_str().ok()
}

/// The integer member `sequence` of the outermost object, at least 1; a body that is no JSON object, is not valid or has
/// the member twice has none. The rest of the body is passed over without keeping any of it.
fn sequence_of(body: &Bytes) -> Option<u64> {
    #[derive(Deserialize)]
    struct Sequenced {
        sequence: Value,
    }
    // serde would also fill the struct from an array.
    if body.trim_ascii_start().first() != Some(&b'{') {
        return None;
    }
    let sequenced: Sequenced = serde_json::from_slice(body).ok()?;
    sequenced.sequence.as_u64().filter(|sequence| *sequence > 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sequence_is_an_integer_member_of_the_outermost_object() {
        let check = |body: &str, expected: Option<u64>| {
            assert_eq!(sequence_of(&Bytes::copy_from_slice(body.as_bytes())), expected, "{body}");
        };
        check(r#"{"sequence":7}"#, Some(7));
        check(" \n{ \"name\" : \"}{\\\"sequence\\\":1\", \"sequence\" : 12 , \"x\": [{}] } ", Some(12));
        check(r#"{"\u0073equence":3}"#, Some(3));
        check(r#"{"inner":{"sequence":5},"sequence":6}"#, Some(6));
        check(r#"{"inner":{"sequence":5}}"#, None);
        check(r#"[{"sequence":5}]"#, None);
        check("[5]", None);
        check(r#"{"sequence":"5"}"#, None);
        check(r#"{"sequence":5.0}"#, None);
        check(r#"{"sequence":-5}"#, None);
        check(r#"{"sequence":0}"#, None);
        check(r#"{"sequence":1,"sequence":2}"#, None);
        check(r#"{"sequence":1"#, None);
        check(r#"{"sequence":18446744073709551615}"#, Some(u64::MAX));
        check(r#"{"sequence":18446744073709551616}"#, None);
        check("", None);
        check("\u{feff}{}", None);
    }
}

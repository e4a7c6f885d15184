//! The answers. Failures are `application/problem+json` (RFC 9457).

use std::io;
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::http::header::{CONTENT_LENGTH, CONTENT_TYPE, ETAG, RETRY_AFTER};
use axum::http::{HeaderValue, StatusCode};
use axum::response::{Html, IntoResponse, Response};
use futures_util::stream;

use super::rules::{WriteOutcome, etag_of};
use super::store::StoreError;

/// `Retry-After` if another request works on the same thing.
const RETRY_LATER: Duration = Duration::from_secs(1);

/// Problem types: what a sender can distinguish beyond the status. docs/receiving.md lists them.
mod problem_type {
    pub(super) const ANY: &str = "about:blank";
    pub(super) const KEY_IN_PROGRESS: &str = "urn:problem-type:idempotency-key-in-progress";
    pub(super) const KEY_REUSED: &str = "urn:problem-type:idempotency-key-reused";
    pub(super) const OLDER_TENURE: &str = "urn:problem-type:older-tenure";
    pub(super) const SUPERSEDED: &str = "urn:problem-type:superseded";
}

/// The answer to what became of a write.
pub(super) fn answer(written: WriteOutcome, superseded_status: u16) -> Response {
    use problem_type::{ANY, KEY_IN_PROGRESS, KEY_REUSED, OLDER_TENURE, SUPERSEDED};
    match written {
        WriteOutcome::Applied { version } | WriteOutcome::Replayed { version } => {
            [(ETAG, etag(version))].into_response()
        }
        WriteOutcome::Superseded { version } => match status_of(superseded_status) {
            status if status.is_success() => (status, [(ETAG, etag(version))]).into_response(),
            status => {
                let detail = "the record has this record-version, or a later one";
                ([(ETAG, etag(version))], typed(status, SUPERSEDED, detail)).into_response()
            }
        },
        WriteOutcome::PreconditionFailed { version } => {
            let detail = "If-Match or If-None-Match means another version than the record has";
            ([(ETAG, etag(version))], typed(StatusCode::PRECONDITION_FAILED, ANY, detail)).into_response()
        }
        WriteOutcome::PreconditionRequired { version } => {
            let detail = "say which version you mean with If-Match, or If-None-Match: * for a new record";
            ([(ETAG, etag(version))], typed(StatusCode::PRECONDITION_REQUIRED, ANY, detail)).into_response()
        }
        WriteOutcome::KeyReused => {
            let detail = "the idempotency key was used before with another body";
            typed(StatusCode::UNPROCESSABLE_ENTITY, KEY_REUSED, detail)
        }
        WriteOutcome::KeyInProgress => {
            let detail = "the first request with this idempotency key is still in progress";
            retry_after(typed(StatusCode::CONFLICT, KEY_IN_PROGRESS, detail), RETRY_LATER)
        }
        // Not 409: that would be about the update, which the newer owner sends too.
        WriteOutcome::OlderTenure => {
            let detail = "a newer owner has written to this record; lanekeeper-tenure is lower than its";
            typed(StatusCode::FORBIDDEN, OLDER_TENURE, detail)
        }
    }
}

pub(super) fn store_failed(fault: &StoreError) -> Response {
    let detail = fault.to_string();
    match fault {
        StoreError::Busy | StoreError::Failed(_) => {
            retry_after(problem(StatusCode::SERVICE_UNAVAILABLE, &detail), RETRY_LATER)
        }
        StoreError::Unfit => problem(StatusCode::BAD_REQUEST, &detail),
    }
}

/// Begins a success and then closes the connection: the sender cannot know if the update was applied.
pub(super) fn abort_connection() -> Response {
    let cut = Err::<Bytes, _>(io::Error::from(io::ErrorKind::ConnectionAborted));
    let body = Body::from_stream(stream::once(std::future::ready(cut)));
    ([(CONTENT_LENGTH, HeaderValue::from_static("100"))], body).into_response()
}

pub(super) fn problem(status: StatusCode, detail: &str) -> Response {
    typed(status, problem_type::ANY, detail)
}

fn typed(status: StatusCode, problem_type: &str, detail: &str) -> Response {
    let title = status.canonical_reason().unwrap_or("Failure");
    let body = serde_json::json!({
        "type": problem_type,
        "title": title,
        "status": status.as_u16(),
        "detail": detail,
    });
    let content_type = HeaderValue::from_static("application/problem+json");
    (status, [(CONTENT_TYPE, content_type)], body.to_string()).into_response()
}

pub(super) fn retry_after(mut response: Response, wait: Duration) -> Response {
    response.headers_mut().insert(RETRY_AFTER, HeaderValue::from(whole_seconds(wait)));
    response
}

/// Rounded up.
pub(super) fn whole_seconds(duration: Duration) -> u64 {
    duration.as_secs() + u64::from(duration.subsec_nanos() > 0)
}

/// A page as from a firewall, or from a gateway during maintenance.
pub(super) fn page(status: StatusCode) -> Response {
    let title = status.canonical_reason().unwrap_or("Failure");
    let heading = format!("{} {title}", status.as_u16());
    let page = format!(
        "<!doctype html>\n<html><head><title>{heading}</title></head>\n<body><h1>{heading}</h1></body></html>\n"
    );
    (status, Html(page)).into_response()
}

/// Plain text as from a gateway.
pub(super) fn gateway(status: StatusCode, text: &'static str) -> Response {
    (status, text).into_response()
}

pub(super) fn status_of(status: u16) -> StatusCode {
    StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR)
}

pub(super) fn etag(version: u64) -> HeaderValue {
    HeaderValue::try_from(etag_of(version)).expect("digits in quotes are a header value")
}

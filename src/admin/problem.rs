//! What a request cannot have: for programs as `application/problem+json` (RFC 9457), for people as a page.

use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;

/// What kind of problem. Its name is the `code` of the answer and never changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[cfg_attr(test, derive(strum::VariantArray))]
#[serde(rename_all = "snake_case")]
pub(super) enum ProblemCode {
    /// Other hosts reach the port, and `admin.read_token` is not set.
    Closed,
    /// A token is needed, and none was shown, or a wrong one.
    Unauthorized,
    /// The token may read, and not change; or nobody may change.
    Forbidden,
    /// There were too many wrong tokens.
    TooManyWrongTokens,
    /// The request may come from a page of others.
    ForeignRequest,
    /// A field or a value is missing or wrong.
    InvalidRequest,
    /// The body is too large.
    TooLarge,
    /// The body did not come in time.
    TooSlow,
    /// The body is of another type.
    UnsupportedMediaType,
    /// There is no such page.
    NotFound,
    /// The path takes other methods.
    MethodNotAllowed,
    /// There are too many event streams and exports.
    TooManyStreams,
    /// The process has not reached its broker or its ledger yet.
    Starting,
    /// The config has no ledger.
    NoLedger,
    /// The ledger does not answer, or refuses.
    LedgerFailed,
    /// The record has no parked updates.
    NotParked,
    /// The record was released, and its updates are on their way.
    Releasing,
    /// What is parked has changed since it was looked at.
    Changed,
    /// A release by a search runs already.
    Busy,
    /// A person has paused the record: it is resumed, not released.
    RecordPaused,
    /// The config has no such target.
    UnknownTarget,
    /// It is paused already.
    AlreadyPaused,
    /// It is not paused.
    NotPaused,
    /// So many are paused that no more can be.
    TooManyPaused,
    /// The broker does not answer, or refuses.
    BrokerFailed,
}

impl ProblemCode {
    fn status(self) -> StatusCode {
        match self {
            Self::Closed | Self::Forbidden | Self::ForeignRequest => StatusCode::FORBIDDEN,
            Self::Unauthorized => StatusCode::UNAUTHORIZED,
            Self::TooManyWrongTokens => StatusCode::TOO_MANY_REQUESTS,
            Self::InvalidRequest => StatusCode::BAD_REQUEST,
            Self::TooLarge => StatusCode::PAYLOAD_TOO_LARGE,
            Self::TooSlow => StatusCode::REQUEST_TIMEOUT,
            Self::UnsupportedMediaType => StatusCode::UNSUPPORTED_MEDIA_TYPE,
            Self::NotFound | Self::NotParked | Self::UnknownTarget => StatusCode::NOT_FOUND,
            Self::MethodNotAllowed => StatusCode::METHOD_NOT_ALLOWED,
            Self::TooManyStreams | Self::Starting | Self::LedgerFailed | Self::BrokerFailed => {
                StatusCode::SERVICE_UNAVAILABLE
            }
            Self::NoLedger
            | Self::Releasing
            | Self::Changed
            | Self::Busy
            | Self::RecordPaused
            | Self::AlreadyPaused
            | Self::NotPaused
            | Self::TooManyPaused => StatusCode::CONFLICT,
        }
    }

    /// The same for every problem of this kind.
    fn title(self) -> &'static str {
        match self {
            Self::Closed => "Nothing but health and metrics is served",
            Self::Unauthorized => "A token is needed",
            Self::Forbidden => "This may not be changed",
            Self::TooManyWrongTokens => "There were too many wrong tokens",
            Self::ForeignRequest => "The request does not come from a page of this port",
            Self::InvalidRequest => "The request is not understood",
            Self::TooLarge => "The request is too large",
            Self::TooSlow => "The request came too slowly",
            Self::UnsupportedMediaType => "The body is of another type",
            Self::NotFound => "There is no such page",
            Self::MethodNotAllowed => "This path takes other methods",
            Self::TooManyStreams => "There are too many long answers",
            Self::Starting => "The process starts",
            Self::NoLedger => "There is no ledger",
            Self::LedgerFailed => "The ledger cannot be used",
            Self::NotParked => "The record is not parked",
            Self::Releasing => "The record was released, and its updates are on their way",
            Self::Changed => "What is parked has changed",
            Self::Busy => "A release runs already",
            Self::RecordPaused => "The record is paused",
            Self::UnknownTarget => "There is no such target",
            Self::AlreadyPaused => "It is paused already",
            Self::NotPaused => "It is not paused",
            Self::TooManyPaused => "Too many are paused",
            Self::BrokerFailed => "The broker cannot be asked",
        }
    }

    /// As in the answer.
    pub(super) fn name(self) -> String {
        serde_json::to_value(self).ok().and_then(|name| Some(name.as_str()?.to_owned())).unwrap_or_default()
    }
}

/// Why there is no answer, and what to do.
#[derive(Clone, Debug)]
pub(super) struct AdminProblem {
    code: ProblemCode,
    detail: String,
    /// Seconds until it is worth another try.
    retry_after: Option<u64>,
}

#[derive(Serialize)]
struct Body<'a> {
    r#type: String,
    title: &'a str,
    status: u16,
    code: ProblemCode,
    detail: &'a str,
}

impl AdminProblem {
    pub(super) fn new(code: ProblemCode, detail: impl Into<String>) -> Self {
        Self { code, detail: detail.into(), retry_after: None }
    }

    pub(super) fn retry_after(self, seconds: u64) -> Self {
        Self { retry_after: Some(seconds), ..self }
    }

    pub(super) fn code(&self) -> ProblemCode {
        self.code
    }

    pub(super) fn status(&self) -> StatusCode {
        self.code.status()
    }

    pub(super) fn title(&self) -> &'static str {
        self.code.title()
    }

    pub(super) fn detail(&self) -> &str {
        &self.detail
    }
}

impl IntoResponse for AdminProblem {
    /// For programs. A page is made of it for people: it is among the extensions of the answer.
    fn into_response(self) -> Response {
        let body = Body {
            r#type: format!("urn:lanekeeper:problem:{}", self.code.name()),
            title: self.title(),
            status: self.status().as_u16(),
            code: self.code,
            detail: &self.detail,
        };
        let text = serde_json::to_string(&body).expect("texts and numbers are JSON");
        let mut answer =
            (self.status(), [(header::CONTENT_TYPE, "application/problem+json")], text).into_response();
        let headers = answer.headers_mut();
        if self.code == ProblemCode::Unauthorized {
            headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer realm=\"lanekeeper\""));
        }
        if let Some(seconds) = self.retry_after {
            headers.insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        answer.extensions_mut().insert(self);
        answer
    }
}

#[cfg(test)]
mod tests {
    use axum::body::to_bytes;
    use serde_json::json;

    use super::*;

    #[tokio::test]
    async fn a_problem_is_json_with_a_code_that_never_changes() {
        let answer =
            AdminProblem::new(ProblemCode::TooManyWrongTokens, "wait").retry_after(60).into_response();
        assert_eq!(answer.status(), StatusCode::TOO_MANY_REQUESTS);
        assert_eq!(answer.headers()["content-type"], "application/problem+json");
        assert_eq!(answer.headers()["retry-after"], "60");
        let body = to_bytes(answer.into_body(), usize::MAX).await.unwrap();
        let expected = json!({
            "type": "urn:lanekeeper:problem:too_many_wrong_tokens",
            "title": "There were too many wrong tokens",
            "status": 429,
            "code": "too_many_wrong_tokens",
            "detail": "wait",
        });
        assert_eq!(serde_json::from_slice::<serde_json::Value>(&body).unwrap(), expected);
    }
}

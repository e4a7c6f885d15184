//! Why a request is refused, as `application/problem+json` (RFC 9457).

use std::time::Duration;

use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;

use super::door::NotTaken;
use super::senders::SenderName;
use lanekeeper_core::publish::intake::NotAdmitted;

/// What kind of problem. Its name is in the `type` of the answer and never changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[cfg_attr(test, derive(strum::VariantArray))]
#[serde(rename_all = "snake_case")]
pub(super) enum DoorProblemCode {
    NoId,
    IdUnfit,
    KeyUnfit,
    HeaderUnfit,
    BadLine,
    BadEvent,
    Unauthorized,
    TooManyWrongTokens,
    TypeNotAllowed,
    NotFound,
    Method,
    Slow,
    BodyTooLarge,
    Unsupported,
    NoKey,
    IdReused,
    TooMany,
    Full,
    NotAccepted,
    OutcomeUnknown,
    Stopping,
}

impl DoorProblemCode {
    fn status(self) -> StatusCode {
        match self {
            Self::NoId
            | Self::IdUnfit
            | Self::KeyUnfit
            | Self::HeaderUnfit
            | Self::BadLine
            | Self::BadEvent => StatusCode::BAD_REQUEST,
            Self::Unauthorized => StatusCode::UNAUTHORIZED,
            Self::TypeNotAllowed => StatusCode::FORBIDDEN,
            Self::NotFound => StatusCode::NOT_FOUND,
            Self::Method => StatusCode::METHOD_NOT_ALLOWED,
            Self::Slow => StatusCode::REQUEST_TIMEOUT,
            Self::BodyTooLarge => StatusCode::PAYLOAD_TOO_LARGE,
            Self::Unsupported => StatusCode::UNSUPPORTED_MEDIA_TYPE,
            Self::NoKey | Self::IdReused => StatusCode::UNPROCESSABLE_ENTITY,
            Self::TooMany | Self::TooManyWrongTokens => StatusCode::TOO_MANY_REQUESTS,
            Self::Full | Self::NotAccepted | Self::OutcomeUnknown | Self::Stopping => {
                StatusCode::SERVICE_UNAVAILABLE
            }
        }
    }

    /// The same for every problem of this kind.
    fn title(self) -> &'static str {
        match self {
            Self::NoId => "The update has no id",
            Self::IdUnfit => "The id cannot be used",
            Self::KeyUnfit => "The record key cannot be used",
            Self::HeaderUnfit => "A header cannot be used",
            Self::BadLine => "A line is no update",
            Self::BadEvent => "The event is no update",
            Self::Unauthorized => "A token is needed",
            Self::TooManyWrongTokens => "There were too many wrong tokens or signatures",
            Self::TypeNotAllowed => "The client may not send this type",
            Self::NotFound => "There is no such path",
            Self::Method => "This path takes other methods",
            Self::Slow => "The body came too slowly",
            Self::BodyTooLarge => "The body is too large",
            Self::Unsupported => "The body is of another type",
            Self::NoKey => "The update has no record key",
            Self::IdReused => "The id was used for another body",
            Self::TooMany => "Too many updates are sent",
            Self::Full => "Too many updates wait",
            Self::NotAccepted => "The update was not accepted",
            Self::OutcomeUnknown => "It is not known if the update was accepted",
            Self::Stopping => "The process stops",
        }
    }

    /// As in the answer.
    pub(super) fn name(self) -> String {
        serde_json::to_value(self).ok().and_then(|name| Some(name.as_str()?.to_owned())).unwrap_or_default()
    }
}

/// Why there is no 2xx, and what to do.
#[derive(Clone, Debug)]
pub(super) struct DoorProblem {
    code: DoorProblemCode,
    detail: String,
    /// Seconds until it is worth another try.
    retry_after: Option<u64>,
    lines: Vec<ProblemLine>,
    /// The client or hook whose request it was; `None`: that is not known.
    sender: Option<SenderName>,
    /// What was wrong, if that says more than the title, and nothing of the request.
    cause: Option<&'static str>,
}

/// What is with a line of a request of several.
#[derive(Clone, Debug, Serialize)]
pub(super) struct ProblemLine {
    /// From 1.
    pub(super) line: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) state: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) detail: Option<String>,
}

#[derive(Serialize)]
struct ProblemBody<'a> {
    r#type: String,
    title: &'a str,
    status: u16,
    code: DoorProblemCode,
    detail: &'a str,
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    lines: &'a [ProblemLine],
}

impl DoorProblem {
    pub(super) fn new(code: DoorProblemCode, detail: impl Into<String>) -> Self {
        let detail = detail.into();
        Self { code, detail, retry_after: None, lines: Vec::new(), sender: None, cause: None }
    }

    pub(super) fn retry_after(self, seconds: u64) -> Self {
        Self { retry_after: Some(seconds), ..self }
    }

    pub(super) fn lines(self, lines: Vec<ProblemLine>) -> Self {
        Self { lines, ..self }
    }

    /// Of this line of a request of several, from 1.
    pub(super) fn of_line(self, line: usize) -> Self {
        let detail = Some(self.detail.clone());
        self.lines(vec![ProblemLine { line, state: None, detail }])
    }

    /// Of a request of this client or hook.
    pub(super) fn of_sender(self, sender: SenderName) -> Self {
        Self { sender: Some(sender), ..self }
    }

    /// What was wrong, in words that have no part of a request.
    pub(super) fn caused_by(self, cause: &'static str) -> Self {
        Self { cause: Some(cause), ..self }
    }

    pub(super) fn sender(&self) -> Option<&SenderName> {
        self.sender.as_ref()
    }

    /// For those who look after the door: nothing of the request is in it, unlike in the detail.
    pub(super) fn failure(&self) -> String {
        let cause = self.cause.unwrap_or_else(|| self.code.title());
        format!("{} {}: {cause}", self.status().as_u16(), self.code.name())
    }

    pub(super) fn code(&self) -> DoorProblemCode {
        self.code
    }

    pub(super) fn status(&self) -> StatusCode {
        self.code.status()
    }

    /// Nothing of the request is published. `is_batch`: lines are named.
    pub(super) fn not_taken(reason: NotTaken, is_batch: bool) -> Self {
        use DoorProblemCode::{BodyTooLarge, Full, IdReused, Stopping, TooMany};
        let of_line = |problem: Self, line: usize| if is_batch { problem.of_line(line + 1) } else { problem };
        let seconds = |wait: Duration| wait.as_secs() + 1;
        match reason {
            NotTaken::NotAdmitted(NotAdmitted::IdReused { line }) => {
                let detail =
                    "this id was used for another body of the record: choose a new id for a new update";
                of_line(Self::new(IdReused, detail), line)
            }
            NotTaken::NotAdmitted(NotAdmitted::TooManyLines { line }) => {
                let detail = "the request has more updates than may wait, of this record or in all: split it";
                of_line(Self::new(BodyTooLarge, detail), line)
            }
            NotTaken::NotAdmitted(NotAdmitted::TooManyOfRecord { line }) => {
                let detail = "too many updates of this record wait: send the next one when one was answered";
                of_line(Self::new(TooMany, detail).retry_after(1), line)
            }
            NotTaken::NotAdmitted(NotAdmitted::TooManyOfClient) => {
                Self::new(TooMany, "too many updates of this client wait").retry_after(1)
            }
            NotTaken::NotAdmitted(NotAdmitted::TooFast { retry_after }) => {
                Self::new(TooMany, "this client sends more than its rate_max")
                    .retry_after(seconds(retry_after))
            }
            NotTaken::NotAdmitted(NotAdmitted::Full) => {
                Self::new(Full, "too many updates wait for the broker").retry_after(1)
            }
            NotTaken::Stopping => {
                Self::new(Stopping, "send it again: to another process, or a little later").retry_after(1)
            }
        }
    }
}

impl IntoResponse for DoorProblem {
    fn into_response(self) -> Response {
        let body = ProblemBody {
            r#type: format!("urn:lanekeeper:problem:{}", self.code.name()),
            title: self.code.title(),
            status: self.status().as_u16(),
            code: self.code,
            detail: &self.detail,
            lines: &self.lines,
        };
        let text = serde_json::to_string(&body).expect("texts and numbers are JSON");
        let mut answer =
            (self.status(), [(header::CONTENT_TYPE, "application/problem+json")], text).into_response();
        let headers = answer.headers_mut();
        if self.code == DoorProblemCode::Unauthorized {
            headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer realm=\"lanekeeper\""));
        }
        if self.code == DoorProblemCode::TooManyWrongTokens {
            headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
        }
        if let Some(seconds) = self.retry_after {
            headers.insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        answer.extensions_mut().insert(self.code);
        answer
    }
}

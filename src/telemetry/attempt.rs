//! The span of an attempt, by the conventions for HTTP clients:
//! <https://opentelemetry.io/docs/specs/semconv/http/http-spans/#http-client-span>.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use opentelemetry::KeyValue;
use opentelemetry::trace::SpanKind;

use super::context::to_target;
use super::spans::{OpenSpan, SpanEnd, Spans};
use crate::http::{AttemptReceipt, TraceHeaders};
use lanekeeper_core::outcome::{Cause, Outcome};

/// The trace of an attempt. Boxed, since an attempt is moved often.
#[derive(Debug)]
pub struct AttemptTrace(Box<Traced>);

#[derive(Debug)]
struct Traced {
    span: OpenSpan,
    headers: Arc<TraceHeaders>,
    ended: Option<SystemTime>,
}

/// What is known of an attempt at its end.
pub struct AttemptFacts<'a> {
    /// From 1.
    pub number: u32,
    /// Name of the target.
    pub target: &'a str,
    /// What the target did.
    pub outcome: &'a Outcome,
    /// What its answer says.
    pub receipt: &'a AttemptReceipt,
    /// The request alone.
    pub took: Duration,
}

impl AttemptTrace {
    pub(super) fn new(span: OpenSpan) -> Self {
        let headers = Arc::new(to_target(&span.context));
        Self(Box::new(Traced { span, headers, ended: None }))
    }

    /// What its requests carry.
    #[must_use]
    pub fn headers(&self) -> Arc<TraceHeaders> {
        Arc::clone(&self.0.headers)
    }

    /// The id of a trace that is sampled, for exemplars.
    #[must_use]
    pub fn sampled_id(&self) -> Option<String> {
        self.0.span.context.is_sampled().then(|| self.0.span.context.trace_id().to_string())
    }

    /// It ends now.
    pub fn ended(&mut self) {
        self.0.ended = Some(SystemTime::now());
    }

    pub(super) fn end(self, spans: &Spans, facts: &AttemptFacts<'_>) {
        let Traced { mut span, headers, ended } = *self.0;
        // Without a request there was none to time.
        if !span.context.is_sampled() || !facts.outcome.was_sent() {
            return;
        }
        let at = ended.unwrap_or_else(SystemTime::now);
        span.began = at.checked_sub(facts.took).unwrap_or(at);
        let mut attributes = Vec::with_capacity(12);
        let mut add =
            |key: &'static str, value: opentelemetry::Value| attributes.push(KeyValue::new(key, value));
        let mut name = "HTTP".to_owned();
        if let Some(request) = headers.request.get() {
            name = format!("{} {}", request.method, request.url_template);
            add("http.request.method", request.method.clone().into());
            add("url.template", request.url_template.clone().into());
            add("url.scheme", request.scheme.into());
            add("server.address", request.host.clone().into());
            add("server.port", i64::from(request.port).into());
        }
        if facts.number > 1 {
            add("http.request.resend_count", i64::from(facts.number - 1).into());
        }
        if facts.receipt.status > 0 {
            add("http.response.status_code", i64::from(facts.receipt.status).into());
        }
        let error = error_type(facts.outcome, facts.receipt.status);
        if let Some(error) = error.clone() {
            add("error.type", error.into());
        }
        add("lanekeeper.target", facts.target.to_owned().into());
        add("lanekeeper.outcome", facts.outcome.kind().name().into());
        let end = SpanEnd { name, kind: SpanKind::Client, attributes, is_error: error.is_some(), at };
        spans.end(span, end);
    }
}

/// A word of few: a status or a cause, and never the words of a target. `None`: the update is applied.
fn error_type(outcome: &Outcome, status: u16) -> Option<String> {
    let failure = outcome.failure()?;
    Some(match failure.cause {
        Cause::Status(status) => status.to_string(),
        Cause::Timeout if status == 0 => "timeout".to_owned(),
        Cause::Connection if status == 0 => "connection".to_owned(),
        // An answer that came in part.
        Cause::Timeout => "answer_timeout".to_owned(),
        Cause::Connection => "answer_broken".to_owned(),
        Cause::Unsendable => "unsendable".to_owned(),
        Cause::NoCredential => "no_credential".to_owned(),
    })
}

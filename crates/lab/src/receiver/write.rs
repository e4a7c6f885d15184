//! Requests that write, from the head to the answer.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use axum::body::{HttpBody, to_bytes};
use axum::extract::Request;
use axum::http::header::{CONTENT_TYPE, IF_MATCH, IF_NONE_MATCH};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use percent_encoding::percent_decode_str;
use tokio::time::timeout;

use super::answer::{answer, problem, store_failed};
use super::body::BodyMembers;
use super::failing::Barrier;
use super::faults::FaultRng;
use super::judge::End;
use super::rules::{Change, WriteOutcome};
use super::settings::ReceiverSettings;
use super::state::ReceiverState;
use super::store::{Store, StoreError};

/// Largest body taken.
const BODY_BYTES_MAX: usize = 16 * 1024 * 1024;
/// Largest content type kept.
const CONTENT_TYPE_BYTES_MAX: usize = 255;

/// What a number of [`FaultRng`] is for: any numbers that differ.
pub(super) mod purpose {
    pub(in super::super) const LATENCY: u64 = 1;
    pub(in super::super) const FAILS: u64 = 2;
    pub(in super::super) const FAULT: u64 = 3;
}

/// A request of a record, in progress until this is dropped: with the answer made, or with the connection.
struct RequestInProgress {
    state: Arc<ReceiverState>,
    record_key: String,
    end: End,
}

impl RequestInProgress {
    fn answer(mut self, end: End, response: impl IntoResponse) -> Response {
        self.end = end;
        response.into_response()
    }
}

impl Drop for RequestInProgress {
    fn drop(&mut self) {
        let now = self.state.started.elapsed();
        self.state.judges.of(&self.record_key).end(&self.record_key, self.end, now);
    }
}

/// `barrier` is what keeps the request from being applied, if it is known already.
pub(super) async fn write(
    state: Arc<ReceiverState>,
    record_key: String,
    request: Request,
    barrier: Option<Barrier>,
) -> Response {
    let Some(limit) = state.settings.finish_abandoned else {
        return answered(state, record_key, request, barrier).await;
    };
    let working = tokio::spawn(timeout(limit, answered(state, record_key, request, barrier)));
    let answered = working.await.expect("a request does not panic");
    answered.unwrap_or_else(|_| problem(StatusCode::SERVICE_UNAVAILABLE, "the request took too long"))
}

/// The answer to a request. It is in progress until this future is dropped.
async fn answered(
    state: Arc<ReceiverState>,
    record_key: String,
    request: Request,
    barrier: Option<Barrier>,
) -> Response {
    let (head, body) = request.into_parts();
    let headers = &head.headers;
    let named_as =
        text(headers, "lanekeeper-record-key").map(|key| percent_decode_str(key).decode_utf8_lossy());
    let now = state.started.elapsed();
    let tenure = number(headers, "lanekeeper-tenure");
    let begun = state.judges.of(&record_key).begin(&record_key, named_as.as_deref(), tenure, now);
    let in_progress = RequestInProgress { state: Arc::clone(&state), record_key, end: End::Disconnected };

    if body.size_hint().lower() > BODY_BYTES_MAX as u64 {
        return in_progress.answer(End::Rejected, StatusCode::PAYLOAD_TOO_LARGE);
    }
    let Ok(body) = to_bytes(body, BODY_BYTES_MAX).await else {
        // The sender broke off and does not see this answer, or the body was longer than its head said.
        return in_progress.answer(End::Disconnected, StatusCode::BAD_REQUEST);
    };

    if let Some(limit @ Barrier::Limit(_)) = barrier {
        return in_progress.answer(End::Limited, state.barred(limit).await);
    }

    let settings = &state.settings;
    let attempt = number(headers, "lanekeeper-attempt");
    let members = BodyMembers::of(&body);
    if let Some(sent) = members.sent_us {
        state.delays().add(since(sent));
    }
    let change = Change {
        record_key: in_progress.record_key.clone(),
        tenure,
        members,
        body,
        ..conditions(headers, settings)
    };
    let luck = FaultRng::of_attempt(
        settings.seed,
        &change.record_key,
        change.update_id.as_deref().unwrap_or_default(),
        attempt.unwrap_or(begun.number),
    );
    if !settings.latency.is_zero() {
        let vary = settings.latency_jitter.clamp(0.0, 1.0) * (2.0 * luck.unit(purpose::LATENCY) - 1.0);
        tokio::time::sleep(settings.latency.mul_f64(1.0 + vary)).await;
    }

    let injected = match barrier {
        Some(Barrier::Outage(injected)) => Some(injected),
        _ => state.fault_of(&change.record_key, begun.age, attempt, luck),
    };
    let apply = async |change| {
        let written = state.apply(change).await?;
        state.judges.of(&in_progress.record_key).written(&in_progress.record_key, written);
        Ok(written)
    };
    if let Some(injected) = injected {
        if injected.fault.applied {
            // Its sender does not learn what became of it.
            let _: Result<_, StoreError> = apply(change).await;
        }
        let response = state.fail(injected).await;
        return in_progress.answer(End::Failed, response);
    }
    match apply(change).await {
        Ok(written) => in_progress.answer(End::Written(written), answer(written, settings.superseded_status)),
        Err(fault @ StoreError::Unfit) => in_progress.answer(End::Rejected, store_failed(&fault)),
        Err(fault) => in_progress.answer(End::StoreFailed, store_failed(&fault)),
    }
}

/// The change as the headers describe it.
fn conditions(headers: &HeaderMap, settings: &ReceiverSettings) -> Change {
    let owned = |name: &str| text(headers, name).map(str::to_owned);
    let idempotency_key = text(headers, "idempotency-key").map(|key| key.trim_matches('"').to_owned());
    Change {
        update_id: idempotency_key.clone().or_else(|| owned("lanekeeper-update-id")),
        idempotency_key: idempotency_key.filter(|_| settings.safeguards.idempotency),
        if_match: owned(IF_MATCH.as_str()),
        if_none_match: owned(IF_NONE_MATCH.as_str()),
        record_version: number(headers, "record-version").or_else(|| number(headers, "ce-recordversion")),
        content_type: owned(CONTENT_TYPE.as_str()).filter(|text| text.len() <= CONTENT_TYPE_BYTES_MAX),
        ..Change::default()
    }
}

impl ReceiverState {
    /// Applies the change. A transaction that has begun goes on if its sender goes away.
    async fn apply(self: &Arc<Self>, change: Change) -> Result<WriteOutcome, StoreError> {
        if matches!(self.store, Store::Memory(_)) {
            return self.store.write(&change, &self.settings, &self.judges).await;
        }
        let state = Arc::clone(self);
        let transaction =
            tokio::spawn(async move { state.store.write(&change, &state.settings, &state.judges).await });
        transaction.await.expect("a transaction does not panic")
    }
}

/// Time since a moment, which is in microseconds since 1970; zero if it is in the future.
fn since(sent_us: u64) -> Duration {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    now.saturating_sub(Duration::from_micros(sent_us))
}

fn text<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    headers.get(name)?.to_str().ok()
}

fn number<T: std::str::FromStr>(headers: &HeaderMap, name: &str) -> Option<T> {
    text(headers, name)?.parse().ok()
}

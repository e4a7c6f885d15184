//! Where requests go, and how records are read.

use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::header::{CONTENT_TYPE, ETAG};
use axum::http::{HeaderValue, Method, StatusCode, Uri};
use axum::response::{IntoResponse, Json, Response};
use axum::routing::{get, post};
use percent_encoding::percent_decode_str;

use super::answer::{etag, problem, store_failed};
use super::failing::Barrier;
use super::state::ReceiverState;
use super::wire;
use super::write::write;

pub(super) fn router(state: Arc<ReceiverState>) -> Router {
    Router::new()
        .route("/report", get(report).delete(reset))
        .route("/reset", post(reset))
        .fallback(record)
        .with_state(state)
}

/// `?records=N` lists N records, `?records=all` all of them.
async fn report(State(state): State<Arc<ReceiverState>>, uri: Uri) -> Response {
    let query = url::form_urlencoded::parse(uri.query().unwrap_or_default().as_bytes());
    let records = query.last().map(|(name, value)| match (&*name, &*value) {
        ("records", "all") => Some(usize::MAX),
        ("records", number) => number.parse().ok(),
        _ => None,
    });
    match records.unwrap_or(Some(0)) {
        Some(records_max) => Json(state.report(records_max)).into_response(),
        None => problem(StatusCode::BAD_REQUEST, "write ?records=10 or ?records=all, or nothing"),
    }
}

/// Deletes all records, and what was seen of them. Requests in progress go on.
async fn reset(State(state): State<Arc<ReceiverState>>) -> Response {
    match state.forget().await {
        Ok(()) => StatusCode::NO_CONTENT.into_response(),
        Err(fault) => store_failed(&fault),
    }
}

async fn record(State(state): State<Arc<ReceiverState>>, request: Request) -> Response {
    let segment = request.uri().path().rsplit('/').next().unwrap_or_default();
    let record_key = percent_decode_str(segment).decode_utf8_lossy().into_owned();
    if record_key.is_empty() {
        let help =
            "the last segment of the path names the record, as in /customers/42; the report is at /report\n";
        return (StatusCode::NOT_FOUND, help).into_response();
    }
    if let Some(requests) = state.settings.hang_connections_after {
        state.periods.count(requests);
    }
    let response = answer(Arc::clone(&state), record_key, request).await;
    wire::finish(response, &state.settings)
}

async fn answer(state: Arc<ReceiverState>, record_key: String, request: Request) -> Response {
    let now = state.started.elapsed();
    if let Some(injected) = state.outage_of(&record_key, now) {
        return admitted(state, record_key, request, Some(Barrier::Outage(injected))).await;
    }
    let Some((limit, token)) = state.take_token(now) else {
        return admitted(state, record_key, request, None).await;
    };
    let barrier = (!token.accepted).then_some(Barrier::Limit(limit));
    limit.write_fields(&token, admitted(state, record_key, request, barrier).await)
}

/// The answer to a request that has passed the gateway, or has met this barrier.
async fn admitted(
    state: Arc<ReceiverState>,
    record_key: String,
    request: Request,
    barrier: Option<Barrier>,
) -> Response {
    match (request.method(), barrier) {
        (&Method::GET | &Method::HEAD, Some(barrier)) => state.barred(barrier).await,
        (&Method::GET | &Method::HEAD, None) => value(&state, &record_key).await,
        _ => write(state, record_key, request, barrier).await,
    }
}

async fn value(state: &ReceiverState, record_key: &str) -> Response {
    let row = match state.store.read(record_key).await {
        Ok(Some(row)) => row,
        Ok(None) => return StatusCode::NOT_FOUND.into_response(),
        Err(fault) => return store_failed(&fault),
    };
    let mut response = Body::from(row.body).into_response();
    response.headers_mut().insert(ETAG, etag(row.version));
    if let Some(content_type) = row.content_type.and_then(|text| HeaderValue::from_str(&text).ok()) {
        response.headers_mut().insert(CONTENT_TYPE, content_type);
    }
    response
}

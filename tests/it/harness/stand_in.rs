//! A stand-in for somebody's API: it writes down what it gets, and answers as the test says.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};

use axum::Router;
use axum::body::{Bytes, to_bytes};
use axum::extract::{Request, State};
use axum::http::{HeaderMap, StatusCode, Uri, header};
use axum::response::{IntoResponse as _, Response};

const BODY_BYTES_MAX: usize = 1024 * 1024;

/// A request.
#[derive(Clone, Debug)]
pub struct SeenRequest {
    pub uri: Uri,
    pub headers: HeaderMap,
    pub body: Bytes,
}

impl SeenRequest {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }
}

/// A status and a JSON body.
pub type Answer = (u16, String);

type AnswerFn = dyn Fn(&SeenRequest) -> Answer + Send + Sync;

/// Clones are the same one.
#[derive(Clone)]
pub struct StandIn(Arc<StandInState>);

struct StandInState {
    address: SocketAddr,
    answer: Box<AnswerFn>,
    seen: Mutex<Vec<SeenRequest>>,
}

impl StandIn {
    pub async fn start(answer: impl Fn(&SeenRequest) -> Answer + Send + Sync + 'static) -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port is free");
        let address = listener.local_addr().expect("it is bound");
        let stand_in =
            Self(Arc::new(StandInState { address, answer: Box::new(answer), seen: Mutex::default() }));
        let router = Router::new().fallback(answer_one).with_state(stand_in.clone());
        tokio::spawn(async move { axum::serve(listener, router).await });
        stand_in
    }

    pub fn address(&self) -> SocketAddr {
        self.0.address
    }

    /// All requests so far, in the order in which they came.
    pub fn seen(&self) -> Vec<SeenRequest> {
        self.0.seen.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

async fn answer_one(State(StandIn(state)): State<StandIn>, request: Request) -> Response {
    let (head, body) = request.into_parts();
    let body = to_bytes(body, BODY_BYTES_MAX).await.expect("requests of the tests are short");
    let seen = SeenRequest { uri: head.uri, headers: head.headers, body };
    let (status, body) = (state.answer)(&seen);
    state.seen.lock().unwrap_or_else(PoisonError::into_inner).push(seen);
    let status = StatusCode::from_u16(status).expect("the test writes statuses");
    (status, [(header::CONTENT_TYPE, "application/json")], body).into_response()
}

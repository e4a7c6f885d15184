//! A door before the receiver that lets through who has one of its tokens.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};

use axum::Router;
use axum::body::{Body, to_bytes};
use axum::extract::{Request, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse as _, Response};

use super::http;

const BODY_BYTES_MAX: usize = 1024 * 1024;

/// Answers 401 without a good token. Clones are the same one.
#[derive(Clone, Debug)]
pub struct Door(Arc<DoorState>);

#[derive(Debug)]
struct DoorState {
    behind: String,
    /// What `authorization` must be.
    good: Mutex<Vec<String>>,
    refused: Mutex<u64>,
}

impl Door {
    /// Before `behind`, the base of a URL; it knows no token yet.
    pub async fn before(behind: &str) -> (Self, SocketAddr) {
        let door = Self(Arc::new(DoorState {
            behind: behind.to_owned(),
            good: Mutex::default(),
            refused: Mutex::default(),
        }));
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port is free");
        let address = listener.local_addr().expect("it is bound");
        let router = Router::new().fallback(pass).with_state(door.clone());
        tokio::spawn(async move { axum::serve(listener, router).await });
        (door, address)
    }

    /// Only these are good from now on.
    pub fn accept(&self, authorizations: &[&str]) {
        *self.0.good.lock().unwrap_or_else(PoisonError::into_inner) =
            authorizations.iter().map(|&authorization| authorization.to_owned()).collect();
    }

    pub fn refused(&self) -> u64 {
        *self.0.refused.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn pass(State(Door(door)): State<Door>, request: Request) -> Response {
    let (head, body) = request.into_parts();
    let authorization = head.headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
    let good = door.good.lock().unwrap_or_else(PoisonError::into_inner).clone();
    if !authorization.is_some_and(|authorization| good.iter().any(|good| good == authorization)) {
        *door.refused.lock().unwrap_or_else(PoisonError::into_inner) += 1;
        return (StatusCode::UNAUTHORIZED, "who are you?").into_response();
    }
    let body = to_bytes(body, BODY_BYTES_MAX).await.expect("requests of the tests are short");
    let url = format!("{}{}", door.behind, head.uri);
    let mut headers = head.headers;
    headers.remove(header::HOST);
    match http().request(head.method, url).headers(headers).body(body).send().await {
        Ok(answer) => {
            let status = answer.status();
            let body = answer.bytes().await.unwrap_or_default();
            (status, Body::from(body)).into_response()
        }
        Err(error) => (StatusCode::BAD_GATEWAY, error.to_string()).into_response(),
    }
}

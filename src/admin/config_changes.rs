//! `/config/changes`: what the config file would change in this process. It names keys, and no values.

use axum::Json;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};

use crate::config::{Change, TakesEffect};
use crate::config_requests::ConfigRequestSender;

/// The answer.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Compared {
    /// The config file has these faults.
    Faults(String),
    /// These keys have other values in it; none: it says what is in force.
    Changes(Vec<ComparedChange>),
}

/// A key with another value.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ComparedChange {
    /// `retry.delay_max`, `target[0].url`.
    pub key: String,
    /// When it would take effect.
    pub takes_effect: TakesEffect,
}

impl From<Change> for ComparedChange {
    fn from(change: Change) -> Self {
        Self { key: change.key, takes_effect: change.takes_effect }
    }
}

pub(super) async fn answer(State(requests): State<ConfigRequestSender>, headers: HeaderMap) -> Response {
    // A page in a browser on this host could have a name of its own lead here.
    let host = headers.get(header::HOST).and_then(|host| host.to_str().ok()).unwrap_or_default();
    if !is_of_this_host(host) {
        return (StatusCode::FORBIDDEN, "ask for 127.0.0.1, [::1] or localhost\n").into_response();
    }
    match requests.compare().await {
        None => (
            StatusCode::SERVICE_UNAVAILABLE,
            "the process starts or stops, or the config cannot be read in time\n",
        )
            .into_response(),
        Some(Err(faults)) => Json(Compared::Faults(faults.to_string())).into_response(),
        Some(Ok(changes)) => {
            Json(Compared::Changes(changes.into_iter().map(ComparedChange::from).collect())).into_response()
        }
    }
}

fn is_of_this_host(host: &str) -> bool {
    let name = match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => name,
        _ => host,
    };
    matches!(name, "localhost" | "[::1]")
        || name.parse::<std::net::Ipv4Addr>().is_ok_and(|ip| ip.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_names_of_this_host_are_answered() {
        for host in ["127.0.0.1:9419", "127.0.0.1", "localhost:1", "[::1]:9419", "[::1]", "127.1.2.3:80"] {
            assert!(is_of_this_host(host), "{host}");
        }
        for host in ["", "evil.example:9419", "127.0.0.1.evil.example", "10.0.0.1:9419", "[::2]:80", "::1"] {
            assert!(!is_of_this_host(host), "{host}");
        }
    }
}

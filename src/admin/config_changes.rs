//! `/config/changes`: what the config file would change in this process. It names keys, and no values.

use axum::Json;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};

use super::guard::is_of_this_host;
use crate::config::{Change, Purpose, TakesEffect};
use crate::config_requests::ConfigRequestSender;

/// The answer.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConfigAnswer {
    /// `run` or `ingest`: what answers.
    #[serde(rename = "for", default = "of_run")]
    pub purpose: String,
    /// What the config file would change.
    #[serde(flatten)]
    pub compared: Compared,
}

/// The command whose process reads a config for this.
pub fn command_of(purpose: Purpose) -> &'static str {
    if purpose == Purpose::Ingest { "ingest" } else { "run" }
}

fn of_run() -> String {
    command_of(Purpose::Dispatch).to_owned()
}

/// What a config file would change.
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

pub(super) async fn answer(
    State((purpose, requests)): State<(Purpose, ConfigRequestSender)>,
    headers: HeaderMap,
) -> Response {
    // A page in a browser on this host could have a name of its own lead here.
    let host = headers.get(header::HOST).and_then(|host| host.to_str().ok()).unwrap_or_default();
    if !is_of_this_host(host) {
        return (StatusCode::FORBIDDEN, "ask for 127.0.0.1, [::1] or localhost\n").into_response();
    }
    let compared = match requests.compare().await {
        None => {
            let why = "the process starts or stops, or the config cannot be read in time\n";
            return (StatusCode::SERVICE_UNAVAILABLE, why).into_response();
        }
        Some(Err(faults)) => Compared::Faults(faults.to_string()),
        Some(Ok(changes)) => Compared::Changes(changes.into_iter().map(ComparedChange::from).collect()),
    };
    Json(ConfigAnswer { purpose: command_of(purpose).to_owned(), compared }).into_response()
}

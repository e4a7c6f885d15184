//! The JSON API of what is paused.

use axum::extract::State;
use axum::response::{IntoResponse, Response};
use axum::{Extension, Json};
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::super::Parts;
use super::super::fields::{Fields, QueryFields};
use super::super::guard::JsonBody;
use super::super::parked::change::operator_reason;
use super::super::parked::record_key;
use super::super::parked::search::format_ms;
use super::super::parked::view::ReasonJson;
use super::super::problem::AdminProblem;
use crate::config::Config;
use crate::pausing::{ResumedRecord, is_known};
use lanekeeper_ledger::{OperatorReason, Pause, PausedRecord, PausedTarget};

type Answer = Result<Response, AdminProblem>;

/// Since when, by whom and why.
#[derive(Debug, Serialize)]
struct PauseJson {
    since: String,
    who: String,
    why: String,
}

impl From<Pause> for PauseJson {
    fn from(Pause { since_ms, operator_reason: OperatorReason { who, why } }: Pause) -> Self {
        Self { since: format_ms(since_ms), who, why }
    }
}

/// A paused target.
#[derive(Debug, Serialize)]
struct PausedTargetJson {
    name: String,
    /// The config of this process has it.
    known: bool,
    #[serde(flatten)]
    pause: PauseJson,
}

impl PausedTargetJson {
    fn of(PausedTarget { name, pause }: PausedTarget, config: &Config) -> Self {
        Self { known: is_known(config, &name), name, pause: pause.into() }
    }
}

/// A paused record.
#[derive(Debug, Serialize)]
struct PausedRecordJson {
    key: String,
    #[serde(flatten)]
    pause: PauseJson,
    updates: u64,
}

impl From<PausedRecord> for PausedRecordJson {
    fn from(PausedRecord { record_key, pause, updates }: PausedRecord) -> Self {
        Self { key: record_key.as_str().to_owned(), pause: pause.into(), updates }
    }
}

/// The path of the next ones.
fn next_path(path: &str, fields: &Fields, next: Option<&str>) -> Option<String> {
    let limit = fields.get("limit").map(|limit| format!("&limit={limit}")).unwrap_or_default();
    Some(format!("{path}?after={}{limit}", utf8_percent_encode(next?, NON_ALPHANUMERIC)))
}

/// `GET /api/paused/targets`.
pub(in super::super) async fn targets(
    State(parts): State<Parts>,
    QueryFields(fields): QueryFields,
) -> Answer {
    let (ledger, config) = (parts.ledger.open()?, parts.config.borrow().clone());
    let listed = super::targets(&ledger, fields.get("after"), super::limit(&fields)?).await?;
    let next = next_path("/api/paused/targets", &fields, listed.next.as_deref());
    let targets = listed.some.into_iter().map(|target| PausedTargetJson::of(target, &config));
    Ok(Json(json!({ "targets": targets.collect::<Vec<_>>(), "next": next })).into_response())
}

/// `GET /api/paused/records`.
pub(in super::super) async fn records(
    State(parts): State<Parts>,
    QueryFields(fields): QueryFields,
) -> Answer {
    let ledger = parts.ledger.open()?;
    let listed = super::records(&ledger, fields.get("after"), super::limit(&fields)?).await?;
    let next = next_path("/api/paused/records", &fields, listed.next.as_deref());
    let records: Vec<PausedRecordJson> = listed.some.into_iter().map(Into::into).collect();
    Ok(Json(json!({ "records": records, "next": next })).into_response())
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct TargetChange {
    name: String,
    who: String,
    why: String,
}

/// `POST /api/target/pause`.
pub(in super::super) async fn pause_target(
    State(parts): State<Parts>,
    Extension(body): Extension<JsonBody>,
) -> Answer {
    let TargetChange { name, who, why } = body.parse()?;
    super::pause_target(&parts, name, operator_reason(&who, &why)?).await?;
    Ok(Json(json!({ "paused": true })).into_response())
}

/// `POST /api/target/resume`.
pub(in super::super) async fn resume_target(
    State(parts): State<Parts>,
    Extension(body): Extension<JsonBody>,
) -> Answer {
    let TargetChange { name, who, why } = body.parse()?;
    super::resume_target(&parts, name, operator_reason(&who, &why)?).await?;
    Ok(Json(json!({ "paused": false })).into_response())
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RecordChange {
    key: String,
    who: String,
    why: String,
}

/// `POST /api/record/pause`.
pub(in super::super) async fn pause_record(
    State(parts): State<Parts>,
    Extension(body): Extension<JsonBody>,
) -> Answer {
    let RecordChange { key, who, why } = body.parse()?;
    let (record_key, operator_reason) = (record_key(&key)?, operator_reason(&who, &why)?);
    super::pause_record(parts.ledger.open()?, record_key, operator_reason).await?;
    Ok(Json(json!({ "paused": true })).into_response())
}

/// `POST /api/record/resume`.
pub(in super::super) async fn resume_record(
    State(parts): State<Parts>,
    Extension(body): Extension<JsonBody>,
) -> Answer {
    let RecordChange { key, who, why } = body.parse()?;
    let (record_key, operator_reason) = (record_key(&key)?, operator_reason(&who, &why)?);
    let resumed = super::resume_record(parts.ledger.open()?, record_key, operator_reason).await?;
    let ResumedRecord { updates, still_parked } = resumed;
    let still_parked = still_parked.map(ReasonJson::from);
    Ok(Json(json!({ "paused": false, "updates": updates, "still_parked": still_parked })).into_response())
}

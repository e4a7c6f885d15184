//! The JSON API of what is parked.

use axum::extract::State;
use axum::response::{IntoResponse, Response};
use axum::{Extension, Json};
use serde::Deserialize;
use serde_json::json;

use super::super::Parts;
use super::super::fields::{Fields, QueryFields};
use super::super::guard::JsonBody;
use super::super::problem::{AdminProblem, ProblemCode};
use super::change::{self, operator_reason};
use super::search::ParkedSearch;
use super::view::{ChangeJson, IdUseJson, RecordJson, UpdateJson};
use super::{failed, not_parked, record_key};
use lanekeeper_ledger::{
    AnyLedger, Change, ChangeFilter, ChangeSeq, IdHistory, Ledger as _, Operations as _, ParkedRecord,
    ParkedSeq, ParkedUpdate, Released, Selection,
};

/// Updates in an answer, each with a body of up to `updates.body_bytes_max`.
pub(in super::super) const UPDATES_MAX: u32 = 10;
/// Updates with one id.
const IDS_MAX: u32 = 100;
/// Changes in an answer.
pub(in super::super) const CHANGES_SHOWN_MAX: u32 = 100;
/// Keys in one request.
const KEYS_MAX: usize = 200;

type Answer = Result<Response, AdminProblem>;

/// `GET /api/parked`.
pub(in super::super) async fn search(State(parts): State<Parts>, QueryFields(fields): QueryFields) -> Answer {
    let (ledger, config) = (parts.ledger.open()?, parts.config.borrow().clone());
    let search = ParkedSearch::parse(&fields, &config)?;
    let found = search.find(&ledger, &config).await.map_err(|fault| failed(&fault))?;
    let next = found.next.as_ref().map(|next| format!("/api/parked{}", search.query(Some(next))));
    let records = found.records.into_iter().map(|record| RecordJson::of(record, &config));
    Ok(Json(json!({ "records": records.collect::<Vec<_>>(), "next": next })).into_response())
}

/// A parked record, some of its updates, and if there are more behind them.
pub(in super::super) async fn record_and_updates(
    ledger: &AnyLedger,
    fields: &Fields,
) -> Result<(ParkedRecord, Vec<ParkedUpdate>, bool), AdminProblem> {
    let record_key = record_key(fields.require("key")?)?;
    let after = fields.get("after").map(|text| {
        let seq = text.parse().map_err(|_| {
            AdminProblem::new(
                ProblemCode::InvalidRequest,
                "`after` is not understood: it is the `seq` of an update",
            )
        });
        seq.map(ParkedSeq)
    });
    let after = after.transpose()?;
    let record =
        ledger.parked_record(&record_key).await.map_err(|fault| failed(&fault))?.ok_or_else(not_parked)?;
    let updates = ledger.parked_updates(&record_key, after, UPDATES_MAX).await;
    let updates = updates.map_err(|fault| failed(&fault))?;
    let more = updates.len() == UPDATES_MAX as usize;
    Ok((record, updates, more))
}

/// `GET /api/parked/updates`.
pub(in super::super) async fn updates(
    State(parts): State<Parts>,
    QueryFields(fields): QueryFields,
) -> Answer {
    let (ledger, config) = (parts.ledger.open()?, parts.config.borrow().clone());
    let (record, updates, more) = record_and_updates(&ledger, &fields).await?;
    let next = updates.last().filter(|_| more).map(|last| last.seq.0);
    let updates: Vec<_> = updates.into_iter().map(UpdateJson::from).collect();
    let record = RecordJson::of(record, &config);
    Ok(Json(json!({ "record": record, "updates": updates, "next_after": next })).into_response())
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Release {
    keys: Vec<String>,
    who: String,
    why: String,
}

/// `POST /api/parked/release`.
pub(in super::super) async fn release(
    State(parts): State<Parts>,
    Extension(body): Extension<JsonBody>,
) -> Answer {
    let Release { keys, who, why } = body.parse()?;
    if keys.is_empty() || keys.len() > KEYS_MAX {
        let detail = format!("`keys` is not understood: 1 to {KEYS_MAX} record keys");
        return Err(AdminProblem::new(ProblemCode::InvalidRequest, detail));
    }
    let operator_reason = operator_reason(&who, &why)?;
    let keys = keys.iter().map(|key| record_key(key)).collect::<Result<_, _>>()?;
    let released = change::release(parts.ledger.open()?, Selection::Keys(keys), operator_reason).await?;
    let Released { records, updates, paused } = released;
    Ok(Json(json!({ "records": records, "updates": updates, "paused": paused })).into_response())
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Discard {
    key: String,
    /// How many of the oldest updates; without it, `all` must be true.
    head: Option<std::num::NonZeroU32>,
    #[serde(default)]
    all: bool,
    /// Only if this is the oldest one.
    head_id: Option<String>,
    who: String,
    why: String,
}

/// `POST /api/parked/discard`.
pub(in super::super) async fn discard(
    State(parts): State<Parts>,
    Extension(body): Extension<JsonBody>,
) -> Answer {
    let Discard { key, head, all, head_id, who, why } = body.parse()?;
    if head.is_some() == all {
        let detail = "either `head` says how many of the oldest updates are discarded, or `all` is true";
        return Err(AdminProblem::new(ProblemCode::InvalidRequest, detail));
    }
    let (operator_reason, record_key) = (operator_reason(&who, &why)?, record_key(&key)?);
    let ledger = parts.ledger.open()?;
    change::parked_as_seen(&ledger, &record_key, head_id.as_deref()).await?;
    let head = head.map(std::num::NonZeroU32::get);
    let (updates, left) = change::discard(ledger, record_key, head, operator_reason).await?;
    Ok(Json(json!({ "updates": updates, "left": left })).into_response())
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ReleaseFound {
    #[serde(default)]
    search: std::collections::BTreeMap<String, String>,
    rate_per_second: u32,
    who: String,
    why: String,
}

/// `POST /api/parked/release-found`.
pub(in super::super) async fn release_found(
    State(parts): State<Parts>,
    Extension(body): Extension<JsonBody>,
) -> Answer {
    let ReleaseFound { search, rate_per_second, who, why } = body.parse()?;
    let (ledger, config) = (parts.ledger.open()?, parts.config.borrow().clone());
    let search = ParkedSearch::parse(&Fields::of(search)?, &config)?;
    let operator_reason = operator_reason(&who, &why)?;
    let begun = parts.found_release.begin(ledger, &search, &config, rate_per_second, operator_reason)?;
    Ok(Json(begun).into_response())
}

/// `GET /api/parked/release-found`.
pub(in super::super) async fn found_release(State(parts): State<Parts>) -> Response {
    Json(json!({ "last": parts.found_release.shown() })).into_response()
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Stop {}

/// `POST /api/parked/release-found/stop`.
pub(in super::super) async fn stop_found_release(
    State(parts): State<Parts>,
    Extension(body): Extension<JsonBody>,
) -> Answer {
    let Stop {} = body.parse()?;
    parts.found_release.stop();
    Ok(Json(json!({ "last": parts.found_release.shown() })).into_response())
}

/// What became of the updates with an id.
pub(in super::super) async fn history(
    ledger: &AnyLedger,
    fields: &Fields,
) -> Result<IdHistory, AdminProblem> {
    let (update_id, key) = (fields.require("id")?, fields.get("key").map(record_key).transpose()?);
    ledger.lookup_id(update_id, key.as_ref(), IDS_MAX).await.map_err(|fault| failed(&fault))
}

/// `GET /api/updates`.
pub(in super::super) async fn update_ids(
    State(parts): State<Parts>,
    QueryFields(fields): QueryFields,
) -> Answer {
    let history = history(&*parts.ledger.open()?, &fields).await?;
    let updates: Vec<_> = history.updates.into_iter().map(IdUseJson::from).collect();
    Ok(Json(json!({ "updates": updates, "is_all": history.is_all })).into_response())
}

/// Changes that people made, the newest first.
pub(in super::super) async fn changes_of(
    ledger: &AnyLedger,
    fields: &Fields,
) -> Result<Vec<Change>, AdminProblem> {
    let filter = ChangeFilter { record_key: fields.get("key").map(record_key).transpose()? };
    let before = fields.get("before").map(|text| {
        let seq = text.parse().map_err(|_| {
            AdminProblem::new(
                ProblemCode::InvalidRequest,
                "`before` is not understood: it is the `seq` of a change",
            )
        });
        seq.map(ChangeSeq)
    });
    ledger.changes(&filter, before.transpose()?, CHANGES_SHOWN_MAX).await.map_err(|fault| failed(&fault))
}

/// `GET /api/changes`.
pub(in super::super) async fn changes(
    State(parts): State<Parts>,
    QueryFields(fields): QueryFields,
) -> Answer {
    let changes = changes_of(&*parts.ledger.open()?, &fields).await?;
    let next = changes.last().filter(|_| changes.len() == CHANGES_SHOWN_MAX as usize).map(|last| last.seq.0);
    let changes: Vec<_> = changes.into_iter().map(ChangeJson::from).collect();
    Ok(Json(json!({ "changes": changes, "next_before": next })).into_response())
}

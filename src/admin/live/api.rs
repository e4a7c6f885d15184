//! The JSON API of how everything is.

use axum::Json;
use axum::extract::rejection::PathRejection;
use axum::extract::{Path, State};
use axum::response::{IntoResponse, Response};
use serde_json::json;

use super::super::Parts;
use super::super::fields::{Fields, QueryFields};
use super::super::parked::record_key;
use super::super::problem::{AdminProblem, ProblemCode};
use super::record;

type Answer = Result<Response, AdminProblem>;

/// `GET /api/status`.
pub(in super::super) async fn status(State(parts): State<Parts>) -> Answer {
    Ok(Json(parts.live.status().await?).into_response())
}

/// `GET /api/records/KEY`. Clients take keys such as `..` for steps in the path: for these there is `/api/record`.
pub(in super::super) async fn record_by_path(
    State(parts): State<Parts>,
    key: Result<Path<String>, PathRejection>,
) -> Answer {
    let Path(key) =
        key.map_err(|_| AdminProblem::new(ProblemCode::InvalidRequest, "the record key is not UTF-8"))?;
    Ok(Json(record(&parts, &record_key(&key)?).await?).into_response())
}

/// `GET /api/record?key=KEY`.
pub(in super::super) async fn record_by_query(
    State(parts): State<Parts>,
    QueryFields(fields): QueryFields,
) -> Answer {
    Ok(Json(record(&parts, &record_key(fields.require("key")?)?).await?).into_response())
}

/// The layout and the number of a partition.
pub(in super::super) fn place(fields: &Fields) -> Result<(u32, u16), AdminProblem> {
    let number = |name: &str| {
        fields.require(name)?.parse::<u32>().map_err(|_| {
            AdminProblem::new(
                ProblemCode::InvalidRequest,
                format!("`{name}` is not understood: it is a number"),
            )
        })
    };
    let partition = u16::try_from(number("partition")?);
    let partition =
        partition.map_err(|_| AdminProblem::new(ProblemCode::NotFound, "there is no such partition"))?;
    Ok((number("layout")?, partition))
}

/// `GET /api/partition`.
pub(in super::super) async fn partition(
    State(parts): State<Parts>,
    QueryFields(fields): QueryFields,
) -> Answer {
    Ok(Json(parts.live.partition(place(&fields)?).await?.json()).into_response())
}

/// `GET /api/target`.
pub(in super::super) async fn target(State(parts): State<Parts>, QueryFields(fields): QueryFields) -> Answer {
    Ok(Json(json!({ "processes": parts.live.target(fields.require("name")?).await? })).into_response())
}

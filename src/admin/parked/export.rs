//! Parked updates as lines that `lanekeeper publish` reads.

use std::sync::Arc;

use axum::Extension;
use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderValue, header};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use futures_util::stream;
use tokio::sync::OwnedSemaphorePermit;

use super::super::Parts;
use super::super::fields::QueryFields;
use super::super::guard::Visitor;
use super::super::problem::AdminProblem;
use super::body::too_many;
use super::search::ParkedSearch;
use super::{failed, record_key};
use lanekeeper_core::update::RecordKey;
use lanekeeper_ledger::{
    AnyLedger, Ledger as _, LedgerError, Operations as _, ParkedCursor, ParkedFilter, ParkedSeq,
};

/// Records in a query.
const RECORDS_PER_QUERY: u32 = 200;
/// Updates in a query, each with a body of up to `updates.body_bytes_max`.
const UPDATES_PER_QUERY: u32 = 4;

/// `GET /api/parked/export`: of one record, or of those that a search finds. They stay parked.
pub(in super::super) async fn export(
    State(parts): State<Parts>,
    Extension(visitor): Extension<Visitor>,
    QueryFields(fields): QueryFields,
) -> Result<Response, AdminProblem> {
    let ledger = parts.ledger.open()?;
    let config = parts.config.borrow().clone();
    let (filter, records) = match fields.get("key") {
        Some(key) => {
            let record_key = record_key(key)?;
            super::change::exists(&ledger, &record_key).await?;
            (None, vec![record_key])
        }
        None => (Some(ParkedSearch::parse(&fields, &config)?.filter(&config)), Vec::new()),
    };
    let permit = visitor.client.answers_long().ok_or_else(too_many)?;
    let export = Export { ledger, filter, after: None, records, updates: None, _permit: permit };
    // The first lines are read before the answer begins, so that a ledger that does not answer is a problem and no empty file.
    let (first, export) = export.next().await.map_err(|fault| failed(&fault))?.unzip();
    let rest = stream::try_unfold(export, async |export| match export {
        None => Ok::<_, LedgerError>(None),
        Some(export) => Ok(export.next().await?.map(|(lines, export)| (lines, Some(export)))),
    });
    let lines = stream::iter(first.map(Ok));
    let mut answer = Body::from_stream(futures_util::StreamExt::chain(lines, rest)).into_response();
    let headers = answer.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/x-ndjson"));
    let attached = HeaderValue::from_static("attachment; filename=\"parked.jsonl\"");
    headers.insert(header::CONTENT_DISPOSITION, attached);
    headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
    Ok(answer)
}

/// Where it is.
struct Export {
    ledger: Arc<AnyLedger>,
    /// `None`: the records are all there are.
    filter: Option<ParkedFilter>,
    after: Option<ParkedCursor>,
    /// The next ones, last first.
    records: Vec<RecordKey>,
    /// The record whose updates are read, from the one behind this.
    updates: Option<(RecordKey, Option<ParkedSeq>)>,
    _permit: OwnedSemaphorePermit,
}

impl Export {
    /// The next lines; `None`: there are no more.
    async fn next(mut self) -> Result<Option<(Bytes, Self)>, LedgerError> {
        loop {
            if let Some((record_key, after)) = self.updates.take() {
                let updates = self.ledger.parked_updates(&record_key, after, UPDATES_PER_QUERY).await?;
                let Some(last) = updates.last() else { continue };
                self.updates = Some((record_key, Some(last.seq)));
                let lines: String =
                    updates.iter().flat_map(|update| [update.update.json_line(), "\n".to_owned()]).collect();
                return Ok(Some((lines.into(), self)));
            }
            if let Some(record_key) = self.records.pop() {
                self.updates = Some((record_key, None));
                continue;
            }
            let Some(filter) = &self.filter else { return Ok(None) };
            let found = self.ledger.find_parked(filter, self.after.as_ref(), RECORDS_PER_QUERY).await?;
            self.records = found.records.into_iter().rev().map(|record| record.record_key).collect();
            match found.next {
                Some(next) => self.after = Some(next),
                None => self.filter = None,
            }
        }
    }
}

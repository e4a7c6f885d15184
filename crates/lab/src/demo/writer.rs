//! A second writer: it changes the API's records without Lanekeeper.

use std::collections::BTreeMap;
use std::time::Duration;

use reqwest::header::{ETAG, IF_MATCH, IF_NONE_MATCH};
use reqwest::{RequestBuilder, Response, StatusCode};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, sleep_until};

use super::error::DemoError;
use crate::testbed::http::client;

/// Time between reading a value and writing it back.
const THINKING_TIME: Duration = Duration::from_millis(25);

/// How the second writer changes a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Habit {
    /// Asks the API to add one.
    Adds,
    /// Reads the total, thinks, and writes one more, whatever happened in between.
    ReadsAndWrites,
    /// The same with the `ETag` of what was read in `If-Match`; after a 412 it begins again.
    ReadsAndWritesIfUnchanged,
}

/// One change that is to be made.
#[derive(Clone, Debug)]
pub(super) struct ScheduledWrite {
    pub(super) due: Duration,
    pub(super) record_key: String,
    pub(super) what: WriterAction,
}

/// What is changed.
#[derive(Clone, Debug)]
pub(super) enum WriterAction {
    /// The total, by one.
    OneMore(Habit),
    /// The value, to this version with this body, whatever it is now.
    Version(i64, String),
}

/// What happened.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct WriteCounts {
    /// Changes that the API accepted.
    pub(super) accepted: u64,
    /// How often it had to read again because the record had changed.
    pub(super) again: u64,
}

/// Makes all changes, each when it is due; those of one record one after another. `api` is the API's URL.
pub(super) async fn write_all(
    api: &str,
    writes: Vec<ScheduledWrite>,
    begun: Instant,
) -> Result<WriteCounts, DemoError> {
    let mut by_record: BTreeMap<String, Vec<ScheduledWrite>> = BTreeMap::new();
    for write in writes {
        by_record.entry(write.record_key.clone()).or_default().push(write);
    }
    let mut writing: JoinSet<Result<WriteCounts, DemoError>> = by_record
        .into_iter()
        .map(|(record_key, writes)| write_record(format!("{api}/customers/{record_key}"), writes, begun))
        .collect();
    let mut counts = WriteCounts::default();
    while let Some(written) = writing.join_next().await {
        let written = written.expect("writing does not panic")?;
        counts.accepted += written.accepted;
        counts.again += written.again;
    }
    Ok(counts)
}

async fn write_record(
    url: String,
    writes: Vec<ScheduledWrite>,
    begun: Instant,
) -> Result<WriteCounts, DemoError> {
    let mut counts = WriteCounts::default();
    for write in writes {
        sleep_until(begun + write.due).await;
        match write.what {
            WriterAction::Version(version, body) => {
                accepted(client().put(&url).header("record-version", version).body(body)).await?;
            }
            WriterAction::OneMore(Habit::Adds) => {
                accepted(client().put(&url).body(r#"{"add":1}"#)).await?;
            }
            WriterAction::OneMore(habit) => counts.again += one_more(&url, habit).await?,
        }
        counts.accepted += 1;
    }
    Ok(counts)
}

/// Reads, thinks, writes. Returns how often it had to begin again.
async fn one_more(url: &str, habit: Habit) -> Result<u64, DemoError> {
    let mut again = 0;
    loop {
        let read = client().get(url).send().await?;
        let etag = read.headers().get(ETAG).cloned();
        let value: serde_json::Value = serde_json::from_slice(&read.bytes().await?).unwrap_or_default();
        let total = value["total"].as_i64().unwrap_or_default();
        sleep(THINKING_TIME).await;
        let mut write = client().put(url).body(serde_json::json!({ "total": total + 1 }).to_string());
        if habit == Habit::ReadsAndWritesIfUnchanged {
            write = match etag {
                Some(etag) => write.header(IF_MATCH, etag),
                None => write.header(IF_NONE_MATCH, "*"),
            };
        }
        match accepted(write).await {
            Ok(_) => return Ok(again),
            Err(DemoError::Refused { status: StatusCode::PRECONDITION_FAILED }) => again += 1,
            Err(failure) => return Err(failure),
        }
    }
}

/// Sends a request, and returns the answer if that is a success.
async fn accepted(request: RequestBuilder) -> Result<Response, DemoError> {
    let response = request.send().await?;
    let status = response.status();
    if status.is_success() { Ok(response) } else { Err(DemoError::Refused { status }) }
}

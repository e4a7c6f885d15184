//! A second writer: somebody who changes the API's records past Lanekeeper.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, sleep_until};

use super::failure::Failure;
use crate::plain_http::{Reply, request};

/// How long somebody looks at what he has read before he writes it back.
const LOOKS_AT_IT_FOR: Duration = Duration::from_millis(25);

/// What it does with a record, each time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Habit {
    /// Asks the API to add one.
    Adds,
    /// Reads the total, looks at it, and writes it back with one more, whatever happened in between.
    ReadsAndWrites,
    /// The same with the `ETag` of what was read in `If-Match`, and all over again after a 412.
    ReadsAndWritesIfUnchanged,
}

/// One change that it is going to make.
#[derive(Clone, Debug)]
pub(super) struct ScheduledWrite {
    pub(super) due: Duration,
    pub(super) record_key: String,
    pub(super) what: WriterAction,
}

/// What a change is.
#[derive(Clone, Debug)]
pub(super) enum WriterAction {
    /// One more, by habit.
    OneMore(Habit),
    /// This version, with this body, whatever is there.
    Version(i64, String),
}

/// What came of it.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct WriteCounts {
    /// Changes that the API has accepted.
    pub(super) accepted: u64,
    /// Times that it had to read again, since somebody else had written.
    pub(super) again: u64,
}

/// Makes all changes, each when it is due, and those of one record one after another.
pub(super) async fn write_all(
    api: SocketAddr,
    writes: Vec<ScheduledWrite>,
    begun: Instant,
) -> Result<WriteCounts, Failure> {
    let mut by_record: Vec<(String, Vec<ScheduledWrite>)> = Vec::new();
    for write in writes {
        match by_record.iter_mut().find(|(record_key, _)| *record_key == write.record_key) {
            Some((_, writes)) => writes.push(write),
            None => by_record.push((write.record_key.clone(), vec![write])),
        }
    }
    let mut writing: JoinSet<Result<WriteCounts, Failure>> =
        by_record.into_iter().map(|(_, writes)| write_record(api, writes, begun)).collect();
    let mut counts = WriteCounts::default();
    while let Some(written) = writing.join_next().await {
        let written = written.expect("writing does not panic")?;
        counts.accepted += written.accepted;
        counts.again += written.again;
    }
    Ok(counts)
}

async fn write_record(
    api: SocketAddr,
    writes: Vec<ScheduledWrite>,
    begun: Instant,
) -> Result<WriteCounts, Failure> {
    let mut counts = WriteCounts::default();
    for write in writes {
        sleep_until(begun + write.due).await;
        let path = format!("/customers/{}", write.record_key);
        match write.what {
            WriterAction::Version(version, body) => {
                let version = version.to_string();
                accepted(&send(api, "PUT", &path, &[("record-version", &version)], &body).await?)?;
            }
            WriterAction::OneMore(Habit::Adds) => {
                accepted(&send(api, "PUT", &path, &[], r#"{"add":1}"#).await?)?;
            }
            WriterAction::OneMore(habit) => counts.again += one_more(api, &path, habit).await?,
        }
        counts.accepted += 1;
    }
    Ok(counts)
}

/// Reads, looks, writes; how often it had to begin again.
async fn one_more(api: SocketAddr, path: &str, habit: Habit) -> Result<u64, Failure> {
    let mut again = 0;
    loop {
        let read = send(api, "GET", path, &[], "").await?;
        let value: serde_json::Value = serde_json::from_str(&read.body).unwrap_or_default();
        let total = value["total"].as_i64().unwrap_or_default();
        sleep(LOOKS_AT_IT_FOR).await;
        let condition = match (&read.etag, habit) {
            (Some(etag), Habit::ReadsAndWritesIfUnchanged) => vec![("if-match", etag.as_str())],
            (None, Habit::ReadsAndWritesIfUnchanged) => vec![("if-none-match", "*")],
            _ => Vec::new(),
        };
        let body = serde_json::json!({ "total": total + 1 }).to_string();
        let written = send(api, "PUT", path, &condition, &body).await?;
        if written.status != 412 {
            accepted(&written)?;
            return Ok(again);
        }
        again += 1;
    }
}

async fn send(
    api: SocketAddr,
    method: &str,
    path: &str,
    headers: &[(&str, &str)],
    body: &str,
) -> Result<Reply, Failure> {
    request(api, method, path, headers, body).await.map_err(Failure::system("reach the API as second writer"))
}

fn accepted(reply: &Reply) -> Result<(), Failure> {
    match reply.status {
        200..=299 => Ok(()),
        status => Err(Failure::Refused { status }),
    }
}

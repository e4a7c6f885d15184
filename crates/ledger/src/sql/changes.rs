//! Statements about the changes that people make.

use sqlx::{Row as _, query};

use super::super::database::{Connection, Row};
use crate::changes::{
    CHANGES_MAX, Change, ChangeFilter, ChangeKind, ChangeSeq, ChangeSubject, WHO_CHARS_MAX, WHY_CHARS_MAX,
};
use crate::error::LedgerError;
use crate::parked::OperatorReason;
use crate::rows;
use lanekeeper_core::update::RecordKey;

/// What a change was made to, and how much that was.
#[derive(Clone, Copy, Debug)]
pub struct Changed<'a> {
    pub record_key: Option<&'a RecordKey>,
    pub subject: Option<&'a str>,
    pub records: u64,
    pub updates: u64,
}

impl<'a> Changed<'a> {
    pub fn record(record_key: &'a RecordKey, updates: u64) -> Self {
        Self { record_key: Some(record_key), subject: None, records: 1, updates }
    }

    pub fn target(name: &'a str) -> Self {
        Self { record_key: None, subject: Some(name), records: 0, updates: 0 }
    }
}

/// Writes a change, within the transaction that makes it.
pub async fn write_change(
    connection: &mut Connection,
    kind: &ChangeKind,
    changed: Changed<'_>,
    operator_reason: &OperatorReason,
) -> Result<(), sqlx::Error> {
    query(
        "INSERT INTO ledger_change (at_ms, who, why, kind, record_key, subject, records, updates)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8)",
    )
    .bind(rows::now_ms())
    .bind(rows::bounded(&operator_reason.who, WHO_CHARS_MAX))
    .bind(rows::bounded(&operator_reason.why, WHY_CHARS_MAX))
    .bind(kind.name())
    .bind(changed.record_key.map(rows::key))
    .bind(changed.subject.map(|subject| rows::bounded(subject, WHY_CHARS_MAX)))
    .bind(rows::number(changed.records))
    .bind(rows::number(changed.updates))
    .execute(connection)
    .await?;
    Ok(())
}

pub async fn changes(
    connection: &mut Connection,
    filter: &ChangeFilter,
    before: Option<ChangeSeq>,
    limit: u32,
) -> Result<Vec<Change>, LedgerError> {
    let before = before.map_or(i64::MAX, |before| before.0);
    let found =
        match &filter.record_key {
            None => query(
                "SELECT seq, at_ms, who, why, kind, record_key, subject, records, updates FROM ledger_change
                 WHERE seq < $1 ORDER BY seq DESC LIMIT $2",
            )
            .bind(before)
            .bind(i64::from(limit))
            .fetch_all(connection)
            .await?,
            Some(record_key) => query(
                "SELECT seq, at_ms, who, why, kind, record_key, subject, records, updates FROM ledger_change
                 WHERE seq < $1 AND record_key = $3 ORDER BY seq DESC LIMIT $2",
            )
            .bind(before)
            .bind(i64::from(limit))
            .bind(rows::key(record_key))
            .fetch_all(connection)
            .await?,
        };
    found.iter().map(change).collect()
}

fn change(row: &Row) -> Result<Change, LedgerError> {
    let subject = match row.try_get::<Option<Vec<u8>>, _>("record_key")? {
        Some(bytes) => ChangeSubject::Record(rows::record_key(bytes)?),
        None => ChangeSubject::Named(row.try_get::<Option<String>, _>("subject")?.unwrap_or_default()),
    };
    Ok(Change {
        seq: ChangeSeq(row.try_get("seq")?),
        at_ms: row.try_get("at_ms")?,
        operator_reason: OperatorReason { who: row.try_get("who")?, why: row.try_get("why")? },
        kind: ChangeKind::named(row.try_get("kind")?),
        subject,
        records: rows::count(row.try_get("records")?),
        updates: rows::count(row.try_get("updates")?),
    })
}

/// Deletes at most `max` of the oldest changes that are too many, and returns how many.
pub async fn prune(connection: &mut Connection, max: i64) -> Result<u64, sqlx::Error> {
    let pruned = query(
        "DELETE FROM ledger_change WHERE seq <= (SELECT max(seq) FROM ledger_change) - $1
             AND seq < (SELECT min(seq) FROM ledger_change) + $2",
    )
    .bind(i64::from(CHANGES_MAX))
    .bind(max)
    .execute(connection)
    .await?;
    Ok(pruned.rows_affected())
}

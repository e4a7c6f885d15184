//! Searches parked records, update ids and records for people.

use sqlx::{AssertSqlSafe, Row as _, query};

use super::super::database::{Connection, KEY_CONTAINS, Row};
use super::{parked, pauses};
use crate::entry::{ParkKind, ResolvedAs, StoredParkReason};
use crate::error::LedgerError;
use crate::history::{IdEnd, IdHistory, IdUse, LastApplied, RecordState};
use crate::parked::{OperatorReason, ParkedRecord, ParkedState};
use crate::rows;
use crate::search::{FoundParked, LOOKED_AT_MAX, ParkedCursor, ParkedFilter};
use lanekeeper_core::update::RecordKey;

/// How many records one statement reads if the types of their oldest updates are looked at.
const CHUNK: u32 = 500;

pub async fn find_parked(
    connection: &mut Connection,
    filter: &ParkedFilter,
    after: Option<&ParkedCursor>,
    limit: u32,
) -> Result<FoundParked, LedgerError> {
    let Some(takes) = &filter.takes else {
        let records = chunk(connection, filter, after, limit).await?;
        let next = records.last().filter(|_| is_full(&records, limit)).map(cursor);
        return Ok(FoundParked { records, next });
    };
    let (mut found, mut after, mut looked_at) = (Vec::new(), after.cloned(), 0);
    loop {
        let records = chunk(connection, filter, after.as_ref(), CHUNK).await?;
        let is_last = !is_full(&records, CHUNK);
        for record in records {
            after = Some(cursor(&record));
            if takes(record.head_type.as_deref()) {
                found.push(record);
            }
            if found.len() >= limit as usize {
                return Ok(FoundParked { records: found, next: after });
            }
        }
        looked_at += CHUNK;
        if is_last || looked_at >= LOOKED_AT_MAX {
            return Ok(FoundParked { records: found, next: after.filter(|_| !is_last) });
        }
    }
}

fn is_full(records: &[ParkedRecord], limit: u32) -> bool {
    records.len() >= limit as usize
}

fn cursor(record: &ParkedRecord) -> ParkedCursor {
    ParkedCursor { since_ms: record.since_ms, record_key: record.record_key.clone() }
}

async fn chunk(
    connection: &mut Connection,
    filter: &ParkedFilter,
    after: Option<&ParkedCursor>,
    limit: u32,
) -> Result<Vec<ParkedRecord>, LedgerError> {
    let statement = format!(
        "{} WHERE since_ms <= $1 AND (since_ms < $1 OR record_key < $2) AND since_ms >= $3 AND since_ms < $4
             AND ($5 IS NULL OR reason = $5) AND ($6 IS NULL OR state = $6) AND ($7 IS NULL OR {KEY_CONTAINS})
         ORDER BY since_ms DESC, record_key DESC LIMIT $8",
        parked::SELECT_RECORDS
    );
    let contained = filter.key_contains.as_deref().filter(|text| !text.is_empty()).map(str::as_bytes);
    let found = query(AssertSqlSafe(statement))
        .bind(after.map_or(i64::MAX, |after| after.since_ms))
        .bind(after.map_or(&[][..], |after| rows::key(&after.record_key))) // at i64::MAX there is none
        .bind(filter.from_ms.unwrap_or(i64::MIN))
        .bind(filter.before_ms.unwrap_or(i64::MAX))
        .bind(filter.reason.map(ParkKind::stored_name))
        .bind(filter.state.map(ParkedState::name))
        .bind(contained)
        .bind(i64::from(limit))
        .fetch_all(connection)
        .await?;
    found.iter().map(parked::parked_record).collect()
}

/// One statement, so that an update that is resolved in this moment is found, and once.
pub async fn lookup_id(
    connection: &mut Connection,
    update_id: &str,
    record_key: Option<&RecordKey>,
    limit: u32,
) -> Result<IdHistory, LedgerError> {
    let found = query(
        "SELECT * FROM (
             SELECT 'resolved' AS place, record_key, resolution AS word, status, '' AS detail,
                 CAST(0 AS BIGINT) AS attempts, at_ms, CAST(0 AS BIGINT) AS parked_ms, '' AS who, '' AS why
             FROM ledger_resolved_update WHERE update_id = $1 AND ($2 IS NULL OR record_key = $2)
             UNION ALL
             SELECT 'resolved', record_key, resolution, status, '', 0, at_ms, 0, '', ''
             FROM ledger_resolved_shared_id WHERE update_id = $1 AND ($2 IS NULL OR record_key = $2)
             UNION ALL
             SELECT r.state, u.record_key, u.reason, u.status, u.detail, u.attempts, 0, u.parked_ms, '', ''
             FROM ledger_parked_update u JOIN ledger_parked_record r ON r.record_key = u.record_key
             WHERE u.update_id = $1 AND ($2 IS NULL OR u.record_key = $2)
             UNION ALL
             SELECT 'discarded', record_key, reason, status, detail, 0, at_ms, parked_ms, who, why
             FROM ledger_discarded WHERE update_id = $1 AND ($2 IS NULL OR record_key = $2)
         ) AS uses ORDER BY record_key, parked_ms LIMIT $3",
    )
    .bind(update_id)
    .bind(record_key.map(rows::key))
    // A discarded update is found twice, and counts once.
    .bind(i64::from(limit).saturating_mul(2).saturating_add(1))
    .fetch_all(connection)
    .await?;
    let mut uses = found.iter().map(id_use).collect::<Result<Vec<IdUse>, _>>()?;
    let discarded: Vec<RecordKey> = uses
        .iter()
        .filter(|found| matches!(found.end, IdEnd::Discarded { .. }))
        .map(|found| found.record_key.clone())
        .collect();
    uses.retain(|found| {
        let resolved = found.end.is_resolved_as(ResolvedAs::Discarded);
        !(resolved && discarded.binary_search(&found.record_key).is_ok())
    });
    let limit = limit as usize;
    let is_all = uses.len() <= limit && found.len() <= limit * 2;
    uses.truncate(limit);
    Ok(IdHistory { updates: uses, is_all })
}

fn id_use(row: &Row) -> Result<IdUse, LedgerError> {
    let record_key = rows::record_key(row.try_get("record_key")?)?;
    let (place, word): (String, String) = (row.try_get("place")?, row.try_get("word")?);
    let at_ms = row.try_get("at_ms")?;
    let parked_ms = row.try_get("parked_ms")?;
    let status: Option<i64> = row.try_get("status")?;
    let reason = || -> Result<StoredParkReason, LedgerError> {
        rows::reason(&word, status, row.try_get("detail")?, row.try_get("attempts")?)
    };
    let end = match place.as_str() {
        "resolved" if word == "applied" => {
            IdEnd::Applied { at_ms, status: status.and_then(|status| u16::try_from(status).ok()) }
        }
        "resolved" => {
            let resolution = ResolvedAs::named(&word)
                .ok_or(LedgerError::Damaged { what: "how an update was resolved" })?;
            IdEnd::Resolved { resolution, at_ms }
        }
        "discarded" => {
            let operator_reason = OperatorReason { who: row.try_get("who")?, why: row.try_get("why")? };
            IdEnd::Discarded { at_ms, operator_reason, parked_ms, reason: reason()? }
        }
        state => IdEnd::Parked { parked_ms, reason: reason()?, state: rows::state(state)? },
    };
    Ok(IdUse { record_key, end })
}

pub async fn record_state(
    connection: &mut Connection,
    record_key: &RecordKey,
) -> Result<RecordState, LedgerError> {
    let row = query("SELECT version, etag, update_id, at_ms FROM ledger_record WHERE record_key = $1")
        .bind(rows::key(record_key))
        .fetch_optional(&mut *connection)
        .await?;
    let mut state = RecordState {
        parked: parked::record(&mut *connection, record_key).await?,
        paused: pauses::pause_of_record(connection, record_key).await?,
        ..RecordState::default()
    };
    if let Some(row) = row {
        state.version = row.try_get("version")?;
        state.etag = row.try_get("etag")?;
        let update_id: String = row.try_get("update_id")?;
        // A row lock makes a row before anything was applied.
        if !update_id.is_empty() {
            state.last_applied = Some(LastApplied { update_id, at_ms: row.try_get("at_ms")? });
        }
    }
    Ok(state)
}

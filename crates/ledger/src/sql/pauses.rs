//! Statements about paused records and targets.

use sqlx::{Row as _, query};

use super::super::database::{Connection, LOCK_PAUSED_RECORD, Row, begin, one_at_a_time};
use super::changes::{Changed, write_change};
use super::parked;
use super::write::lock_parked_record;
use crate::changes::{ChangeKind, WHO_CHARS_MAX, WHY_CHARS_MAX};
use crate::entry::ParkKind;
use crate::error::LedgerError;
use crate::parked::{OperatorReason, ParkedState};
use crate::pauses::{
    PAUSED_RECORDS_MAX, PAUSED_TARGETS_MAX, Pause, Paused, PausedRecord, PausedTarget, Resumed,
};
use crate::rows;
use lanekeeper_core::update::RecordKey;

fn pause_of(row: &Row) -> Result<Pause, LedgerError> {
    let operator_reason = OperatorReason { who: row.try_get("who")?, why: row.try_get("why")? };
    Ok(Pause { since_ms: row.try_get("since_ms")?, operator_reason })
}

/// The pause of a record; `None`: it is not paused. Nobody resumes it until the transaction ends. Lock its row of parked
/// records first: all do it in this order.
pub async fn lock_pause(
    connection: &mut Connection,
    record_key: &RecordKey,
) -> Result<Option<OperatorReason>, sqlx::Error> {
    let row = query(LOCK_PAUSED_RECORD).bind(rows::key(record_key)).fetch_optional(connection).await?;
    row.map(|row| Ok(OperatorReason { who: row.try_get("who")?, why: row.try_get("why")? })).transpose()
}

/// Why a record is parked that is paused, for a person.
pub fn detail(OperatorReason { who, why }: &OperatorReason) -> String {
    if why.is_empty() { format!("paused by {who}") } else { format!("paused by {who}: {why}") }
}

pub async fn pause_of_record(
    connection: &mut Connection,
    record_key: &RecordKey,
) -> Result<Option<Pause>, LedgerError> {
    let row = query("SELECT since_ms, who, why FROM ledger_paused_record WHERE record_key = $1")
        .bind(rows::key(record_key))
        .fetch_optional(connection)
        .await?;
    row.as_ref().map(pause_of).transpose()
}

pub async fn paused_records(
    connection: &mut Connection,
    after: Option<&RecordKey>,
    limit: u32,
) -> Result<Vec<PausedRecord>, LedgerError> {
    let found = query(
        "SELECT record_key, since_ms, who, why,
             (SELECT count(*) FROM ledger_parked_update u WHERE u.record_key = p.record_key) AS updates
         FROM ledger_paused_record p WHERE record_key > $1 ORDER BY record_key LIMIT $2",
    )
    .bind(after.map_or(&[][..], rows::key)) // no key is empty
    .bind(i64::from(limit))
    .fetch_all(connection)
    .await?;
    let record = |row: &Row| {
        Ok(PausedRecord {
            record_key: rows::record_key(row.try_get("record_key")?)?,
            pause: pause_of(row)?,
            updates: rows::count(row.try_get("updates")?),
        })
    };
    found.iter().map(record).collect()
}

pub async fn pause_record(
    connection: &mut Connection,
    record_key: &RecordKey,
    operator_reason: &OperatorReason,
) -> Result<Paused, LedgerError> {
    let mut transaction = begin(connection).await?;
    one_at_a_time(&mut transaction).await?;
    lock_parked_record(&mut transaction, record_key).await?;
    if let Some(pause) = pause_of_record(&mut transaction, record_key).await? {
        transaction.rollback().await?;
        return Ok(Paused::Already(pause));
    }
    let row =
        query("SELECT count(*) AS number FROM ledger_paused_record").fetch_one(&mut *transaction).await?;
    if rows::count(row.try_get("number")?) >= u64::from(PAUSED_RECORDS_MAX) {
        transaction.rollback().await?;
        return Ok(Paused::Full);
    }
    query("INSERT INTO ledger_paused_record (record_key, since_ms, who, why) VALUES ($1, $2, $3, $4)")
        .bind(rows::key(record_key))
        .bind(rows::now_ms())
        .bind(rows::bounded(&operator_reason.who, WHO_CHARS_MAX))
        .bind(rows::bounded(&operator_reason.why, WHY_CHARS_MAX))
        .execute(&mut *transaction)
        .await?;
    // If it was released, its head may be in flight: it is parked again by the dispatcher that would send the next one, and
    // nobody discards anything of it before.
    let updates = parked::updates_of(&mut transaction, record_key).await?;
    let changed = Changed::record(record_key, updates);
    write_change(&mut transaction, &ChangeKind::PauseRecord, changed, operator_reason).await?;
    transaction.commit().await?;
    Ok(Paused::Done)
}

pub async fn resume_record(
    connection: &mut Connection,
    record_key: &RecordKey,
    operator_reason: &OperatorReason,
) -> Result<Resumed, LedgerError> {
    let mut transaction = begin(connection).await?;
    lock_parked_record(&mut transaction, record_key).await?;
    let resumed = query("DELETE FROM ledger_paused_record WHERE record_key = $1")
        .bind(rows::key(record_key))
        .execute(&mut *transaction)
        .await?;
    if resumed.rows_affected() == 0 {
        transaction.rollback().await?;
        return Ok(Resumed::NotPaused);
    }
    let released = query(
        "UPDATE ledger_parked_record SET state = 'releasing'
         WHERE record_key = $1 AND state = 'parked' AND reason = $2",
    )
    .bind(rows::key(record_key))
    .bind(ParkKind::Paused.stored_name())
    .execute(&mut *transaction)
    .await?;
    let (mut updates, mut still_parked) = (0, None);
    if released.rows_affected() > 0 {
        updates = parked::updates_of(&mut transaction, record_key).await?;
    } else {
        let record = parked::record(&mut transaction, record_key).await?;
        let waits = record.filter(|record| record.state == ParkedState::Parked);
        still_parked = waits.map(|record| record.reason);
    }
    let changed = Changed::record(record_key, updates);
    write_change(&mut transaction, &ChangeKind::ResumeRecord, changed, operator_reason).await?;
    transaction.commit().await?;
    Ok(Resumed::Done { updates, still_parked })
}

pub async fn paused_targets(connection: &mut Connection) -> Result<Vec<PausedTarget>, LedgerError> {
    let found = query("SELECT name, since_ms, who, why FROM ledger_paused_target ORDER BY name LIMIT $1")
        .bind(i64::from(PAUSED_TARGETS_MAX))
        .fetch_all(connection)
        .await?;
    found.iter().map(|row| Ok(PausedTarget { name: row.try_get("name")?, pause: pause_of(row)? })).collect()
}

pub async fn pause_target(
    connection: &mut Connection,
    name: &str,
    operator_reason: &OperatorReason,
) -> Result<Paused, LedgerError> {
    let name = &rows::bounded(name, WHO_CHARS_MAX);
    let mut transaction = begin(connection).await?;
    one_at_a_time(&mut transaction).await?;
    let row = query("SELECT since_ms, who, why FROM ledger_paused_target WHERE name = $1")
        .bind(name)
        .fetch_optional(&mut *transaction)
        .await?;
    if let Some(before) = row {
        transaction.rollback().await?;
        return pause_of(&before).map(Paused::Already);
    }
    let row =
        query("SELECT count(*) AS number FROM ledger_paused_target").fetch_one(&mut *transaction).await?;
    if rows::count(row.try_get("number")?) >= u64::from(PAUSED_TARGETS_MAX) {
        transaction.rollback().await?;
        return Ok(Paused::Full);
    }
    query("INSERT INTO ledger_paused_target (name, since_ms, who, why) VALUES ($1, $2, $3, $4)")
        .bind(name)
        .bind(rows::now_ms())
        .bind(rows::bounded(&operator_reason.who, WHO_CHARS_MAX))
        .bind(rows::bounded(&operator_reason.why, WHY_CHARS_MAX))
        .execute(&mut *transaction)
        .await?;
    write_change(&mut transaction, &ChangeKind::PauseTarget, Changed::target(name), operator_reason).await?;
    transaction.commit().await?;
    Ok(Paused::Done)
}

/// Returns false if it was not paused.
pub async fn resume_target(
    connection: &mut Connection,
    name: &str,
    operator_reason: &OperatorReason,
) -> Result<bool, LedgerError> {
    let name = &rows::bounded(name, WHO_CHARS_MAX);
    let mut transaction = begin(connection).await?;
    let resumed = query("DELETE FROM ledger_paused_target WHERE name = $1")
        .bind(name)
        .execute(&mut *transaction)
        .await?;
    if resumed.rows_affected() == 0 {
        transaction.rollback().await?;
        return Ok(false);
    }
    write_change(&mut transaction, &ChangeKind::ResumeTarget, Changed::target(name), operator_reason).await?;
    transaction.commit().await?;
    Ok(true)
}

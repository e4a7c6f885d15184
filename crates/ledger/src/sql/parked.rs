//! Statements about parked records and updates.

use bytes::Bytes;
use sqlx::{Row as _, query};

use super::super::database::{Connection, Row, begin};
use super::write::{lock_parked_record, unpark_if_empty};
use crate::entry::{ParkedSeq, ResolvedAs};
use crate::error::LedgerError;
use crate::parked::{
    Discarded, OperatorReason, ParkedRecord, ParkedState, ParkedUpdate, ReleasedRecord, Selection,
};
use crate::rows;
use crate::stored::StoredUpdate;
use lanekeeper_core::layout::{LayoutNumber, PartitionNumber};
use lanekeeper_core::update::{RecordKey, UpdateId};

pub async fn released(
    connection: &mut Connection,
    after: Option<&ReleasedRecord>,
    limit: u32,
) -> Result<Vec<ReleasedRecord>, LedgerError> {
    let found = query(
        "SELECT record_key, layout, partition, since_ms FROM ledger_parked_record
         WHERE state = 'releasing' AND since_ms >= $1 AND (since_ms > $1 OR record_key > $2)
         ORDER BY since_ms, record_key LIMIT $3",
    )
    .bind(after.map_or(i64::MIN, |after| after.since_ms))
    .bind(after.map_or(&[][..], |after| rows::key(&after.record_key))) // no key is empty
    .bind(i64::from(limit))
    .fetch_all(connection)
    .await?;
    found.iter().map(released_record).collect()
}

fn released_record(row: &Row) -> Result<ReleasedRecord, LedgerError> {
    let (layout, partition) = partition_key(row)?;
    let record_key = rows::record_key(row.try_get("record_key")?)?;
    Ok(ReleasedRecord { record_key, layout, partition, since_ms: row.try_get("since_ms")? })
}

pub async fn forget_layouts(connection: &mut Connection, above: LayoutNumber) -> Result<u64, LedgerError> {
    let forgotten = query("UPDATE ledger_parked_record SET layout = 0 WHERE layout > $1")
        .bind(i64::from(above.0))
        .execute(connection)
        .await?;
    Ok(forgotten.rows_affected())
}

fn partition_key(row: &Row) -> Result<(LayoutNumber, PartitionNumber), LedgerError> {
    let (layout, partition): (i64, i64) = (row.try_get("layout")?, row.try_get("partition")?);
    match (u32::try_from(layout), u16::try_from(partition)) {
        (Ok(layout), Ok(partition)) => Ok((LayoutNumber(layout), PartitionNumber(partition))),
        _ => Err(LedgerError::Damaged { what: "the number of a partition" }),
    }
}

pub async fn updates(
    connection: &mut Connection,
    record_key: &RecordKey,
    after: Option<ParkedSeq>,
    limit: u32,
) -> Result<Vec<ParkedUpdate>, LedgerError> {
    let found = query(
        "SELECT seq, update_id, id_published, reason, status, detail, attempts, parked_ms, envelope, body
         FROM ledger_parked_update WHERE record_key = $1 AND seq > $2 ORDER BY seq LIMIT $3",
    )
    .bind(rows::key(record_key))
    .bind(after.map_or(i64::MIN, |after| after.0))
    .bind(i64::from(limit))
    .fetch_all(connection)
    .await?;
    found.iter().map(|row| parked_update(record_key, row)).collect()
}

fn parked_update(record_key: &RecordKey, row: &Row) -> Result<ParkedUpdate, LedgerError> {
    let id: String = row.try_get("update_id")?;
    let id = match row.try_get::<i64, _>("id_published")? {
        0 => UpdateId::made(id),
        _ => UpdateId::published(id),
    };
    let body: Vec<u8> = row.try_get("body")?;
    let update = StoredUpdate::restored(record_key.clone(), id, row.try_get("envelope")?, Bytes::from(body));
    Ok(ParkedUpdate {
        seq: ParkedSeq(row.try_get("seq")?),
        update: update.ok_or(LedgerError::Damaged { what: "a parked update" })?,
        reason: rows::reason(
            row.try_get("reason")?,
            row.try_get("status")?,
            row.try_get("detail")?,
            row.try_get("attempts")?,
        )?,
        parked_ms: row.try_get("parked_ms")?,
    })
}

pub async fn records(
    connection: &mut Connection,
    after: Option<&RecordKey>,
    limit: u32,
) -> Result<Vec<ParkedRecord>, LedgerError> {
    let found = query(
        "SELECT record_key, state, since_ms, layout, partition, reason, status, detail, attempts,
             (SELECT count(*) FROM ledger_parked_update u WHERE u.record_key = r.record_key) AS updates,
             (SELECT update_id FROM ledger_parked_update u WHERE u.record_key = r.record_key
                 ORDER BY seq LIMIT 1) AS head_id
         FROM ledger_parked_record r WHERE record_key > $1 ORDER BY record_key LIMIT $2",
    )
    .bind(after.map_or(&[][..], rows::key)) // no key is empty
    .bind(i64::from(limit))
    .fetch_all(connection)
    .await?;
    found.iter().map(parked_record).collect()
}

pub async fn record(
    connection: &mut Connection,
    record_key: &RecordKey,
) -> Result<Option<ParkedRecord>, LedgerError> {
    let found = query(
        "SELECT record_key, state, since_ms, layout, partition, reason, status, detail, attempts,
             (SELECT count(*) FROM ledger_parked_update u WHERE u.record_key = r.record_key) AS updates,
             (SELECT update_id FROM ledger_parked_update u WHERE u.record_key = r.record_key
                 ORDER BY seq LIMIT 1) AS head_id
         FROM ledger_parked_record r WHERE record_key = $1",
    )
    .bind(rows::key(record_key))
    .fetch_optional(connection)
    .await?;
    found.as_ref().map(parked_record).transpose()
}

fn parked_record(row: &Row) -> Result<ParkedRecord, LedgerError> {
    let (layout, partition) = partition_key(row)?;
    Ok(ParkedRecord {
        record_key: rows::record_key(row.try_get("record_key")?)?,
        state: rows::state(row.try_get("state")?)?,
        updates: rows::count(row.try_get("updates")?),
        head_id: row.try_get("head_id")?,
        since_ms: row.try_get("since_ms")?,
        reason: rows::reason(
            row.try_get("reason")?,
            row.try_get("status")?,
            row.try_get("detail")?,
            row.try_get("attempts")?,
        )?,
        layout,
        partition,
    })
}

pub async fn release(connection: &mut Connection, selection: &Selection) -> Result<u64, LedgerError> {
    let mut transaction = begin(connection).await?;
    let released = match selection {
        Selection::All => query("UPDATE ledger_parked_record SET state = 'releasing' WHERE state = 'parked'")
            .execute(&mut *transaction)
            .await?
            .rows_affected(),
        Selection::Reason(kind) => query(
            "UPDATE ledger_parked_record SET state = 'releasing' WHERE state = 'parked' AND reason = $1",
        )
        .bind(kind.name())
        .execute(&mut *transaction)
        .await?
        .rows_affected(),
        Selection::Keys(keys) => {
            let mut keys: Vec<&RecordKey> = keys.iter().collect();
            keys.sort(); // all who lock several rows do it in this order
            let mut released = 0;
            for record_key in keys {
                released += query(
                    "UPDATE ledger_parked_record SET state = 'releasing'
                     WHERE record_key = $1 AND state = 'parked'",
                )
                .bind(rows::key(record_key))
                .execute(&mut *transaction)
                .await?
                .rows_affected();
            }
            released
        }
    };
    transaction.commit().await?;
    Ok(released)
}

pub async fn discard(
    connection: &mut Connection,
    record_key: &RecordKey,
    head: Option<u32>,
    operator_reason: &OperatorReason,
) -> Result<Discarded, LedgerError> {
    let mut transaction = begin(connection).await?;
    match lock_parked_record(&mut transaction, record_key).await? {
        None => return Ok(Discarded::NotParked),
        Some(state) if rows::state(&state)? == ParkedState::Releasing => return Ok(Discarded::Releasing),
        Some(_) => {}
    }
    let last = query(
        "SELECT max(seq) AS last FROM
             (SELECT seq FROM ledger_parked_update WHERE record_key = $1 ORDER BY seq LIMIT $2) AS dropped",
    )
    .bind(rows::key(record_key))
    .bind(head.map_or(i64::MAX, i64::from))
    .fetch_one(&mut *transaction)
    .await?;
    let last: Option<i64> = last.try_get("last")?;
    let now = rows::now_ms();
    query(
        "INSERT INTO ledger_discarded
             (record_key, update_id, fingerprint, reason, status, detail, parked_ms, at_ms, who, why)
         SELECT record_key, update_id, fingerprint, reason, status, detail, parked_ms, $3, $4, $5
         FROM ledger_parked_update WHERE record_key = $1 AND seq <= $2 ORDER BY seq",
    )
    .bind(rows::key(record_key))
    .bind(last)
    .bind(now)
    .bind(rows::text(&operator_reason.who))
    .bind(rows::text(&operator_reason.why))
    .execute(&mut *transaction)
    .await?;
    // Their ids count as resolved: if they are delivered again, they are not sent.
    query(
        "INSERT INTO ledger_resolved_update (update_id, record_key, fingerprint, resolution, at_ms)
         SELECT update_id, record_key, fingerprint, $3, $4
         FROM ledger_parked_update WHERE record_key = $1 AND seq <= $2 AND id_published <> 0
         ON CONFLICT (update_id) DO NOTHING",
    )
    .bind(rows::key(record_key))
    .bind(last)
    .bind(ResolvedAs::Discarded.name())
    .bind(now)
    .execute(&mut *transaction)
    .await?;
    query(
        "INSERT INTO ledger_resolved_shared_id (update_id, record_key, fingerprint, resolution, at_ms)
         SELECT p.update_id, p.record_key, p.fingerprint, $3, $4
         FROM ledger_parked_update p JOIN ledger_resolved_update u ON u.update_id = p.update_id
         WHERE p.record_key = $1 AND p.seq <= $2 AND p.id_published <> 0 AND u.record_key <> p.record_key
         ON CONFLICT (update_id, record_key) DO NOTHING",
    )
    .bind(rows::key(record_key))
    .bind(last)
    .bind(ResolvedAs::Discarded.name())
    .bind(now)
    .execute(&mut *transaction)
    .await?;
    let dropped = query("DELETE FROM ledger_parked_update WHERE record_key = $1 AND seq <= $2")
        .bind(rows::key(record_key))
        .bind(last)
        .execute(&mut *transaction)
        .await?;
    unpark_if_empty(&mut transaction, record_key).await?;
    let left = query("SELECT count(*) AS number FROM ledger_parked_update WHERE record_key = $1")
        .bind(rows::key(record_key))
        .fetch_one(&mut *transaction)
        .await?;
    let left = rows::count(left.try_get("number")?);
    transaction.commit().await?;
    Ok(Discarded::Done { updates: dropped.rows_affected(), left })
}

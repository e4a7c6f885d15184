//! Statements about parked records and updates.

use bytes::Bytes;
use sqlx::{AssertSqlSafe, Row as _, query};

use super::super::database::{Connection, Row, begin};
use super::changes::{Changed, write_change};
use super::pauses;
use super::write::{lock_parked_record, unpark_if_empty};
use crate::changes::{ChangeKind, WHO_CHARS_MAX, WHY_CHARS_MAX};
use crate::entry::{ParkedSeq, ResolvedAs};
use crate::error::LedgerError;
use crate::parked::{
    Discarded, OperatorReason, ParkedCount, ParkedCounts, ParkedRecord, ParkedState, ParkedUpdate, Released,
    ReleasedRecord, Selection,
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

/// Parked records, for [`parked_record`].
pub const SELECT_RECORDS: &str =
    "SELECT record_key, state, since_ms, layout, partition, reason, status, detail, attempts,
         (SELECT count(*) FROM ledger_parked_update u WHERE u.record_key = r.record_key) AS updates,
         (SELECT update_id FROM ledger_parked_update u WHERE u.record_key = r.record_key
             ORDER BY seq LIMIT 1) AS head_id,
         (SELECT envelope FROM ledger_parked_update u WHERE u.record_key = r.record_key
             ORDER BY seq LIMIT 1) AS head_envelope,
         EXISTS (SELECT 1 FROM ledger_paused_record p WHERE p.record_key = r.record_key) AS paused
     FROM ledger_parked_record r";

pub async fn records(
    connection: &mut Connection,
    after: Option<&RecordKey>,
    limit: u32,
) -> Result<Vec<ParkedRecord>, LedgerError> {
    let statement = format!("{SELECT_RECORDS} WHERE record_key > $1 ORDER BY record_key LIMIT $2");
    let found = query(AssertSqlSafe(statement))
        .bind(after.map_or(&[][..], rows::key)) // no key is empty
        .bind(i64::from(limit))
        .fetch_all(connection)
        .await?;
    found.iter().map(parked_record).collect()
}

pub async fn counts(connection: &mut Connection) -> Result<ParkedCounts, LedgerError> {
    let found = query(
        "SELECT layout, partition, count(*) AS records, count(CASE state WHEN 'parked' THEN 1 END) AS parked
         FROM ledger_parked_record GROUP BY layout, partition ORDER BY layout, partition",
    )
    .fetch_all(&mut *connection)
    .await?;
    let partitions = found.iter().map(|row| {
        let (layout, partition) = partition_key(row)?;
        let (records, parked) = (rows::count(row.try_get("records")?), rows::count(row.try_get("parked")?));
        Ok(ParkedCount { layout, partition, parked, releasing: records - parked })
    });
    let partitions = partitions.collect::<Result<_, LedgerError>>()?;
    let row =
        query("SELECT count(*) AS updates FROM ledger_parked_update").fetch_one(&mut *connection).await?;
    Ok(ParkedCounts { partitions, updates: rows::count(row.try_get("updates")?) })
}

pub async fn record(
    connection: &mut Connection,
    record_key: &RecordKey,
) -> Result<Option<ParkedRecord>, LedgerError> {
    let found = query(AssertSqlSafe(format!("{SELECT_RECORDS} WHERE record_key = $1")))
        .bind(rows::key(record_key))
        .fetch_optional(connection)
        .await?;
    found.as_ref().map(parked_record).transpose()
}

pub fn parked_record(row: &Row) -> Result<ParkedRecord, LedgerError> {
    let (layout, partition) = partition_key(row)?;
    Ok(ParkedRecord {
        record_key: rows::record_key(row.try_get("record_key")?)?,
        state: rows::state(row.try_get("state")?)?,
        updates: rows::count(row.try_get("updates")?),
        head_id: row.try_get("head_id")?,
        head_type: StoredUpdate::type_in(row.try_get("head_envelope")?)?,
        since_ms: row.try_get("since_ms")?,
        reason: rows::record_reason(
            row.try_get("reason")?,
            row.try_get("status")?,
            row.try_get("detail")?,
            row.try_get("attempts")?,
        )?,
        layout,
        partition,
        paused: row.try_get("paused")?,
    })
}

/// How many parked updates a record has.
pub async fn updates_of(connection: &mut Connection, record_key: &RecordKey) -> Result<u64, sqlx::Error> {
    let updates = query("SELECT count(*) AS number FROM ledger_parked_update WHERE record_key = $1")
        .bind(rows::key(record_key))
        .fetch_one(connection)
        .await?;
    updates.try_get("number").map(rows::count)
}

pub async fn release(
    connection: &mut Connection,
    selection: &Selection,
    operator_reason: &OperatorReason,
) -> Result<Released, LedgerError> {
    let mut transaction = begin(connection).await?;
    let mut released = Released::default();
    match selection {
        Selection::All | Selection::Reason(_) => {
            let reason =
                if let Selection::Reason(kind) = selection { Some(kind.stored_name()) } else { None };
            let paused = query(
                "SELECT count(*) AS number FROM ledger_parked_record r
                 JOIN ledger_paused_record p ON p.record_key = r.record_key
                 WHERE r.state = 'parked' AND ($1 IS NULL OR r.reason = $1)",
            )
            .bind(reason)
            .fetch_one(&mut *transaction)
            .await?;
            released.paused = rows::count(paused.try_get("number")?);
            let updates = query(
                "SELECT count(*) AS number FROM ledger_parked_update u
                 JOIN ledger_parked_record r ON r.record_key = u.record_key
                 WHERE r.state = 'parked' AND ($1 IS NULL OR r.reason = $1)
                     AND r.record_key NOT IN (SELECT record_key FROM ledger_paused_record)",
            )
            .bind(reason)
            .fetch_one(&mut *transaction)
            .await?;
            released.updates = rows::count(updates.try_get("number")?);
            released.records = query(
                "UPDATE ledger_parked_record SET state = 'releasing'
                 WHERE state = 'parked' AND ($1 IS NULL OR reason = $1)
                     AND record_key NOT IN (SELECT record_key FROM ledger_paused_record)",
            )
            .bind(reason)
            .execute(&mut *transaction)
            .await?
            .rows_affected();
        }
        Selection::Keys(record_keys) | Selection::Found { record_keys, .. } => {
            let mut keys: Vec<&RecordKey> = record_keys.iter().collect();
            keys.sort(); // all who lock several rows do it in this order
            for record_key in keys {
                let Some(updates) = release_one(&mut transaction, record_key).await? else {
                    let paused = pauses::lock_pause(&mut transaction, record_key).await?;
                    released.paused += u64::from(paused.is_some());
                    continue;
                };
                released.records += 1;
                released.updates += updates;
                if matches!(selection, Selection::Keys(_)) {
                    let changed = Changed::record(record_key, updates);
                    write_change(&mut transaction, &ChangeKind::Release, changed, operator_reason).await?;
                }
            }
        }
    }
    if let Some(words) = selection.in_words().filter(|_| released.records > 0) {
        let Released { records, updates, .. } = released;
        let changed = Changed { record_key: None, subject: Some(&words), records, updates };
        write_change(&mut transaction, &ChangeKind::Release, changed, operator_reason).await?;
    }
    transaction.commit().await?;
    Ok(released)
}

/// Returns how many updates it has; `None`: it was not parked, or released before.
async fn release_one(
    connection: &mut Connection,
    record_key: &RecordKey,
) -> Result<Option<u64>, sqlx::Error> {
    let released = query(
        "UPDATE ledger_parked_record SET state = 'releasing'
         WHERE record_key = $1 AND state = 'parked'
             AND record_key NOT IN (SELECT record_key FROM ledger_paused_record)",
    )
    .bind(rows::key(record_key))
    .execute(&mut *connection)
    .await?;
    if released.rows_affected() == 0 {
        return Ok(None);
    }
    updates_of(connection, record_key).await.map(Some)
}

pub async fn discard(
    connection: &mut Connection,
    record_key: &RecordKey,
    head: Option<u32>,
    operator_reason: &OperatorReason,
) -> Result<Discarded, LedgerError> {
    let mut transaction = begin(connection).await?;
    match lock_parked_record(&mut transaction, record_key).await? {
        None => {
            transaction.rollback().await?;
            return Ok(Discarded::NotParked);
        }
        Some(state) if rows::state(&state)? == ParkedState::Releasing => {
            transaction.rollback().await?; // dropped, it would keep the row locked until the connection is used again
            return Ok(Discarded::Releasing);
        }
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
    .bind(rows::bounded(&operator_reason.who, WHO_CHARS_MAX))
    .bind(rows::bounded(&operator_reason.why, WHY_CHARS_MAX))
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
    let left = updates_of(&mut transaction, record_key).await?;
    let changed = Changed::record(record_key, dropped.rows_affected());
    write_change(&mut transaction, &ChangeKind::Discard, changed, operator_reason).await?;
    transaction.commit().await?;
    Ok(Discarded::Done { updates: dropped.rows_affected(), left })
}

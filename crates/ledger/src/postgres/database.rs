//! What is particular to PostgreSQL: types, session settings, and the statements that differ.

use sqlx::postgres::PgRow;
use sqlx::{Connection as _, PgConnection, Row as _, Transaction, query};

use super::hosts::Hosts;
pub use super::hosts::{Mark, check};
use crate::config::{LedgerConfig, LedgerPlace};
use crate::entry::Query;
use crate::error::LedgerError;
use crate::rows::{self, RecordRow, ResolvedRow};
use lanekeeper_core::update::{IdOrigin, RecordKey};

pub type Connection = PgConnection;
pub type Options = Hosts;
pub type Row = PgRow;

/// Seconds since 1970 by the database's clock, which all processes share.
pub const NOW_SECONDS: &str = "CAST(floor(extract(epoch FROM clock_timestamp())) AS BIGINT)";

/// In order. A migration that was released is never changed.
pub const MIGRATIONS: [&str; 1] = [include_str!("schema_1.sql")];

/// Tables that came later, and that programs of before need not know: these go on using the ledger. The same holds for them.
pub const ADDITIONS: [&str; 4] = [
    include_str!("schema_2.sql"),
    include_str!("schema_3.sql"),
    include_str!("schema_4.sql"),
    include_str!("schema_5.sql"),
];

pub const LOCK_PARKED_RECORD: &str =
    "SELECT state FROM ledger_parked_record WHERE record_key = $1 FOR UPDATE";

pub const LOCK_PAUSED_RECORD: &str =
    "SELECT who, why FROM ledger_paused_record WHERE record_key = $1 FOR SHARE";

/// A record key contains the bytes `$7`.
pub const KEY_CONTAINS: &str = "position($7 IN record_key) > 0";

/// Key of the advisory lock that makes concurrent migrations wait for each other: "lane" in ASCII.
const MIGRATION_LOCK: i64 = 0x6c61_6e65;

pub fn options(config: &LedgerConfig) -> Result<Options, LedgerError> {
    let LedgerPlace::Postgres(urls) = &config.place else {
        return Err(LedgerError::Damaged { what: "the URL" });
    };
    Hosts::new(urls)
}

pub async fn begin(connection: &mut Connection) -> Result<Transaction<'_, sqlx::Postgres>, sqlx::Error> {
    connection.begin().await
}

/// Waits until no other process migrates, and keeps others from it until the transaction ends.
pub async fn one_at_a_time(connection: &mut Connection) -> Result<(), sqlx::Error> {
    query("SELECT pg_advisory_xact_lock($1)").bind(MIGRATION_LOCK).execute(connection).await?;
    Ok(())
}

/// A row for each of these partitions with its highest tenure. Nobody raises them until the transaction ends.
pub async fn tenure_rows(
    connection: &mut Connection,
    partition_keys: &[(i64, i64)],
) -> Result<Vec<Row>, sqlx::Error> {
    let (layouts, partitions): (Vec<i64>, Vec<i64>) = partition_keys.iter().copied().unzip();
    query(
        "SELECT layout, partition, number FROM ledger_tenure
         WHERE (layout, partition) IN (SELECT * FROM UNNEST($1::bigint[], $2::bigint[]))
         ORDER BY layout, partition FOR SHARE",
    )
    .bind(layouts)
    .bind(partitions)
    .fetch_all(connection)
    .await
}

pub async fn keep_resolved(
    connection: &mut Connection,
    resolved: &[ResolvedRow<'_>],
    now: i64,
) -> Result<(), sqlx::Error> {
    let ids: Vec<&str> = resolved.iter().map(|row| row.update_id).collect();
    let keys: Vec<&[u8]> = resolved.iter().map(|row| rows::key(row.record_key)).collect();
    let fingerprints: Vec<&[u8]> = resolved.iter().map(|row| &row.fingerprint.0[..]).collect();
    let resolutions: Vec<&str> = resolved.iter().map(|row| row.resolution).collect();
    let statuses: Vec<Option<i64>> = resolved.iter().map(|row| row.status.map(i64::from)).collect();
    let kept = query(
        "INSERT INTO ledger_resolved_update (update_id, record_key, fingerprint, resolution, status, at_ms)
         SELECT id, key, fingerprint, resolution, status, $6
         FROM UNNEST($1::text[], $2::bytea[], $3::bytea[], $4::text[], $5::bigint[])
             AS new (id, key, fingerprint, resolution, status)
         ON CONFLICT (update_id) DO NOTHING",
    )
    .bind(&ids)
    .bind(&keys)
    .bind(&fingerprints)
    .bind(&resolutions)
    .bind(&statuses)
    .bind(now)
    .execute(&mut *connection)
    .await?;
    if kept.rows_affected() == resolved.len() as u64 {
        return Ok(());
    }
    // Some ids are known. Those of other records are kept apart.
    query(
        "INSERT INTO ledger_resolved_shared_id (update_id, record_key, fingerprint, resolution, status, at_ms)
         SELECT new.id, new.key, new.fingerprint, new.resolution, new.status, $6
         FROM UNNEST($1::text[], $2::bytea[], $3::bytea[], $4::text[], $5::bigint[])
             AS new (id, key, fingerprint, resolution, status)
         JOIN ledger_resolved_update u ON u.update_id = new.id AND u.record_key <> new.key
         ON CONFLICT (update_id, record_key) DO NOTHING",
    )
    .bind(ids)
    .bind(keys)
    .bind(fingerprints)
    .bind(resolutions)
    .bind(statuses)
    .bind(now)
    .execute(connection)
    .await?;
    Ok(())
}

pub async fn keep_records(
    connection: &mut Connection,
    records: &[(&RecordKey, RecordRow<'_>)],
    now: i64,
) -> Result<(), sqlx::Error> {
    let keys: Vec<&[u8]> = records.iter().map(|(record_key, _)| rows::key(record_key)).collect();
    let versions: Vec<Option<i64>> = records.iter().map(|(_, row)| row.version).collect();
    let etags: Vec<Option<&str>> = records.iter().map(|(_, row)| row.etag).collect();
    let ids: Vec<&str> = records.iter().map(|(_, row)| row.update_id).collect();
    query(
        "INSERT INTO ledger_record (record_key, version, etag, update_id, at_ms)
         SELECT key, version, etag, id, $5
         FROM UNNEST($1::bytea[], $2::bigint[], $3::text[], $4::text[]) AS new (key, version, etag, id)
         ON CONFLICT (record_key) DO UPDATE SET
             version = CASE WHEN ledger_record.version IS NULL OR excluded.version > ledger_record.version
                 THEN excluded.version ELSE ledger_record.version END,
             etag = excluded.etag, update_id = excluded.update_id, at_ms = excluded.at_ms",
    )
    .bind(keys)
    .bind(versions)
    .bind(etags)
    .bind(ids)
    .bind(now)
    .execute(connection)
    .await?;
    Ok(())
}

/// A row for each query, in order. A server that takes no writes is not believed: it may know of nothing that was written
/// elsewhere meanwhile.
pub async fn lookup_rows(connection: &mut Connection, queries: &[Query]) -> Result<Vec<Row>, LedgerError> {
    let keys: Vec<&[u8]> = queries.iter().map(|asked| rows::key(&asked.record_key)).collect();
    let ids: Vec<Option<&str>> = queries
        .iter()
        .map(|asked| (asked.id.origin() == IdOrigin::Publisher).then_some(asked.id.as_str()))
        .collect();
    let found = query(
        "SELECT CASE WHEN u.record_key = asked.key THEN u.fingerprint ELSE s.fingerprint END AS fingerprint,
             r.version, r.etag, p.record_key IS NOT NULL AS parked, h.record_key IS NOT NULL AS paused,
             current_setting('transaction_read_only') = 'on' OR pg_is_in_recovery() AS read_only
         FROM UNNEST($1::bytea[], $2::text[]) WITH ORDINALITY AS asked (key, id, place)
         LEFT JOIN ledger_resolved_update u ON u.update_id = asked.id
         LEFT JOIN ledger_resolved_shared_id s ON s.update_id = asked.id AND s.record_key = asked.key
         LEFT JOIN ledger_record r ON r.record_key = asked.key
         LEFT JOIN ledger_parked_record p ON p.record_key = asked.key
         LEFT JOIN ledger_paused_record h ON h.record_key = asked.key
         ORDER BY asked.place",
    )
    .bind(keys)
    .bind(ids)
    .fetch_all(connection)
    .await?;
    match found.first().map(|row| row.try_get("read_only")).transpose()? {
        Some(true) => Err(LedgerError::ReadOnly),
        Some(false) | None => Ok(found),
    }
}

/// The size of the tables with their indexes.
pub async fn bytes(connection: &mut Connection, _: &LedgerConfig) -> Result<u64, LedgerError> {
    let row = query(
        "SELECT sum(pg_total_relation_size(relation))::bigint AS bytes FROM UNNEST(ARRAY['ledger_record',
             'ledger_resolved_update', 'ledger_resolved_shared_id', 'ledger_parked_record', 'ledger_parked_update', 'ledger_discarded',
             'ledger_change', 'ledger_paused_record', 'ledger_paused_target', 'ledger_tenure']::regclass[]) AS relation",
    )
    .fetch_one(connection)
    .await?;
    Ok(rows::count(row.try_get("bytes")?))
}

//! The ledger in PostgreSQL, for dispatchers on several hosts.

#[path = "../sql/connection_slot.rs"]
mod connection_slot;
mod lock;
#[path = "../sql/parked.rs"]
mod parked;
#[path = "../sql/store.rs"]
mod store;
#[path = "../sql/upkeep.rs"]
mod upkeep;
#[path = "../sql/write.rs"]
mod write;

use std::collections::BTreeMap;

use lock::Locks;
pub use lock::RecordLock;
use sqlx::postgres::{PgConnectOptions, PgRow};
use sqlx::{Connection as _, PgConnection, Row as _, Transaction, query};
pub use store::SqlStore as PostgresLedger;

use super::entry::{IdStatus, LookupResult, Query};
use super::error::LedgerError;
use super::rows::{self, RecordRow, ResolvedRow};
use crate::config::{LedgerConfig, LedgerPlace};
use lanekeeper_core::update::{IdOrigin, RecordKey};

type Connection = PgConnection;
type Options = PgConnectOptions;
type Row = PgRow;

/// In order; one that was released is never changed.
const MIGRATIONS: [&str; 1] = [include_str!("schema_1.sql")];

const LOCK_PARKED_RECORD: &str = "SELECT state FROM ledger_parked_record WHERE record_key = $1 FOR UPDATE";

/// Settings of every session. A wait for a row ends with an error that is tried again; a session whose host has gone
/// is noticed by the server within half a minute, and with it go its locks (default: two hours). Whatever is asked on
/// the way of an update is found by an index: a plan that was made while the tables were empty would read all of them
/// every time, until the server looks at their sizes.
const SESSION: [(&str, &str); 8] = [
    ("enable_seqscan", "off"),
    ("enable_hashjoin", "off"),
    ("enable_mergejoin", "off"),
    ("lock_timeout", "5s"),
    ("statement_timeout", "9s"),
    ("tcp_keepalives_idle", "10"),
    ("tcp_keepalives_interval", "5"),
    ("tcp_keepalives_count", "3"),
];

/// Of the advisory lock that makes migrations wait for each other: "lane" in ASCII.
const MIGRATION_LOCK: i64 = 0x6c61_6e65;

fn options(config: &LedgerConfig) -> Result<Options, LedgerError> {
    let LedgerPlace::Postgres(url) = &config.place else {
        return Err(LedgerError::Damaged { what: "the kind of its URL" });
    };
    let options: PgConnectOptions = url.reveal().parse()?;
    Ok(options.application_name("lanekeeper").options(SESSION))
}

async fn begin(connection: &mut Connection) -> Result<Transaction<'_, sqlx::Postgres>, sqlx::Error> {
    connection.begin().await
}

/// Until the transaction ends.
async fn one_at_a_time(connection: &mut Connection) -> Result<(), sqlx::Error> {
    query("SELECT pg_advisory_xact_lock($1)").bind(MIGRATION_LOCK).execute(connection).await?;
    Ok(())
}

/// The highest tenure of these partitions; nobody raises it until the transaction ends.
async fn tenures(
    connection: &mut Connection,
    partition_keys: &[(i64, i64)],
) -> Result<BTreeMap<(i64, i64), i64>, sqlx::Error> {
    let (layouts, partitions): (Vec<i64>, Vec<i64>) = partition_keys.iter().copied().unzip();
    let found = query(
        "SELECT layout, partition, number FROM ledger_tenure
         WHERE (layout, partition) IN (SELECT * FROM UNNEST($1::bigint[], $2::bigint[]))
         ORDER BY layout, partition FOR SHARE",
    )
    .bind(layouts)
    .bind(partitions)
    .fetch_all(connection)
    .await?;
    found
        .iter()
        .map(|row| Ok(((row.try_get("layout")?, row.try_get("partition")?), row.try_get("number")?)))
        .collect()
}

async fn keep_resolved(
    connection: &mut Connection,
    resolved: &[ResolvedRow<'_>],
    now: i64,
) -> Result<(), sqlx::Error> {
    let ids: Vec<&str> = resolved.iter().map(|row| row.update_id).collect();
    let keys: Vec<&[u8]> = resolved.iter().map(|row| rows::key(row.record_key)).collect();
    let fingerprints: Vec<&[u8]> = resolved.iter().map(|row| &row.fingerprint.0[..]).collect();
    let resolutions: Vec<&str> = resolved.iter().map(|row| row.resolution).collect();
    let statuses: Vec<Option<i64>> = resolved.iter().map(|row| row.status.map(i64::from)).collect();
    query(
        "INSERT INTO ledger_resolved_update (update_id, record_key, fingerprint, resolution, status, at_ms)
         SELECT id, key, fingerprint, resolution, status, $6
         FROM UNNEST($1::text[], $2::bytea[], $3::bytea[], $4::text[], $5::bigint[])
             AS new (id, key, fingerprint, resolution, status)
         ON CONFLICT (update_id) DO NOTHING",
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

async fn keep_records(
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

/// Answers all of them in one statement, as of one moment.
async fn lookup(connection: &mut Connection, queries: &[Query]) -> Result<Vec<LookupResult>, LedgerError> {
    let keys: Vec<&[u8]> = queries.iter().map(|asked| rows::key(&asked.record_key)).collect();
    let ids: Vec<Option<&str>> = queries
        .iter()
        .map(|asked| (asked.id.origin() == IdOrigin::Publisher).then_some(asked.id.as_str()))
        .collect();
    let found = query(
        "SELECT u.record_key AS of_record, u.fingerprint, r.version, r.etag, p.record_key IS NOT NULL AS parked
         FROM UNNEST($1::bytea[], $2::text[]) WITH ORDINALITY AS asked (key, id, place)
         LEFT JOIN ledger_resolved_update u ON u.update_id = asked.id
         LEFT JOIN ledger_record r ON r.record_key = asked.key
         LEFT JOIN ledger_parked_record p ON p.record_key = asked.key
         ORDER BY asked.place",
    )
    .bind(keys)
    .bind(ids)
    .fetch_all(connection)
    .await?;
    let lookup_result = |(row, asked): (&PgRow, &Query)| {
        Ok(LookupResult {
            id_status: IdStatus::of(asked, row.try_get("of_record")?, row.try_get("fingerprint")?),
            parked: row.try_get("parked")?,
            version: row.try_get("version")?,
            etag: row.try_get("etag")?,
        })
    };
    found.iter().zip(queries).map(lookup_result).collect()
}

/// Tables with their indexes.
async fn bytes(connection: &mut Connection, _: &LedgerConfig) -> Result<u64, LedgerError> {
    let row = query(
        "SELECT sum(pg_total_relation_size(relation))::bigint AS bytes FROM UNNEST(ARRAY['ledger_record',
             'ledger_resolved_update', 'ledger_parked_record', 'ledger_parked_update', 'ledger_discarded',
             'ledger_tenure']::regclass[]) AS relation",
    )
    .fetch_one(connection)
    .await?;
    Ok(rows::count(row.try_get("bytes")?))
}

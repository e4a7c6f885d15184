//! Migrations, pruning and sizes.

use std::time::Duration;

use sqlx::{Row as _, query, raw_sql};
use uuid::Uuid;

use super::super::database::{Connection, MIGRATIONS, begin, one_at_a_time};
use crate::error::LedgerError;
use crate::parked::LedgerStats;
use crate::rows;
use lanekeeper_core::update::RecordKey;

/// Rows that one call of `prune` deletes: it takes some milliseconds, in which others wait.
const PRUNED_MAX: i64 = 1000;

/// Migrates the schema, and returns the ledger's identity. Several processes may do it at once.
///
/// # Errors
/// The schema is newer than this program knows; or an error of the database.
pub async fn migrate(connection: &mut Connection) -> Result<Uuid, LedgerError> {
    let mut transaction = begin(connection).await?;
    one_at_a_time(&mut transaction).await?;
    query("CREATE TABLE IF NOT EXISTS ledger_schema (version BIGINT NOT NULL, identity TEXT NOT NULL)")
        .execute(&mut *transaction)
        .await?;
    let row = query("SELECT version, identity FROM ledger_schema").fetch_optional(&mut *transaction).await?;
    let (version, identity) = match row {
        Some(row) => (row.try_get("version")?, row.try_get("identity")?),
        None => (0_i64, Uuid::new_v4().to_string()),
    };
    let known = i64::try_from(MIGRATIONS.len()).expect("few migrations");
    if version > known {
        return Err(LedgerError::SchemaNewer { found: version, known });
    }
    let done = usize::try_from(version).map_err(|_| LedgerError::Damaged { what: "the schema version" })?;
    if done < MIGRATIONS.len() {
        for migration in &MIGRATIONS[done..] {
            raw_sql(*migration).execute(&mut *transaction).await?;
        }
        query("DELETE FROM ledger_schema").execute(&mut *transaction).await?;
        query("INSERT INTO ledger_schema (version, identity) VALUES ($1, $2)")
            .bind(known)
            .bind(&identity)
            .execute(&mut *transaction)
            .await?;
    }
    transaction.commit().await?;
    Uuid::parse_str(&identity).map_err(|_| LedgerError::Damaged { what: "the identity" })
}

/// Deletes a chunk of old ids, oldest first. `seq` grows with time, so no index by time is needed.
pub async fn prune(connection: &mut Connection, retention: Duration) -> Result<u64, LedgerError> {
    let before = rows::now_ms().saturating_sub(rows::ms(retention));
    let mut pruned = 0;
    for statement in [
        "DELETE FROM ledger_resolved_update
         WHERE seq IN (SELECT seq FROM ledger_resolved_update ORDER BY seq LIMIT $1) AND at_ms < $2",
        "DELETE FROM ledger_resolved_shared_id
         WHERE seq IN (SELECT seq FROM ledger_resolved_shared_id ORDER BY seq LIMIT $1) AND at_ms < $2",
    ] {
        let deleted = query(statement).bind(PRUNED_MAX).bind(before).execute(&mut *connection).await?;
        pruned += deleted.rows_affected();
    }
    Ok(pruned)
}

/// Forgets the version of a record, and returns it.
pub async fn forget_version(
    connection: &mut Connection,
    record_key: &RecordKey,
) -> Result<Option<i64>, LedgerError> {
    let mut transaction = begin(connection).await?;
    let row = query("SELECT version FROM ledger_record WHERE record_key = $1")
        .bind(rows::key(record_key))
        .fetch_optional(&mut *transaction)
        .await?;
    let version = row.map(|row| row.try_get::<Option<i64>, _>("version")).transpose()?.flatten();
    query("UPDATE ledger_record SET version = NULL WHERE record_key = $1")
        .bind(rows::key(record_key))
        .execute(&mut *transaction)
        .await?;
    transaction.commit().await?;
    Ok(version)
}

/// Counts rows. There can be too many ids to count, so they are estimated by their numbers, which have few gaps. Sizes
/// that are not in the tables stay 0.
pub async fn stats(connection: &mut Connection) -> Result<LedgerStats, LedgerError> {
    let row = query(
        "SELECT (SELECT coalesce(max(seq) - min(seq) + 1, 0) FROM ledger_resolved_update)
                 + (SELECT coalesce(max(seq) - min(seq) + 1, 0) FROM ledger_resolved_shared_id) AS resolved_updates,
             (SELECT count(*) FROM ledger_record) AS records,
             (SELECT count(*) FROM ledger_parked_record) AS parked_records,
             (SELECT count(*) FROM ledger_parked_update) AS parked_updates",
    )
    .fetch_one(connection)
    .await?;
    let of = |name: &str| row.try_get::<i64, _>(name).map(rows::count);
    Ok(LedgerStats {
        resolved_updates: of("resolved_updates")?,
        records: of("records")?,
        parked_records: of("parked_records")?,
        parked_updates: of("parked_updates")?,
        ..LedgerStats::default()
    })
}

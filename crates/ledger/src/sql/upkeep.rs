//! Migrations, pruning and sizes.

use std::time::Duration;

use sqlx::{Row as _, query, raw_sql};
use uuid::Uuid;

use super::super::database::{ADDITIONS, Connection, MIGRATIONS, begin, one_at_a_time};
use super::changes::{self, Changed, write_change};
use crate::changes::ChangeKind;
use crate::error::LedgerError;
use crate::parked::{LedgerStats, OperatorReason};
use crate::prune::Pruning;
use crate::rows;
use lanekeeper_core::update::RecordKey;

/// Rows that one call of `prune` deletes: it takes some milliseconds, in which others wait.
const PRUNED_MAX: i64 = 1000;

/// Chunks that one call of `prune` looks at.
const CHUNKS_MAX: usize = 20;

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
    query("CREATE TABLE IF NOT EXISTS ledger_addition (number BIGINT PRIMARY KEY)")
        .execute(&mut *transaction)
        .await?;
    for (number, addition) in (1_i64..).zip(ADDITIONS) {
        let added = query("INSERT INTO ledger_addition (number) VALUES ($1) ON CONFLICT (number) DO NOTHING")
            .bind(number)
            .execute(&mut *transaction)
            .await?;
        if added.rows_affected() == 1 {
            raw_sql(addition).execute(&mut *transaction).await?;
        }
    }
    transaction.commit().await?;
    Uuid::parse_str(&identity).map_err(|_| LedgerError::Damaged { what: "the identity" })
}

/// Deletes a chunk of old ids, oldest first, and returns how many; 0: there are no more. `seq` grows with time, so no index
/// by time is needed. Ids that bear a later time than now, since a clock was ahead when they were written, are passed over.
async fn prune_table(
    connection: &mut Connection,
    retention: Duration,
    pruning: &mut Pruning,
    [select, delete]: [&'static str; 2],
) -> Result<u64, LedgerError> {
    pruning.begin_again_at_times();
    for _ in 0..CHUNKS_MAX {
        let chunk = query(select).bind(pruning.passed).bind(PRUNED_MAX).fetch_all(&mut *connection).await?;
        let chunk: Vec<(i64, i64)> = chunk
            .iter()
            .map(|row| Ok((row.try_get("seq")?, row.try_get("at_ms")?)))
            .collect::<Result<_, sqlx::Error>>()?;
        let Some((last, _)) = chunk.last().copied() else { return Ok(0) };
        let now = rows::now_ms();
        let oldest = chunk.iter().map(|(_, at_ms)| *at_ms).min().unwrap_or(now);
        let before = pruning.before(oldest, now.saturating_sub(rows::ms(retention)));
        if chunk.iter().any(|(_, at_ms)| *at_ms < before) {
            let pruned =
                query(delete).bind(pruning.passed).bind(last).bind(before).execute(connection).await?;
            return Ok(pruned.rows_affected());
        }
        // What is neither old nor of a clock that was ahead is followed by younger ones.
        if chunk.iter().any(|(_, at_ms)| *at_ms <= now) {
            return Ok(0);
        }
        pruning.passed = last;
    }
    Ok(0)
}

/// Deletes a chunk of old ids of each table, and of changes that are too many; 0: there are no more.
pub async fn prune(
    connection: &mut Connection,
    retention: Duration,
    [own, shared]: &mut [Pruning; 2],
) -> Result<u64, LedgerError> {
    let of_own = [
        "SELECT seq, at_ms FROM ledger_resolved_update WHERE seq > $1 ORDER BY seq LIMIT $2",
        "DELETE FROM ledger_resolved_update WHERE seq > $1 AND seq <= $2 AND at_ms < $3",
    ];
    let of_shared = [
        "SELECT seq, at_ms FROM ledger_resolved_shared_id WHERE seq > $1 ORDER BY seq LIMIT $2",
        "DELETE FROM ledger_resolved_shared_id WHERE seq > $1 AND seq <= $2 AND at_ms < $3",
    ];
    let mut pruned = prune_table(&mut *connection, retention, own, of_own).await?;
    pruned += prune_table(&mut *connection, retention, shared, of_shared).await?;
    Ok(pruned + changes::prune(connection, PRUNED_MAX).await?)
}

/// Forgets the version of a record, and returns it.
pub async fn forget_version(
    connection: &mut Connection,
    record_key: &RecordKey,
    operator_reason: &OperatorReason,
) -> Result<Option<i64>, LedgerError> {
    let mut transaction = begin(connection).await?;
    let row = query("SELECT version FROM ledger_record WHERE record_key = $1")
        .bind(rows::key(record_key))
        .fetch_optional(&mut *transaction)
        .await?;
    let version = row.map(|row| row.try_get::<Option<i64>, _>("version")).transpose()?.flatten();
    if version.is_none() {
        transaction.rollback().await?;
        return Ok(None);
    }
    query("UPDATE ledger_record SET version = NULL WHERE record_key = $1")
        .bind(rows::key(record_key))
        .execute(&mut *transaction)
        .await?;
    let changed = Changed::record(record_key, 0);
    write_change(&mut transaction, &ChangeKind::ForgetVersion, changed, operator_reason).await?;
    transaction.commit().await?;
    Ok(version)
}

/// Counts rows, but only of what is bounded. There can be too many ids to count, so they are estimated by their numbers, which
/// have few gaps. Sizes that are not in the tables stay 0.
pub async fn stats(connection: &mut Connection) -> Result<LedgerStats, LedgerError> {
    let row = query(
        "SELECT (SELECT coalesce(max(seq) - min(seq) + 1, 0) FROM ledger_resolved_update)
                 + (SELECT coalesce(max(seq) - min(seq) + 1, 0) FROM ledger_resolved_shared_id) AS resolved_updates,
             (SELECT count(*) FROM ledger_parked_record) AS parked_records,
             (SELECT count(*) FROM ledger_parked_update) AS parked_updates",
    )
    .fetch_one(connection)
    .await?;
    let of = |name: &str| row.try_get::<i64, _>(name).map(rows::count);
    Ok(LedgerStats {
        resolved_updates: of("resolved_updates")?,
        parked_records: of("parked_records")?,
        parked_updates: of("parked_updates")?,
        ..LedgerStats::default()
    })
}

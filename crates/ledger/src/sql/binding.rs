//! Which exchange the ledger belongs to.

use std::time::Duration;

use sqlx::{AssertSqlSafe, Row as _, query};
use uuid::Uuid;

use super::super::database::{Connection, NOW_SECONDS, begin, one_at_a_time};
use crate::binding::{BoundTopology, LedgerBinding, MARKS_MAX, TopologyPlace};
use crate::error::LedgerError;
use lanekeeper_core::message::TenureNumber;

pub async fn binding(connection: &mut Connection) -> Result<LedgerBinding, LedgerError> {
    let statement = format!(
        "SELECT identity, cluster, vhost, exchange, {NOW_SECONDS} - used_s AS used_ago FROM ledger_topology"
    );
    let row = query(AssertSqlSafe(statement)).fetch_optional(&mut *connection).await?;
    let (mut topology, mut used_ago) = (None, None);
    if let Some(row) = row {
        let seconds: Option<i64> = row.try_get("used_ago")?;
        used_ago = seconds.map(|seconds| Duration::from_secs(seconds.try_into().unwrap_or_default()));
        topology = Some(BoundTopology {
            identity: uuid(row.try_get("identity")?, "the identity of the exchange")?,
            place: TopologyPlace {
                cluster: row.try_get("cluster")?,
                vhost: row.try_get("vhost")?,
                exchange: row.try_get("exchange")?,
            },
        });
    }
    let rows = query("SELECT mark FROM ledger_mark ORDER BY seq").fetch_all(&mut *connection).await?;
    let marks = rows.iter().map(|row| uuid(row.try_get("mark")?, "a mark")).collect::<Result<_, _>>()?;
    let row = query("SELECT max(number) AS highest FROM ledger_tenure").fetch_one(connection).await?;
    let highest = row.try_get::<Option<i64>, _>("highest")?;
    let highest = highest.map(|number| TenureNumber(u64::try_from(number).unwrap_or_default()));
    Ok(LedgerBinding { topology, used_ago, marks, highest })
}

/// The mark is the newest from now on. `known` is kept, however old it is. Returns false, and writes nothing, if the ledger
/// belongs to another exchange than `before` by now.
pub async fn bind(
    connection: &mut Connection,
    before: Option<Uuid>,
    topology: &BoundTopology,
    mark: Uuid,
    known: Option<Uuid>,
) -> Result<bool, LedgerError> {
    let mut transaction = begin(connection).await?;
    one_at_a_time(&mut transaction).await?;
    let row = query("SELECT identity FROM ledger_topology").fetch_optional(&mut *transaction).await?;
    let found: Option<String> = row.map(|row| row.try_get("identity")).transpose()?;
    if found != before.map(|identity| identity.to_string()) {
        transaction.rollback().await?;
        return Ok(false);
    }
    let statement = format!(
        "INSERT INTO ledger_topology (one, identity, cluster, vhost, exchange, used_s)
         VALUES (1, $1, $2, $3, $4, {NOW_SECONDS})
         ON CONFLICT (one) DO UPDATE SET identity = excluded.identity, cluster = excluded.cluster,
             vhost = excluded.vhost, exchange = excluded.exchange, used_s = excluded.used_s"
    );
    query(AssertSqlSafe(statement))
        .bind(topology.identity.to_string())
        .bind(&topology.place.cluster)
        .bind(&topology.place.vhost)
        .bind(&topology.place.exchange)
        .execute(&mut *transaction)
        .await?;
    query("INSERT INTO ledger_mark (mark) VALUES ($1)")
        .bind(mark.to_string())
        .execute(&mut *transaction)
        .await?;
    query(
        "DELETE FROM ledger_mark WHERE mark <> $1
         AND seq NOT IN (SELECT seq FROM ledger_mark ORDER BY seq DESC LIMIT $2)",
    )
    .bind(known.unwrap_or(mark).to_string())
    .bind(i64::from(MARKS_MAX))
    .execute(&mut *transaction)
    .await?;
    transaction.commit().await?;
    Ok(true)
}

/// A dispatcher of this exchange uses the ledger, or has stopped.
pub async fn set_used(connection: &mut Connection, topology: Uuid, used: bool) -> Result<(), LedgerError> {
    let now = if used { NOW_SECONDS } else { "NULL" };
    query(AssertSqlSafe(format!("UPDATE ledger_topology SET used_s = {now} WHERE identity = $1")))
        .bind(topology.to_string())
        .execute(connection)
        .await?;
    Ok(())
}

fn uuid(text: &str, what: &'static str) -> Result<Uuid, LedgerError> {
    Uuid::parse_str(text).map_err(|_| LedgerError::Damaged { what })
}

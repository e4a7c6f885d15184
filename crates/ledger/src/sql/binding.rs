//! Which exchange the ledger belongs to.

use sqlx::{Row as _, query};
use uuid::Uuid;

use super::super::database::{Connection, begin};
use crate::binding::{BoundTopology, LedgerBinding, MARKS_MAX, TopologyPlace};
use crate::error::LedgerError;
use lanekeeper_core::message::TenureNumber;

pub async fn binding(connection: &mut Connection) -> Result<LedgerBinding, LedgerError> {
    let row = query("SELECT identity, cluster, vhost, exchange FROM ledger_topology")
        .fetch_optional(&mut *connection)
        .await?;
    let topology = match row {
        None => None,
        Some(row) => Some(BoundTopology {
            identity: uuid(row.try_get("identity")?, "the identity of the exchange")?,
            place: TopologyPlace {
                cluster: row.try_get("cluster")?,
                vhost: row.try_get("vhost")?,
                exchange: row.try_get("exchange")?,
            },
        }),
    };
    let rows = query("SELECT mark FROM ledger_mark ORDER BY seq").fetch_all(&mut *connection).await?;
    let marks = rows.iter().map(|row| uuid(row.try_get("mark")?, "a mark")).collect::<Result<_, _>>()?;
    let row = query("SELECT max(number) AS highest FROM ledger_tenure").fetch_one(connection).await?;
    let highest = row.try_get::<Option<i64>, _>("highest")?;
    let highest = highest.map(|number| TenureNumber(u64::try_from(number).unwrap_or_default()));
    Ok(LedgerBinding { topology, marks, highest })
}

/// The mark is the newest from now on. `known` is kept, however old it is.
pub async fn bind(
    connection: &mut Connection,
    topology: &BoundTopology,
    mark: Uuid,
    known: Option<Uuid>,
) -> Result<(), LedgerError> {
    let mut transaction = begin(connection).await?;
    query("DELETE FROM ledger_topology").execute(&mut *transaction).await?;
    query("INSERT INTO ledger_topology (identity, cluster, vhost, exchange) VALUES ($1, $2, $3, $4)")
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
    Ok(())
}

fn uuid(text: &str, what: &'static str) -> Result<Uuid, LedgerError> {
    Uuid::parse_str(text).map_err(|_| LedgerError::Damaged { what })
}

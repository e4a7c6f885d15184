//! Looks up what is known about updates.

use sqlx::Row as _;

use super::super::database::{Connection, Row, lookup_rows};
use crate::entry::{IdStatus, LookupResult, Query};
use crate::error::LedgerError;

/// Answers all queries in one statement.
pub async fn lookup(
    connection: &mut Connection,
    queries: &[Query],
) -> Result<Vec<LookupResult>, LedgerError> {
    let found = lookup_rows(connection, queries).await?;
    found.iter().zip(queries).map(|(row, asked)| lookup_result(row, asked)).collect()
}

fn lookup_result(row: &Row, asked: &Query) -> Result<LookupResult, LedgerError> {
    Ok(LookupResult {
        id_status: IdStatus::of(asked, row.try_get("fingerprint")?),
        parked: row.try_get("parked")?,
        paused: row.try_get("paused")?,
        version: row.try_get("version")?,
        etag: row.try_get("etag")?,
    })
}

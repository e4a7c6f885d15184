//! One exchange, one ledger: two would not know of each other's parked records and applied updates.

use lapin::Connection;
use tracing::{info, warn};
use uuid::Uuid;

use super::document::{self, LayoutDocument};
use super::error::SourceError;
use super::names::Names;
use super::topology::{close, lock, open, unlock, write};

/// What a dispatcher brings along.
#[derive(Clone, Copy, Debug)]
pub struct OwnLedger {
    /// Its ledger's identity; `None`: it has no ledger.
    pub identity: Option<Uuid>,
    /// Whether it stands from now on, whatever was used before: `run --adopt-ledger`.
    pub adopt: bool,
}

/// Records the ledger with the layout, or compares it with the one that is recorded.
///
/// # Errors
/// Another ledger belongs to this exchange.
pub async fn ensure_ledger(
    connection: &Connection,
    names: &Names,
    known: &LayoutDocument,
    own: OwnLedger,
    instance: &str,
) -> Result<(), SourceError> {
    if known.ledger == own.identity {
        return Ok(());
    }
    let channel = open(connection).await?;
    lock(&channel, names).await?;
    // Another process may have been faster: the lock was its too.
    let known = document::read_surely(connection, names).await?.unwrap_or_else(|| known.clone());
    let result = match (known.ledger, own) {
        (recorded, OwnLedger { identity, .. }) if recorded == identity => Ok(()),
        (Some(recorded), OwnLedger { adopt: false, .. }) => Err(SourceError::OtherLedger { recorded }),
        (recorded, OwnLedger { identity, .. }) => {
            let document = LayoutDocument { ledger: identity, ..known };
            write(&channel, names, document, instance).await?;
            if let Some(before) = recorded {
                warn!(%before, "another ledger was adopted: what was parked or applied in the one before is not known here");
            } else {
                info!("ledger recorded with the layout");
            }
            Ok(())
        }
    };
    unlock(&channel, names).await?;
    close(channel).await;
    result
}

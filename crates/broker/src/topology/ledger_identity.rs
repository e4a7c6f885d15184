//! One exchange, one ledger: two would not know of each other's parked records and applied updates.

use tracing::{info, warn};
use uuid::Uuid;

use super::document::LayoutDocument;
use super::document_stream;
use super::session::TopologySession;
use crate::connection::Connection;
use crate::error::SourceError;
use crate::names::Names;

/// The ledger of this dispatcher.
#[derive(Clone, Copy, Debug)]
pub struct OwnLedger {
    /// Its ledger's identity; `None`: it has no ledger.
    pub identity: Option<Uuid>,
    /// If true, it counts from now on, whatever was used before: `run --adopt-ledger`.
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
    let mut session = TopologySession::new(connection, names, instance);
    session.lock().await?;
    // Another process may have been faster: the lock was its too.
    let known = document_stream::read_surely(&mut session).await?.unwrap_or_else(|| known.clone());
    let result = match (known.ledger, own) {
        (recorded, OwnLedger { identity, .. }) if recorded == identity => Ok(()),
        (Some(recorded), OwnLedger { adopt: false, .. }) => Err(SourceError::OtherLedger { recorded }),
        (recorded, OwnLedger { identity, .. }) => {
            document_stream::write(&mut session, LayoutDocument { ledger: identity, ..known }).await?;
            if let Some(before) = recorded {
                warn!(%before, "adopted another ledger: it does not know the parked updates and the applied ids of the previous one");
            } else {
                info!("recorded the ledger in the layout document");
            }
            Ok(())
        }
    };
    session.unlock().await?;
    session.close().await;
    result
}

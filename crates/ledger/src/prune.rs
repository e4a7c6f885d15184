//! Deletes old ids in the background.

use std::time::Duration;

use tokio::time::sleep;
use tracing::{debug, warn};

use super::ledger::Ledger;

/// How often to look for old ids.
const LOOK_EVERY: Duration = Duration::from_secs(60);

/// The pause between two chunks, in which others can write.
const PAUSE: Duration = Duration::from_millis(20);

/// Deletes ids that are older than `ledger.retention`, chunk by chunk, until the future is dropped. Several processes may
/// do it at once.
pub async fn keep_pruned(ledger: &impl Ledger) {
    loop {
        let wait = match ledger.prune().await {
            Ok(0) => LOOK_EVERY,
            Ok(updates) => {
                debug!(updates, "deleted old update ids");
                PAUSE
            }
            Err(error) => {
                warn!(%error, "cannot delete old update ids, retrying in a minute");
                LOOK_EVERY
            }
        };
        sleep(wait).await;
    }
}

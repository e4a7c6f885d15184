//! Forgetting old ids in the background.

use std::time::Duration;

use tokio::time::sleep;
use tracing::{debug, warn};

use super::Ledger;

/// How often is looked for old ids.
const LOOK_EVERY: Duration = Duration::from_secs(60);

/// Between two chunks: others write meanwhile.
const PAUSE: Duration = Duration::from_millis(20);

/// Forgets ids that are older than `ledger.retention`, chunk by chunk, for as long as it is polled. Several processes
/// may do it at once.
pub async fn keep_pruned(ledger: &impl Ledger) {
    loop {
        let wait = match ledger.prune().await {
            Ok(0) => LOOK_EVERY,
            Ok(updates) => {
                debug!(updates, "forgot old update ids");
                PAUSE
            }
            Err(error) => {
                warn!(%error, "cannot forget old update ids, will try again");
                LOOK_EVERY
            }
        };
        sleep(wait).await;
    }
}

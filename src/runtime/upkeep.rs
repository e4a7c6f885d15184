//! Opens the ledger, removes what is too old, and measures how large it is.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{MissedTickBehavior, interval};
use tracing::warn;

use crate::admin::metrics::{LedgerMetrics, LedgerSize, Metrics};
use lanekeeper_broker::LogOnChange;
use lanekeeper_core::error::error_chain;
use lanekeeper_ledger::{
    AnyLedger, Ledger, LedgerConfig, LedgerError, LedgerPlace, LedgerStats, keep_pruned,
};

/// How often the size is measured, which counts rows.
const PUBLISH_INTERVAL: Duration = Duration::from_secs(30);

/// Between two tries to reach the ledger's server.
const RETRY_DELAY: Duration = Duration::from_secs(1);

/// Opens the ledger that the config names; `None`: it names none. Waits for a server that is not there yet, or that takes no
/// writes yet: services that start together need no order.
///
/// # Errors
/// The ledger cannot be opened, or a later version of the program has changed it.
pub(super) async fn open_ledger(
    config: Option<&LedgerConfig>,
    metrics: &Metrics,
) -> Result<Option<Arc<AnyLedger>>, LedgerError> {
    let Some(config) = config else { return Ok(None) };
    let ledger = Arc::new(open_patiently(config).await?);
    let pruned = Arc::clone(&ledger);
    tokio::spawn(async move { keep_pruned(&*pruned).await });
    tokio::spawn(publish_size(Arc::clone(&ledger), metrics.ledger()));
    Ok(Some(ledger))
}

async fn open_patiently(config: &LedgerConfig) -> Result<AnyLedger, LedgerError> {
    let mut log = LogOnChange::default();
    loop {
        match AnyLedger::open(config.clone()).await {
            Err(error) if error.can_heal() && matches!(config.place, LedgerPlace::Postgres(_)) => {
                let error = error_chain(&error);
                if log.is_new(error.clone()) {
                    warn!(error, "the ledger cannot be used yet, trying again");
                }
                tokio::time::sleep(RETRY_DELAY).await;
            }
            opened => return opened,
        }
    }
}

async fn publish_size(ledger: Arc<AnyLedger>, metrics: LedgerMetrics) {
    let mut interval = interval(PUBLISH_INTERVAL);
    interval.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut before = LedgerStats::default();
    loop {
        interval.tick().await;
        // A fault is logged by those who need the ledger to go on. What is not known is not shown.
        let Ok(stats) = ledger.stats().await else {
            metrics.size_unknown();
            continue;
        };
        metrics.size(LedgerSize {
            resolved_updates: stats.resolved_updates,
            parked_records: stats.parked_records,
            parked_updates: stats.parked_updates,
            bytes: stats.bytes,
        });
        metrics.committed(
            stats.commits.saturating_sub(before.commits),
            stats.entries.saturating_sub(before.entries),
        );
        before = stats;
    }
}

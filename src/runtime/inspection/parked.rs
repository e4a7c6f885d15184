//! How much is parked, counted when somebody asks.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tokio::sync::{Mutex, OwnedMutexGuard};
use tokio::time::{Instant, timeout};

use crate::inspect::report::{LedgerReport, ParkedReport};
use crate::wall_time::unix_millis;
use lanekeeper_ledger::{AnyLedger, Operations as _, ParkedCounts};

/// How old a count may be, so that a hundred pages cost what one does.
const COUNT_AGE_MAX: Duration = Duration::from_secs(5);
/// A count that is older than this is not shown, whatever keeps a new one: a search of a colleague can, for some seconds.
const SHOWN_AGE_MAX: Duration = Duration::from_secs(60);
/// How long an answer waits for a new one, which goes on.
const COUNT_TIMEOUT: Duration = Duration::from_millis(500);

/// The ledger, as people see it.
pub struct InspectedLedger {
    kind: &'static str,
    ledger: Arc<AnyLedger>,
    last: Arc<std::sync::Mutex<Option<(Instant, ParkedReport)>>>,
    /// Whoever counts has it.
    counting: Arc<Mutex<()>>,
}

impl InspectedLedger {
    /// Nothing was counted yet.
    pub fn new(kind: &'static str, ledger: Arc<AnyLedger>) -> Self {
        Self { kind, ledger, last: Arc::default(), counting: Arc::default() }
    }

    /// Counts, unless that was done not long ago.
    pub async fn report(&self) -> LedgerReport {
        if self.last(COUNT_AGE_MAX).is_none() {
            let _ = timeout(COUNT_TIMEOUT, self.count()).await; // then the one before is shown
        }
        LedgerReport { kind: self.kind.to_owned(), parked: self.last(SHOWN_AGE_MAX) }
    }

    fn last(&self, age_max: Duration) -> Option<ParkedReport> {
        let last = self.last.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        last.as_ref().filter(|(at, _)| at.elapsed() <= age_max).map(|(_, parked)| parked.clone())
    }

    /// Whoever comes while another one counts waits for that count.
    async fn count(&self) {
        let turn: OwnedMutexGuard<()> = Arc::clone(&self.counting).lock_owned().await;
        if self.last(COUNT_AGE_MAX).is_some() {
            return;
        }
        let (ledger, last) = (Arc::clone(&self.ledger), Arc::clone(&self.last));
        // It goes on if nobody waits any more: a query that is given up would run on in the database, and a second one beside it.
        let counting = tokio::spawn(async move {
            let _turn = turn;
            if let Ok(counts) = ledger.parked_counts().await {
                let mut last = last.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
                *last = Some((Instant::now(), report(&counts)));
            }
        });
        let _ = counting.await; // it was counted, or the process ends
    }
}

fn report(counts: &ParkedCounts) -> ParkedReport {
    let with_some = counts.partitions.iter().filter(|count| count.parked > 0);
    ParkedReport {
        counted_at_ms: unix_millis(SystemTime::now()),
        records: counts.partitions.iter().map(|count| count.parked).sum(),
        releasing: counts.partitions.iter().map(|count| count.releasing).sum(),
        updates: counts.updates,
        partitions: with_some.map(|count| (count.layout.0, count.partition.0, count.parked)).collect(),
    }
}

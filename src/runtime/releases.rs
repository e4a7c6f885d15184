//! Parked records that a person has released, possibly from another process: found by asking the ledger.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{MissedTickBehavior, interval};

use crate::core::layout::{Layout, PartitionNumber};
use crate::core::phash2::partition_of;
use crate::core::update::RecordKey;
use crate::ledger::{AnyLedger, Ledger, ReleasedRecord};

/// A release is picked up within so long, and a little.
const LOOK_EVERY: Duration = Duration::from_millis(500);
/// Records that are looked at together; those released first come first.
const RECORDS_MAX: u32 = 256;

/// What is to go out, as it was last found.
#[derive(Clone, Debug)]
pub struct Releases(Option<watch::Receiver<Arc<[ReleasedRecord]>>>);

impl Releases {
    /// Without a ledger there are none.
    #[must_use]
    pub fn none() -> Self {
        Self(None)
    }

    /// Looks as long as somebody wants to know.
    #[must_use]
    pub fn begin(ledger: Arc<AnyLedger>) -> Self {
        let (found, releases) = watch::channel(Arc::<[ReleasedRecord]>::from([]));
        tokio::spawn(async move {
            let mut look = interval(LOOK_EVERY);
            look.set_missed_tick_behavior(MissedTickBehavior::Delay);
            while !found.is_closed() {
                look.tick().await;
                // A fault is told by those who need the ledger to go on.
                if let Ok(released) = ledger.released(RECORDS_MAX).await
                    && !(released.is_empty() && found.borrow().is_empty())
                {
                    found.send_replace(released.into());
                }
            }
        });
        Self(Some(releases))
    }

    /// The released records of this partition, each time that was looked and there are any in the ledger. What a partition
    /// of an older layout has parked, which is drained by now, goes to where its key goes in this layout: whatever the
    /// broker still holds of the record joins the parked ones behind it, wherever it is.
    pub(super) async fn next(&mut self, layout: Layout, partition: PartitionNumber) -> Vec<RecordKey> {
        let Some(releases) = &mut self.0 else { return std::future::pending().await };
        if releases.changed().await.is_err() {
            return std::future::pending().await; // nobody looks any more: the process ends
        }
        let found = releases.borrow_and_update();
        let place = |record: &ReleasedRecord| {
            if record.layout < layout.number {
                partition_of(record.record_key.as_str().as_bytes(), layout.partitions)
            } else {
                record.partition
            }
        };
        let ours = found.iter().filter(|record| record.layout <= layout.number && place(record) == partition);
        ours.map(|record| record.record_key.clone()).collect()
    }
}

//! Parked records that a person has released, possibly from another process: found by asking the ledger.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{MissedTickBehavior, interval};

use lanekeeper_core::layout::{Layout, PartitionNumber};
use lanekeeper_core::ownership::OwnershipState;
use lanekeeper_core::phash2::partition_of;
use lanekeeper_core::update::RecordKey;
use lanekeeper_ledger::{Ledger, ReleasedRecord};

/// A release is picked up within so long, and a little.
const LOOK_EVERY: Duration = Duration::from_millis(500);
/// Records that are looked at together; those released first come first.
const RECORDS_MAX: u32 = 256;

/// A partition that nobody has claimed is asked for at the second look, and then once in so many.
const ASK_EVERY: u32 = 20;

/// What is to go out, as it was last found.
#[derive(Clone, Debug)]
pub struct Releases {
    found: Option<watch::Receiver<Arc<[ReleasedRecord]>>>,
    /// Looks in a row at which something waited for a claim.
    waited: u32,
}

impl Releases {
    /// Without a ledger there are none.
    #[must_use]
    pub fn none() -> Self {
        Self { found: None, waited: 0 }
    }

    /// Looks as long as somebody wants to know.
    #[must_use]
    pub fn begin<L: Ledger>(ledger: Arc<L>) -> Self {
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
        Self { found: Some(releases), waited: 0 }
    }

    /// The released records of this partition, each time that was looked and there are any in the ledger. What a partition
    /// of an older layout has parked goes to where its key goes in this layout, once that partition is drained: whatever
    /// the broker still holds of the record joins the parked ones behind it, wherever it is.
    pub(super) async fn next(&mut self, layout: Layout, partition: PartitionNumber) -> Vec<RecordKey> {
        let Some(releases) = &mut self.found else { return std::future::pending().await };
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

    /// Whether the partition's queue needs a delivery. Only with one does its consumer learn that it is the active one:
    /// after a takeover without traffic, what a person has released would wait for the next update.
    pub(super) fn need_claim(&mut self, released: &[RecordKey], ownership_state: OwnershipState) -> bool {
        let waits = ownership_state == OwnershipState::Unclaimed && !released.is_empty();
        self.waited = if waits { self.waited + 1 } else { 0 };
        self.waited % ASK_EVERY == 2
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_claim_is_asked_for_at_the_second_look_and_then_rarely() {
        let mut releases = Releases::none();
        let keys = [RecordKey::new("k").expect("a record key")];
        let mut asked = |found: &[RecordKey], ownership_state, looks: u32| -> Vec<u32> {
            (1..=looks).filter(|_| releases.need_claim(found, ownership_state)).collect()
        };
        assert_eq!(asked(&keys, OwnershipState::Unclaimed, 45), [2, 22, 42]);
        assert_eq!(asked(&keys, OwnershipState::Claimed(None), 45), [0; 0]);
        assert_eq!(asked(&[], OwnershipState::Unclaimed, 45), [0; 0]);
        assert_eq!(asked(&keys, OwnershipState::Unclaimed, 3), [2], "it begins anew");
    }
}

//! Parked records that a person has released, perhaps in another process: found by asking the ledger regularly.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{MissedTickBehavior, interval};

use lanekeeper_core::layout::{Layout, PartitionNumber};
use lanekeeper_core::ownership::OwnershipState;
use lanekeeper_core::phash2::partition_of;
use lanekeeper_core::update::RecordKey;
use lanekeeper_ledger::{Ledger, ReleasedRecord};

/// How often the ledger is asked.
const POLL_INTERVAL: Duration = Duration::from_millis(500);
/// How many records are read together, those that were released first.
const RECORDS_MAX: u32 = 256;

/// A delivery is asked for at the second poll that finds something to wait for one, and then at every twentieth.
const POLLS_PER_REQUEST: u32 = 20;

/// The released records, as they were last read.
#[derive(Clone, Debug)]
pub struct Releases {
    found: Option<watch::Receiver<Arc<[ReleasedRecord]>>>,
    /// Polls in a row at which a released record waited for a claim.
    waited: u32,
}

impl Releases {
    /// Without a ledger there are none.
    #[must_use]
    pub fn none() -> Self {
        Self { found: None, waited: 0 }
    }

    /// Polls until all clones of this are dropped.
    #[must_use]
    pub fn begin<L: Ledger>(ledger: Arc<L>) -> Self {
        let (found, releases) = watch::channel(Arc::<[ReleasedRecord]>::from([]));
        tokio::spawn(async move {
            let mut poll = interval(POLL_INTERVAL);
            poll.set_missed_tick_behavior(MissedTickBehavior::Delay);
            while !found.is_closed() {
                poll.tick().await;
                // A fault is logged by those who need the ledger to go on.
                if let Ok(released) = ledger.released(RECORDS_MAX).await
                    && !(released.is_empty() && found.borrow().is_empty())
                {
                    found.send_replace(released.into());
                }
            }
        });
        Self { found: Some(releases), waited: 0 }
    }

    /// Waits for the next poll that found released records, or no more of them. Returns those of this partition. What a
    /// partition of an older layout has parked belongs to the partition of this layout that has its key, once the older one
    /// is drained: whatever the broker still holds of the record joins the end of what is parked, in whichever partition.
    pub(super) async fn next(&mut self, layout: Layout, partition: PartitionNumber) -> Vec<RecordKey> {
        let Some(releases) = &mut self.found else { return std::future::pending().await };
        if releases.changed().await.is_err() {
            return std::future::pending().await; // the process ends
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

    /// Returns true if the partition's queue needs a delivery. Only a delivery shows a consumer that it is the active one:
    /// after a takeover without traffic, what a person has released would wait for the next update.
    pub(super) fn need_claim(&mut self, released: &[RecordKey], ownership_state: OwnershipState) -> bool {
        let waits = ownership_state == OwnershipState::Unclaimed && !released.is_empty();
        self.waited = if waits { self.waited + 1 } else { 0 };
        self.waited % POLLS_PER_REQUEST == 2
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
        assert_eq!(asked(&keys, OwnershipState::Unclaimed, 3), [2], "the count begins again");
    }
}

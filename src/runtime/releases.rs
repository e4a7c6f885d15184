//! Parked records that a person has released, perhaps in another process: found by asking the ledger regularly.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{MissedTickBehavior, interval};

use lanekeeper_core::layout::{Layout, PartitionNumber};
use lanekeeper_core::ownership::OwnershipState;
use lanekeeper_core::phash2::partition_of;
use lanekeeper_core::placement::Placement;
use lanekeeper_core::update::RecordKey;
use lanekeeper_ledger::{Ledger, ReleasedRecord};

/// How often the ledger is asked.
const POLL_INTERVAL: Duration = Duration::from_millis(500);
/// How many records are read together. If there are more, the next poll reads those behind them, and so on in turn: records
/// that cannot go out keep no others from being seen.
const RECORDS_MAX: u32 = 256;

/// A delivery is asked for at the second poll that finds something to wait for one, and then at every twentieth.
const POLLS_PER_REQUEST: u32 = 20;

/// The released records, as they were last read.
#[derive(Clone, Debug)]
pub struct Releases {
    found: Option<watch::Receiver<Page>>,
    /// Polls in a row at which a released record waited for a claim.
    waited: u32,
}

/// What one poll has read.
#[derive(Clone, Debug, Default)]
struct Page {
    records: Arc<[ReleasedRecord]>,
    /// These are all released records.
    is_all: bool,
}

/// Released records of one partition.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct ReleasedHere {
    pub(super) record_keys: Vec<RecordKey>,
    /// There are no others.
    pub(super) is_all: bool,
}

/// Which part of the released records a poll reads.
#[derive(Debug, Default)]
struct PageCursor {
    /// The last record that was read; `None`: the next poll begins with the first.
    after: Option<ReleasedRecord>,
}

impl PageCursor {
    /// What was read behind `after`, at most `max` records.
    fn read(&mut self, records: Vec<ReleasedRecord>, max: usize) -> Page {
        let is_first = self.after.is_none();
        let is_last = records.len() < max;
        self.after = records.last().filter(|_| !is_last).cloned();
        Page { records: records.into(), is_all: is_first && is_last }
    }
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
        let (found, releases) = watch::channel(Page::default());
        tokio::spawn(async move {
            let mut poll = interval(POLL_INTERVAL);
            poll.set_missed_tick_behavior(MissedTickBehavior::Delay);
            let mut cursor = PageCursor::default();
            while !found.is_closed() {
                poll.tick().await;
                // A fault is logged by those who need the ledger to go on.
                if let Ok(released) = ledger.released(cursor.after.as_ref(), RECORDS_MAX).await {
                    let page = cursor.read(released, RECORDS_MAX as usize);
                    if !(page.records.is_empty() && found.borrow().records.is_empty()) {
                        found.send_replace(page);
                    }
                }
            }
        });
        Self { found: Some(releases), waited: 0 }
    }

    /// Waits for the next poll that found released records, or no more of them. Returns those of this partition: those whose
    /// keys belong to it, whichever partition has parked them, in this layout or in an older one that is drained. Whatever
    /// the broker still holds of the record joins the end of what is parked.
    pub(super) async fn next(
        &mut self,
        (layout, placement): (Layout, Placement),
        partition: PartitionNumber,
    ) -> ReleasedHere {
        let Some(releases) = &mut self.found else { return std::future::pending().await };
        if releases.changed().await.is_err() {
            return std::future::pending().await; // the process ends
        }
        let found = releases.borrow_and_update();
        let ours = found.records.iter().filter(|record| place(record, layout, placement) == Some(partition));
        ReleasedHere {
            record_keys: ours.map(|record| record.record_key.clone()).collect(),
            is_all: found.is_all,
        }
    }

    /// Returns true if the partition's queue needs a delivery. Only a delivery shows a consumer that it is the active one:
    /// after a takeover without traffic, what a person has released would wait for the next update.
    pub(super) fn need_claim(&mut self, released: &ReleasedHere, ownership_state: OwnershipState) -> bool {
        let unclaimed = ownership_state == OwnershipState::Unclaimed;
        if unclaimed && released.record_keys.is_empty() && !released.is_all {
            return false; // one of those that were read before may wait
        }
        let waits = unclaimed && !released.record_keys.is_empty();
        self.waited = if waits { self.waited + 1 } else { 0 };
        self.waited % POLLS_PER_REQUEST == 2
    }
}

/// The partition of a layout that sends a released record; `None`: a newer layout does. If partitions cannot be computed, the
/// one that has parked the record sends it, since its updates are there.
fn place(record: &ReleasedRecord, layout: Layout, placement: Placement) -> Option<PartitionNumber> {
    if record.layout > layout.number {
        return None;
    }
    let parked_here = record.layout == layout.number && record.partition.0 < layout.partitions;
    placement.partition_of(&record.record_key).or_else(|| {
        let by_key = || partition_of(record.record_key.as_str().as_bytes(), layout.partitions);
        Some(if parked_here { record.partition } else { by_key() })
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use lanekeeper_core::layout::{LayoutNumber, Shape};
    use lanekeeper_core::witness::witnesses;

    #[test]
    fn a_claim_is_asked_for_at_the_second_look_and_then_rarely() {
        let mut releases = Releases::none();
        let keys =
            |is_all| ReleasedHere { record_keys: vec![RecordKey::new("k").expect("a record key")], is_all };
        let none = |is_all| ReleasedHere { record_keys: Vec::new(), is_all };
        let mut asked = |found: ReleasedHere, ownership_state, looks: u32| -> Vec<u32> {
            (1..=looks).filter(|_| releases.need_claim(&found, ownership_state)).collect()
        };
        assert_eq!(asked(keys(true), OwnershipState::Unclaimed, 45), [2, 22, 42]);
        assert_eq!(asked(keys(true), OwnershipState::Claimed(None), 45), [0; 0]);
        assert_eq!(asked(none(true), OwnershipState::Unclaimed, 45), [0; 0]);
        assert_eq!(asked(keys(true), OwnershipState::Unclaimed, 3), [2], "the count begins again");
        assert_eq!(asked(none(true), OwnershipState::Unclaimed, 1), [0; 0]);
        assert_eq!(asked(keys(false), OwnershipState::Unclaimed, 1), [0; 0]);
        assert_eq!(asked(none(false), OwnershipState::Unclaimed, 9), [0; 0]);
        assert_eq!(asked(keys(false), OwnershipState::Unclaimed, 1), [1], "others were read between");
    }

    fn record(key: &str, layout: u32, partition: u16) -> ReleasedRecord {
        ReleasedRecord {
            record_key: RecordKey::new(key).expect("a record key"),
            layout: LayoutNumber(layout),
            partition: PartitionNumber(partition),
            since_ms: 0,
        }
    }

    #[test]
    fn records_that_cannot_go_out_keep_no_others_from_being_read() {
        let all: Vec<_> = (0..7).map(|number| record(&format!("{number}"), 1, 0)).collect();
        let (mut cursor, mut read) = (PageCursor::default(), Vec::new());
        for _ in 0..5 {
            let begin = cursor
                .after
                .as_ref()
                .map_or(0, |after| all.iter().position(|record| record == after).expect("it was read") + 1);
            let page = cursor.read(all[begin..].iter().take(3).cloned().collect(), 3);
            assert!(!page.is_all);
            read.push(page.records.iter().map(|record| record.record_key.as_str()).collect::<String>());
        }
        assert_eq!(read, ["012", "345", "6", "012", "345"]);
        let mut cursor = PageCursor::default();
        assert!(cursor.read(all[..2].to_vec(), 3).is_all);
        assert!(!cursor.read(all[..3].to_vec(), 3).is_all, "there may be more");
        assert!(!cursor.read(Vec::new(), 3).is_all);
        assert!(cursor.read(Vec::new(), 3).is_all);
    }

    #[test]
    fn a_released_record_is_sent_by_the_partition_of_its_key() {
        let layout = Shape { partitions: 8, prefetch: 1 }.numbered(LayoutNumber(3));
        let computed = Placement::of(layout, &witnesses(8));
        let check = |record: ReleasedRecord, placement, expected: Option<u16>| {
            let found = place(&record, layout, placement);
            assert_eq!(found, expected.map(PartitionNumber), "{record:?} {placement:?}");
        };
        // record-1 belongs to p001 of 8.
        check(record("record-1", 3, 1), computed, Some(1));
        check(record("record-1", 3, 5), computed, Some(1));
        check(record("record-1", 1, 5), computed, Some(1));
        check(record("record-1", 0, 5), computed, Some(1));
        check(record("record-1", 4, 1), computed, None);
        let unknown = Placement::default();
        check(record("record-1", 3, 5), unknown, Some(5));
        check(record("record-1", 3, 8), unknown, Some(1));
        check(record("record-1", 2, 5), unknown, Some(1));
    }
}

//! Which partition of a layout a record belongs to.

use super::layout::{Layout, PartitionNumber};
use super::phash2::partition_of;
use super::update::RecordKey;
use super::witness::Witness;

/// The partitions of a layout as seen by their records. The default knows no record's partition.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Placement {
    /// `None`: the partition of a record cannot be computed.
    partitions: Option<u16>,
}

impl Placement {
    /// Of a layout with these witnesses. The partition of a record can be computed if there are witnesses, and each was seen
    /// in the partition that is computed for it.
    #[must_use]
    pub fn of(layout: Layout, witnesses: &[Witness]) -> Self {
        let is_there =
            |witness: &Witness| partition_of(witness.key.as_bytes(), layout.partitions) == witness.partition;
        let is_computed = !witnesses.is_empty() && witnesses.iter().all(is_there);
        Self { partitions: is_computed.then_some(layout.partitions) }
    }

    /// Returns true if the partition of a record can be computed.
    #[must_use]
    pub fn is_computed(self) -> bool {
        self.partitions.is_some()
    }

    /// The partition of a record; `None`: it cannot be computed.
    #[must_use]
    pub fn partition_of(self, record_key: &RecordKey) -> Option<PartitionNumber> {
        self.partitions.map(|partitions| partition_of(record_key.as_str().as_bytes(), partitions))
    }

    /// The partition of a record whose update came from the queue of `partition`, if that is another one.
    #[must_use]
    pub fn elsewhere(self, record_key: &RecordKey, partition: PartitionNumber) -> Option<PartitionNumber> {
        self.partition_of(record_key).filter(|of| *of != partition)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::layout::{LayoutNumber, Shape};
    use crate::witness::witnesses;

    #[test]
    fn a_record_is_elsewhere_in_all_partitions_but_its_own() {
        let layout = Shape { partitions: 8, prefetch: 10 }.numbered(LayoutNumber(3));
        let placement = Placement::of(layout, &witnesses(8));
        let key = RecordKey::new("record-1").unwrap();
        for partition in layout.partitions() {
            let expected = (partition.0 != 1).then_some(PartitionNumber(1));
            assert_eq!(placement.elsewhere(&key, partition), expected, "{partition}");
        }
    }

    #[test]
    fn without_witnesses_or_with_one_elsewhere_nothing_is_known() {
        let layout = Shape { partitions: 2, prefetch: 10 }.numbered(LayoutNumber(1));
        let mut moved = witnesses(2);
        moved[0].partition = PartitionNumber(1 - moved[0].partition.0);
        for witnesses in [Vec::new(), moved] {
            let placement = Placement::of(layout, &witnesses);
            assert!(!placement.is_computed());
            let key = RecordKey::new("record-1").unwrap();
            assert!(layout.partitions().all(|partition| placement.elsewhere(&key, partition).is_none()));
        }
    }
}

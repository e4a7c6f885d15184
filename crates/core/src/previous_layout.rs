//! The partitions of the previous layout, for which records of the current one wait until they are drained.

use std::collections::BTreeSet;

use super::layout::PartitionNumber;
use super::phash2::partition_of;
use super::update::RecordKey;

/// The partitions of the previous layout that may hold older updates of records. The default is none.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PreviousLayout {
    /// How many partitions that layout has.
    pub partitions: u16,
    /// Those that are not drained.
    pub undrained: BTreeSet<PartitionNumber>,
}

impl PreviousLayout {
    /// The previous partition of a record if it is not drained: older updates of the record may be in it.
    pub(crate) fn undrained_of(&self, record_key: &RecordKey) -> Option<PartitionNumber> {
        if self.undrained.is_empty() {
            return None;
        }
        let previous = partition_of(record_key.as_str().as_bytes(), self.partitions);
        self.undrained.contains(&previous).then_some(previous)
    }

    /// The same with these partitions added: they are drained, but their drivers in this process have not ended.
    #[must_use]
    pub fn with(mut self, here: impl IntoIterator<Item = PartitionNumber>) -> Self {
        self.undrained.extend(here);
        self
    }

    /// Takes out what is drained, and returns it. `known`: what the newest document says. `here`: if the driver of a
    /// partition has not ended in this process; its requests may still be out even if another process has drained the
    /// partition since. What is drained stays so.
    pub fn narrow(&mut self, known: &Self, here: impl Fn(PartitionNumber) -> bool) -> Vec<PartitionNumber> {
        let is_undrained =
            |partition: &PartitionNumber| here(*partition) || known.undrained.contains(partition);
        let (undrained, drained) = std::mem::take(&mut self.undrained).into_iter().partition(is_undrained);
        self.undrained = undrained;
        let drained: BTreeSet<_> = drained;
        drained.into_iter().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(partitions: &[u16]) -> BTreeSet<PartitionNumber> {
        partitions.iter().copied().map(PartitionNumber).collect()
    }

    #[test]
    fn a_record_waits_for_the_partition_that_it_was_in_and_for_no_other() {
        for number in 0..100 {
            let key = RecordKey::new(format!("record-{number}")).unwrap();
            let previous = partition_of(key.as_str().as_bytes(), 4);
            for undrained in [&[][..], &[0], &[1, 3], &[0, 1, 2, 3]] {
                let of = PreviousLayout { partitions: 4, undrained: set(undrained) };
                let expected = undrained.contains(&previous.0).then_some(previous);
                assert_eq!(of.undrained_of(&key), expected, "{key:?} of {undrained:?}");
            }
        }
    }

    #[test]
    fn a_partition_is_drained_once_the_document_says_so_and_its_driver_here_has_ended() {
        let mut previous = PreviousLayout { partitions: 4, undrained: set(&[0, 1, 2]) };
        let known = PreviousLayout { partitions: 4, undrained: set(&[1, 3]) };
        let drained = previous.narrow(&known, |partition| partition.0 == 2);
        assert_eq!(drained, [PartitionNumber(0)]);
        assert_eq!(previous.undrained, set(&[1, 2]), "3 was drained, and stays so");
        let drained = previous.narrow(&PreviousLayout::default(), |partition| partition.0 == 2);
        assert_eq!(drained, [PartitionNumber(1)]);
        assert_eq!(previous.narrow(&PreviousLayout::default(), |_| false), [PartitionNumber(2)]);
        assert_eq!(previous.narrow(&PreviousLayout::default(), |_| false), []);
    }
}

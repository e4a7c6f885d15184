//! Witnesses (canaries): keys whose partition is recorded with a layout. They are published again to find out if keys have
//! moved to other queues.

use super::layout::PartitionNumber;
use super::phash2::partition_of;

/// Witnesses of each partition at least: one that is lost with its queue leaves another.
const OF_A_PARTITION_MIN: usize = 2;
/// Witnesses of a layout at least: if a further queue is bound to the exchange, each key of a small layout can stay where
/// it was by chance.
const OF_A_LAYOUT_MIN: usize = 16;

/// A key that is no record's, and the partition that it belongs to.
#[derive(Clone, Debug, PartialEq, Eq, serde::Deserialize, serde::Serialize)]
pub struct Witness {
    /// Its routing key.
    pub key: String,
    /// The partition whose queue it was in when the layout was made.
    pub partition: PartitionNumber,
}

/// The witnesses of a layout whose broker routes keys as [`partition_of`] says: at least two of each partition, at least
/// 16 in all, at most 2,048. The same in every process.
#[must_use]
pub fn witnesses(partitions: u16) -> Vec<Witness> {
    let of_each = OF_A_PARTITION_MIN.max(OF_A_LAYOUT_MIN.div_ceil(usize::from(partitions)));
    let mut chosen = vec![0; usize::from(partitions)];
    let candidates = (0_u32..).map(|number| {
        let key = format!("lanekeeper-witness-{number}");
        let partition = partition_of(key.as_bytes(), partitions);
        Witness { key, partition }
    });
    let mut has_room = |witness: &Witness| {
        let chosen = &mut chosen[usize::from(witness.partition.0)];
        *chosen += 1;
        *chosen <= of_each
    };
    candidates.filter(|witness| has_room(witness)).take(of_each * usize::from(partitions)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_partition_has_its_witnesses_and_none_comes_twice() {
        for (partitions, of_each) in [(1, 16), (2, 8), (3, 6), (8, 2), (16, 2), (1_000, 2), (1_024, 2)] {
            let witnesses = witnesses(partitions);
            for partition in (0..partitions).map(PartitionNumber) {
                let count = witnesses.iter().filter(|witness| witness.partition == partition).count();
                assert_eq!(count, of_each, "{partition} of {partitions}");
            }
            let keys: std::collections::BTreeSet<_> =
                witnesses.iter().map(|witness| witness.key.as_str()).collect();
            assert_eq!(keys.len(), witnesses.len(), "{partitions}");
        }
    }

    /// What makes a foreign queue, or one that is missing, certain to be seen.
    #[test]
    fn one_queue_more_or_less_moves_a_witness_to_another_partition() {
        for partitions in 2..=64 {
            for others in [partitions - 1, partitions + 1] {
                let is_seen = |witness: &Witness| {
                    let now = partition_of(witness.key.as_bytes(), others);
                    now != witness.partition && now.0 < partitions
                };
                assert!(witnesses(partitions).iter().any(is_seen), "{partitions} to {others}");
            }
        }
    }
}

//! A layout: the number of partitions and their prefetch, as all dispatchers must agree on them.

use std::fmt;

use super::spread::spread;

/// Counts layouts of one exchange, from 1; a number is never used again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, serde::Deserialize, serde::Serialize)]
#[serde(transparent)]
pub struct LayoutNumber(pub u32);

/// Most partitions of a layout: each is a quorum queue, and has a task here.
pub const PARTITIONS_MAX: u16 = 1024;

/// A partition of a layout, from 0. Printed with leading zeros, as in the names of queues: `p007`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Deserialize, serde::Serialize)]
#[serde(transparent)]
pub struct PartitionNumber(pub u16);

impl fmt::Display for PartitionNumber {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "p{:03}", self.0)
    }
}

/// One layout.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Deserialize, serde::Serialize)]
pub struct Layout {
    /// Its number.
    pub number: LayoutNumber,
    /// How many partitions it has; 1 to [`PARTITIONS_MAX`].
    pub partitions: u16,
    /// Deliveries that a consumer of it may hold. Never lowered while a queue holds updates: that rotates the order of
    /// returned ones (RabbitMQ quorum queues, measured on 3.10.8 and 4.0.5).
    pub prefetch: u16,
}

/// What operators choose of a layout.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shape {
    /// As in [`Layout`].
    pub partitions: u16,
    /// As in [`Layout`].
    pub prefetch: u16,
}

impl Shape {
    /// A layout of this shape.
    #[must_use]
    pub fn numbered(self, number: LayoutNumber) -> Layout {
        Layout { number, partitions: self.partitions, prefetch: self.prefetch }
    }
}

impl Layout {
    /// What operators choose of it.
    #[must_use]
    pub fn shape(self) -> Shape {
        Shape { partitions: self.partitions, prefetch: self.prefetch }
    }

    /// What makes this layout invalid, in words that begin with the name of the field.
    #[must_use]
    pub fn unfit(self) -> Option<String> {
        let Self { number: LayoutNumber(number), partitions, prefetch } = self;
        if number == 0 {
            return Some("number is 0, layouts are counted from 1".to_owned());
        }
        if !(1..=PARTITIONS_MAX).contains(&partitions) {
            return Some(format!("partitions is {partitions}, it must be 1 to {PARTITIONS_MAX}"));
        }
        (prefetch == 0).then(|| "prefetch is 0, it must be at least 1".to_owned())
    }

    /// Its partitions, in the order in which their queues are bound.
    pub fn partitions(self) -> impl Iterator<Item = PartitionNumber> {
        (0..self.partitions).map(PartitionNumber)
    }
}

/// The priority of a replica for a partition, from 0: the replica with the highest one gets it (rendezvous hashing). If a
/// replica joins or leaves, only its own partitions move. The same in every process.
#[must_use]
pub fn rank(instance: &str, partition: PartitionNumber) -> i32 {
    let hash = spread(instance.bytes().chain([0]).chain(partition.0.to_le_bytes()));
    i32::try_from(hash >> 33).unwrap_or(i32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn partitions_spread_over_replicas_and_stay_where_they_are_when_one_joins() {
        let owner = |replicas: &[&str], partition| {
            let by_rank = |replica: &&&str| rank(replica, PartitionNumber(partition));
            replicas.iter().max_by_key(by_rank).copied().map(str::to_owned)
        };
        let two: Vec<_> = (0..256).map(|partition| owner(&["a", "b"], partition)).collect();
        let of_a = two.iter().filter(|owner| owner.as_deref() == Some("a")).count();
        assert!((96..=160).contains(&of_a), "{of_a} of 256 for a");
        for (partition, before) in (0..).zip(&two) {
            let after = owner(&["a", "b", "c"], partition);
            assert!(
                after == *before || after.as_deref() == Some("c"),
                "p{partition}: {before:?} to {after:?}"
            );
        }
        // Processes of other versions rely on it.
        assert_eq!(rank("a", PartitionNumber(0)), 507_919_143);
    }
}

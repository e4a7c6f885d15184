//! The partitions that are in force, as every dispatcher must agree on them.

use std::fmt;

/// Counts layouts of one exchange, from 1; a number is never used again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, serde::Deserialize, serde::Serialize)]
#[serde(transparent)]
pub struct LayoutNumber(pub u32);

/// A partition of a layout, from 0. Printed with leading zeros, as in the names of queues: `p007`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
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
    /// How many partitions it has; at least 1.
    pub partitions: u16,
    /// Deliveries that a consumer of it may hold. Never lowered while a queue holds updates: that rotates the order of
    /// returned ones (RabbitMQ quorum queues, measured on 3.10.8 and 4.0.5).
    pub prefetch: u16,
}

impl Layout {
    /// Its partitions, in the order in which their queues are bound.
    pub fn partitions(self) -> impl Iterator<Item = PartitionNumber> {
        (0..self.partitions).map(PartitionNumber)
    }
}

//! The bounds of a partition (I6).

use std::num::NonZeroUsize;

/// How much a partition holds and does at once.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Attempts at once, each of another record. 1 is the strict mode: one update at a time, in the order of the queue,
    /// waits between its attempts included.
    pub in_flight_max: NonZeroUsize,
    /// Deliveries held at once: the broker's prefetch.
    pub window: NonZeroUsize,
}

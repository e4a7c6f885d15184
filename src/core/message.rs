//! Everything that can happen to a partition, and everything it can ask for.

use std::sync::Arc;

use super::outcome::Outcome;
use super::policy::{Malformed, Resolution};
use super::update::{RecordKey, Update};

/// One ownership of one partition, numbered upwards by the driver within this process.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Tenure(pub u64);

/// A delivery of one tenure: the broker's delivery tag.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DeliveryTag(pub u64);

/// One attempt; never used twice by a partition, so that a late end is told from an expected one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AttemptId(pub u64);

/// What can happen to a partition.
#[derive(Clone, Debug)]
pub enum Event {
    /// The partition is ours: deliveries of this tenure follow.
    TenureBegan(Tenure),
    /// It is lost, with its channel: what was not settled will be delivered again, to us or to another.
    TenureEnded(Tenure),
    /// The broker handed over an update.
    Received {
        /// Whose delivery it is.
        tenure: Tenure,
        /// Which delivery it is.
        delivery: DeliveryTag,
        /// The broker's `redelivered`: perhaps seen before. Not set: certainly never delivered.
        redelivered: bool,
        /// The update.
        update: Arc<Update>,
    },
    /// The broker handed over something that cannot be an update.
    ReceivedMalformed {
        /// Whose delivery it is.
        tenure: Tenure,
        /// Which delivery it is.
        delivery: DeliveryTag,
        /// What is wrong with it.
        fault: Malformed,
    },
    /// The target, the way to it or the time limit ended an attempt.
    AttemptEnded {
        /// Which attempt.
        attempt: AttemptId,
        /// Its record.
        record_key: RecordKey,
        /// What the target did.
        outcome: Outcome,
    },
    /// A resolution is written down: its delivery may be settled.
    Recorded {
        /// Whose delivery it was when the writing began.
        tenure: Tenure,
        /// Which delivery.
        delivery: DeliveryTag,
        /// Its record; `None` where it was malformed.
        record_key: Option<RecordKey>,
    },
    /// We are asked to stop: start no further attempts in this tenure. The next tenure would start them again.
    DrainBegan,
}

/// What a partition asks its driver to do. Effects are done in the order given.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Send the update to its target; answer with [`Event::AttemptEnded`].
    Attempt {
        /// Name of the attempt.
        attempt: AttemptId,
        /// Its number, from 1, counted over the tenures of this process.
        number: u32,
        /// What to send.
        update: Arc<Update>,
    },
    /// Write the resolution down where that is needed; answer with [`Event::Recorded`].
    Record {
        /// Whose delivery it is.
        tenure: Tenure,
        /// Which delivery it is.
        delivery: DeliveryTag,
        /// The update; `None` where the delivery is malformed.
        update: Option<Arc<Update>>,
        /// How its turn ends.
        resolution: Resolution,
    },
    /// Tell the broker that the delivery is done.
    Settle {
        /// Whose delivery it is.
        tenure: Tenure,
        /// Which delivery it is.
        delivery: DeliveryTag,
    },
}

//! What can happen while layouts change.

use lanekeeper_core::layout::{Layout, Shape};
use lanekeeper_core::message::{AttemptId, Holder, Tenure};

use super::broker::{Delivery, Item, PartitionKey};
use super::driver::ReadBack;

#[derive(Clone, Copy, Debug)]
pub enum LayoutEvent {
    Publish {
        update: usize,
    },
    Arrive {
        partition_key: PartitionKey,
        item: Item,
    },
    Delivery {
        partition_key: PartitionKey,
        delivery: Delivery,
    },
    Ack {
        partition_key: PartitionKey,
        channel: u64,
    },
    Attach {
        process: u32,
        partition_key: PartitionKey,
    },
    ClaimArrived {
        process: u32,
        partition_key: PartitionKey,
        tenure: Tenure,
        claim: u64,
    },
    Claimed {
        process: u32,
        partition_key: PartitionKey,
        tenure: Tenure,
        read_back: ReadBack,
    },
    /// A driver hears what is not drained of the layout before.
    PreviousDrained {
        process: u32,
        partition_key: PartitionKey,
    },
    Answered {
        process: u32,
        partition_key: PartitionKey,
        attempt: AttemptId,
        fails: bool,
    },
    Recorded {
        process: u32,
        partition_key: PartitionKey,
        tenure: Tenure,
        holder: Holder,
        /// `None`: it is misplaced.
        update: Option<usize>,
    },
    Wake {
        process: u32,
        partition_key: PartitionKey,
    },
    Close {
        process: u32,
        partition_key: PartitionKey,
        channel: u64,
    },
    /// A process reads the next document.
    Document {
        process: u32,
    },
    /// A driver of it has ended.
    Observe {
        process: u32,
    },
    /// It puts markers into the queues of the layout that drains.
    Markers {
        process: u32,
        layout: Layout,
    },
    /// Somebody who changes layouts goes on.
    Act {
        actor: u32,
        life: u32,
    },
    /// The operator wants another shape.
    Apply {
        shape: Shape,
    },
    Start {
        process: u32,
    },
    InjectFault,
}

//! What can happen on the cluster.

use std::time::Duration;

use lanekeeper_core::tick::Tick;

use super::queue::Delivery;
use super::stream::Message;

#[derive(Clone, Debug)]
pub enum ClusterEvent {
    Publish {
        update: usize,
    },
    Delivery {
        process: usize,
        delivery: Delivery,
    },
    Ack {
        process: usize,
        channel: u64,
        tag: u64,
    },
    /// The queue learns that a channel is gone.
    ChannelClosed {
        process: usize,
        channel: u64,
    },
    /// The process learns it.
    ChannelLost {
        process: usize,
        channel: u64,
    },
    Start {
        minor: bool,
    },
    Attach {
        process: usize,
    },
    Wake {
        process: usize,
    },
    NoteDue {
        process: usize,
    },
    ClaimDue {
        process: usize,
        count: u64,
    },
    LeaveDue {
        process: usize,
    },
    QosAnswered {
        process: usize,
        at: Tick,
    },
    Append {
        process: usize,
        message: Message,
    },
    Read {
        process: usize,
    },
    ReaderReopened {
        process: usize,
    },
    RequestApplied {
        request: usize,
    },
    RequestEnded {
        process: usize,
        request: usize,
    },
    Split {
        lasts: Duration,
    },
    Suspected,
    Heal,
    Alarm {
        lasts: Duration,
    },
    AlarmEnds,
    /// A consumer that is not ours gives an update back late.
    Misplace,
    Fault,
}

impl ClusterEvent {
    /// Which process has to run for it.
    pub fn runs(&self) -> Option<usize> {
        match self {
            Self::Delivery { process, .. }
            | Self::ChannelLost { process, .. }
            | Self::Attach { process }
            | Self::Wake { process }
            | Self::NoteDue { process }
            | Self::ClaimDue { process, .. }
            | Self::LeaveDue { process }
            | Self::QosAnswered { process, .. }
            | Self::Read { process }
            | Self::ReaderReopened { process }
            | Self::RequestEnded { process, .. } => Some(*process),
            _ => None,
        }
    }

    /// Between which process and the larger side it goes.
    pub fn crosses(&self) -> Option<usize> {
        match self {
            Self::Delivery { process, .. }
            | Self::Ack { process, .. }
            | Self::ChannelClosed { process, .. }
            | Self::Append { process, .. } => Some(*process),
            _ => None,
        }
    }
}

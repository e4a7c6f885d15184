//! What goes to SQS, and what comes from there.

use std::sync::Arc;
use std::time::Duration;

use crate::message::DeliveryTag;
use crate::update::RecordKey;

/// Bounds and times of one tenure.
#[derive(Clone, Copy, Debug)]
pub struct GroupLimits {
    /// How long SQS keeps back what it handed over.
    pub visibility_timeout: Duration,
    /// How long a request can be at work at a target, with a margin. Shorter than `visibility_timeout`.
    pub at_work_max: Duration,
    /// Messages held at the same time, those that were asked for included. At least 1.
    pub window: usize,
}

/// What SQS names a delivery of a message by.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ReceiptHandle(pub Arc<str>);

/// A message as SQS handed it over.
#[derive(Clone, Debug)]
pub struct Message<M> {
    /// The message group.
    pub record_key: RecordKey,
    /// What deletes it.
    pub receipt_handle: ReceiptHandle,
    /// Grows within the message group.
    pub sequence_number: u128,
    /// The rest.
    pub content: M,
}

/// One `ReceiveMessage`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ReceiveId(pub(super) u64);

/// A `ReceiveMessage` to send now.
#[derive(Clone, Copy, Debug)]
pub struct Receive {
    /// Names it in its answer.
    pub id: ReceiveId,
    /// `MaxNumberOfMessages`.
    pub messages_max: usize,
}

/// A message that the partition gets.
#[derive(Debug)]
pub struct Handed<M> {
    /// Names it from now on. They grow by one.
    pub delivery: DeliveryTag,
    /// Its record.
    pub record_key: RecordKey,
    /// What SQS handed over.
    pub content: M,
}

/// An entry of a batch request: of a deletion, or of a new visibility timeout.
#[derive(Clone, Debug)]
pub struct Entry {
    pub(super) number: u64,
    pub(super) record_key: RecordKey,
    /// What the request says.
    pub receipt_handle: ReceiptHandle,
}

/// What SQS said of an entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EntryAnswer {
    /// It is done.
    Done,
    /// No answer, a throttled request, or a fault of SQS: it may have been done.
    Unknown,
    /// The receipt handle counts no longer, or the message is not in flight.
    Refused,
}

/// Something that was held became visible in between: another consumer may have it. The tenure ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum VisibilityLost {
    /// A receipt handle was refused.
    #[error("SQS refuses a receipt handle: the visibility timeout of a message ended")]
    HandleRefused,
    /// An older message of a group came, or the same once more.
    #[error("SQS handed over a message again that is held, or one before it")]
    CameAgain,
}

//! An SQS FIFO queue as a source of updates: message group = record key.
//!
//! Begin with [`SqsSource`]. [`lanekeeper_core::message_groups`] decides which message the partition gets when, when it is
//! deleted and until when requests may leave; `deliveries` does what it says. `client` is the only module that speaks to AWS,
//! `decode` makes updates of messages, `dead_letter` sends what no target will have.

mod client;
mod dead_letter;
mod decode;
mod deliveries;
mod settings;
mod source;

pub use client::{CallFault, QueueFacts, SqsClient};
pub use decode::SqsDecoder;
pub use deliveries::SqsDeliveries;
pub use settings::{SqsCredentials, SqsSettings};
pub use source::SqsSource;

//! Publishing updates: confirmed, and in order per record whatever the broker refuses or however often it goes away.
//!
//! [`outbox`] decides what is published when, without IO or clock; `driver` moves between it and the broker;
//! `amqp` is the broker, `confirms` tells which publish a confirm belongs to. [`json_line`] and [`line_reader`]
//! are the input of `lanekeeper publish`. Why it is done so: docs/decisions/005-publisher-one-unconfirmed-per-record.md.

mod amqp;
mod bulk;
mod confirms;
mod driver;
mod error;
pub mod json_line;
pub mod line_reader;
pub mod outbox;
mod outgoing;
mod settings;
#[cfg(test)]
mod simulation;

pub use bulk::BulkPublisher;
pub use driver::{ConnectionEvent, Publisher, PublisherEvent, PublisherExit, Submission};
pub use error::PublishError;
pub use outbox::{NotConfirmedReason, OutboxLimits, PublishReceipt, PublishResult, Refusal, SubmissionId};
pub use outgoing::{HEADER_BYTES_MAX, HeaderValue, Outgoing, ShortText, ShortTextTooLong};
pub use settings::PublisherSettings;

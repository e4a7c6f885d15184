//! Publishing updates: confirmed, and in order per record whatever the broker refuses or however often it goes away.
//!
//! `outbox` decides what is published when, without IO or clock; `driver` moves updates between it and the broker;
//! `session` is the connection to the broker, `confirms` finds the publish that a confirm belongs to. [`json_line`] and [`line_reader`]
//! are the input of `lanekeeper publish`. Why it is done so: docs/decisions/005-publisher-one-unconfirmed-per-record.md.

mod as_received;
mod bulk;
mod confirms;
mod driver;
mod error;
pub mod json_line;
pub mod line_reader;
mod outbox;
mod outgoing;
mod session;
mod settings;
#[cfg(test)]
mod simulation;

pub use as_received::as_received;
pub use bulk::BulkPublisher;
pub use driver::{ConnectionEvent, Publisher, PublisherEvent, PublisherExit, Submission};
pub use error::PublishError;
pub use outbox::{NotConfirmedReason, OutboxLimits, PublishReceipt, PublishResult, Refusal, SubmissionId};
pub use outgoing::{HeaderValue, Outgoing, ShortText};
pub use settings::PublisherSettings;

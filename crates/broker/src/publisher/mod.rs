//! Publishing updates: confirmed, and in order per record whatever the broker refuses or however often it goes away.
//!
//! `lanekeeper_core::publish::outbox` decides what is published when; `driver` moves updates between it and the broker;
//! `session` is the connection to the broker, `confirms` finds the publish that a confirm belongs to. [`json_line`] and [`line_reader`]
//! are the input of `lanekeeper publish`. Why it is done so: docs/decisions/005-publisher-one-unconfirmed-per-record.md.

mod as_received;
mod bulk;
mod confirms;
mod driver;
mod error;
pub mod json_line;
pub mod line_reader;
mod session;
mod settings;

pub use as_received::as_received;
pub use bulk::BulkPublisher;
pub use driver::{ConnectionEvent, Order, Publisher, PublisherEvent, PublisherExit, Submission};
pub use error::PublishError;
pub use lanekeeper_core::publish::outbox::{
    NotConfirmedReason, OutboxLimits, PublishReceipt, PublishResult, Refusal, SubmissionId,
};
pub use lanekeeper_core::publish::outgoing::{HeaderValue, Outgoing, ShortText};
pub use settings::PublisherSettings;

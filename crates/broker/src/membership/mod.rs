//! The replicas of a layout know of each other by a stream of the broker: who consumes and claims which partition, and what
//! is held of it.

mod known;
mod membership;
mod message;
mod publisher;
mod status_query;
mod reader;
mod state;

pub(crate) use known::PartitionClaims;
pub use membership::Membership;
pub use message::PartitionStatus;
pub(crate) use message::parse;
pub(crate) use status_query::ask;
pub use status_query::{STATUS_TIMEOUT, StatusAnswer, StatusAnswers};

/// What is being done, for the errors.
pub(crate) const READING: &str = "reading the stream of members";

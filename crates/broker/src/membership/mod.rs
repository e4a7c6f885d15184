//! The replicas of a layout know of each other by a stream of the broker: who consumes and claims which partition, and what
//! is held of it.

mod known;
mod members;
mod message;
mod publisher;
mod question;
mod reader;
mod state;

pub(crate) use known::Known;
pub use members::Members;
pub use message::Holding;
pub(crate) use message::parse;
pub(crate) use question::ask;
pub use question::{ANSWER_PATIENCE, Answer, Answers};

/// What is being done, for the errors.
pub(crate) const READING: &str = "reading the stream of members";

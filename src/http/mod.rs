//! Where updates go: one attempt in, one outcome out.

mod answer;
pub mod classify;
pub mod client;
mod conditional;
mod detail;
mod request;
pub mod retry_after;
mod send_guard;

use std::sync::Arc;

pub use self::send_guard::SendGuard;
use lanekeeper_core::outcome::Outcome;
use lanekeeper_core::update::Update;

/// One attempt to make.
#[derive(Clone, Debug)]
pub struct Attempt {
    /// What to send; its `target` says where.
    pub update: Arc<Update>,
    /// Which attempt of this update it is, from 1. Sent as `lanekeeper-attempt`.
    pub number: u32,
    /// Fencing number of the owner, sent as `lanekeeper-tenure`; `None`: not sent.
    pub tenure: Option<u64>,
    /// The last `ETag` that the target gave for the record, where that is known: for targets with `if_match = "auto"`.
    pub etag: Option<String>,
    /// Asked when the request is written to its connection; without it nothing is sent ([`Outcome::Withheld`]).
    pub send_guard: SendGuard,
}

/// What an answer says besides its outcome.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AttemptReceipt {
    /// The last answer's status; 0: there was none.
    pub status: u16,
    /// The record's `ETag` by that answer.
    pub etag: Option<String>,
}

/// Sends updates.
///
/// The order of a record is the caller's: a target makes the attempts that it is asked for, at once and each on its own.
pub trait Target: Send + Sync {
    /// Makes one attempt. Whatever the far side does is an [`Outcome`], within the target's timeout.
    ///
    /// When it has returned, no request is in flight any more as far as this side can tell: what was not answered is cut
    /// off by closing its connection. The far side may still be working on it. Dropping the future does the same.
    fn send(&self, attempt: Attempt) -> impl Future<Output = (Outcome, AttemptReceipt)> + Send;

    /// As `send`, for whoever wants no receipt.
    fn attempt(&self, attempt: Attempt) -> impl Future<Output = Outcome> + Send
    where
        Self: Sync,
    {
        async move { self.send(attempt).await.0 }
    }
}

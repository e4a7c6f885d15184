//! HTTP targets: one attempt in, one outcome out.
//!
//! Begin with [`Target`]. `client` implements it with one `http_target` for each target, and `current` with the targets of
//! the config that is in force; `request` builds a request of its `parts`, `auth` shows who we are, `signature` signs it,
//! `exchange` sends it, `renewed_client` has the connections, `connect` opens them (`race` picks an address, `tunnel` goes
//! through a proxy, `tls` has the settings of
//! TLS, `verifier` names who issued a certificate), `gate` asks the
//! `send_guard` in the step that writes a request, `deadline` bounds the waits, `answer` reads what comes back,
//! `judge` makes an outcome of it, and `classify` is the table of statuses: what a 503 means is there.
//! `shape` is what traces tell of a request, and `collector` is where traces go.

mod answer;
mod auth;
mod classify;
pub mod client;
pub mod collector;
mod conditional;
mod connect;
pub mod current;
mod deadline;
mod detail;
mod error;
mod exchange;
mod gate;
mod h2_frames;
mod http_target;
pub mod judge;
mod parts;
pub mod preview;
mod quota;
mod race;
mod record_keys;
mod renewed_client;
mod request;
mod retry_after;
mod send_guard;
mod shape;
mod signature;
mod tls;
mod tunnel;
mod verifier;

use std::sync::{Arc, OnceLock};

use http::HeaderValue;

pub use self::send_guard::SendGuard;
pub use self::shape::RequestShape;
use lanekeeper_core::outcome::Outcome;
use lanekeeper_core::pacing::Quota;
use lanekeeper_core::update::Update;

/// One attempt to make.
#[derive(Clone, Debug)]
pub struct Attempt {
    /// What to send; its `target` says where to.
    pub update: Arc<Update>,
    /// The number of this attempt of the update, from 1. Sent as `lanekeeper-attempt`.
    pub number: u32,
    /// Fencing number of the owner, sent as `lanekeeper-tenure`; `None`: not sent.
    pub tenure: Option<u64>,
    /// The last `ETag` that the target gave for the record, if known. Used with `if_match = "auto"`.
    pub etag: Option<String>,
    /// Asked when the request is written to its connection. If it denies, nothing is sent ([`Outcome::Withheld`]).
    pub send_guard: SendGuard,
    /// The trace that it belongs to; `None`: what the update's headers say of one is passed on as it is.
    pub trace: Option<Arc<TraceHeaders>>,
}

/// What the requests of an attempt say of its trace, instead of what the update's headers say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TraceHeaders {
    /// W3C Trace Context.
    pub traceparent: HeaderValue,
    /// `None`: none is sent.
    pub tracestate: Option<HeaderValue>,
    /// If it is, the target says in `request` what the requests are.
    pub is_sampled: bool,
    /// Set when the attempt begins.
    pub request: OnceLock<Arc<RequestShape>>,
}

/// What an answer says in addition to its outcome.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AttemptReceipt {
    /// The status of the last answer; 0: there was no answer.
    pub status: u16,
    /// The record's `ETag`, if that answer has one.
    pub etag: Option<String>,
    /// The answer shows that the target has given it, not something before it: it is a problem document (RFC 9457), or the
    /// config has a row for it in `answers`, or its status in `outcomes`.
    pub of_target: bool,
    /// What the answer says about the target's limit. Boxed, since few answers have it and every attempt moves its receipt.
    pub quota: Option<Box<Quota>>,
}

/// How an attempt ended.
pub type AttemptEnd = (Outcome, AttemptReceipt);

/// Sends updates.
///
/// The caller keeps the order of a record: a target makes every attempt at once, independently of others.
pub trait Target: Send + Sync {
    /// Makes one attempt. Whatever the target does becomes an [`Outcome`], within the target's `connect_timeout`
    /// and `timeout`.
    ///
    /// When it has returned, this side has no request in flight any more: the connection of an unanswered request was
    /// closed. The target may still be working on it. Dropping the future has the same effect.
    fn send(&self, attempt: Attempt) -> impl Future<Output = AttemptEnd> + Send;

    /// As `send`, without the receipt.
    fn attempt(&self, attempt: Attempt) -> impl Future<Output = Outcome> + Send
    where
        Self: Sync,
    {
        async move { self.send(attempt).await.0 }
    }
}

//! The settings of a receiver.

use std::time::Duration;

use super::faults::{FailingRecord, Fault};
use super::limit::RateLimit;
use super::outage::PlannedOutage;
use super::rules::Safeguards;
use super::wire::{AnswerEnd, TlsFiles};

/// How a receiver behaves. The default answers at once and never fails.
#[derive(Clone, Debug, PartialEq)]
pub struct ReceiverSettings {
    /// Time from the request to the moment that it is applied or fails.
    pub latency: Duration,
    /// Share by which the latency varies, up and down: 0 to 1.
    pub latency_jitter: f64,
    /// Time between reading a record and writing it, as an application needs it. With row locks, the record is locked
    /// for this time.
    pub think: Duration,
    /// A request goes on after its sender has gone away, as in most applications: it stays in progress, and its update is
    /// applied. It ends at the latest so long after it began, applied or not: no client promises more than its timeout.
    /// `None`: it ends with its connection.
    pub finish_abandoned: Option<Duration>,
    /// Share of attempts that fail: 0 to 1.
    pub fail_share: f64,
    /// How they fail, each equally likely. Empty: with status 500.
    pub fail_with: Vec<Fault>,
    /// Only attempts with `lanekeeper-attempt: 1` fail, and those without that header.
    pub first_attempts_only: bool,
    /// Sent as `Retry-After`, in whole seconds rounded up, with every 429 and 503.
    pub retry_after: Option<Duration>,
    /// How many requests of all records together are accepted, those that read included. `None`: all.
    pub rate_limit: Option<RateLimit>,
    /// A time in which requests fail before they reach the rate limit. [`super::Receiver::begin_outage`] begins others.
    pub outage: Option<PlannedOutage>,
    /// How long a fault `hang` takes, and after what time a connection that hangs is closed.
    pub hang_for: Duration,
    /// Records whose requests all fail.
    pub fail_records: Vec<FailingRecord>,
    /// The connections that exist when a request comes after so many say nothing any more; later ones work. `None`: none.
    pub hang_connections_after: Option<u64>,
    /// Serve https (HTTP/2 and HTTP/1.1), and plain HTTP on the same port. `None`: plain HTTP alone.
    pub tls: Option<TlsFiles>,
    /// How the end of an answer shows.
    pub answer_end: AnswerEnd,
    /// Header fields that each answer has besides its own: at most [`super::EXTRA_FIELDS_MAX`].
    pub extra_fields: u16,
    /// Each answer over HTTP/1 has a header field whose value goes on in the next line.
    pub folded_field: bool,
    /// Which remedies against races are applied. The default leaves out idempotency and fencing, so that repeats and
    /// older tenures show in the report instead of being prevented.
    pub safeguards: Safeguards,
    /// Answer 428 to a write without `If-Match` and `If-None-Match`.
    pub require_if_match: bool,
    /// The answer to a `record-version` at or below the record's: 200 to 599.
    pub superseded_status: u16,
    /// With equal seeds the same attempts fail.
    pub seed: u64,
}

impl Default for ReceiverSettings {
    fn default() -> Self {
        Self {
            latency: Duration::ZERO,
            latency_jitter: 0.0,
            think: Duration::ZERO,
            finish_abandoned: None,
            fail_share: 0.0,
            fail_with: Vec::new(),
            first_attempts_only: false,
            retry_after: None,
            rate_limit: None,
            outage: None,
            hang_for: Duration::from_secs(30),
            fail_records: Vec::new(),
            hang_connections_after: None,
            tls: None,
            answer_end: AnswerEnd::Length,
            extra_fields: 0,
            folded_field: false,
            safeguards: Safeguards { idempotency: false, fencing: false, ..Safeguards::ALL },
            require_if_match: false,
            superseded_status: 200,
            seed: 1,
        }
    }
}

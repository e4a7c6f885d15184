//! What a receiver is told to do.

use std::time::Duration;

use super::faults::{FailingRecord, Fault};

/// How a receiver behaves. The default answers at once and never fails.
#[derive(Clone, Debug, PartialEq)]
pub struct ReceiverSettings {
    /// Time from the request to the moment that it is applied or fails.
    pub latency: Duration,
    /// Share by which the latency varies, up and down: 0 to 1.
    pub latency_jitter: f64,
    /// Share of attempts that go wrong: 0 to 1.
    pub fail_share: f64,
    /// How they go wrong, each equally likely. Empty: with status 500.
    pub fail_with: Vec<Fault>,
    /// Only attempts with `lanekeeper-attempt: 1` go wrong (and those without that header).
    pub first_attempts_only: bool,
    /// Sent as `Retry-After`, in whole seconds rounded up, with every 429 and 503.
    pub retry_after: Option<Duration>,
    /// How long a fault `hang` takes.
    pub hang_for: Duration,
    /// Records whose requests all go wrong.
    pub fail_records: Vec<FailingRecord>,
    /// Answer an `Idempotency-Key` that was applied before without applying it again; 422 where the body differs.
    pub honour_idempotency_key: bool,
    /// Equal seeds make the same attempts go wrong.
    pub seed: u64,
}

impl Default for ReceiverSettings {
    fn default() -> Self {
        Self {
            latency: Duration::ZERO,
            latency_jitter: 0.0,
            fail_share: 0.0,
            fail_with: Vec::new(),
            first_attempts_only: false,
            retry_after: None,
            hang_for: Duration::from_secs(30),
            fail_records: Vec::new(),
            honour_idempotency_key: false,
            seed: 1,
        }
    }
}

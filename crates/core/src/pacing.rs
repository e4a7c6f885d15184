//! Pacing: when the next request to a target may leave, so that the target's limits are kept.
//!
//! One [`Pacer`] stands for the targets that share limits. All partitions of a process ask it for permits, one for each
//! request, and report how the requests end. It knows limits of three kinds: those of the config (`rate_max`,
//! `in_flight_max`), those that answers state ([`Quota`], `Retry-After`), and those that it finds out from refusals (429).
//! While it knows none, no permits are needed ([`Pacer::is_in_force`]).

use std::num::{NonZeroU32, NonZeroUsize};
use std::time::Duration;

use super::outcome::{Cause, Failure, Outcome};
use super::tick::Tick;
use super::update::RecordKey;

/// So many requests in such a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rate {
    /// Requests.
    pub requests: NonZeroU32,
    /// In which time; not zero.
    pub per: Duration,
}

/// The limits of the config. Both are sums over all replicas.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PacerLimits {
    /// `rate_max`.
    pub rate_max: Option<Rate>,
    /// `in_flight_max`.
    pub in_flight_max: Option<NonZeroUsize>,
}

/// What an answer says about the target's limit: `RateLimit` with `RateLimit-Policy`, or `X-RateLimit-*`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Quota {
    /// Requests that may still be made until `reset`.
    pub remaining: Option<u64>,
    /// When more may be made.
    pub reset: Option<Duration>,
    /// Requests that may be made within `window`.
    pub limit: Option<u64>,
    /// The length of the window that `limit` belongs to.
    pub window: Option<Duration>,
}

/// Who asks for permits: a number that the shell gives to each pair of partition and target.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Asker(pub u64);

/// What the end of a request says about the target's limits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reply {
    /// The target has taken the request.
    Applied,
    /// It refuses it for now: too many requests (429).
    TooMany {
        /// `Retry-After`.
        retry_after: Option<Duration>,
    },
    /// It is away for now (503), and says for how long (`Retry-After`).
    Unavailable {
        /// `Retry-After`.
        retry_after: Duration,
    },
    /// Anything else, also no answer.
    Other,
}

impl Reply {
    /// What this outcome means for the target's limits.
    #[must_use]
    pub fn of(outcome: &Outcome) -> Self {
        match outcome {
            Outcome::Applied | Outcome::Conflict(_) => Self::Applied,
            Outcome::Retryable { failure: Failure { cause: Cause::Status(429), .. }, retry_after } => {
                Self::TooMany { retry_after: *retry_after }
            }
            Outcome::Retryable {
                failure: Failure { cause: Cause::Status(503), .. },
                retry_after: Some(retry_after),
            } => Self::Unavailable { retry_after: *retry_after },
            _ => Self::Other,
        }
    }
}

/// The end of a request.
#[derive(Clone, Copy, Debug)]
pub struct RequestEnd<'a> {
    /// The record.
    pub record_key: &'a RecordKey,
    /// When the request was begun.
    pub began: Tick,
    /// It had a permit, which is free again. Probes and requests from before the pacer was in force have none.
    pub permit: bool,
    /// What came of it.
    pub reply: Reply,
    /// What the answer says about the limit.
    pub quota: Quota,
}

/// Whom a refusal means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// The request was not refused.
    None,
    /// This record alone, while the target takes those of others: it waits alone, and its budget counts.
    OfRecord,
    /// The target as a whole: the update keeps its turn and its budget, and the pacer makes everybody wait.
    OfTarget,
}

/// The pacer of the targets that share limits. See the module's documentation.
#[derive(Debug)]
pub struct Pacer {
    limits: PacerLimits,
}

impl Pacer {
    /// Nothing was sent yet.
    #[must_use]
    pub fn new(limits: PacerLimits) -> Self {
        Self { limits }
    }

    /// Requests need permits. It can change with every call of [`Self::ended`] and [`Self::grant`].
    #[must_use]
    pub fn is_in_force(&self) -> bool {
        self.limits != PacerLimits::default()
    }

    /// `asker` has `requests` more requests to make. Permits go out in the order in which they were asked for.
    pub fn ask(&mut self, asker: Asker, requests: usize) {
        let _ = (asker, requests);
    }

    /// `asker` makes none of the requests that it has asked for and has no permits for.
    pub fn withdraw(&mut self, asker: Asker) {
        let _ = asker;
    }

    /// The permits that may be used now.
    pub fn grant(&mut self, now: Tick) -> Vec<(Asker, usize)> {
        let _ = now;
        Vec::new()
    }

    /// When [`Self::grant`] has to be called again if nothing else happens; `None`: somebody must ask or end first.
    #[must_use]
    pub fn next_grant_at(&self) -> Option<Tick> {
        None
    }

    /// So many permits were not used: no request was made.
    pub fn returned(&mut self, now: Tick, permits: usize) {
        let _ = (now, permits);
    }

    /// A request has ended.
    pub fn ended(&mut self, now: Tick, end: &RequestEnd<'_>) -> Refusal {
        let _ = (now, end);
        Refusal::None
    }
}

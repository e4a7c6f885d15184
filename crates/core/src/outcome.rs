//! What a target did with an attempt.

use std::fmt;
use std::time::Duration;

use super::tick::Tick;

/// What a target did with one attempt. Every answer and every connection fault becomes one of these.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It has the update.
    Applied,
    /// Not now; the same request may succeed later.
    Retryable {
        /// What happened.
        failure: Failure,
        /// How long the target asked us to wait (`Retry-After`), not yet bounded.
        retry_after: Option<Duration>,
    },
    /// Not now: the target as a whole makes us wait, and not this record alone. Never ends an update, and costs none of its
    /// budget. See [`crate::pacing`].
    Throttled(Failure),
    /// It refuses us, not this update (401, 403, 407, 3xx): never ends an update.
    Refused(Failure),
    /// As `Refused`, while the target applies updates of other records: it counts, and ends the update after `elapsed_max`.
    RefusedAlone {
        /// What happened.
        failure: Failure,
        /// When the newest request began with which the target has applied an update of another record.
        others_applied: Tick,
    },
    /// It will never accept this update.
    Rejected(Failure),
    /// As `Rejected`, but record after record gets this answer and the target has applied nothing since: something before
    /// the target may have given it. Never ends an update. See [`crate::breaker`].
    Doubted(Failure),
    /// The record's state and the update disagree (409, 412, 428).
    Conflict(Failure),
    /// Nothing was sent: the ledger knows enough.
    Known(Known),
    /// Nothing was sent: the ledger did not answer in time, or another process may own the partition.
    Withheld,
}

/// What the ledger knows that makes a request needless or wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Known {
    /// The same update was resolved before: same id, same record, same body.
    Resolved,
    /// Its `record-version` is not above the last one that was applied.
    Superseded,
    /// Another update of its record was resolved under its id.
    IdReused,
    /// Its record is parked: it comes after what waits there.
    RecordParked,
    /// A person has paused its record: it is parked, also if it was released.
    RecordPaused,
}

impl Outcome {
    /// The kind alone, for tables, metrics and config.
    #[must_use]
    pub fn kind(&self) -> OutcomeKind {
        match self {
            Self::Applied => OutcomeKind::Applied,
            Self::Retryable { .. } | Self::Throttled(_) => OutcomeKind::Retryable,
            Self::Refused(_) | Self::RefusedAlone { .. } => OutcomeKind::Refused,
            Self::Rejected(_) | Self::Doubted(_) => OutcomeKind::Rejected,
            Self::Conflict(_) => OutcomeKind::Conflict,
            Self::Known(_) => OutcomeKind::Known,
            Self::Withheld => OutcomeKind::Withheld,
        }
    }

    /// What went wrong, as far as the target or its connection says it.
    #[must_use]
    pub fn failure(&self) -> Option<&Failure> {
        match self {
            Self::Retryable { failure, .. }
            | Self::Throttled(failure)
            | Self::Refused(failure)
            | Self::RefusedAlone { failure, .. }
            | Self::Rejected(failure)
            | Self::Doubted(failure)
            | Self::Conflict(failure) => Some(failure),
            Self::Applied | Self::Known(_) | Self::Withheld => None,
        }
    }

    /// A rejection that is not believed.
    #[must_use]
    pub fn doubted(self) -> Self {
        match self {
            Self::Rejected(failure) => Self::Doubted(failure),
            other => other,
        }
    }

    /// A refusal, if an update of another record was applied meanwhile. Where there is no credential, nobody refuses this record:
    /// others were applied with one that was good a moment ago.
    #[must_use]
    pub fn beside(self, others_applied: Option<Tick>) -> Self {
        match (self, others_applied) {
            (refused @ Self::Refused(Failure { cause: Cause::NoCredential, .. }), _) => refused,
            (Self::Refused(failure), Some(others_applied)) => Self::RefusedAlone { failure, others_applied },
            (other, _) => other,
        }
    }

    /// A failure that means the target as a whole.
    #[must_use]
    pub fn throttled(self) -> Self {
        match self {
            Self::Retryable { failure, .. } => Self::Throttled(failure),
            other => other,
        }
    }

    /// Returns true if a request was made.
    #[must_use]
    pub fn was_sent(&self) -> bool {
        !matches!(self, Self::Known(_) | Self::Withheld)
    }
}

/// The kinds of [`Outcome`], as written in config and metrics.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, serde::Deserialize, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum OutcomeKind {
    /// See [`Outcome::Applied`].
    Applied,
    /// See [`Outcome::Retryable`].
    Retryable,
    /// See [`Outcome::Refused`].
    Refused,
    /// See [`Outcome::Rejected`].
    Rejected,
    /// See [`Outcome::Conflict`].
    Conflict,
    /// See [`Outcome::Known`]. No answer means this.
    Known,
    /// See [`Outcome::Withheld`]. No answer means this.
    Withheld,
}

impl OutcomeKind {
    /// Those that an answer can mean, in the order of the enum.
    pub const ALL: [Self; 5] =
        [Self::Applied, Self::Retryable, Self::Refused, Self::Rejected, Self::Conflict];

    /// As written in config, logs and metric labels.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Applied => "applied",
            Self::Retryable => "retryable",
            Self::Refused => "refused",
            Self::Rejected => "rejected",
            Self::Conflict => "conflict",
            Self::Known => "known",
            Self::Withheld => "withheld",
        }
    }
}

/// What was wrong with an attempt, as far as a person needs it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// What failed.
    pub cause: Cause,
    /// The target's own words (problem detail or start of the answer body) or the connection's fault.
    /// Bounded by the shell that made it; may quote the update, so never in a log above `debug`.
    pub detail: String,
}

/// What failed in an attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cause {
    /// The target answered with this HTTP status.
    Status(u16),
    /// No whole answer within the target's `timeout`. It may have been applied.
    Timeout,
    /// No connection, or it broke. It may have been applied.
    Connection,
    /// No request can be made of the update (its record key does not fit the target's URL). Nothing was sent.
    Unsendable,
    /// There is nothing to show the target who we are: its token server is away, or gives no token. Nothing was sent, or what was
    /// sent was refused and has no successor.
    NoCredential,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.detail.as_str() {
            "" => self.cause.fmt(f),
            detail => write!(f, "{}: {detail}", self.cause),
        }
    }
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Status(status) => write!(f, "status {status}"),
            Self::Timeout => f.write_str("timeout"),
            Self::Connection => f.write_str("connection"),
            Self::Unsendable => f.write_str("unsendable"),
            Self::NoCredential => f.write_str("no credential"),
        }
    }
}

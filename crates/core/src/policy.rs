//! What we do about an outcome: wait and try again, or end the update's turn. [`Policy::judge`] decides it.
//!
//! What a status means is decided before (`src/http/classify.rs`), and whether the outcome counts against the whole target
//! in [`crate::breaker`].

mod history;
mod progress;

use std::num::NonZeroU32;
use std::time::Duration;

pub use self::history::{ATTEMPTS_KEPT_MAX, DETAIL_CHARS_MAX, PastAttempt};
pub use self::progress::Progress;
use super::layout::PartitionNumber;
use super::outcome::{Failure, Known, Outcome};
use super::routes::TargetId;
use super::schedule::Schedule;
use super::tick::Tick;
use super::update::UpdateId;

/// How failing updates are treated. One for the whole dispatcher, made from `[retry]`, `[failure]` and `[target.failure]`.
#[derive(Clone, Debug, PartialEq)]
pub struct Policy {
    /// Waits between attempts.
    pub schedule: Schedule,
    /// Attempts that may fail before the update is exhausted; `None`: no limit. Refused attempts do not count.
    pub attempts_max: Option<NonZeroU32>,
    /// Time from the first attempt beyond which no retry is scheduled; `None`: no limit.
    /// Time in which the target refused us does not count.
    pub elapsed_max: Option<Duration>,
    /// Ceiling of a target's `Retry-After`.
    pub retry_after_max: Duration,
    /// What happens to updates that failed permanently.
    pub failure: FailurePolicies,
    /// The same of each target, in the order of the config; `failure` counts for those that are missing.
    pub failure_of_targets: Vec<FailurePolicies>,
}

/// What happens to updates that failed permanently, by how they failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FailurePolicies {
    /// For updates that the target will never accept.
    pub rejected: FailurePolicy,
    /// For updates with no attempt or time left.
    pub exhausted: FailurePolicy,
    /// For updates that disagree with the record's state.
    pub conflict: FailurePolicy,
}

impl FailurePolicies {
    /// The same for all.
    #[must_use]
    pub const fn all(policy: FailurePolicy) -> Self {
        Self { rejected: policy, exhausted: policy, conflict: policy }
    }
}

/// What happens to an update that failed permanently. `apply_failure_policy` does it; the lists in `src/config/failure.rs`
/// say which policies a key of `[failure]` may have.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Deserialize, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum FailurePolicy {
    /// To the ledger; later updates of its record follow it there, in order, until a person decides.
    Park,
    /// To the dead-letter queue; later updates of its record go on, which breaks their order.
    DeadLetter,
    /// Tried again without end, at the longest wait; later updates of its record wait behind it.
    Block,
    /// For conflicts: the target holds this or a later version, so the update is done.
    Superseded,
    /// For conflicts: the record's `ETag` is fetched and the update tried again with it; parked if that does not end the
    /// conflict.
    Refetch,
}

impl FailurePolicy {
    /// As written in the config.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Park => "park",
            Self::DeadLetter => "dead_letter",
            Self::Block => "block",
            Self::Superseded => "superseded",
            Self::Refetch => "refetch",
        }
    }
}

/// What we do about an outcome.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Try again, not before this moment.
    RetryAt(Tick),
    /// Try again as soon as its target takes requests, with the turn that it had.
    RetryInTurn,
    /// The update's turn ends.
    Resolve(Resolution),
}

/// How an update's turn ends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Resolution {
    /// The target has it.
    Applied,
    /// It was resolved before, by this process or, as the ledger knows, by any: settled without a request.
    Duplicate,
    /// The target holds this or a later version of the record: settled.
    Superseded,
    /// It goes to the end of its record's parked updates in the ledger.
    Parked(ParkReason),
    /// It goes to the dead-letter queue.
    DeadLettered(DeadLetterReason),
}

impl Resolution {
    /// Returns true if it holds only while its record is parked.
    pub(crate) fn only_behind(&self) -> bool {
        *self == Self::Parked(ParkReason::Behind)
    }

    /// As written in logs and metric labels.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Applied => "applied",
            Self::Duplicate => "duplicate",
            Self::Superseded => "superseded",
            Self::Parked(_) => "parked",
            Self::DeadLettered(_) => "dead_lettered",
        }
    }
}

/// Why an update is parked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ParkReason {
    /// It failed for good.
    Failed {
        /// How.
        reason: DeadLetterReason,
        /// Attempts made.
        attempts: u32,
    },
    /// Its record is parked. If it no longer is when this is written down, the update has its turn.
    Behind,
}

/// How an update failed for good: why it is parked or goes to the dead-letter queue.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DeadLetterReason {
    /// The target will never accept it.
    Rejected(Failure),
    /// No attempt or no time is left; the last failure.
    Exhausted {
        /// What the last attempt ended with.
        failure: Failure,
        /// Attempts made, refused ones included.
        attempts: u32,
    },
    /// It disagrees with the record's state.
    Conflict(Failure),
    /// Another update of its record was resolved under its id, with another body.
    IdReused,
    /// It cannot be an update at all.
    Malformed(Malformed),
}

impl DeadLetterReason {
    /// Value of the header `lanekeeper-reason`.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::Rejected(_) => "rejected",
            Self::Exhausted { .. } => "exhausted",
            Self::Conflict(_) => "conflict",
            Self::IdReused => "id_reused",
            Self::Malformed(malformed) => malformed.into(),
        }
    }

    /// Value of the header `lanekeeper-detail`: one sentence for the person who finds it.
    #[must_use]
    pub fn detail(&self) -> String {
        match self {
            Self::Rejected(failure) | Self::Conflict(failure) => failure.to_string(),
            Self::Exhausted { failure, attempts } => format!("after {attempts} attempts, {failure}"),
            Self::IdReused => "another update of the record was resolved under this id".to_owned(),
            Self::Malformed(malformed) => malformed.to_string(),
        }
    }
}

/// The highest AMQP `priority` with which a message keeps its place in a quorum queue; one without counts as this. From
/// RabbitMQ 4.0 on, higher ones are handed over before what waits there (4.0.5, measured: 5 does, 4 does not; 3.10.8
/// takes no notice of priorities).
pub const PRIORITY_MAX: u8 = 4;

/// Why a delivery cannot be an update. The names of its variants, in snake case, are values of the header
/// `lanekeeper-reason` (docs/wire.md).
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error, strum::IntoStaticStr, strum::VariantNames)]
#[strum(serialize_all = "snake_case")]
pub enum Malformed {
    /// No routing key.
    #[error("published without a routing key; the routing key is the record key")]
    NoRecordKey,
    /// The routing key is too long to be a record key.
    #[error("the routing key is longer than 255 bytes")]
    RecordKeyTooLong,
    /// The routing key is not UTF-8; its bytes in hex.
    #[error("the routing key is not UTF-8; its bytes in hex: {hex}")]
    RecordKeyNotUtf8 {
        /// The routing key as it came.
        hex: String,
    },
    /// Its headers are not as AMQP has them.
    #[error("the properties are not valid AMQP 0-9-1 and cannot be read")]
    PropertiesUnreadable,
    /// Its headers are longer than any broker takes from a publisher by default.
    #[error("the properties have {bytes} bytes, more than Lanekeeper reads")]
    PropertiesTooLarge {
        /// Size of the properties.
        bytes: usize,
    },
    /// A `CC` header makes the broker route by other keys too.
    #[error("published with a CC header, which routes it by other keys than its record key")]
    CarbonCopy,
    /// The broker delivers it before updates that were published earlier.
    #[error(
        "published with priority {priority}; RabbitMQ 4 lets an update with a priority over {PRIORITY_MAX} overtake earlier updates of its record: publish without priority"
    )]
    PriorityTooHigh {
        /// AMQP `priority`.
        priority: u8,
    },
    /// It came from the queue of a partition that its record does not belong to: dispatched from there, it would overtake
    /// other updates of its record, or be sent at the same time.
    #[error("{}", misplaced(*belongs_to))]
    Misplaced {
        /// The partition of its record; `None`: it was put straight into the queue, and its record is not known.
        belongs_to: Option<PartitionNumber>,
    },
    /// `updates.require_id` is set and there is none.
    #[error("published without message_id, which updates.require_id demands")]
    NoUpdateId,
    /// The id cannot be sent as a header.
    #[error("the update id is longer than 255 bytes or has characters outside printable ASCII")]
    UpdateIdUnfit,
    /// The body is over `updates.body_bytes_max`.
    #[error("the body has {bytes} bytes, more than updates.body_bytes_max = {bytes_max}")]
    BodyTooLarge {
        /// Size of the body.
        bytes: usize,
        /// `updates.body_bytes_max`.
        bytes_max: usize,
    },
    /// The body is said to be base64, and is not.
    #[error("the body is not base64, which its attribute body-encoding says that it is")]
    BodyUnfit,
    /// No `[[target]]` takes its type.
    #[error("no target takes updates of type {update_type:?}; add the type to a target's `types`")]
    NoTarget {
        /// Its type; empty if it has none.
        update_type: String,
    },
    /// It has more headers for its target than are passed on.
    #[error("{headers} of its headers are for the target, more than the {headers_max} that are passed on")]
    HeadersTooMany {
        /// How many it has.
        headers: usize,
        /// How many are passed on.
        headers_max: usize,
    },
    /// A header that is passed on cannot be an HTTP header.
    #[error("the header {name:?} cannot be sent as an HTTP header")]
    HeaderUnfit {
        /// The header's name.
        name: String,
    },
}

fn misplaced(belongs_to: Option<PartitionNumber>) -> String {
    let Some(belongs_to) = belongs_to else {
        return "moved or published straight to the queue of a partition, by which its record key is lost; its place among the updates of its record is not known".to_owned();
    };
    format!(
        "its record belongs to {belongs_to}, and it came from the queue of another partition, where a BCC header or a foreign binding has put it; its place among the updates of its record is not known"
    )
}

impl Policy {
    /// What happens to updates of this target that failed permanently.
    #[must_use]
    pub fn failure_of(&self, target: TargetId) -> FailurePolicies {
        self.failure_of_targets.get(target.0).copied().unwrap_or(self.failure)
    }

    /// What to do about `outcome`, the end of the latest attempt of update `id`, which goes to `target`.
    pub fn judge(
        &self,
        id: &UpdateId,
        target: TargetId,
        outcome: Outcome,
        progress: &mut Progress,
        now: Tick,
    ) -> Verdict {
        let failure_policies = self.failure_of(target);
        let longest = self.schedule.longest_wait(progress.attempts, id);
        progress.throttled &= matches!(outcome, Outcome::Throttled(_));
        if !matches!(outcome, Outcome::Refused(_) | Outcome::RefusedAlone { .. }) {
            progress.forget_refusal();
        }
        match outcome {
            Outcome::Applied => Verdict::Resolve(Resolution::Applied),
            Outcome::Refused(_) => {
                progress.refused(now);
                Verdict::RetryAt(now.after(longest))
            }
            Outcome::RefusedAlone { failure, others_applied } => {
                let counts = progress.refused_alone(now, others_applied);
                let is_over = |max| progress.elapsed.saturating_add(longest) > max;
                if counts && self.elapsed_max.is_some_and(is_over) {
                    let reason = DeadLetterReason::Rejected(failure);
                    apply_failure_policy(failure_policies.rejected, reason, progress, now.after(longest))
                } else {
                    Verdict::RetryAt(now.after(longest))
                }
            }
            Outcome::Retryable { failure, retry_after } => {
                progress.count_time(now);
                progress.failures = progress.failures.saturating_add(1);
                let asked = retry_after.unwrap_or_default().min(self.retry_after_max);
                let wait = self.schedule.wait(progress.failures, id);
                let left = self.time_left(progress);
                let blocks = failure_policies.exhausted == FailurePolicy::Block && asked > left;
                if blocks || self.is_exhausted(progress, wait) {
                    let reason = DeadLetterReason::Exhausted { failure, attempts: progress.attempts };
                    let next = now.after(longest.max(asked));
                    apply_failure_policy(failure_policies.exhausted, reason, progress, next)
                } else {
                    // The target may ask for more time than is left: the update still has one more attempt.
                    Verdict::RetryAt(now.after(wait.max(asked.min(left))))
                }
            }
            Outcome::Rejected(failure) => {
                progress.excuse();
                apply_failure_policy(
                    failure_policies.rejected,
                    DeadLetterReason::Rejected(failure),
                    progress,
                    now.after(longest),
                )
            }
            Outcome::Doubted(_) => {
                progress.excuse();
                Verdict::RetryAt(now.after(self.schedule.wait(progress.attempts, id)))
            }
            Outcome::Throttled(_) => {
                progress.excuse();
                // The same head again and again would keep the others from showing if the target takes anything.
                if std::mem::replace(&mut progress.throttled, true) {
                    Verdict::RetryAt(now)
                } else {
                    Verdict::RetryInTurn
                }
            }
            Outcome::Conflict(failure) => {
                progress.excuse();
                apply_failure_policy(
                    failure_policies.conflict,
                    DeadLetterReason::Conflict(failure),
                    progress,
                    now.after(longest),
                )
            }
            Outcome::Known(known) => {
                progress.take_back();
                match known {
                    Known::Resolved => Verdict::Resolve(Resolution::Duplicate),
                    Known::Superseded => Verdict::Resolve(Resolution::Superseded),
                    Known::RecordParked | Known::RecordPaused => {
                        Verdict::Resolve(Resolution::Parked(ParkReason::Behind))
                    }
                    Known::IdReused => apply_failure_policy(
                        failure_policies.conflict,
                        DeadLetterReason::IdReused,
                        progress,
                        now.after(longest),
                    ),
                }
            }
            Outcome::Withheld => {
                progress.take_back();
                Verdict::RetryAt(now.after(self.schedule.wait(1, id)))
            }
        }
    }

    /// The same while the target is shut: a failure says nothing about the update, and does not count.
    pub(crate) fn judge_while_shut(
        &self,
        id: &UpdateId,
        target: TargetId,
        outcome: Outcome,
        progress: &mut Progress,
        now: Tick,
    ) -> Verdict {
        let retry_after = match outcome {
            Outcome::Retryable { retry_after, .. } => retry_after,
            Outcome::RefusedAlone { failure, .. } => {
                return self.judge(id, target, Outcome::Refused(failure), progress, now);
            }
            other => return self.judge(id, target, other, progress, now),
        };
        let asked = retry_after.unwrap_or_default().min(self.retry_after_max);
        let wait = self.schedule.wait(progress.failures.saturating_add(1), id).max(asked);
        Verdict::RetryAt(now.after(wait))
    }

    /// Returns true if no attempt is left, or none that could start in time after `wait`.
    fn is_exhausted(&self, progress: &Progress, wait: Duration) -> bool {
        self.attempts_max.is_some_and(|max| progress.failures >= max.get())
            || self.elapsed_max.is_some_and(|max| progress.elapsed.saturating_add(wait) > max)
    }

    /// The time within which the next attempt must start.
    fn time_left(&self, progress: &Progress) -> Duration {
        self.elapsed_max.map_or(Duration::MAX, |max| max.saturating_sub(progress.elapsed))
    }
}

fn apply_failure_policy(
    policy: FailurePolicy,
    reason: DeadLetterReason,
    progress: &Progress,
    next_attempt: Tick,
) -> Verdict {
    let park = |reason| Resolution::Parked(ParkReason::Failed { reason, attempts: progress.attempts });
    match policy {
        FailurePolicy::Park | FailurePolicy::Refetch => Verdict::Resolve(park(reason)),
        // Another update under its id is no later version of it.
        FailurePolicy::Superseded if reason == DeadLetterReason::IdReused => Verdict::Resolve(park(reason)),
        FailurePolicy::Superseded => Verdict::Resolve(Resolution::Superseded),
        FailurePolicy::DeadLetter => Verdict::Resolve(Resolution::DeadLettered(reason)),
        FailurePolicy::Block => Verdict::RetryAt(next_attempt),
    }
}

#[cfg(test)]
mod tests;

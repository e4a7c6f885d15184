//! What we do about an outcome: wait and try again, or end the update's turn.

use std::num::NonZeroU32;
use std::time::Duration;

use super::outcome::{Failure, Known, Outcome};
use super::schedule::Schedule;
use super::tick::Tick;
use super::update::UpdateId;

/// How failing updates are treated. One for the whole dispatcher, made from `[retry]` and `[failure]`.
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
    /// For updates that the target will never accept.
    pub rejected: FailurePolicy,
    /// For updates with no attempt or time left.
    pub exhausted: FailurePolicy,
    /// For updates that disagree with the record's state.
    pub conflict: FailurePolicy,
}

/// What becomes of an update that failed for good.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Deserialize, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum FailurePolicy {
    /// To the ledger; later updates of its record follow it there, in order, until a person decides.
    Park,
    /// To the dead-letter queue; later updates of its record go on: their order is knowingly broken.
    DeadLetter,
    /// Tried again for ever at the longest wait; later updates of its record wait behind it.
    Block,
    /// For conflicts: the target holds this or a later version, so the update is done.
    Superseded,
    /// For conflicts: the record's `ETag` is fetched and the update tried again with it; parked where that does not end
    /// the conflict.
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
    /// Whether it holds only while its record is parked.
    #[must_use]
    pub fn only_behind(&self) -> bool {
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
    /// Its record is parked. Only where it still is: else the update has its turn.
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
    /// Another update was resolved under its id: another body, or another record.
    IdReused,
    /// It cannot be an update at all.
    Malformed(Malformed),
}

impl DeadLetterReason {
    /// Value of the header `lanekeeper-reason`.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Rejected(_) => "rejected",
            Self::Exhausted { .. } => "exhausted",
            Self::Conflict(_) => "conflict",
            Self::IdReused => "id_reused",
            Self::Malformed(malformed) => malformed.name(),
        }
    }

    /// Value of the header `lanekeeper-detail`: one sentence for the person who finds it.
    #[must_use]
    pub fn detail(&self) -> String {
        let told = |failure: &Failure| match failure.detail.as_str() {
            "" => failure.cause.to_string(),
            detail => format!("{}: {detail}", failure.cause),
        };
        match self {
            Self::Rejected(failure) | Self::Conflict(failure) => told(failure),
            Self::Exhausted { failure, attempts } => format!("after {attempts} attempts, {}", told(failure)),
            Self::IdReused => "another update was resolved under this id".to_owned(),
            Self::Malformed(malformed) => malformed.to_string(),
        }
    }
}

/// The highest AMQP `priority` with which a message keeps its place in a quorum queue; one without counts as this. From
/// RabbitMQ 4.0 on, higher ones are handed over before what waits there (4.0.5, measured: 5 does, 4 does not; 3.10.8
/// takes no notice of priorities).
pub const PRIORITY_MAX: u8 = 4;

/// Why a delivery cannot be an update.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
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
    /// A `CC` header makes the broker route by other keys too.
    #[error("published with a CC header, which routes it by other keys than its record key")]
    CarbonCopy,
    /// The broker puts it before updates that were published earlier.
    #[error(
        "published with priority {priority}; RabbitMQ 4 lets what is over {PRIORITY_MAX} overtake earlier updates of its record: publish without priority"
    )]
    PriorityTooHigh {
        /// AMQP `priority`.
        priority: u8,
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
    /// No `[[target]]` takes its type.
    #[error("no target takes updates of type {update_type:?}; add the type to a target's `types`")]
    NoTarget {
        /// Its type; empty where it has none.
        update_type: String,
    },
    /// A header that is passed on cannot be an HTTP header.
    #[error("the header {name:?} cannot be sent as an HTTP header")]
    HeaderUnfit {
        /// The header's name.
        name: String,
    },
}

impl Malformed {
    const fn name(&self) -> &'static str {
        match self {
            Self::NoRecordKey => "no_record_key",
            Self::RecordKeyTooLong => "record_key_too_long",
            Self::RecordKeyNotUtf8 { .. } => "record_key_not_utf8",
            Self::CarbonCopy => "carbon_copy",
            Self::PriorityTooHigh { .. } => "priority_too_high",
            Self::NoUpdateId => "no_update_id",
            Self::UpdateIdUnfit => "update_id_unfit",
            Self::BodyTooLarge { .. } => "body_too_large",
            Self::NoTarget { .. } => "no_target",
            Self::HeaderUnfit { .. } => "header_unfit",
        }
    }
}

/// How far the head of a lane has come. Begins with its first attempt and ends with its resolution.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    /// Attempts begun.
    attempts: u32,
    /// Attempts that failed and count towards `attempts_max`.
    failures: u32,
    /// Time that counts towards `elapsed_max`, up to `counted_to`.
    elapsed: Duration,
    counted_to: Tick,
    /// The wait that follows the latest attempt does not count: the target refused us, or a policy blocks.
    excused: bool,
}

impl Progress {
    /// An attempt begins. Returns its number, from 1.
    pub fn begin_attempt(&mut self, now: Tick) -> u32 {
        if self.attempts == 0 || self.excused {
            self.counted_to = now;
        }
        self.excused = false;
        self.attempts = self.attempts.saturating_add(1);
        self.attempts
    }

    /// Attempts begun so far.
    #[must_use]
    pub fn attempts(&self) -> u32 {
        self.attempts
    }

    fn count_time(&mut self, now: Tick) {
        self.elapsed = self.elapsed.saturating_add(now.since(self.counted_to));
        self.counted_to = now;
    }

    fn excuse(&mut self) {
        self.excused = true;
    }

    /// The latest attempt made no request.
    fn take_back(&mut self) {
        self.attempts = self.attempts.saturating_sub(1);
        self.excuse();
    }
}

impl Policy {
    /// What to do about `outcome`, the end of the latest attempt of update `id`.
    pub fn judge(&self, id: &UpdateId, outcome: Outcome, progress: &mut Progress, now: Tick) -> Verdict {
        let longest = self.schedule.longest_wait(progress.attempts, id);
        match outcome {
            Outcome::Applied => Verdict::Resolve(Resolution::Applied),
            Outcome::Refused(_) => {
                progress.excuse();
                Verdict::RetryAt(now.after(longest))
            }
            Outcome::Retryable { failure, retry_after } => {
                progress.count_time(now);
                progress.failures = progress.failures.saturating_add(1);
                let asked = retry_after.unwrap_or_default().min(self.retry_after_max);
                let wait = self.schedule.wait(progress.failures, id).max(asked);
                if self.is_exhausted(progress, wait) {
                    let reason = DeadLetterReason::Exhausted { failure, attempts: progress.attempts };
                    give_up(self.exhausted, reason, progress, now.after(longest.max(asked)))
                } else {
                    Verdict::RetryAt(now.after(wait))
                }
            }
            Outcome::Rejected(failure) => {
                progress.excuse();
                give_up(self.rejected, DeadLetterReason::Rejected(failure), progress, now.after(longest))
            }
            Outcome::Conflict(failure) => {
                progress.excuse();
                give_up(self.conflict, DeadLetterReason::Conflict(failure), progress, now.after(longest))
            }
            Outcome::Known(known) => {
                progress.take_back();
                match known {
                    Known::Resolved => Verdict::Resolve(Resolution::Duplicate),
                    Known::Superseded => Verdict::Resolve(Resolution::Superseded),
                    Known::RecordParked => Verdict::Resolve(Resolution::Parked(ParkReason::Behind)),
                    Known::IdReused => {
                        give_up(self.conflict, DeadLetterReason::IdReused, progress, now.after(longest))
                    }
                }
            }
            Outcome::Withheld => {
                progress.take_back();
                Verdict::RetryAt(now.after(self.schedule.wait(1, id)))
            }
        }
    }

    /// Whether no attempt is left, or none that could start in time after `wait`.
    fn is_exhausted(&self, progress: &Progress, wait: Duration) -> bool {
        self.attempts_max.is_some_and(|max| progress.failures >= max.get())
            || self.elapsed_max.is_some_and(|max| progress.elapsed.saturating_add(wait) > max)
    }
}

fn give_up(
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
mod tests {
    use super::*;
    use crate::core::outcome::Cause;

    const SECOND: u64 = 1_000_000;

    fn policy() -> Policy {
        Policy {
            schedule: Schedule::new([1, 2, 4].map(Duration::from_secs).to_vec(), 0.0),
            attempts_max: NonZeroU32::new(4),
            elapsed_max: Some(Duration::from_secs(60)),
            retry_after_max: Duration::from_secs(20),
            rejected: FailurePolicy::DeadLetter,
            exhausted: FailurePolicy::DeadLetter,
            conflict: FailurePolicy::DeadLetter,
        }
    }

    /// One letter per outcome: A applied, R retryable, F refused, J rejected, C conflict, digits: Retry-After in
    /// seconds × 10. Attempts last no time. Answers the waits in seconds and how the turn ended.
    fn check(policy: &Policy, outcomes: &str, expected: &str) {
        let failure = || Failure { cause: Cause::Status(0), detail: String::new() };
        let id = UpdateId::published("u1");
        let (mut progress, mut now, mut told) =
            (Progress::default(), Tick::from_micros(7 * SECOND), Vec::new());
        for letter in outcomes.chars() {
            let outcome = match letter {
                'A' => Outcome::Applied,
                'R' => Outcome::Retryable { failure: failure(), retry_after: None },
                'F' => Outcome::Refused(failure()),
                'J' => Outcome::Rejected(failure()),
                'C' => Outcome::Conflict(failure()),
                digit => {
                    let seconds = u64::from(digit.to_digit(10).unwrap()) * 10;
                    Outcome::Retryable { failure: failure(), retry_after: Some(Duration::from_secs(seconds)) }
                }
            };
            progress.begin_attempt(now);
            match policy.judge(&id, outcome, &mut progress, now) {
                Verdict::RetryAt(at) => {
                    told.push(at.since(now).as_secs().to_string());
                    now = at;
                }
                Verdict::Resolve(Resolution::DeadLettered(reason)) => told.push(reason.name().to_owned()),
                Verdict::Resolve(resolution) => told.push(resolution.name().to_owned()),
            }
        }
        assert_eq!(told.join(" "), expected, "{outcomes}");
    }

    #[test]
    fn outcomes_become_waits_and_resolutions() {
        check(&policy(), "A", "applied");
        check(&policy(), "RRA", "1 2 applied");
        check(&policy(), "RRRR", "1 2 4 exhausted");
        check(&policy(), "J", "rejected");
        check(&policy(), "C", "conflict");
    }

    #[test]
    fn a_target_may_ask_for_longer_waits_up_to_the_ceiling_but_not_for_shorter_ones() {
        check(&policy(), "1A", "10 applied");
        check(&policy(), "9A", "20 applied");
        check(&policy(), "0A", "1 applied");
    }

    #[test]
    fn refused_attempts_never_end_an_update_and_their_time_does_not_count() {
        check(&policy(), &"F".repeat(200), &["4"; 200].join(" "));
        let policy = Policy { attempts_max: None, elapsed_max: Some(Duration::from_secs(3)), ..policy() };
        check(&policy, "RFFFRA", "1 4 4 4 2 applied");
        check(&policy, "RFFFRR", "1 4 4 4 2 exhausted");
    }

    #[test]
    fn no_retry_is_scheduled_beyond_elapsed_max() {
        let policy = Policy { attempts_max: None, elapsed_max: Some(Duration::from_secs(7)), ..policy() };
        check(&policy, "RRRR", "1 2 4 exhausted");
        check(&policy, "1", "exhausted");
    }

    #[test]
    fn a_blocking_policy_retries_for_ever_at_the_longest_wait() {
        let policy = Policy { rejected: FailurePolicy::Block, exhausted: FailurePolicy::Block, ..policy() };
        check(&policy, "JJJA", "4 4 4 applied");
        // A long block does not use up the time of what fails later.
        check(&policy, &("J".repeat(20) + "RA"), &("4 ".repeat(20) + "1 applied"));
        check(&policy, "RRRRRRA", "1 2 4 4 4 4 applied");
    }

    #[test]
    fn a_target_that_asks_for_time_is_given_it_by_a_blocking_policy_too() {
        let policy = Policy { exhausted: FailurePolicy::Block, ..policy() };
        check(&policy, "RRR19A", "1 2 4 10 20 applied");
    }
}

//! Computes the retry schedule that `lanekeeper check` prints.

use std::time::Duration;

use super::policy::Policy;

/// The attempts of an update whose target never stops failing, if attempts take no time.
#[derive(Clone, Debug, PartialEq)]
pub struct Forecast {
    /// All attempts until the longest wait is reached or the update is exhausted.
    pub attempts: Vec<Planned>,
    /// When the update is exhausted; `None`: never.
    pub end: Option<End>,
}

/// One attempt of a forecast.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Planned {
    /// Its number, from 1.
    pub attempt: u64,
    /// The longest wait before it: without jitter.
    pub wait: Duration,
    /// The shortest wait before it: with full jitter.
    pub wait_min: Duration,
    /// The sum of the waits since the first attempt, without jitter.
    pub elapsed: Duration,
}

/// The end of an update's attempts.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct End {
    /// The number of the last attempt, without jitter.
    pub attempts: u64,
    /// The number of the last attempt with full jitter; `None`: no bound, because a wait may be zero.
    pub attempts_with_jitter: Option<u64>,
    /// The sum of the waits from the first to the last attempt, without jitter.
    pub elapsed: Duration,
    /// The limit that is reached.
    pub limit: Limit,
}

/// A limit of an update's attempts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Limit {
    /// `retry.attempts_max`.
    Attempts,
    /// `retry.elapsed_max`.
    Elapsed,
}

impl Limit {
    /// The key path of the limit.
    #[must_use]
    pub const fn key(self) -> &'static str {
        match self {
            Self::Attempts => "retry.attempts_max",
            Self::Elapsed => "retry.elapsed_max",
        }
    }
}

impl Forecast {
    /// Computes the forecast for this policy.
    #[must_use]
    pub fn new(policy: &Policy) -> Self {
        let schedule = &policy.schedule;
        let shortest = 1.0 - schedule.jitter();
        let by_attempts = policy.attempts_max.map(|max| u64::from(max.get()));
        let by_elapsed =
            |share: f64| policy.elapsed_max.and_then(|max| exhausted(schedule.waits(), share, max));
        let least = |elapsed: Option<u64>| [by_attempts, elapsed].into_iter().flatten().min();
        let end = least(by_elapsed(1.0)).map(|attempts| End {
            attempts,
            attempts_with_jitter: least(by_elapsed(shortest)),
            elapsed: elapsed(schedule.waits(), attempts - 1),
            limit: if by_attempts == Some(attempts) { Limit::Attempts } else { Limit::Elapsed },
        });
        let mut planned = vec![Planned {
            attempt: 1,
            wait: Duration::ZERO,
            wait_min: Duration::ZERO,
            elapsed: Duration::ZERO,
        }];
        for (wait, attempt) in schedule.waits().iter().zip(2..) {
            if end.is_some_and(|end| attempt > end.attempts) {
                break;
            }
            let elapsed = elapsed(schedule.waits(), attempt - 1);
            planned.push(Planned { attempt, wait: *wait, wait_min: wait.mul_f64(shortest), elapsed });
        }
        Self { attempts: planned, end }
    }
}

/// The sum of the first `count` waits; the last one repeats.
fn elapsed(waits: &[Duration], count: u64) -> Duration {
    let listed = usize::try_from(count).unwrap_or(usize::MAX).min(waits.len());
    let sum: Duration = waits[..listed].iter().sum();
    let more = u32::try_from(count - listed as u64).unwrap_or(u32::MAX);
    sum.saturating_add(waits[waits.len() - 1].saturating_mul(more))
}

/// The number of the failure after which the next wait would exceed `max`, if every wait is shortened to this share.
fn exhausted(waits: &[Duration], share: f64, max: Duration) -> Option<u64> {
    let mut sum = Duration::ZERO;
    for (wait, failure) in waits.iter().zip(1..) {
        sum += wait.mul_f64(share);
        if sum > max {
            return Some(failure);
        }
    }
    let longest = waits[waits.len() - 1].mul_f64(share);
    let more = max.saturating_sub(sum).as_nanos().checked_div(longest.as_nanos())?;
    u64::try_from(more).ok()?.checked_add(waits.len() as u64 + 1)
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroU32;

    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;
    use crate::outcome::{Cause, Failure, Outcome};
    use crate::policy::{FailurePolicies, FailurePolicy, Progress, Verdict};
    use crate::routes::TargetId;
    use crate::schedule::Schedule;
    use crate::tick::Tick;
    use crate::update::UpdateId;

    fn policy(waits: &[u64], jitter: f64, attempts_max: u32, elapsed_max: u64) -> Policy {
        Policy {
            schedule: Schedule::new(waits.iter().copied().map(Duration::from_secs).collect(), jitter),
            attempts_max: NonZeroU32::new(attempts_max),
            elapsed_max: Some(Duration::from_secs(elapsed_max)).filter(|max| !max.is_zero()),
            retry_after_max: Duration::ZERO,
            failure: FailurePolicies::all(FailurePolicy::DeadLetter),
            failure_of_targets: Vec::new(),
        }
    }

    /// Waits are in seconds; `expected` is the last attempt, the last with jitter, and the seconds from first to last.
    fn check(
        waits: &[u64],
        jitter: f64,
        attempts_max: u32,
        elapsed_max: u64,
        expected: Option<(u64, Option<u64>, u64)>,
    ) {
        let forecast = Forecast::new(&policy(waits, jitter, attempts_max, elapsed_max));
        let end = forecast.end.map(|end| (end.attempts, end.attempts_with_jitter, end.elapsed.as_secs()));
        assert_eq!(end, expected, "{waits:?} {jitter} {attempts_max} {elapsed_max}");
        let rows = forecast.end.map_or(u64::MAX, |end| end.attempts).min(waits.len() as u64 + 1);
        assert_eq!(forecast.attempts.len() as u64, rows, "rows");
    }

    proptest! {
        #[test]
        fn the_forecast_is_what_the_policy_does(
            waits in vec(1_u64..40, 1..5), attempts_max in 0_u32..20, elapsed_max in 1_u64..300,
        ) {
            let policy = policy(&waits, 0.0, attempts_max, elapsed_max);
            let end = Forecast::new(&policy).end.unwrap();
            let (mut progress, mut now) = (Progress::default(), Tick::ZERO);
            let id = UpdateId::published("u1");
            let attempts = loop {
                let attempt = progress.begin_attempt(now);
                let failure = Failure { cause: Cause::Timeout, detail: String::new() };
                let outcome = Outcome::Retryable { failure, retry_after: None };
                match policy.judge(&id, TargetId(0), outcome, &mut progress, now) {
                    Verdict::RetryAt(at) => now = at,
                    Verdict::RetryInTurn => unreachable!("no attempt is throttled"),
                    Verdict::Resolve(_) => break attempt,
                }
            };
            prop_assert_eq!((end.attempts, end.elapsed), (u64::from(attempts), now.since(Tick::ZERO)));
        }
    }

    #[test]
    fn the_end_of_an_update_is_the_nearer_of_its_limits() {
        check(&[1, 2, 4], 0.0, 0, 0, None);
        check(&[1, 2, 4], 0.0, 1, 0, Some((1, Some(1), 0)));
        check(&[1, 2, 4], 0.0, 6, 0, Some((6, Some(6), 15)));
        check(&[1, 2, 4], 0.0, 0, 7, Some((4, Some(4), 7)));
        check(&[1, 2, 4], 0.0, 0, 6, Some((3, Some(3), 3)));
        check(&[1, 2, 4], 0.0, 2, 7, Some((2, Some(2), 1)));
        check(&[1, 2, 4], 0.5, 0, 7, Some((4, Some(5), 7)));
        check(&[1, 2, 4], 1.0, 0, 7, Some((4, None, 7)));
        check(&[10], 0.0, 0, 5, Some((1, Some(1), 0)));
        check(&[1], 0.0, 0, 3600, Some((3601, Some(3601), 3600)));
    }
}

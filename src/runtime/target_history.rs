//! What each target did in the last hour, for people: counts and durations in steps of ten seconds, and how the newest failed
//! attempt failed. In memory alone, and bounded.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use super::breakers::Why;
use lanekeeper_core::outcome::{Outcome, OutcomeKind};
use lanekeeper_core::routes::TargetId;
use lanekeeper_core::tick::Tick;

/// The length of a step.
pub const STEP: Duration = Duration::from_secs(10);
/// Steps that are kept: an hour. With [`DURATIONS`] counts each, a target takes some 55 KB.
pub const STEPS_MAX: usize = 360;
/// Durations are counted in so many classes, each half as long again as the one before, from one millisecond on.
const DURATIONS: usize = 32;

/// What has ended within one step.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Step {
    /// Which step it is, counted from the start of the process.
    pub number: u64,
    /// Requests that ended.
    pub attempts: u32,
    /// Those that were applied.
    pub applied: u32,
    /// Those that the target refused: for now (429), or because of who we are (401, 403, …).
    pub refused: u32,
    durations: [u32; DURATIONS],
}

/// The history of all targets. Cheap to clone.
#[derive(Clone, Debug)]
pub struct TargetHistories(Arc<[Mutex<TargetHistory>]>);

/// The history of one target.
#[derive(Clone, Debug, Default)]
pub struct TargetHistory {
    /// Oldest first; steps in which nothing ended are missing.
    steps: VecDeque<Step>,
    last_failure: Option<(SystemTime, Why)>,
}

impl TargetHistories {
    /// Of so many targets.
    #[must_use]
    pub fn of(targets: usize) -> Self {
        Self((0..targets).map(|_| Mutex::default()).collect())
    }

    /// A request has ended; `why`: how it failed.
    pub fn ended(&self, now: Tick, target: TargetId, outcome: &Outcome, took: Duration, why: Option<&Why>) {
        let mut history = self.0[target.0].lock().unwrap_or_else(PoisonError::into_inner);
        history.ended(now, outcome, took);
        if let Some(why) = why {
            history.last_failure = Some((SystemTime::now(), why.clone()));
        }
    }

    /// A copy of one.
    #[must_use]
    pub fn of_target(&self, target: TargetId) -> TargetHistory {
        self.0[target.0].lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl TargetHistory {
    fn ended(&mut self, now: Tick, outcome: &Outcome, took: Duration) {
        let number = step_of(now);
        if self.steps.back().is_none_or(|newest| newest.number < number) {
            if self.steps.len() == STEPS_MAX {
                self.steps.pop_front();
            }
            self.steps.push_back(Step { number, ..Step::default() });
        }
        let Some(step) = self.steps.back_mut() else { return };
        step.attempts += 1;
        let too_many = outcome
            .failure()
            .is_some_and(|failure| matches!(failure.cause, lanekeeper_core::outcome::Cause::Status(429)));
        step.applied += u32::from(outcome.kind() == OutcomeKind::Applied);
        step.refused += u32::from(too_many || outcome.kind() == OutcomeKind::Refused);
        step.durations[class_of(took)] += 1;
    }

    /// The steps of the last hour in which something ended, oldest first.
    pub fn steps(&self, now: Tick) -> impl Iterator<Item = &Step> {
        let oldest = step_of(now).saturating_sub(STEPS_MAX as u64 - 1);
        self.steps.iter().filter(move |step| step.number >= oldest)
    }

    /// What ended within the newest `steps` steps, the present one included.
    #[must_use]
    pub fn sum(&self, now: Tick, steps: u64) -> Step {
        let oldest = step_of(now).saturating_sub(steps.saturating_sub(1));
        let mut sum = Step { number: step_of(now), ..Step::default() };
        for step in self.steps.iter().filter(|step| step.number >= oldest) {
            sum.attempts = sum.attempts.saturating_add(step.attempts);
            sum.applied = sum.applied.saturating_add(step.applied);
            sum.refused = sum.refused.saturating_add(step.refused);
            for (all, of_step) in sum.durations.iter_mut().zip(step.durations) {
                *all = all.saturating_add(of_step);
            }
        }
        sum
    }

    /// When and how the newest failed request failed.
    #[must_use]
    pub fn last_failure(&self) -> Option<(SystemTime, &Why)> {
        self.last_failure.as_ref().map(|(at, why)| (*at, why))
    }
}

impl Step {
    /// The duration that this part of the requests did not exceed, by the bounds of the classes; `None`: none ended.
    #[must_use]
    pub fn percentile(&self, part: f64) -> Option<Duration> {
        let all: u64 = self.durations.iter().map(|count| u64::from(*count)).sum();
        let wanted = (all as f64 * part).ceil();
        let mut seen = 0;
        for (class, count) in self.durations.iter().enumerate() {
            seen += u64::from(*count);
            if *count > 0 && seen as f64 >= wanted {
                return Some(upper_bound(class));
            }
        }
        None
    }
}

/// The step that the moment lies in.
#[must_use]
pub fn step_of(now: Tick) -> u64 {
    now.micros() / u64::try_from(STEP.as_micros()).unwrap_or(u64::MAX)
}

fn upper_bound(class: usize) -> Duration {
    Duration::from_secs_f64(0.001 * 1.5_f64.powi(i32::try_from(class).unwrap_or(i32::MAX)))
}

fn class_of(took: Duration) -> usize {
    (0..DURATIONS - 1).find(|class| took <= upper_bound(*class)).unwrap_or(DURATIONS - 1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use lanekeeper_core::outcome::{Cause, Failure};

    fn at(seconds: u64) -> Tick {
        Tick::from_micros(seconds * 1_000_000)
    }

    #[test]
    fn an_hour_is_kept_and_no_more() {
        let mut history = TargetHistory::default();
        for step in 0..2 * STEPS_MAX as u64 {
            history.ended(at(step * 10), &Outcome::Applied, Duration::from_millis(5));
        }
        assert_eq!(history.steps.len(), STEPS_MAX);
        let now = at(2 * STEPS_MAX as u64 * 10 - 1);
        assert_eq!(history.steps(now).count(), STEPS_MAX);
        assert_eq!(history.sum(now, 6).attempts, 6);
        assert_eq!(history.steps(at(10_000_000)).count(), 0, "all of it is too old");
    }

    #[test]
    fn refusals_and_durations_are_counted() {
        let mut history = TargetHistory::default();
        let failure = |status| Failure { cause: Cause::Status(status), detail: String::new() };
        let too_many = Outcome::Retryable { failure: failure(429), retry_after: None };
        for outcome in
            [Outcome::Applied, too_many, Outcome::Refused(failure(401)), Outcome::Rejected(failure(422))]
        {
            history.ended(at(1), &outcome, Duration::from_millis(100));
        }
        history.ended(at(1), &Outcome::Applied, Duration::from_secs(9));
        let sum = history.sum(at(2), 6);
        assert_eq!((sum.attempts, sum.applied, sum.refused), (5, 2, 2));
        let millis = |part| sum.percentile(part).map(|duration| duration.as_millis());
        assert!(millis(0.5).is_some_and(|millis| (100..=150).contains(&millis)), "{:?}", millis(0.5));
        assert!(millis(0.99).is_some_and(|millis| (9_000..=13_500).contains(&millis)), "{:?}", millis(0.99));
        assert_eq!(Step::default().percentile(0.5), None);
    }
}

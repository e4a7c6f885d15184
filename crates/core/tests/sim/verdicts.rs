//! How outcomes must be judged: when the next attempt may start, and whether there may be one.

use std::time::Duration;

use lanekeeper_core::outcome::Outcome;
use lanekeeper_core::policy::{FailurePolicies, FailurePolicy, Policy};
use lanekeeper_core::tick::Tick;

use crate::facts::{Facts, Sent};
use crate::judge::Judge;

impl Judge {
    pub fn failure_of(&self, target: usize) -> FailurePolicies {
        *self.policy.failure_of_targets.get(target).unwrap_or(&self.policy.failure)
    }

    /// From when on the next attempt may start, told from the schedule; and whether exactly then.
    pub fn earliest(&self, now: Tick, sent: &Sent, outcome: &Outcome) -> (Tick, bool) {
        let Policy { schedule, attempts_max, elapsed_max, .. } = &*self.policy;
        let longest = schedule.longest_wait(sent.number, &sent.id);
        let Facts { here, target, .. } = &self.updates[sent.update];
        match outcome {
            Outcome::Applied | Outcome::Known(_) | Outcome::Withheld | Outcome::Throttled(_) => {
                (Tick::ZERO, false)
            }
            Outcome::Refused(_)
            | Outcome::RefusedAlone { .. }
            | Outcome::Rejected(_)
            | Outcome::Conflict(_) => (now.after(longest), true),
            Outcome::Doubted(_) => (now.after(schedule.wait(sent.number, &sent.id)), true),
            Outcome::Retryable { retry_after, .. } => {
                let asked = retry_after.unwrap_or_default().min(self.policy.retry_after_max);
                if self.circuits.is_shut(*target) {
                    return (now.after(schedule.wait(here.failures + 1, &sent.id).max(asked)), true);
                }
                let wait = schedule.wait(here.failures, &sent.id);
                let unlimited = attempts_max.is_none() && elapsed_max.is_none();
                let exhausted = self.failure_of(*target).exhausted;
                let exact = unlimited || exhausted == FailurePolicy::DeadLetter;
                if exhausted != FailurePolicy::Block
                    && let (Some(max), Some(first_sent_at)) = (elapsed_max, here.first_sent_at)
                {
                    // At least so much is left: not all of this time counts. A lazy driver sends later, which counts.
                    let elapsed = self.circuits.open_for(*target, first_sent_at, now);
                    let left = if self.fairness.exact { max.saturating_sub(elapsed) } else { Duration::ZERO };
                    if asked > left {
                        let counts = elapsed == now.since(first_sent_at) && here.failures == sent.number;
                        return (now.after(wait.max(left)), exact && counts && self.fairness.exact);
                    }
                }
                (now.after(if exact { wait } else { wait.min(longest) }.max(asked)), exact)
            }
        }
    }

    /// Whether a refusal may end the update: its target was open, and few records filled the window, for `elapsed_max`.
    pub fn refused_for_long(&self, facts: &Facts) -> bool {
        let Facts { here, target, .. } = facts;
        let (Some(max), Some(first_sent_at)) = (self.policy.elapsed_max, here.first_sent_at) else {
            return false;
        };
        // A lazy driver sends later than it was asked to, which counts.
        if !self.exact {
            return true;
        }
        let wait = self.policy.schedule.longest();
        self.circuits.open_for(*target, first_sent_at, here.ended_at) + wait > max
    }

    /// Whether the next attempt would start beyond `elapsed_max`, if all time counted but that in which the target was
    /// shut.
    pub fn no_time_is_left(&self, facts: &Facts) -> bool {
        let Facts { here, id, target, .. } = facts;
        let (Some(max), Some(first_sent_at), Some(Outcome::Retryable { .. })) =
            (self.policy.elapsed_max, here.first_sent_at, &here.last)
        else {
            return false;
        };
        // A lazy driver sends later than it was asked to, which counts.
        if !self.fairness.exact {
            return true;
        }
        let wait = match id {
            Some(id) => self.policy.schedule.wait(here.failures, id),
            // The id that was made for it is not known here.
            None => self.policy.schedule.longest(),
        };
        self.circuits.open_for(*target, first_sent_at, here.ended_at) + wait > max
    }
}

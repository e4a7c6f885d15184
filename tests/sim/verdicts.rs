//! How outcomes must be judged: when the next attempt may start, and which resolutions fit.

use lanekeeper::core::outcome::Outcome;
use lanekeeper::core::policy::{DeadLetterReason, FailurePolicy, Policy, Resolution};
use lanekeeper::core::tick::Tick;

use crate::facts::{Facts, Sent};
use crate::judge::{Judge, fault};

impl Judge {
    /// From when on the next attempt may start, told from the schedule; and whether exactly then.
    pub fn earliest(&self, now: Tick, sent: &Sent, outcome: &Outcome) -> (Tick, bool) {
        let Policy { schedule, attempts_max, elapsed_max, exhausted, .. } = &*self.policy;
        let longest = schedule.longest_wait(sent.number, &sent.id);
        let Facts { here, target, .. } = &self.updates[sent.update];
        match outcome {
            Outcome::Applied | Outcome::Known(_) | Outcome::Withheld => (Tick::ZERO, false),
            Outcome::Refused(_) | Outcome::Rejected(_) | Outcome::Conflict(_) => (now.after(longest), true),
            Outcome::Retryable { retry_after, .. } => {
                let asked = retry_after.unwrap_or_default().min(self.policy.retry_after_max);
                if self.circuits.is_shut(*target) {
                    return (now.after(schedule.wait(here.failures + 1, &sent.id).max(asked)), true);
                }
                let wait = schedule.wait(here.failures, &sent.id);
                let unlimited = attempts_max.is_none() && elapsed_max.is_none();
                let exact = unlimited || *exhausted == FailurePolicy::DeadLetter;
                (now.after(if exact { wait } else { wait.min(longest) }.max(asked)), exact)
            }
        }
    }

    /// The dispatcher begins to write a resolution down.
    /// Answers in which turn of the update.
    pub fn record_begun(&mut self, update: usize, resolution: &Resolution) -> u32 {
        let facts = &self.updates[update];
        let fits = match resolution {
            Resolution::Applied => facts.twin.is_some() || facts.here.last == Some(Outcome::Applied),
            Resolution::Duplicate => self.is_resolved_here(update),
            Resolution::Superseded | Resolution::Parked(_) => false,
            Resolution::DeadLettered(reason) => self.fits(facts, reason),
        };
        if !fits {
            fault!("resolution", "#{update} is {} after {:?}", resolution.name(), facts.here);
        }
        if let Some(record) = facts.record {
            self.fairness.resolves(record, update);
        }
        self.updates[update].here.turn
    }

    fn fits(&self, facts: &Facts, reason: &DeadLetterReason) -> bool {
        let Policy { rejected, exhausted, conflict, .. } = &*self.policy;
        let last = facts.here.last.as_ref();
        let (policy, ended_so) = match reason {
            DeadLetterReason::Malformed(_) => return facts.record.is_none(),
            DeadLetterReason::Rejected(_) => (rejected, matches!(last, Some(Outcome::Rejected(_)))),
            DeadLetterReason::Conflict(_) => (conflict, matches!(last, Some(Outcome::Conflict(_)))),
            DeadLetterReason::IdReused => return false,
            DeadLetterReason::Exhausted { .. } => {
                let spent = self.policy.attempts_max.is_some_and(|max| facts.here.failures >= max.get());
                let may = spent || self.no_time_is_left(facts);
                (exhausted, may && matches!(last, Some(Outcome::Retryable { .. })))
            }
        };
        *policy == FailurePolicy::DeadLetter && (ended_so || facts.twin.is_some())
    }

    /// Whether the next attempt would start beyond `elapsed_max`, if all time counted but that in which the target was
    /// shut.
    fn no_time_is_left(&self, facts: &Facts) -> bool {
        let Facts { here, id, target, .. } = facts;
        let (Some(max), Some(first_sent_at), Some(Outcome::Retryable { retry_after, .. })) =
            (self.policy.elapsed_max, here.first_sent_at, &here.last)
        else {
            return false;
        };
        let asked = retry_after.unwrap_or_default().min(self.policy.retry_after_max);
        // A lazy driver sends later than it was asked to, which counts.
        if !self.fairness.exact {
            return true;
        }
        let wait = match id {
            Some(id) => self.policy.schedule.wait(here.failures, id),
            // The id that was made for it is not known here.
            None => self.policy.schedule.longest(),
        };
        self.circuits.open_for(*target, first_sent_at, here.ended_at) + wait.max(asked) > max
    }
}

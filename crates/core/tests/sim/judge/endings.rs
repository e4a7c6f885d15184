//! How the turn of an update may end, told from its last attempt.

use lanekeeper_core::outcome::{Known, Outcome};
use lanekeeper_core::policy::{DeadLetterReason, FailurePolicies, FailurePolicy, ParkReason, Resolution};

use super::Judge;
use crate::facts::Facts;
use crate::ledger_client::ends_so;

impl Judge {
    /// With a ledger: this process was told that the target has it, and nobody has owned the partition since.
    pub fn judge_repetition(&self, update: usize) {
        let Facts { twin, id, here, .. } = &self.updates[update];
        if twin.is_none() && id.is_some() && here.last == Some(Outcome::Applied) {
            fault!("no duplicate without need", "#{update} was sent again, known to be applied");
        }
    }

    /// The dispatcher begins to write a resolution down.
    /// Answers in which turn of the update.
    pub fn record_begun(&mut self, update: usize, resolution: &Resolution) -> u32 {
        let facts = &self.updates[update];
        let fits = match resolution {
            Resolution::Applied => facts.twin.is_some() || facts.here.last == Some(Outcome::Applied),
            Resolution::Duplicate => self.is_resolved_here(update),
            Resolution::Superseded | Resolution::Parked(ParkReason::Behind) => {
                ends_so(resolution, facts.here.last.as_ref())
            }
            Resolution::Parked(ParkReason::Failed { reason, .. }) => self.fits(facts, reason, true),
            Resolution::DeadLettered(reason) => self.fits(facts, reason, false),
        };
        let fits = fits || self.kept && (*resolution == Resolution::Duplicate || facts.twin.is_some());
        if !fits {
            fault!("resolution", "#{update} is {} after {:?}", resolution.name(), facts.here.last);
        }
        if let Some(record) = facts.record {
            self.fairness.resolves(record, update);
            if facts.id.is_none() {
                self.records[record].recording = Some((update, facts.here.turn));
            }
        }
        self.updates[update].here.turn
    }

    /// A resolution is written down, or will not be. That of an earlier turn may end later than the present one has begun.
    pub fn recording_ended(&mut self, update: usize, turn: u32) {
        if let Some(record) = self.updates[update].record {
            self.records[record].recording.take_if(|recording| *recording == (update, turn));
        }
    }

    fn fits(&self, facts: &Facts, reason: &DeadLetterReason, parks: bool) -> bool {
        let FailurePolicies { rejected, exhausted, conflict } = self.failure_of(facts.target);
        let last = facts.here.last.as_ref();
        let (policy, ended_so) = match reason {
            DeadLetterReason::Malformed(_) => return facts.record.is_none(),
            DeadLetterReason::Rejected(_) => {
                let may = matches!(last, Some(Outcome::Refused(_))) && self.refused_for_long(facts);
                (rejected, may || matches!(last, Some(Outcome::Rejected(_))))
            }
            DeadLetterReason::Conflict(_) => (conflict, matches!(last, Some(Outcome::Conflict(_)))),
            DeadLetterReason::IdReused => (conflict, matches!(last, Some(Outcome::Known(Known::IdReused)))),
            DeadLetterReason::Exhausted { .. } => {
                let spent = self.policy.attempts_max.is_some_and(|max| facts.here.failures >= max.get());
                let may = spent || self.no_time_is_left(facts);
                (exhausted, may && matches!(last, Some(Outcome::Retryable { .. })))
            }
        };
        let policy = match policy {
            // Another update under its id is no later version of it.
            FailurePolicy::Superseded if *reason == DeadLetterReason::IdReused => FailurePolicy::Park,
            policy => policy,
        };
        let expected = if parks { FailurePolicy::Park } else { FailurePolicy::DeadLetter };
        policy == expected && (ended_so || facts.twin.is_some())
    }
}

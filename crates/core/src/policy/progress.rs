//! How far an update has come, and what of its attempts and of its time counts.

use std::time::Duration;

use super::history::{History, PastAttempt};
use crate::outcome::Outcome;
use crate::tick::Tick;

/// How far the head of a lane has come. Begins with its first attempt and ends with its resolution.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    /// Attempts begun.
    pub(super) attempts: u32,
    /// Attempts that failed and count towards `attempts_max`.
    pub(super) failures: u32,
    /// Time that counts towards `elapsed_max`, up to `counted_to`.
    pub(super) elapsed: Duration,
    counted_to: Tick,
    /// The wait that follows the latest attempt does not count: the target refused us or had no room, or a policy blocks.
    excused: bool,
    /// The latest attempt was refused. The time since then counts if the next one is refused while the target applies
    /// updates of other records, and does not otherwise.
    refused: bool,
    /// When the latest attempt began.
    began: Tick,
    /// The latest attempt was throttled.
    pub(super) throttled: bool,
    /// How long the target was shut in all, as far as it was taken into account.
    shut: Duration,
    /// How the latest attempts ended, for people.
    history: History,
}

impl Progress {
    /// An attempt begins. Returns its number, from 1.
    pub fn begin_attempt(&mut self, now: Tick) -> u32 {
        if self.attempts == 0 || self.excused && !self.refused {
            self.counted_to = now;
        }
        self.began = now;
        self.excused = false;
        self.attempts = self.attempts.saturating_add(1);
        self.attempts
    }

    /// The latest attempt has ended so. Decides nothing.
    pub(crate) fn attempt_ended(&mut self, now: Tick, outcome: &Outcome) {
        self.history.add(self.attempts, self.began, now, outcome);
    }

    /// How the latest attempts ended, oldest first.
    pub(crate) fn past_attempts(&self) -> &[PastAttempt] {
        self.history.attempts()
    }

    /// When the latest attempt began.
    pub(crate) fn latest_began(&self) -> Tick {
        self.began
    }

    /// Attempts begun so far.
    pub(crate) fn attempts(&self) -> u32 {
        self.attempts
    }

    /// The latest attempt ended, and was not refused.
    pub(super) fn forget_refusal(&mut self) {
        if std::mem::take(&mut self.refused) {
            self.counted_to = self.counted_to.max(self.began);
        }
    }

    pub(super) fn refused(&mut self, now: Tick) {
        (self.refused, self.counted_to) = (true, now);
        self.excuse();
    }

    /// Returns true if others were applied since this update's attempt before: then the time since then counts.
    pub(super) fn refused_alone(&mut self, now: Tick, others_applied: Tick) -> bool {
        let counts = self.counted_to <= others_applied;
        if counts {
            self.count_time(now);
        }
        self.refused(now);
        counts
    }

    pub(super) fn count_time(&mut self, now: Tick) {
        self.elapsed = self.elapsed.saturating_add(now.since(self.counted_to));
        self.counted_to = now;
    }

    /// The target was shut for `total` up to now: what was added to it since the last call does not count.
    pub(crate) fn shut_for(&mut self, total: Duration) {
        self.counted_to = self.counted_to.after(total.saturating_sub(self.shut));
        self.shut = total;
    }

    /// This time, which has just passed, does not count: a limit of the target has held the update up.
    pub(crate) fn skip(&mut self, time: Duration) {
        self.counted_to = self.counted_to.after(time);
    }

    pub(super) fn excuse(&mut self) {
        self.excused = true;
    }

    /// The latest attempt made no request.
    pub(super) fn take_back(&mut self) {
        self.attempts = self.attempts.saturating_sub(1);
        self.excuse();
    }
}

//! What may count towards `elapsed_max`, judged without a look into the core.
//!
//! It is an upper bound: of each attempt that counts, the time that it took, the wait that the schedule or the target puts
//! before the next one, and some time for room. Waits for permits are no part of it.

use std::time::Duration;

use lanekeeper_core::outcome::Outcome;
use lanekeeper_core::pacing::Refusal;
use lanekeeper_core::tick::Tick;

use super::{ELAPSED_MAX, RETRY_AFTER_MAX, WAIT_MAX};

/// For a channel that is lost and attached again.
const LOST: Duration = Duration::from_millis(600);

#[derive(Debug, Default)]
pub struct Budget {
    counted: Duration,
    /// The wait that the latest attempt asks for, if it counts.
    wait: Duration,
    /// When it ended.
    ended: Option<Tick>,
    /// Channels lost since then.
    lost: u32,
    /// The latest attempt was refused (403).
    refused: bool,
    /// What certainly counts of refusals in a row, each beside others that were applied.
    certain: Duration,
}

/// What is known of an attempt that has ended.
#[derive(Clone, Copy, Debug)]
pub struct Ended<'a> {
    pub now: Tick,
    pub began: Tick,
    pub outcome: &'a Outcome,
    pub refusal: Refusal,
    /// When the newest request began with which another record was applied.
    pub others_applied: Option<Tick>,
    /// Few records fill the window of the partition.
    pub beside_nobody: bool,
    /// How long a head can wait for room.
    pub room: Duration,
}

impl Budget {
    pub fn channel_lost(&mut self) {
        self.lost += 1;
        (self.refused, self.certain) = (false, Duration::ZERO);
    }

    /// Returns true if a refusal counts only since it is beside nobody.
    pub fn attempt_ended(&mut self, end: &Ended<'_>) -> bool {
        let before =
            self.wait + if self.ended.is_some() { end.room } else { Duration::ZERO } + self.lost * LOST;
        let time = before + end.now.since(end.began);
        let since = self.ended.unwrap_or(end.began);
        let beside_others = end.others_applied.is_some_and(|at| at >= since);
        (self.ended, self.lost) = (Some(end.now), 0);
        let refused = matches!(end.outcome, Outcome::Refused(_));
        if std::mem::replace(&mut self.refused, refused) && refused && beside_others {
            self.certain += WAIT_MAX;
        }
        if !refused {
            self.certain = Duration::ZERO;
        }
        self.wait = match end.outcome {
            Outcome::Retryable { retry_after, .. } if end.refusal != Refusal::OfTarget => {
                self.counted += time;
                WAIT_MAX.max(retry_after.unwrap_or_default().min(RETRY_AFTER_MAX))
            }
            Outcome::Refused(_) => {
                if end.beside_nobody || beside_others {
                    self.counted += time;
                }
                WAIT_MAX
            }
            _ => Duration::ZERO,
        };
        matches!(end.outcome, Outcome::Refused(_)) && end.beside_nobody && !beside_others
    }

    /// An update whose record is refused alone ends at last.
    pub fn judge_end(&self, update: usize) {
        let certain = self.certain;
        assert!(
            certain <= 2 * ELAPSED_MAX,
            "judge (budget): #{update} does not end, though {certain:?} count"
        );
    }

    /// An update whose record is refused ends now.
    pub fn judge(&self, update: usize) {
        assert!(
            self.counted + WAIT_MAX > ELAPSED_MAX,
            "judge (budget): #{update} is parked, and no more than {:?} counts",
            self.counted
        );
    }
}

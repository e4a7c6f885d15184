//! How the latest attempts of a head ended, for a person who asks why its record waits. It decides nothing.

use std::time::Duration;

use super::DeadLetterReason;
use crate::outcome::{Cause, Failure, Known, Outcome, OutcomeKind};
use crate::tick::Tick;

/// Attempts that are kept of a head (I6). Only a head whose attempts fail has any.
pub const ATTEMPTS_KEPT_MAX: usize = 4;
/// Characters that are kept of what a target says about an attempt: the first line of its answer.
pub const DETAIL_CHARS_MAX: usize = 160;

/// An attempt that has ended without an end to the update's turn.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PastAttempt {
    /// Its number, from 1. One that made no request has the number of the next one.
    pub number: u32,
    /// When it began.
    pub began: Tick,
    /// How long it took.
    pub took: Duration,
    /// What the target did.
    pub outcome: OutcomeKind,
    /// The rejection was not believed, since record after record gets it and the target applies nothing.
    pub doubted: bool,
    /// What failed; `None`: no request was made.
    pub cause: Option<Cause>,
    /// The first line of the answer, or the connection's fault; at most [`DETAIL_CHARS_MAX`] characters. It can quote the
    /// update.
    pub detail: String,
}

/// At most [`ATTEMPTS_KEPT_MAX`] attempts, oldest first.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct History(Vec<PastAttempt>);

impl History {
    pub(super) fn attempts(&self) -> &[PastAttempt] {
        &self.0
    }

    /// An attempt has ended. One that ends the update's turn by being applied, or by what the ledger knows, leaves nothing to
    /// explain.
    pub(super) fn add(&mut self, number: u32, began: Tick, ended: Tick, outcome: &Outcome) {
        if matches!(
            outcome,
            Outcome::Applied
                | Outcome::Known(
                    Known::Resolved | Known::Superseded | Known::RecordParked | Known::RecordPaused
                )
        ) {
            return;
        }
        if self.0.len() == ATTEMPTS_KEPT_MAX {
            self.0.remove(0);
        }
        let failure = outcome.failure();
        self.0.push(PastAttempt {
            number,
            began,
            took: ended.since(began),
            outcome: outcome.kind(),
            doubted: matches!(outcome, Outcome::Doubted(_)),
            cause: failure.map(|failure| failure.cause),
            detail: match outcome {
                Outcome::Known(Known::IdReused) => DeadLetterReason::IdReused.detail(),
                _ => failure.map(first_line).unwrap_or_default(),
            },
        });
    }
}

fn first_line(failure: &Failure) -> String {
    let line = failure.detail.lines().map(str::trim).find(|line| !line.is_empty()).unwrap_or_default();
    line.chars().take(DETAIL_CHARS_MAX).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn retryable(status: u16, detail: &str) -> Outcome {
        let failure = Failure { cause: Cause::Status(status), detail: detail.to_owned() };
        Outcome::Retryable { failure, retry_after: None }
    }

    #[test]
    fn the_latest_attempts_are_kept_with_the_first_line_of_the_answer() {
        let mut history = History::default();
        let second = |seconds: u64| Tick::from_micros(seconds * 1_000_000);
        for number in 1..=6 {
            let outcome = retryable(503, "\n  no backend\nat line 2");
            history.add(number, second(10), second(12), &outcome);
        }
        let numbers: Vec<u32> = history.attempts().iter().map(|attempt| attempt.number).collect();
        assert_eq!(numbers, [3, 4, 5, 6]);
        let last = history.attempts().last().expect("it has four");
        assert_eq!((last.took, last.detail.as_str()), (Duration::from_secs(2), "no backend"));
    }

    #[test]
    fn a_long_answer_is_cut_between_characters_and_an_applied_update_leaves_nothing() {
        let mut history = History::default();
        history.add(1, Tick::ZERO, Tick::ZERO, &Outcome::Applied);
        assert_eq!(history.attempts(), []);
        history.add(1, Tick::ZERO, Tick::ZERO, &retryable(500, &"ü".repeat(1000)));
        assert_eq!(history.attempts()[0].detail.chars().count(), DETAIL_CHARS_MAX);
        history.add(2, Tick::ZERO, Tick::ZERO, &Outcome::Withheld);
        assert_eq!(history.attempts()[1].cause, None);
    }
}

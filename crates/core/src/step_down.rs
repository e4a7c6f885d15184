//! When a replica gives its partitions to another one, since it reaches its targets or its ledger no longer and the other does.
//!
//! RabbitMQ only sees that a consumer lives. A replica whose host has lost its way to a target or to the ledger would keep its
//! share of the partitions, and their updates would wait.

use std::time::Duration;

use super::tick::Tick;

/// How long nothing must have been reached: an outage that everybody sees is not worth a move.
const FAILING_MIN: Duration = Duration::from_secs(60);
/// How old an answer can be that shows that the targets are reached.
const ANSWER_AGE_MAX: Duration = Duration::from_secs(60);
/// At most one step down in this time: whoever takes over must have its chance, and partitions must not go to and fro.
pub const STEP_DOWN_INTERVAL: Duration = Duration::from_secs(600);

/// What a process has reached, and how often it has stepped down.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Reachability {
    ledger_failing_since: Option<Tick>,
    targets_failing_since: Option<Tick>,
    answered_at: Option<Tick>,
    stepped_down_at: Option<Tick>,
}

impl Reachability {
    /// The ledger was asked; true: it has answered.
    pub fn asked_ledger(&mut self, now: Tick, answered: bool) {
        note(&mut self.ledger_failing_since, now, answered);
    }

    /// A target was sent something, or connected to; true: it has answered, whatever.
    pub fn asked_target(&mut self, now: Tick, answered: bool) {
        note(&mut self.targets_failing_since, now, answered);
        if answered {
            self.answered_at = Some(now);
        }
    }

    /// Returns true if all is reached that is needed, false if something has not been for some time, `None` if nothing shows it.
    #[must_use]
    pub fn works(&self, now: Tick) -> Option<bool> {
        let failing = [self.ledger_failing_since, self.targets_failing_since];
        if failing.into_iter().flatten().any(|since| now.since(since) >= FAILING_MIN) {
            return Some(false);
        }
        let answered = self.answered_at.is_some_and(|at| now.since(at) <= ANSWER_AGE_MAX);
        (answered && failing == [None, None]).then_some(true)
    }

    /// `another_works`: another replica says that it reaches all that is needed. Returns true if this one gives its partitions
    /// away now.
    pub fn steps_down(&mut self, now: Tick, another_works: bool) -> bool {
        let is_due = self.stepped_down_at.is_none_or(|at| now.since(at) >= STEP_DOWN_INTERVAL);
        let steps_down = another_works && is_due && self.works(now) == Some(false);
        if steps_down {
            self.stepped_down_at = Some(now);
            // It sends nothing from now on, and would never learn that its targets answer again.
            self.targets_failing_since = None;
        }
        steps_down
    }
}

fn note(failing_since: &mut Option<Tick>, now: Tick, answered: bool) {
    if answered {
        *failing_since = None;
    } else {
        failing_since.get_or_insert(now);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> Tick {
        Tick::from_micros(seconds * 1_000_000)
    }

    #[test]
    fn it_works_if_targets_answer_and_the_ledger_does() {
        let mut reached = Reachability::default();
        assert_eq!(reached.works(at(0)), None, "nothing shows it");
        reached.asked_target(at(0), true);
        assert_eq!(reached.works(at(60)), Some(true));
        assert_eq!(reached.works(at(61)), None, "that is long ago");
        reached.asked_target(at(70), false);
        reached.asked_target(at(129), false);
        assert_eq!(reached.works(at(129)), None);
        assert_eq!(reached.works(at(130)), Some(false), "since the first failure");
        reached.asked_target(at(131), true);
        assert_eq!(reached.works(at(131)), Some(true));
        reached.asked_ledger(at(132), false);
        assert_eq!(reached.works(at(133)), None);
        assert_eq!(reached.works(at(192)), Some(false));
    }

    #[test]
    fn it_steps_down_once_in_ten_minutes_and_only_for_another_that_works() {
        let mut reached = Reachability::default();
        reached.asked_ledger(at(0), false);
        assert!(!reached.steps_down(at(59), true));
        assert!(!reached.steps_down(at(60), false), "an outage for everybody");
        assert!(reached.steps_down(at(61), true));
        assert!(!reached.steps_down(at(62), true));
        assert!(!reached.steps_down(at(660), true));
        assert!(reached.steps_down(at(661), true));
        reached.asked_ledger(at(700), true);
        assert!(!reached.steps_down(at(2000), true), "all is well");
        reached.asked_target(at(2000), false);
        assert!(reached.steps_down(at(2060), true));
        assert_eq!(reached.works(at(3000)), None, "it has nothing to send, and does not know");
    }
}

//! When to log dead letters: the first of a reason at once, then once a minute how many there were. A line for each would hide
//! everything else while many updates fail.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use lanekeeper_core::log_interval::LogInterval;
use lanekeeper_core::tick::Tick;

/// What was logged of each reason. Shared by all partitions.
#[derive(Debug, Default)]
pub struct DeadLetterLog(Mutex<BTreeMap<&'static str, LogInterval>>);

impl DeadLetterLog {
    fn all(&self) -> MutexGuard<'_, BTreeMap<&'static str, LogInterval>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// An update is dead-lettered. If a line is due, returns how many were for this reason since the last line, this one
    /// included.
    pub fn dead_lettered(&self, reason: &'static str, now: Tick) -> Option<u64> {
        self.all().entry(reason).or_default().count(now)
    }

    /// The reasons for which a line is due about dead letters that were counted and not logged, with their number.
    pub fn take_due(&self, now: Tick) -> Vec<(&'static str, u64)> {
        let mut all = self.all();
        all.iter_mut().filter_map(|(reason, log)| Some((*reason, log.take_due(now)?))).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn a_flood_of_dead_letters_makes_a_line_a_minute_for_each_reason() {
        let log = DeadLetterLog::default();
        let at = |seconds| Tick::ZERO.after(Duration::from_secs(seconds));
        assert_eq!(log.dead_lettered("rejected", at(0)), Some(1));
        for second in 1..60 {
            assert_eq!(log.dead_lettered("rejected", at(second)), None);
        }
        assert_eq!(log.dead_lettered("misplaced", at(30)), Some(1));
        assert_eq!(log.take_due(at(59)), []);
        assert_eq!(log.take_due(at(60)), [("rejected", 59)]);
        assert_eq!(log.take_due(at(600)), []);
    }
}

//! When to log something that can happen thousands of times: at once, then once in an interval with a count.

use std::time::Duration;

use super::tick::Tick;

/// How often something that goes on is logged.
const INTERVAL: Duration = Duration::from_secs(60);

/// One kind of line.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LogInterval {
    logged: Option<Tick>,
    since: u64,
}

impl LogInterval {
    /// It happened. If a line is due, returns how often it did since the last line, this time included.
    pub fn count(&mut self, now: Tick) -> Option<u64> {
        self.since += 1;
        self.take_due(now)
    }

    /// If a line is due for what was counted and not logged, returns how much that is.
    pub fn take_due(&mut self, now: Tick) -> Option<u64> {
        let is_due = self.logged.is_none_or(|logged| now.since(logged) >= INTERVAL);
        if self.since == 0 || !is_due {
            return None;
        }
        self.logged = Some(now);
        Some(std::mem::take(&mut self.since))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_is_logged_at_once_and_the_others_once_a_minute() {
        let mut log = LogInterval::default();
        let at = |seconds| Tick::ZERO.after(Duration::from_secs(seconds));
        assert_eq!(log.take_due(at(0)), None);
        assert_eq!((log.count(at(1)), log.count(at(2)), log.count(at(60))), (Some(1), None, None));
        assert_eq!((log.take_due(at(60)), log.take_due(at(61))), (None, Some(2)));
        assert_eq!((log.take_due(at(200)), log.count(at(200))), (None, Some(1)));
    }
}

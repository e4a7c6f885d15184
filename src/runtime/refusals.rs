//! When to log that a target refuses us: at once, then once a minute with a count. All updates of the target meet the same
//! refusal, and a line for each attempt would hide everything else.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use lanekeeper_core::tick::Tick;

/// How often a refusal that goes on is logged.
const LOG_INTERVAL: Duration = Duration::from_secs(60);

/// What was logged of all targets. Shared by all partitions.
#[derive(Debug, Default)]
pub struct Refusals(Mutex<BTreeMap<(usize, String), LoggedRefusal>>);

#[derive(Debug)]
struct LoggedRefusal {
    at: Tick,
    attempts_since: u64,
}

impl Refusals {
    /// An attempt was refused. If a line is due, returns how many were refused since the last line about this target and
    /// cause, this one included. Causes are statuses: a few hundred at most.
    pub fn refused(&self, target: usize, cause: String, now: Tick) -> Option<u64> {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(logged) = all.get_mut(&(target, cause.clone())) else {
            all.insert((target, cause), LoggedRefusal { at: now, attempts_since: 0 });
            return Some(1);
        };
        logged.attempts_since += 1;
        if now.since(logged.at) < LOG_INTERVAL {
            return None;
        }
        logged.at = now;
        Some(std::mem::take(&mut logged.attempts_since))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_is_logged_at_once_and_then_once_a_minute() {
        let refusals = Refusals::default();
        let check = |target, cause: &str, seconds, expected| {
            let now = Tick::ZERO.after(Duration::from_secs(seconds));
            assert_eq!(
                refusals.refused(target, cause.to_owned(), now),
                expected,
                "{target} {cause} {seconds}"
            );
        };
        check(0, "status 401", 0, Some(1));
        check(0, "status 401", 1, None);
        check(1, "status 401", 1, Some(1));
        check(0, "status 403", 2, Some(1));
        check(0, "status 401", 59, None);
        check(0, "status 401", 60, Some(3));
        check(0, "status 401", 61, None);
        check(0, "status 401", 500, Some(2));
    }
}

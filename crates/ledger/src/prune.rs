//! Deletes old ids in the background.

use std::time::Duration;

use tokio::time::{Instant, sleep};
use tracing::{debug, warn};

use super::ledger::Ledger;
use super::rows;

/// How often to look for old ids.
const LOOK_EVERY: Duration = Duration::from_secs(60);

/// The pause between two chunks, in which others can write.
const PAUSE: Duration = Duration::from_millis(20);

/// How fast the time before which ids are deleted may come nearer, as a multiple of the time that passes. A clock that is
/// ahead for some minutes so costs the ids of an hour at most, not all of them; and after a long stop, the ids of a week are
/// deleted within a day.
const HASTE_MAX: i64 = 10;

/// How often ids are looked at again that bore a later time than the clock.
const BEGIN_AGAIN_EVERY: Duration = Duration::from_secs(3600);

/// How far pruning has come in this process.
#[derive(Debug)]
pub struct Pruning {
    /// Ids up to this number bear a later time than the clock, or are gone.
    pub passed: i64,
    passed_since: Instant,
    /// When the first id was looked at, and the time of the oldest one then.
    began: Option<(Instant, i64)>,
}

impl Default for Pruning {
    fn default() -> Self {
        Self { passed: i64::MIN, passed_since: Instant::now(), began: None }
    }
}

impl Pruning {
    /// Before which time ids are deleted. `oldest`: the time of the oldest id; `by_clock`: what the clock alone would say,
    /// and clocks are wrong at times.
    pub fn before(&mut self, oldest: i64, by_clock: i64) -> i64 {
        let (since, first) = *self.began.get_or_insert_with(|| (Instant::now(), oldest));
        let passed = rows::ms(since.elapsed());
        by_clock.min(first.saturating_add(passed.saturating_mul(HASTE_MAX)).saturating_add(1))
    }

    /// Forgets which ids were passed over: the time that they bear may have come.
    pub fn begin_again_at_times(&mut self) {
        if self.passed_since.elapsed() >= BEGIN_AGAIN_EVERY {
            (self.passed, self.passed_since) = (i64::MIN, Instant::now());
        }
    }
}

/// Deletes ids that are older than `ledger.retention`, chunk by chunk, until the future is dropped. Several processes may
/// do it at once.
pub async fn keep_pruned(ledger: &impl Ledger) {
    loop {
        let wait = match ledger.prune().await {
            Ok(0) => LOOK_EVERY,
            Ok(updates) => {
                debug!(updates, "deleted old update ids");
                PAUSE
            }
            Err(error) => {
                warn!(%error, "cannot delete old update ids, retrying in a minute");
                LOOK_EVERY
            }
        };
        sleep(wait).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR_MS: i64 = 3_600_000;

    #[tokio::test(start_paused = true)]
    async fn a_clock_that_is_ahead_for_some_minutes_costs_the_ids_of_some_minutes() {
        let mut pruning = Pruning::default();
        let week = 7 * 24 * HOUR_MS;
        let (oldest, now) = (1_000 * HOUR_MS, 1_000 * HOUR_MS + week);
        assert_eq!(pruning.before(oldest, now - week), oldest, "as the clock says");
        tokio::time::advance(Duration::from_secs(60)).await;
        assert_eq!(pruning.before(oldest, now - week + 60_000), oldest + 60_000, "as the clock says");
        // Ten years ahead, for five minutes.
        for _ in 0..5 {
            tokio::time::advance(Duration::from_secs(60)).await;
            let before = pruning.before(oldest, now + 3_650 * 24 * HOUR_MS - week);
            assert!(before <= oldest + HOUR_MS + 1, "{}", before - oldest);
        }
        assert_eq!(pruning.before(oldest, now - week + 360_000), oldest + 360_000, "as the clock says again");
    }
}

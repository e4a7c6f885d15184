//! The one clock: ticks for the core, instants for timers.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio::time::Instant;

use lanekeeper_core::tick::Tick;

/// Counts from its start. All copies show the same time.
#[derive(Clone, Copy, Debug)]
pub struct Clock(Instant);

impl Clock {
    /// Starts to count.
    #[must_use]
    pub fn start() -> Self {
        Self(Instant::now())
    }

    /// Now.
    #[must_use]
    pub fn now(self) -> Tick {
        Tick::ZERO.after(self.0.elapsed())
    }

    /// The tick of an instant; the first tick if the instant lies before the start.
    #[must_use]
    pub fn tick(self, instant: Instant) -> Tick {
        Tick::ZERO.after(instant.saturating_duration_since(self.0))
    }

    /// When this tick is, for a timer.
    #[must_use]
    pub fn instant(self, tick: Tick) -> Instant {
        self.0 + Duration::from_micros(tick.micros())
    }
}

/// The time since the publisher's timestamp, by our wall clock; `None` if that lies in the future.
#[must_use]
pub fn age(published_at: u64) -> Option<Duration> {
    let published_at = UNIX_EPOCH.checked_add(Duration::from_secs(published_at))?;
    SystemTime::now().duration_since(published_at).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_timestamp_of_any_number_has_an_age_or_none() {
        assert!(age(0).is_some());
        for ahead in [u64::MAX, u64::MAX / 2, u64::MAX / 2 + 1, i64::MAX as u64 - 1] {
            assert_eq!(age(ahead), None, "{ahead}");
        }
    }
}

//! The one clock of a process: ticks for the core, instants for timers.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio::time::Instant;

use lanekeeper_core::tick::Tick;

/// Two clocks are read one after the other: what they differ by less than this says nothing. A lease leaves more for drift.
const STEP: Duration = Duration::from_millis(100);

/// By this host's clock; 0 if that stands before 1970.
pub(crate) fn seconds_since_1970() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

/// Counts from its start, also while the machine is suspended: a lease must not outlast a night in which the lid was closed.
/// All copies show the same time.
///
/// A virtual machine that is paused together with its clocks does not notice.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    started: Instant,
    /// How long the machine had been suspended by then.
    suspended: Duration,
}

impl Clock {
    /// Starts to count.
    #[must_use]
    pub fn start() -> Self {
        Self { started: Instant::now(), suspended: suspended() }
    }

    /// Now.
    #[must_use]
    pub fn now(self) -> Tick {
        Tick::ZERO.after(self.started.elapsed() + self.suspended_since_start())
    }

    /// The tick of an instant; the first tick if the instant lies before the start. An instant before a suspension counts as
    /// later than it was.
    #[must_use]
    pub fn tick(self, instant: Instant) -> Tick {
        Tick::ZERO.after(instant.saturating_duration_since(self.started) + self.suspended_since_start())
    }

    /// When this tick is, for a timer.
    #[must_use]
    pub fn instant(self, tick: Tick) -> Instant {
        let since_start = Duration::from_micros(tick.micros());
        self.started + since_start.saturating_sub(self.suspended_since_start())
    }

    fn suspended_since_start(self) -> Duration {
        whole_steps(suspended().saturating_sub(self.suspended))
    }
}

fn whole_steps(suspended: Duration) -> Duration {
    STEP * u32::try_from(suspended.as_millis() / STEP.as_millis()).unwrap_or(u32::MAX)
}

/// How long the machine has been suspended since it was booted.
#[cfg(target_os = "linux")]
fn suspended() -> Duration {
    use rustix::time::{ClockId, clock_gettime};

    let read = |clock| Duration::try_from(clock_gettime(clock)).unwrap_or_default();
    let monotonic = read(ClockId::Monotonic);
    read(ClockId::Boottime).saturating_sub(monotonic)
}

/// Other systems have no such clock.
#[cfg(not(target_os = "linux"))]
fn suspended() -> Duration {
    Duration::ZERO
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tick_and_its_instant_are_the_same_moment() {
        let clock = Clock::start();
        let instant = clock.started + Duration::from_secs(5);
        assert_eq!(clock.instant(clock.tick(instant)), instant);
        assert_eq!(clock.tick(instant), Tick::from_micros(5_000_000));
    }

    #[test]
    fn a_suspension_counts_and_the_jitter_between_two_clocks_does_not() {
        assert_eq!(whole_steps(Duration::from_micros(99_999)), Duration::ZERO);
        assert_eq!(whole_steps(Duration::from_millis(8 * 3_600_000 + 7)), Duration::from_secs(8 * 3600));
    }
}

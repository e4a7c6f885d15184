//! The one clock: ticks for the core, instants for timers.

use std::time::Duration;

use tokio::time::Instant;

use crate::core::tick::Tick;

/// Counts from the moment it was made; copies agree with each other.
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

    /// The tick of an instant; the first one where it lies before.
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

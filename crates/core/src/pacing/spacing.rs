//! The distance between requests at a rate that can change with each answer: the generic cell rate algorithm (GCRA).

use super::Tick;

/// Requests that were not made on time are made up for, up to what the rate allows in this time.
const TOLERANCE_MICROS: f64 = 50_000.0;
/// At low rates: up to this part of the time between two requests, since timers are late.
const TOLERANCE_OF_INTERVAL: f64 = 0.05;
/// Rounding errors of floating point stay below.
const ROUNDING_MICROS: f64 = 0.01;

/// When the next request may leave.
#[derive(Debug, Default)]
pub(super) struct Spacing {
    /// Microseconds between two requests; `None`: no limit.
    interval: Option<f64>,
    /// The theoretical arrival time of the next request, in microseconds.
    arrival: f64,
}

impl Spacing {
    fn tolerance(interval: f64) -> f64 {
        (TOLERANCE_MICROS - interval).max(interval * TOLERANCE_OF_INTERVAL)
    }

    /// Requests per second from now on.
    pub(super) fn set_rate(&mut self, now: Tick, rate: Option<f64>) {
        let interval = rate.map(|rate| 1e6 / rate);
        if interval == self.interval {
            return;
        }
        if let Some(interval) = interval {
            let now = now.micros() as f64;
            let full = now + Self::tolerance(interval);
            // Who had no limit begins without requests to make up for; a wait at a lower rate is not continued.
            self.arrival = if self.interval.is_none() { self.arrival.max(full) } else { self.arrival }
                .min(full + interval);
        }
        self.interval = interval;
    }

    /// Requests per second; `None`: no limit.
    pub(super) fn rate(&self) -> Option<f64> {
        self.interval.map(|interval| 1e6 / interval)
    }

    /// Requests that may leave now.
    pub(super) fn available(&self, now: Tick) -> usize {
        let Some(interval) = self.interval else { return usize::MAX };
        let now = now.micros() as f64;
        let room = now + Self::tolerance(interval) + ROUNDING_MICROS - self.arrival.max(now);
        if room < 0.0 { 0 } else { whole(room / interval).saturating_add(1) }
    }

    /// `requests` leave now.
    pub(super) fn take(&mut self, now: Tick, requests: usize) {
        if let Some(interval) = self.interval {
            self.arrival = self.arrival.max(now.micros() as f64) + interval * requests as f64;
        }
    }

    /// `requests` that had left were not made.
    pub(super) fn put_back(&mut self, requests: usize) {
        if let Some(interval) = self.interval {
            self.arrival -= interval * requests as f64;
        }
    }

    /// Nothing leaves before `at`, and from then on there is nothing to make up for.
    pub(super) fn pause(&mut self, at: Tick) {
        if let Some(interval) = self.interval {
            self.arrival = self.arrival.max(at.micros() as f64 + Self::tolerance(interval));
        }
    }

    /// When [`Self::available`] is over zero.
    pub(super) fn next_at(&self) -> Tick {
        let Some(interval) = self.interval else { return Tick::ZERO };
        micros((self.arrival - Self::tolerance(interval)).ceil())
    }
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "saturates")]
fn whole(number: f64) -> usize {
    number as usize
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "saturates")]
fn micros(number: f64) -> Tick {
    Tick::from_micros(number as u64)
}

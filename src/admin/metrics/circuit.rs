//! Metrics of the breakers.

use std::time::Duration;

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::gauge::Gauge;

use super::{Metrics, OfTarget, SecondsCounter};

/// Metrics of one target's breaker.
#[derive(Debug)]
pub struct CircuitMetrics {
    state: Gauge,
    trips: Counter,
    shut: SecondsCounter,
}

impl CircuitMetrics {
    /// The target was shut.
    pub fn shut(&self) {
        self.state.set(1);
        self.trips.inc();
    }

    /// For so much more time.
    pub fn shut_for(&self, time: Duration) {
        self.shut.inc_by(time.as_secs_f64());
    }

    /// It is open again.
    pub fn opened(&self) {
        self.state.set(0);
    }
}

impl Metrics {
    /// Those of one target's breaker.
    #[must_use]
    pub fn circuit(&self, target: &str) -> CircuitMetrics {
        let of = OfTarget { target: target.into() };
        CircuitMetrics {
            state: self.0.circuit_state.get_or_create_owned(&of),
            trips: self.0.circuit_trips.get_or_create_owned(&of),
            shut: self.0.circuit_shut.get_or_create_owned(&of),
        }
    }
}

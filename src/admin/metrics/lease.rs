//! Metrics of the lease of this process.

use std::time::Duration;

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::{Registry, Unit};

use super::labels::SecondsCounter;

#[derive(Clone, Debug, Default)]
pub(super) struct LeaseFamilies {
    valid: Gauge,
    lapses: Counter,
    lapsed: SecondsCounter,
}

impl LeaseFamilies {
    pub(super) fn register(&self, registry: &mut Registry) {
        registry.register(
            "lease_valid",
            "1 while a note of this process came back recently enough: only then requests leave.",
            self.valid.clone(),
        );
        registry.register(
            "lease_lapses",
            "How often the lease of this process ran out.",
            self.lapses.clone(),
        );
        registry.register_with_unit(
            "lease_lapsed",
            "How long the lease of this process had run out, counted when it is renewed.",
            Unit::Seconds,
            self.lapsed.clone(),
        );
    }
}

/// Metrics of the lease.
#[derive(Debug)]
pub struct LeaseMetrics(LeaseFamilies);

impl LeaseMetrics {
    pub(super) fn new(all: &LeaseFamilies) -> Self {
        Self(all.clone())
    }

    /// The lease has run out.
    pub fn lapsed(&self) {
        self.0.valid.set(0);
        self.0.lapses.inc();
    }

    /// It was renewed, after it had run out for so long; zero: it had not.
    pub fn renewed(&self, lapsed_for: Duration) {
        self.0.valid.set(1);
        self.0.lapsed.inc_by(lapsed_for.as_secs_f64());
    }
}

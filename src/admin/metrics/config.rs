//! Metrics of changes of the config.

use std::time::{SystemTime, UNIX_EPOCH};

use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::{Registry, Unit};

/// Metrics of the config.
#[derive(Clone, Debug, Default)]
pub struct ConfigMetrics {
    last_reload_successful: Gauge,
    last_reload_success_timestamp: Gauge,
}

impl ConfigMetrics {
    pub(crate) fn register(&self, registry: &mut Registry) {
        registry.register(
            "config_last_reload_successful",
            "1: the config that was read last is in force; 0: it was refused, and the one before stays.",
            self.last_reload_successful.clone(),
        );
        registry.register_with_unit(
            "config_last_reload_success_timestamp",
            "When a config was applied last, in seconds since 1970-01-01 UTC.",
            Unit::Seconds,
            self.last_reload_success_timestamp.clone(),
        );
        self.applied();
    }

    /// A config is in force.
    pub fn applied(&self) {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        self.last_reload_successful.set(1);
        self.last_reload_success_timestamp.set(i64::try_from(now.as_secs()).unwrap_or(i64::MAX));
    }

    /// A config was refused.
    pub fn refused(&self) {
        self.last_reload_successful.set(0);
    }
}

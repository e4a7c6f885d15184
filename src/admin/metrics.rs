//! All metrics of the process. Record keys and update ids are never labels.
//!
//! Begin with [`Metrics`]. Each group of metrics has a file with three parts: the families, how they are registered, and
//! a handle by which the runtime counts.

mod config;
mod labels;
mod lease;
mod ledger;
mod log;
mod notify;
mod partition;
mod span;
mod target;

use std::sync::Arc;

use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::Registry;

pub use self::config::ConfigMetrics;
use self::lease::LeaseFamilies;
pub use self::lease::LeaseMetrics;
use self::ledger::LedgerFamilies;
pub use self::ledger::{LedgerMetrics, LedgerSize};
use self::log::LogFamilies;
pub use self::log::{DropReason, LogMetrics};
pub use self::notify::{NotifyDrop, NotifyMetrics};
use self::partition::PartitionFamilies;
pub use self::partition::PartitionMetrics;
use self::span::SpanFamilies;
pub use self::span::{SpanDropReason, SpanMetrics};
use self::target::TargetFamilies;
pub use self::target::{CircuitMetrics, PacerMetrics, TargetMetrics};
use lanekeeper_core::layout::{LayoutNumber, PartitionNumber};

/// Every metric of the process. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Metrics(Arc<Families>);

#[derive(Debug)]
struct Families {
    registry: Registry,
    ready: Gauge,
    partitions: PartitionFamilies,
    targets: TargetFamilies,
    ledger: LedgerFamilies,
    lease: LeaseFamilies,
    log: LogFamilies,
    config: ConfigMetrics,
    spans: SpanFamilies,
    notify: NotifyMetrics,
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

impl Metrics {
    /// Registers all metrics.
    #[must_use]
    pub fn new() -> Self {
        let mut registry = Registry::with_prefix("lanekeeper");
        let build = Info::new(vec![("version", env!("CARGO_PKG_VERSION"))]);
        registry.register("build", "The program that runs.", build);
        let ready = Gauge::default();
        registry.register(
            "ready",
            "1: the process consumes every partition, as owner or standing by, and /readyz answers 200; 0: it answers 503.",
            ready.clone(),
        );
        let (partitions, targets) = (PartitionFamilies::default(), TargetFamilies::default());
        let (ledger, lease) = (LedgerFamilies::default(), LeaseFamilies::default());
        let (log, config, spans) =
            (LogFamilies::default(), ConfigMetrics::default(), SpanFamilies::default());
        let notify = NotifyMetrics::default();
        partitions.register(&mut registry);
        targets.register(&mut registry);
        ledger.register(&mut registry);
        lease.register(&mut registry);
        log.register(&mut registry);
        config.register(&mut registry);
        spans.register(&mut registry);
        notify.register(&mut registry);
        Self(Arc::new(Families {
            registry,
            ready,
            partitions,
            targets,
            ledger,
            lease,
            log,
            config,
            spans,
            notify,
        }))
    }

    /// All metrics in the OpenMetrics text format.
    #[must_use]
    pub fn encode(&self) -> String {
        let mut text = String::new();
        encode(&mut text, &self.0.registry).expect("writing to a string cannot fail");
        text
    }

    /// Whether the process is ready. It is looked at when the metrics are asked for.
    pub fn ready(&self, ready: bool) {
        self.0.ready.set(i64::from(ready));
    }

    /// The metrics of one partition.
    #[must_use]
    pub fn partition(&self, layout: LayoutNumber, partition: PartitionNumber) -> PartitionMetrics {
        PartitionMetrics::new(&self.0.partitions, layout, partition)
    }

    /// The metrics of one target.
    #[must_use]
    pub fn target(&self, target: &str) -> TargetMetrics {
        TargetMetrics::new(&self.0.targets, target)
    }

    /// The metrics of one target's breaker.
    #[must_use]
    pub fn circuit(&self, target: &str) -> CircuitMetrics {
        CircuitMetrics::new(&self.0.targets, target)
    }

    /// 1 while a person has paused the target.
    #[must_use]
    pub fn paused(&self, target: &str) -> Gauge {
        self.0.targets.paused(target)
    }

    /// The metrics of the pacer of one target, or of those that share limits.
    #[must_use]
    pub fn pacer(&self, target: &str) -> PacerMetrics {
        PacerMetrics::new(&self.0.targets, target)
    }

    /// The metrics of the ledger.
    #[must_use]
    pub fn ledger(&self) -> LedgerMetrics {
        LedgerMetrics::new(&self.0.ledger)
    }

    /// The metrics of the lease.
    #[must_use]
    pub fn lease(&self) -> LeaseMetrics {
        LeaseMetrics::new(&self.0.lease)
    }

    /// The config has changed: the targets may be others.
    pub fn targets_change(&self) {
        self.0.targets.change();
    }

    /// The metrics of changes of the config.
    #[must_use]
    pub fn config(&self) -> ConfigMetrics {
        self.0.config.clone()
    }

    /// The metrics of traces.
    #[must_use]
    pub fn spans(&self) -> SpanMetrics {
        SpanMetrics::new(&self.0.spans)
    }

    /// The metrics of notifications.
    #[must_use]
    pub fn notify(&self) -> NotifyMetrics {
        self.0.notify.clone()
    }

    /// The metrics of the log.
    #[must_use]
    pub fn log(&self) -> LogMetrics {
        LogMetrics::new(&self.0.log)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::time::Duration;

    use super::*;
    use lanekeeper_core::outcome::Outcome;
    use lanekeeper_core::partition::View;

    #[test]
    fn metrics_are_in_the_text_format_with_prefix_and_units() {
        let metrics = Metrics::new();
        let mut partition = metrics.partition(LayoutNumber(2), PartitionNumber(7));
        partition.received(true, false);
        partition.view(&View { held: 3, ..View::default() }, Duration::from_millis(1500));
        metrics.target("crm").attempt_ended(&Outcome::Applied, Duration::from_millis(5), None);
        let text = metrics.encode();
        for line in [
            "lanekeeper_updates_received_total{layout=\"2\",partition=\"p007\"} 1",
            "lanekeeper_redeliveries_total{layout=\"2\",partition=\"p007\"} 1",
            "lanekeeper_held{layout=\"2\",partition=\"p007\"} 3",
            "lanekeeper_oldest_pending_age_seconds{layout=\"2\",partition=\"p007\"} 1.5",
            "lanekeeper_attempts_total{target=\"crm\",outcome=\"applied\",code_class=\"2xx\"} 1",
            "lanekeeper_attempt_duration_seconds_count{target=\"crm\"} 1",
        ] {
            assert!(text.contains(line), "{line} in\n{text}");
        }
    }

    #[test]
    fn a_size_that_is_not_known_is_not_on_the_page() {
        let metrics = Metrics::new();
        let shown =
            || metrics.encode().lines().any(|line| line.starts_with("lanekeeper_ledger_parked_updates"));
        assert!(!shown(), "it was not read yet");
        let size = LedgerSize { resolved_updates: 1, parked_records: 2, parked_updates: 3, bytes: 4 };
        metrics.ledger().size(size);
        let line = "lanekeeper_ledger_parked_updates{} 3";
        assert!(metrics.encode().lines().any(|shown| shown == line), "{}", metrics.encode());
        metrics.ledger().size_unknown();
        assert!(!shown(), "{}", metrics.encode());
    }

    #[test]
    fn the_manual_explains_every_metric_and_no_other() {
        let metrics = Metrics::new();
        // A family is encoded only if it has a label value.
        metrics.0.partitions.create_all();
        metrics.0.targets.create_all();
        metrics.0.ledger.create_all();
        drop(metrics.log());
        drop(metrics.spans());
        let text = metrics.encode();
        let types = text.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split_once(' '));
        let encoded: BTreeSet<String> = types
            .map(|(name, kind)| match kind {
                "counter" => format!("{name}_total"),
                "info" => format!("{name}_info"),
                _ => name.to_owned(),
            })
            .collect();
        let is_of_name = |c: char| c.is_ascii_alphanumeric() || c == '_';
        let page = include_str!("../../docs/operating.md");
        let words = page.split(|c| !is_of_name(c)).filter(|word| word.starts_with("lanekeeper_"));
        assert_eq!(words.map(str::to_owned).collect::<BTreeSet<_>>(), encoded, "docs/operating.md, metrics");
    }
}

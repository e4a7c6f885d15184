//! The metrics of a door. Record keys and update ids are never labels.

use std::sync::Arc;
use std::time::Duration;

use axum::http::StatusCode;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::{Registry, Unit};

use crate::admin::metrics::{ConfigMetrics, LogMetrics};
use lanekeeper_core::publish::intake::LineAnswer;

/// Bounds of the buckets in seconds: from a confirm of one broker on this machine to the longest `confirm_timeout`.
const BUCKETS: [f64; 12] = [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0, 5.0, 20.0, 300.0];

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct OfRequest {
    route: &'static str,
    status: u16,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct OfUpdate {
    from: Arc<str>,
    outcome: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct OfProblem {
    code: Arc<str>,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct OfHook {
    hook: Arc<str>,
}

/// All of them. Cheap to clone.
#[derive(Clone, Debug)]
pub struct IngestMetrics(Arc<IngestFamilies>);

#[derive(Debug)]
struct IngestFamilies {
    registry: Registry,
    ready: Gauge,
    log: LogMetrics,
    config: ConfigMetrics,
    requests: Family<OfRequest, Counter>,
    updates: Family<OfUpdate, Counter>,
    problems: Family<OfProblem, Counter>,
    signature_failures: Family<OfHook, Counter>,
    confirm_duration: Histogram,
    pending: Gauge,
    pending_bytes: Gauge,
    reconnects: Counter,
    negative_confirms: Counter,
    blocked: Gauge,
}

impl Default for IngestMetrics {
    fn default() -> Self {
        Self::new()
    }
}

impl IngestMetrics {
    /// Registers them.
    #[must_use]
    pub fn new() -> Self {
        let mut registry = Registry::with_prefix("lanekeeper");
        let build = Info::new(vec![("version", env!("CARGO_PKG_VERSION"))]);
        registry.register("build", "The program that runs.", build);
        let (log, config) = (LogMetrics::registered(&mut registry), ConfigMetrics::default());
        config.register(&mut registry);
        let ready = Gauge::default();
        registry.register(
            "ready",
            "1: the door is connected to the broker, and /readyz answers 200; 0: it answers 503.",
            ready.clone(),
        );
        let requests = Family::<OfRequest, Counter>::default();
        registry.register(
            "ingest_requests",
            "Requests that were answered, by route and status.",
            requests.clone(),
        );
        let updates = Family::<OfUpdate, Counter>::default();
        registry.register(
            "ingest_updates",
            "Updates of requests, by client and what they were answered: accepted, known, not_accepted or unknown.",
            updates.clone(),
        );
        let problems = Family::<OfProblem, Counter>::default();
        registry.register(
            "ingest_problems",
            "Requests that were refused, by the code of the problem.",
            problems.clone(),
        );
        let signature_failures = Family::<OfHook, Counter>::default();
        registry.register(
            "ingest_signature_failures",
            "Requests to a hook without a good signature, or with a signed time that is too old or ahead.",
            signature_failures.clone(),
        );
        let confirm_duration = Histogram::new(BUCKETS);
        registry.register_with_unit(
            "ingest_confirm_duration",
            "From the complete request to the broker's confirm of all of its updates.",
            Unit::Seconds,
            confirm_duration.clone(),
        );
        let (pending, pending_bytes) = (Gauge::default(), Gauge::default());
        registry.register("ingest_pending", "Updates that wait for the broker's confirm.", pending.clone());
        registry.register("ingest_pending_bytes", "Their bytes.", pending_bytes.clone());
        let (reconnects, negative_confirms, blocked) =
            (Counter::default(), Counter::default(), Gauge::default());
        registry.register(
            "ingest_reconnects",
            "How often the connection that publishes was made again.",
            reconnects.clone(),
        );
        registry.register(
            "ingest_negative_confirms",
            "Updates that the broker refused, by a negative confirm or since no queue is bound; they are published again.",
            negative_confirms.clone(),
        );
        registry.register(
            "ingest_blocked",
            "1: the broker takes no publishes from the door, since it has a memory or disk alarm.",
            blocked.clone(),
        );
        Self(Arc::new(IngestFamilies {
            registry,
            ready,
            log,
            config,
            requests,
            updates,
            problems,
            signature_failures,
            confirm_duration,
            pending,
            pending_bytes,
            reconnects,
            negative_confirms,
            blocked,
        }))
    }

    /// All metrics in the OpenMetrics text format.
    #[must_use]
    pub fn encode(&self, ready: bool) -> String {
        self.0.ready.set(i64::from(ready));
        let mut text = String::new();
        encode(&mut text, &self.0.registry).expect("writing to a string cannot fail");
        text
    }

    /// The metrics of the log.
    #[must_use]
    pub fn log(&self) -> LogMetrics {
        self.0.log.clone()
    }

    /// The metrics of changes of the config.
    pub(super) fn config(&self) -> ConfigMetrics {
        self.0.config.clone()
    }

    pub(super) fn answered(&self, route: &'static str, status: StatusCode) {
        self.0.requests.get_or_create(&OfRequest { route, status: status.as_u16() }).inc();
    }

    pub(super) fn problem(&self, code: &str) {
        self.0.problems.get_or_create(&OfProblem { code: code.into() }).inc();
    }

    pub(super) fn signature_failed(&self, hook: &str) {
        self.0.signature_failures.get_or_create(&OfHook { hook: hook.into() }).inc();
    }

    pub(super) fn updates(&self, from: &str, answers: &[LineAnswer]) {
        let all = [LineAnswer::Accepted, LineAnswer::Known, LineAnswer::NotAccepted, LineAnswer::Unknown];
        for kind in all {
            let count = answers.iter().filter(|answer| **answer == kind).count() as u64;
            if count > 0 {
                let labels = OfUpdate { from: from.into(), outcome: outcome(kind) };
                self.0.updates.get_or_create(&labels).inc_by(count);
            }
        }
    }

    pub(super) fn confirmed(&self, duration: Duration) {
        self.0.confirm_duration.observe(duration.as_secs_f64());
    }

    pub(super) fn reconnected(&self) {
        self.0.reconnects.inc();
    }

    pub(super) fn negatively_confirmed(&self) {
        self.0.negative_confirms.inc();
    }

    pub(super) fn blocked(&self, is_blocked: bool) {
        self.0.blocked.set(i64::from(is_blocked));
    }

    pub(super) fn pending(&self, updates: usize, bytes: usize) {
        let gauge = |number: usize| i64::try_from(number).unwrap_or(i64::MAX);
        self.0.pending.set(gauge(updates));
        self.0.pending_bytes.set(gauge(bytes));
    }
}

/// As in labels and in the answers to several updates.
pub(super) fn outcome(answer: LineAnswer) -> &'static str {
    match answer {
        LineAnswer::Accepted => "accepted",
        LineAnswer::Known => "known",
        LineAnswer::NotAccepted => "not_accepted",
        LineAnswer::Unknown => "unknown",
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn the_manual_explains_every_metric_and_no_other() {
        let metrics = IngestMetrics::new();
        metrics.answered("/updates", StatusCode::ACCEPTED);
        metrics.problem("full");
        metrics.signature_failed("stripe");
        metrics.updates("crm", &[LineAnswer::Accepted]);
        let text = metrics.encode(true);
        let types = text.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split_once(' '));
        let encoded: BTreeSet<String> = types
            .map(|(name, kind)| match kind {
                "counter" => format!("{name}_total"),
                "info" => format!("{name}_info"),
                _ => name.to_owned(),
            })
            .collect();
        let is_of_name = |c: char| c.is_ascii_alphanumeric() || c == '_';
        let page = include_str!("../../docs/ingest.md");
        let words = page.split(|c| !is_of_name(c)).filter(|word| word.starts_with("lanekeeper_"));
        assert_eq!(words.map(str::to_owned).collect::<BTreeSet<_>>(), encoded, "docs/ingest.md, metrics");
    }
}

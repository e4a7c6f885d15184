//! Metrics of traces.

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::registry::Registry;

use super::labels::OfReason;

#[derive(Clone, Debug, Default)]
pub(super) struct SpanFamilies {
    exported: Counter,
    dropped: Family<OfReason, Counter>,
}

impl SpanFamilies {
    pub(super) fn register(&self, registry: &mut Registry) {
        registry.register("spans_exported", "Spans that the collector has taken.", self.exported.clone());
        registry.register(
            "spans_dropped",
            "Spans that no trace has: they came faster than the collector takes them (queue_full), it could not be reached or \
             answered an error (failed), or it has rejected them (rejected).",
            self.dropped.clone(),
        );
    }
}

/// Why a span was dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SpanDropReason {
    /// They come faster than the collector takes them.
    QueueFull,
    /// The collector could not be reached, or answered an error.
    Failed,
    /// The collector says that it has not taken it.
    Rejected,
}

/// Metrics of traces.
#[derive(Clone, Debug)]
pub struct SpanMetrics {
    exported: Counter,
    queue_full: Counter,
    failed: Counter,
    rejected: Counter,
}

impl SpanMetrics {
    pub(super) fn new(all: &SpanFamilies) -> Self {
        let of = |reason| all.dropped.get_or_create(&OfReason { reason }).clone();
        let (queue_full, failed, rejected) = (of("queue_full"), of("failed"), of("rejected"));
        Self { exported: all.exported.clone(), queue_full, failed, rejected }
    }

    /// The collector has taken spans.
    pub fn exported(&self, spans: usize) {
        self.exported.inc_by(spans as u64);
    }

    /// Spans were dropped.
    pub fn dropped(&self, reason: SpanDropReason, spans: usize) {
        let counter = match reason {
            SpanDropReason::QueueFull => &self.queue_full,
            SpanDropReason::Failed => &self.failed,
            SpanDropReason::Rejected => &self.rejected,
        };
        counter.inc_by(spans as u64);
    }

    /// How many spans were dropped, for whatever reason.
    #[must_use]
    pub fn all_dropped(&self) -> u64 {
        self.queue_full.get() + self.failed.get() + self.rejected.get()
    }
}

//! Metrics of the log.

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::registry::Registry;

use super::labels::OfReason;

#[derive(Clone, Debug, Default)]
pub(super) struct LogFamilies {
    lines_dropped: Family<OfReason, Counter>,
}

impl LogFamilies {
    pub(super) fn register(&self, registry: &mut Registry) {
        registry.register(
            "log_lines_dropped",
            "Lines of the log that were dropped: standard error was not read, or could not be written.",
            self.lines_dropped.clone(),
        );
    }
}

/// Why a line of the log was dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DropReason {
    /// Standard error is not read, or not as fast as lines come.
    QueueFull,
    /// Standard error is closed, or its disk is full.
    WriteFailed,
}

/// Metrics of the log.
#[derive(Clone, Debug)]
pub struct LogMetrics {
    queue_full: Counter,
    write_failed: Counter,
}

impl LogMetrics {
    pub(super) fn new(all: &LogFamilies) -> Self {
        let of = |reason| all.lines_dropped.get_or_create(&OfReason { reason }).clone();
        Self { queue_full: of("queue_full"), write_failed: of("write_failed") }
    }

    /// For a process that does not dispatch.
    pub(crate) fn registered(registry: &mut Registry) -> Self {
        let families = LogFamilies::default();
        families.register(registry);
        Self::new(&families)
    }

    /// Lines were dropped.
    pub fn dropped(&self, reason: DropReason, lines: usize) {
        let counter = match reason {
            DropReason::QueueFull => &self.queue_full,
            DropReason::WriteFailed => &self.write_failed,
        };
        counter.inc_by(lines as u64);
    }
}

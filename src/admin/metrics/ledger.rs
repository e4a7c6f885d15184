//! Metrics of the ledger.

use std::time::Duration;

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::{Registry, Unit};

use super::labels::{OfReason, seconds_histogram};
use lanekeeper_core::policy::ParkReason;

/// A gauge that is on the page only while its value is known.
type Known = Family<[(&'static str, &'static str); 0], Gauge>;

#[derive(Clone, Debug)]
pub(super) struct LedgerFamilies {
    updates_superseded: Counter,
    updates_parked: Family<OfReason, Counter>,
    ledger_errors: Family<OfReason, Counter>,
    row_lock_wait: Histogram,
    ledger_resolved_updates: Known,
    ledger_parked_records: Known,
    ledger_parked_updates: Known,
    ledger_size: Known,
    ledger_commits: Counter,
    ledger_entries: Counter,
}

impl Default for LedgerFamilies {
    fn default() -> Self {
        Self {
            updates_superseded: Counter::default(),
            updates_parked: Family::default(),
            ledger_errors: Family::default(),
            row_lock_wait: seconds_histogram(),
            ledger_resolved_updates: Known::default(),
            ledger_parked_records: Known::default(),
            ledger_parked_updates: Known::default(),
            ledger_size: Known::default(),
            ledger_commits: Counter::default(),
            ledger_entries: Counter::default(),
        }
    }
}

impl LedgerFamilies {
    pub(super) fn register(&self, registry: &mut Registry) {
        registry.register(
            "updates_superseded",
            "Updates settled without a request, because a later version of their record was applied; and conflicts that failure.conflict = \"superseded\" settles.",
            self.updates_superseded.clone(),
        );
        registry.register(
            "updates_parked",
            "Updates parked in the ledger, by reason; behind: after others of their record.",
            self.updates_parked.clone(),
        );
        registry.register(
            "ledger_errors",
            "Calls of the ledger that failed; each is retried, and nothing is settled before it succeeds.",
            self.ledger_errors.clone(),
        );
        registry.register_with_unit(
            "row_lock_wait",
            "From asking for a record's row to holding it (ledger.row_lock).",
            Unit::Seconds,
            self.row_lock_wait.clone(),
        );
        registry.register(
            "ledger_resolved_updates",
            "Update ids that the ledger knows.",
            self.ledger_resolved_updates.clone(),
        );
        registry.register(
            "ledger_parked_records",
            "Records with parked updates, of all partitions and replicas.",
            self.ledger_parked_records.clone(),
        );
        registry.register("ledger_parked_updates", "Parked updates.", self.ledger_parked_updates.clone());
        registry.register_with_unit(
            "ledger_size",
            "Size of the ledger.",
            Unit::Bytes,
            self.ledger_size.clone(),
        );
        registry.register("ledger_commits", "Commits of this process.", self.ledger_commits.clone());
        registry.register("ledger_entries", "Resolutions in these commits.", self.ledger_entries.clone());
    }

    /// Gives every family a label value, so that it is encoded. The compiler asks for a new family here.
    #[cfg(test)]
    pub(super) fn create_all(&self) {
        let Self {
            updates_superseded: _,
            updates_parked,
            ledger_errors,
            row_lock_wait: _,
            ledger_resolved_updates,
            ledger_parked_records,
            ledger_parked_updates,
            ledger_size,
            ledger_commits: _,
            ledger_entries: _,
        } = self;
        for counters in [updates_parked, ledger_errors] {
            drop(counters.get_or_create(&OfReason { reason: "test" }));
        }
        for gauge in [ledger_resolved_updates, ledger_parked_records, ledger_parked_updates, ledger_size] {
            drop(gauge.get_or_create(&[]));
        }
    }
}

/// Counts this process's use of the ledger.
#[derive(Clone, Debug)]
pub struct LedgerMetrics(LedgerFamilies);

/// The size of the ledger.
#[derive(Clone, Copy, Debug)]
pub struct LedgerSize {
    /// Known update ids.
    pub resolved_updates: u64,
    /// Records with parked updates.
    pub parked_records: u64,
    /// Parked updates.
    pub parked_updates: u64,
    /// Bytes on disk.
    pub bytes: u64,
}

impl LedgerMetrics {
    pub(super) fn new(all: &LedgerFamilies) -> Self {
        Self(all.clone())
    }

    /// The ledger has this size.
    pub fn size(&self, size: LedgerSize) {
        let whole = |number: u64| i64::try_from(number).unwrap_or(i64::MAX);
        self.0.ledger_resolved_updates.get_or_create(&[]).set(whole(size.resolved_updates));
        self.0.ledger_parked_records.get_or_create(&[]).set(whole(size.parked_records));
        self.0.ledger_parked_updates.get_or_create(&[]).set(whole(size.parked_updates));
        self.0.ledger_size.get_or_create(&[]).set(whole(size.bytes));
    }

    /// The size cannot be found out: it is not on the page until it can.
    pub fn size_unknown(&self) {
        let LedgerFamilies {
            ledger_resolved_updates,
            ledger_parked_records,
            ledger_parked_updates,
            ledger_size,
            ..
        } = &self.0;
        for gauge in [ledger_resolved_updates, ledger_parked_records, ledger_parked_updates, ledger_size] {
            gauge.clear();
        }
    }

    /// So many commits were made, with so many resolutions.
    pub fn committed(&self, commits: u64, entries: u64) {
        self.0.ledger_commits.inc_by(commits);
        self.0.ledger_entries.inc_by(entries);
    }

    /// A call of the ledger failed.
    pub fn failed(&self, reason: &'static str) {
        self.0.ledger_errors.get_or_create(&OfReason { reason }).inc();
    }

    /// A row was locked after this wait.
    pub fn row_lock(&self, waited: Duration) {
        self.0.row_lock_wait.observe(waited.as_secs_f64());
    }

    /// An update is settled as superseded.
    pub fn superseded(&self) {
        self.0.updates_superseded.inc();
    }

    /// An update is parked.
    pub fn parked(&self, reason: &ParkReason) {
        let reason = match reason {
            ParkReason::Behind => "behind",
            ParkReason::Failed { reason, .. } => reason.name(),
        };
        self.0.updates_parked.get_or_create(&OfReason { reason }).inc();
    }
}

//! All metrics, in one list. Record keys and update ids are never labels.

mod circuit;
mod ledger;

use std::fmt::{self, Write as _};
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use prometheus_client::encoding::text::encode;
use prometheus_client::encoding::{EncodeLabelSet, EncodeLabelValue, LabelValueEncoder};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::{Registry, Unit};

pub use circuit::CircuitMetrics;
use ledger::LedgerFamilies;
pub use ledger::{LedgerMetrics, LedgerSize};

use lanekeeper_core::layout::{LayoutNumber, PartitionNumber};
use lanekeeper_core::outcome::{Cause, Outcome};
use lanekeeper_core::partition::View;
use lanekeeper_core::policy::DeadLetterReason;

/// Seconds; from a fast answer on one machine to the longest timeouts.
const SECONDS: [f64; 14] =
    [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0, 30.0, 300.0];

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct OfPartition {
    layout: u32,
    partition: PartitionLabel,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq)]
struct PartitionLabel(PartitionNumber);

impl EncodeLabelValue for PartitionLabel {
    fn encode(&self, encoder: &mut LabelValueEncoder<'_>) -> Result<(), fmt::Error> {
        write!(encoder, "{}", self.0)
    }
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct OfTarget {
    target: Arc<str>,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct OfAttempt {
    target: Arc<str>,
    outcome: &'static str,
    code_class: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct OfReason {
    reason: &'static str,
}

fn seconds() -> Histogram {
    Histogram::new(SECONDS)
}

type Seconds = Gauge<f64, AtomicU64>;
type SecondsCounter = Counter<f64, AtomicU64>;

/// Every metric of the process. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Metrics(Arc<Families>);

#[derive(Debug)]
struct Families {
    registry: Registry,
    updates_received: Family<OfPartition, Counter>,
    redeliveries: Family<OfPartition, Counter>,
    updates_without_id: Counter,
    updates_delivered: Family<OfTarget, Counter>,
    updates_dead_lettered: Family<OfReason, Counter>,
    duplicates_suppressed: Counter,
    ledger: LedgerFamilies,
    attempts: Family<OfAttempt, Counter>,
    attempt_duration: Family<OfTarget, Histogram, fn() -> Histogram>,
    end_to_end_duration: Family<OfTarget, Histogram, fn() -> Histogram>,
    circuit_state: Family<OfTarget, Gauge>,
    circuit_trips: Family<OfTarget, Counter>,
    circuit_shut: Family<OfTarget, SecondsCounter>,
    stale_events: Counter,
    witnesses_seen: Family<OfPartition, Counter>,
    yields: Family<OfReason, Counter>,
    attempts_without_tenure: Counter,
    partition_active: Family<OfPartition, Gauge>,
    held: Family<OfPartition, Gauge>,
    in_flight: Family<OfPartition, Gauge>,
    lanes_active: Family<OfPartition, Gauge>,
    keys_retrying: Family<OfPartition, Gauge>,
    keys_target_shut: Family<OfPartition, Gauge>,
    keys_blocked_by_previous: Family<OfPartition, Gauge>,
    oldest_pending_age: Family<OfPartition, Seconds>,
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

impl Metrics {
    /// Registers all of them, each with its meaning.
    #[must_use]
    pub fn new() -> Self {
        let mut families = Families {
            registry: Registry::with_prefix("lanekeeper"),
            updates_received: Family::default(),
            redeliveries: Family::default(),
            updates_without_id: Counter::default(),
            updates_delivered: Family::default(),
            updates_dead_lettered: Family::default(),
            duplicates_suppressed: Counter::default(),
            ledger: LedgerFamilies::new(),
            attempts: Family::default(),
            attempt_duration: Family::new_with_constructor(seconds),
            end_to_end_duration: Family::new_with_constructor(seconds),
            circuit_state: Family::default(),
            circuit_trips: Family::default(),
            circuit_shut: Family::default(),
            stale_events: Counter::default(),
            witnesses_seen: Family::default(),
            yields: Family::default(),
            attempts_without_tenure: Counter::default(),
            partition_active: Family::default(),
            held: Family::default(),
            in_flight: Family::default(),
            lanes_active: Family::default(),
            keys_retrying: Family::default(),
            keys_target_shut: Family::default(),
            keys_blocked_by_previous: Family::default(),
            oldest_pending_age: Family::default(),
        };
        families.register();
        Self(Arc::new(families))
    }

    /// All metrics in the OpenMetrics text format.
    #[must_use]
    pub fn encode(&self) -> String {
        let mut text = String::new();
        encode(&mut text, &self.0.registry).expect("a string takes all");
        text
    }

    /// Those of one partition, looked up once.
    #[must_use]
    pub fn partition(&self, layout: LayoutNumber, partition: PartitionNumber) -> PartitionMetrics {
        let of = OfPartition { layout: layout.0, partition: PartitionLabel(partition) };
        let all = &self.0;
        PartitionMetrics {
            updates_received: all.updates_received.get_or_create_owned(&of),
            redeliveries: all.redeliveries.get_or_create_owned(&of),
            partition_active: all.partition_active.get_or_create_owned(&of),
            held: all.held.get_or_create_owned(&of),
            in_flight: all.in_flight.get_or_create_owned(&of),
            lanes_active: all.lanes_active.get_or_create_owned(&of),
            keys_retrying: all.keys_retrying.get_or_create_owned(&of),
            keys_target_shut: all.keys_target_shut.get_or_create_owned(&of),
            keys_blocked_by_previous: all.keys_blocked_by_previous.get_or_create_owned(&of),
            oldest_pending_age: all.oldest_pending_age.get_or_create_owned(&of),
            updates_without_id: all.updates_without_id.clone(),
            duplicates_suppressed: all.duplicates_suppressed.clone(),
            stale_events: all.stale_events.clone(),
            witnesses_seen: all.witnesses_seen.get_or_create_owned(&of),
            attempts_without_tenure: all.attempts_without_tenure.clone(),
            stale_counted: 0,
            all: self.clone(),
        }
    }

    /// Those of one target, looked up once.
    #[must_use]
    pub fn target(&self, target: &str) -> TargetMetrics {
        let of = OfTarget { target: target.into() };
        TargetMetrics {
            updates_delivered: self.0.updates_delivered.get_or_create_owned(&of),
            attempt_duration: self.0.attempt_duration.get_or_create_owned(&of),
            end_to_end_duration: self.0.end_to_end_duration.get_or_create_owned(&of),
            target: of.target,
            all: self.clone(),
        }
    }
}

impl Families {
    fn register(&mut self) {
        let build = Info::new(vec![("version", env!("CARGO_PKG_VERSION"))]);
        let registry = &mut self.registry;
        registry.register("build", "The program that runs.", build);
        registry.register("updates_received", "Deliveries from the broker.", self.updates_received.clone());
        registry.register(
            "redeliveries",
            "Deliveries that the broker marked as perhaps seen before.",
            self.redeliveries.clone(),
        );
        registry.register(
            "updates_without_id",
            "Updates published without an id; one was made for the delivery.",
            self.updates_without_id.clone(),
        );
        registry.register(
            "updates_delivered",
            "Updates applied by the target.",
            self.updates_delivered.clone(),
        );
        registry.register(
            "updates_dead_lettered",
            "Updates sent to the dead-letter queue.",
            self.updates_dead_lettered.clone(),
        );
        registry.register(
            "duplicates_suppressed",
            "Redelivered updates settled without a request, because this process had resolved them.",
            self.duplicates_suppressed.clone(),
        );
        registry.register("attempts", "Requests to targets that ended.", self.attempts.clone());
        registry.register_with_unit(
            "attempt_duration",
            "From the start of an attempt to the end of its answer.",
            Unit::Seconds,
            self.attempt_duration.clone(),
        );
        registry.register_with_unit(
            "end_to_end_duration",
            "From the publisher's timestamp (whole seconds, its clock) to applied.",
            Unit::Seconds,
            self.end_to_end_duration.clone(),
        );
        registry.register(
            "circuit_state",
            "0: attempts are made as usual; 1: the target is shut, since it fails for everyone, and only probes are made.",
            self.circuit_state.clone(),
        );
        registry.register("circuit_trips", "Times that a target was shut.", self.circuit_trips.clone());
        registry.register_with_unit(
            "circuit_shut",
            "Time for which a target was shut, counted with each probe that ends.",
            Unit::Seconds,
            self.circuit_shut.clone(),
        );
        registry.register(
            "stale_events",
            "Events that came too late to change anything, such as deliveries of a lost channel.",
            self.stale_events.clone(),
        );
        registry.register(
            "witnesses_seen",
            "Witnesses of the layout that came from the partition's queue; they carry no updates.",
            self.witnesses_seen.clone(),
        );
        registry.register(
            "step_backs",
            "Partitions given back in order: another replica is to have it (outranked), or a delivery was held for dispatch.held_max.",
            self.yields.clone(),
        );
        registry.register(
            "attempts_without_tenure",
            "Requests without a tenure number, since an alarm of the broker kept the claim from being published.",
            self.attempts_without_tenure.clone(),
        );
        registry.register(
            "partition_active",
            "1 while this process owns the partition: its claim stands and the broker answers.",
            self.partition_active.clone(),
        );
        registry.register("held", "Deliveries held unsettled.", self.held.clone());
        registry.register("in_flight", "Attempts in flight.", self.in_flight.clone());
        registry.register("lanes_active", "Records with an update here.", self.lanes_active.clone());
        registry.register(
            "keys_retrying",
            "Records whose oldest update waits between attempts.",
            self.keys_retrying.clone(),
        );
        registry.register(
            "keys_target_shut",
            "Records whose oldest update waits for a target that is shut.",
            self.keys_target_shut.clone(),
        );
        registry.register(
            "keys_former_undrained",
            "Records whose oldest update waits until the partition that they were in before the layout changed is drained.",
            self.keys_blocked_by_previous.clone(),
        );
        registry.register_with_unit(
            "oldest_pending_age",
            "Since the oldest unsettled delivery came; 0 where there is none.",
            Unit::Seconds,
            self.oldest_pending_age.clone(),
        );
        self.ledger.register(registry);
    }
}

/// Metrics of one partition.
#[derive(Debug)]
pub struct PartitionMetrics {
    updates_received: Counter,
    redeliveries: Counter,
    partition_active: Gauge,
    held: Gauge,
    in_flight: Gauge,
    lanes_active: Gauge,
    keys_retrying: Gauge,
    keys_target_shut: Gauge,
    keys_blocked_by_previous: Gauge,
    oldest_pending_age: Seconds,
    updates_without_id: Counter,
    duplicates_suppressed: Counter,
    stale_events: Counter,
    witnesses_seen: Counter,
    attempts_without_tenure: Counter,
    stale_counted: u64,
    all: Metrics,
}

impl PartitionMetrics {
    /// A delivery came.
    pub fn received(&self, redelivered: bool, without_id: bool) {
        self.updates_received.inc();
        self.redeliveries.inc_by(u64::from(redelivered));
        self.updates_without_id.inc_by(u64::from(without_id));
    }

    /// A witness of the layout came.
    pub fn witness(&self) {
        self.witnesses_seen.inc();
    }

    /// A redelivery was settled without a request.
    pub fn duplicate(&self) {
        self.duplicates_suppressed.inc();
    }

    /// An update goes to the dead-letter queue.
    pub fn dead_lettered(&self, reason: &DeadLetterReason) {
        let of = OfReason { reason: reason.name() };
        self.all.0.updates_dead_lettered.get_or_create(&of).inc();
    }

    /// The partition is given back in order.
    pub fn yielded(&self, reason: &'static str) {
        self.all.0.yields.get_or_create(&OfReason { reason }).inc();
    }

    /// An attempt starts that carries no tenure number.
    pub fn attempt_without_tenure(&self) {
        self.attempts_without_tenure.inc();
    }

    /// Whether this process owns the partition.
    pub fn active(&self, active: bool) {
        self.partition_active.set(i64::from(active));
    }

    /// What the partition holds right now.
    pub fn view(&mut self, view: &View, oldest_age: Duration) {
        let whole = |number: usize| i64::try_from(number).unwrap_or(i64::MAX);
        self.held.set(whole(view.held));
        self.in_flight.set(whole(view.in_flight));
        self.lanes_active.set(whole(view.lanes));
        self.keys_retrying.set(whole(view.waiting));
        self.keys_target_shut.set(whole(view.target_shut));
        self.keys_blocked_by_previous.set(whole(view.blocked_by_previous));
        self.oldest_pending_age.set(oldest_age.as_secs_f64());
        self.stale_events.inc_by(view.stale - self.stale_counted);
        self.stale_counted = view.stale;
    }
}

/// Metrics of one target.
#[derive(Debug)]
pub struct TargetMetrics {
    target: Arc<str>,
    updates_delivered: Counter,
    attempt_duration: Histogram,
    end_to_end_duration: Histogram,
    all: Metrics,
}

impl TargetMetrics {
    /// The target's name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.target
    }

    /// An attempt ended. Without a request it is none.
    pub fn attempt_ended(&self, outcome: &Outcome, took: Duration) {
        if !outcome.was_sent() {
            return;
        }
        let code_class = code_class(outcome);
        let of = OfAttempt { target: Arc::clone(&self.target), outcome: outcome.kind().name(), code_class };
        self.all.0.attempts.get_or_create(&of).inc();
        self.attempt_duration.observe(took.as_secs_f64());
    }

    /// An update is applied; its age where the publisher gave a timestamp.
    pub fn delivered(&self, age: Option<Duration>) {
        self.updates_delivered.inc();
        if let Some(age) = age {
            self.end_to_end_duration.observe(age.as_secs_f64());
        }
    }
}

fn code_class(outcome: &Outcome) -> &'static str {
    let failure = match outcome {
        Outcome::Applied => return "2xx",
        Outcome::Known(_) | Outcome::Withheld => return "none",
        Outcome::Retryable { failure, .. }
        | Outcome::Refused(failure)
        | Outcome::Rejected(failure)
        | Outcome::Conflict(failure) => failure,
    };
    match failure.cause {
        Cause::Status(status) => match status / 100 {
            1 => "1xx",
            2 => "2xx",
            3 => "3xx",
            4 => "4xx",
            _ => "5xx",
        },
        Cause::Timeout => "timeout",
        Cause::Connection => "connection",
        Cause::Unsendable => "none",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use lanekeeper_core::outcome::OutcomeKind;

    #[test]
    fn the_list_is_in_the_text_format_with_its_prefix_and_units() {
        let metrics = Metrics::new();
        let mut partition = metrics.partition(LayoutNumber(2), PartitionNumber(7));
        partition.received(true, false);
        partition.view(&View { held: 3, ..View::default() }, Duration::from_millis(1500));
        metrics.target("crm").attempt_ended(&Outcome::Applied, Duration::from_millis(5));
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
    fn every_outcome_has_a_name_of_its_own() {
        let names: std::collections::BTreeSet<_> = OutcomeKind::ALL.map(OutcomeKind::name).into();
        assert_eq!(names.len(), OutcomeKind::ALL.len());
    }
}

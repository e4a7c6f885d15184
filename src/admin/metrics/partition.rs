//! Metrics of the partitions.

use std::time::Duration;

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::{Registry, Unit};

use super::labels::{OfPartition, OfReason, PartitionLabel, SecondsGauge};
use lanekeeper_core::layout::{LayoutNumber, PartitionNumber};
use lanekeeper_core::partition::View;
use lanekeeper_core::policy::DeadLetterReason;

#[derive(Clone, Debug, Default)]
pub(super) struct PartitionFamilies {
    updates_received: Family<OfPartition, Counter>,
    redeliveries: Family<OfPartition, Counter>,
    updates_without_id: Counter,
    updates_dead_lettered: Family<OfReason, Counter>,
    duplicates_suppressed: Counter,
    stale_events: Counter,
    witnesses_seen: Family<OfPartition, Counter>,
    stray_messages: Family<OfPartition, Counter>,
    yields: Family<OfReason, Counter>,
    attempts_without_tenure: Counter,
    partition_active: Family<OfPartition, Gauge>,
    held: Family<OfPartition, Gauge>,
    in_flight: Family<OfPartition, Gauge>,
    lanes_active: Family<OfPartition, Gauge>,
    keys_ready: Family<OfPartition, Gauge>,
    keys_retrying: Family<OfPartition, Gauge>,
    keys_target_shut: Family<OfPartition, Gauge>,
    keys_target_paused: Family<OfPartition, Gauge>,
    keys_paced: Family<OfPartition, Gauge>,
    keys_take_over_wait: Family<OfPartition, Gauge>,
    keys_blocked_by_previous: Family<OfPartition, Gauge>,
    recording: Family<OfPartition, Gauge>,
    oldest_pending_age: Family<OfPartition, SecondsGauge>,
}

impl PartitionFamilies {
    pub(super) fn register(&self, registry: &mut Registry) {
        registry.register("updates_received", "Deliveries from the broker.", self.updates_received.clone());
        registry.register(
            "redeliveries",
            "Deliveries that the broker marked as redelivered.",
            self.redeliveries.clone(),
        );
        registry.register(
            "updates_without_id",
            "Updates published without an id; one was made for the delivery.",
            self.updates_without_id.clone(),
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
            "stray_messages",
            "Markers and witnesses settled that belong to another queue or layout: somebody has put them there.",
            self.stray_messages.clone(),
        );
        registry.register(
            "step_backs",
            "Partitions given back in order: another replica is to own it (outranked), or a delivery was held for dispatch.held_max.",
            self.yields.clone(),
        );
        registry.register(
            "attempts_without_tenure",
            "Requests without a tenure number, because an alarm of the broker kept the claim from being published.",
            self.attempts_without_tenure.clone(),
        );
        registry.register(
            "partition_active",
            "1 while this process owns the partition: it has claimed the partition and the broker answers.",
            self.partition_active.clone(),
        );
        registry.register("held", "Deliveries held unsettled.", self.held.clone());
        registry.register("in_flight", "Attempts in flight.", self.in_flight.clone());
        registry.register("lanes_active", "Records with an update here.", self.lanes_active.clone());
        registry.register(
            "keys_ready",
            "Records whose oldest update could be sent, and waits for one of the partition's permits.",
            self.keys_ready.clone(),
        );
        registry.register(
            "keys_retrying",
            "Records whose oldest update waits for its next attempt.",
            self.keys_retrying.clone(),
        );
        registry.register(
            "keys_target_shut",
            "Records whose oldest update waits for a target that is shut.",
            self.keys_target_shut.clone(),
        );
        registry.register(
            "keys_target_paused",
            "Records whose oldest update waits for a target that a person has paused.",
            self.keys_target_paused.clone(),
        );
        registry.register(
            "keys_paced",
            "Records whose oldest update waits because a limit of its target is used up.",
            self.keys_paced.clone(),
        );
        registry.register(
            "keys_take_over_wait",
            "Records whose oldest update waits until no request of an earlier owner can be at work.",
            self.keys_take_over_wait.clone(),
        );
        registry.register(
            "keys_former_undrained",
            "Records whose oldest update waits until their partition of the previous layout is drained.",
            self.keys_blocked_by_previous.clone(),
        );
        registry.register(
            "recording",
            "Resolutions that are being written down, in the ledger or as dead letters.",
            self.recording.clone(),
        );
        registry.register_with_unit(
            "oldest_pending_age",
            "Time since the oldest unsettled delivery came; 0 if there is none.",
            Unit::Seconds,
            self.oldest_pending_age.clone(),
        );
    }

    /// Gives every family a label value, so that it is encoded. The compiler asks for a new family here.
    #[cfg(test)]
    pub(super) fn create_all(&self) {
        let Self {
            updates_received,
            redeliveries,
            updates_without_id: _,
            updates_dead_lettered,
            duplicates_suppressed: _,
            stale_events: _,
            witnesses_seen,
            stray_messages,
            yields,
            attempts_without_tenure: _,
            partition_active,
            held,
            in_flight,
            lanes_active,
            keys_ready,
            keys_retrying,
            keys_target_shut,
            keys_target_paused,
            keys_paced,
            keys_take_over_wait,
            keys_blocked_by_previous,
            recording,
            oldest_pending_age,
        } = self;
        let of = OfPartition { layout: 1, partition: PartitionLabel(PartitionNumber(0)) };
        for counters in [updates_received, redeliveries, witnesses_seen, stray_messages] {
            drop(counters.get_or_create(&of));
        }
        for gauges in [
            partition_active,
            held,
            in_flight,
            lanes_active,
            keys_ready,
            keys_retrying,
            keys_target_shut,
            keys_target_paused,
            keys_paced,
            keys_take_over_wait,
            keys_blocked_by_previous,
            recording,
        ] {
            drop(gauges.get_or_create(&of));
        }
        drop(oldest_pending_age.get_or_create(&of));
        for counters in [updates_dead_lettered, yields] {
            drop(counters.get_or_create(&OfReason { reason: "test" }));
        }
    }
}

/// Metrics of one partition.
#[derive(Debug)]
pub struct PartitionMetrics {
    updates_received: Counter,
    redeliveries: Counter,
    witnesses_seen: Counter,
    stray_messages: Counter,
    partition_active: Gauge,
    held: Gauge,
    in_flight: Gauge,
    lanes_active: Gauge,
    keys_ready: Gauge,
    keys_retrying: Gauge,
    keys_target_shut: Gauge,
    keys_target_paused: Gauge,
    keys_paced: Gauge,
    keys_take_over_wait: Gauge,
    keys_blocked_by_previous: Gauge,
    recording: Gauge,
    oldest_pending_age: SecondsGauge,
    /// How many of the partition's stale events were counted.
    stale_counted: u64,
    all: PartitionFamilies,
}

impl PartitionMetrics {
    pub(super) fn new(all: &PartitionFamilies, layout: LayoutNumber, partition: PartitionNumber) -> Self {
        let of = OfPartition { layout: layout.0, partition: PartitionLabel(partition) };
        Self {
            updates_received: all.updates_received.get_or_create_owned(&of),
            redeliveries: all.redeliveries.get_or_create_owned(&of),
            witnesses_seen: all.witnesses_seen.get_or_create_owned(&of),
            stray_messages: all.stray_messages.get_or_create_owned(&of),
            partition_active: all.partition_active.get_or_create_owned(&of),
            held: all.held.get_or_create_owned(&of),
            in_flight: all.in_flight.get_or_create_owned(&of),
            lanes_active: all.lanes_active.get_or_create_owned(&of),
            keys_ready: all.keys_ready.get_or_create_owned(&of),
            keys_retrying: all.keys_retrying.get_or_create_owned(&of),
            keys_target_shut: all.keys_target_shut.get_or_create_owned(&of),
            keys_target_paused: all.keys_target_paused.get_or_create_owned(&of),
            keys_paced: all.keys_paced.get_or_create_owned(&of),
            keys_take_over_wait: all.keys_take_over_wait.get_or_create_owned(&of),
            keys_blocked_by_previous: all.keys_blocked_by_previous.get_or_create_owned(&of),
            recording: all.recording.get_or_create_owned(&of),
            oldest_pending_age: all.oldest_pending_age.get_or_create_owned(&of),
            stale_counted: 0,
            all: all.clone(),
        }
    }

    /// A delivery came.
    pub fn received(&self, redelivered: bool, without_id: bool) {
        self.updates_received.inc();
        self.redeliveries.inc_by(u64::from(redelivered));
        self.all.updates_without_id.inc_by(u64::from(without_id));
    }

    /// A witness of the layout came.
    pub fn witness(&self) {
        self.witnesses_seen.inc();
    }

    /// A marker or a witness came that belongs elsewhere.
    pub fn stray_message(&self) {
        self.stray_messages.inc();
    }

    /// A redelivery was settled without a request.
    pub fn duplicate(&self) {
        self.all.duplicates_suppressed.inc();
    }

    /// An update is sent to the dead-letter queue.
    pub fn dead_lettered(&self, reason: &DeadLetterReason) {
        let of = OfReason { reason: reason.name() };
        self.all.updates_dead_lettered.get_or_create(&of).inc();
    }

    /// The partition is given back in order.
    pub fn yielded(&self, reason: &'static str) {
        self.all.yields.get_or_create(&OfReason { reason }).inc();
    }

    /// An attempt without a tenure number starts.
    pub fn attempt_without_tenure(&self) {
        self.all.attempts_without_tenure.inc();
    }

    /// Whether this process owns the partition.
    pub fn active(&self, active: bool) {
        self.partition_active.set(i64::from(active));
    }

    /// What the partition holds now.
    pub fn view(&mut self, view: &View, oldest_age: Duration) {
        let whole = |number: usize| i64::try_from(number).unwrap_or(i64::MAX);
        self.held.set(whole(view.held));
        self.in_flight.set(whole(view.in_flight));
        self.lanes_active.set(whole(view.lanes));
        self.keys_ready.set(whole(view.ready));
        self.keys_retrying.set(whole(view.waiting));
        self.keys_target_shut.set(whole(view.target_shut));
        self.keys_target_paused.set(whole(view.target_paused));
        self.keys_paced.set(whole(view.paced));
        self.keys_take_over_wait.set(whole(view.take_over_wait));
        self.keys_blocked_by_previous.set(whole(view.blocked_by_previous));
        self.recording.set(whole(view.recording));
        self.oldest_pending_age.set(oldest_age.as_secs_f64());
        self.all.stale_events.inc_by(view.stale - self.stale_counted);
        self.stale_counted = view.stale;
    }
}

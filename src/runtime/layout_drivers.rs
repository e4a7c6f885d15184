//! The drivers of one layout, and what they share.

use std::collections::{BTreeMap, BTreeSet};
use std::num::NonZeroUsize;
use std::ops::Deref;
use std::sync::Arc;

use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;
use tracing::{error, info, warn};

use super::driver::{Driver, DriverExit};
use super::driver_context::{DriverContext, DriverPlace};
use super::lease_watch::watch_lease;
use crate::http::current::CurrentTargets;
use crate::telemetry::PartitionSpans;
use lanekeeper_broker::{
    AmqpSource, Beliefs, DeadLetters, Decoder, Epochs, Halt, Inquiries, Link, LivenessProbe, Majority,
    Markers, Membership, Names, Presence, Reach, Replica, Shares, SourceContext, Witnesses,
};
use lanekeeper_core::acks::AckLimits;
use lanekeeper_core::change::ActiveLayout;
use lanekeeper_core::layout::{Layout, LayoutNumber, PartitionNumber};
use lanekeeper_core::placement::Placement;
use lanekeeper_core::previous_layout::PreviousLayout;
use lanekeeper_ledger::AnyLedger;

/// What all layouts and drivers of this process share.
pub struct DispatchContext {
    pub common: DriverContext,
    pub consuming: Link,
    pub publishing: Link,
    /// Publishes to the stream of members, and nothing else: notes must not wait behind dead letters.
    pub membership_link: Link,
    pub names: Names,
    pub halt: Halt,
    pub liveness: LivenessProbe,
    pub majority: Majority,
    pub epochs: Epochs,
    pub reach: Reach,
    pub shares: Shares,
    pub presence: Presence,
    pub beliefs: Beliefs,
    /// What people ask of the process.
    pub inquiries: Inquiries,
    /// The URL of the admin port, for notes.
    pub admin: Option<String>,
}

impl Deref for DispatchContext {
    type Target = DriverContext;

    fn deref(&self) -> &DriverContext {
        &self.common
    }
}

/// A driver that has ended.
pub struct DriverEnded {
    pub layout: LayoutNumber,
    pub partition: PartitionNumber,
    pub exit: DriverExit,
}

/// One layout's drivers.
pub struct LayoutDrivers {
    pub layout: Layout,
    pub membership: Membership,
    _lease_watch: AbortOnDropHandle<()>,
    witnesses: Witnesses,
    placement: Placement,
    /// As the newest document says.
    drains: bool,
    draining: CancellationToken,
    markers: Option<Markers>,
    /// What is not drained of the previous layout.
    previous: PreviousLayout,
    /// The same, for the drivers.
    previous_undrained: watch::Sender<BTreeSet<PartitionNumber>>,
    /// Of the drivers that have not ended.
    stops: BTreeMap<PartitionNumber, CancellationToken>,
}

impl LayoutDrivers {
    /// Starts a driver for each partition of the layout that may hold updates. Records wait while their partition of
    /// `previous` is not drained.
    pub fn begin(
        context: &DispatchContext,
        active_layout: &ActiveLayout,
        previous: PreviousLayout,
        drivers: &mut JoinSet<DriverEnded>,
    ) -> Self {
        let (names, halt, layout) = (&context.names, context.halt.clone(), active_layout.layout);
        let (consuming, publishing) = (context.consuming.clone(), context.publishing.clone());
        let witnesses = Witnesses::begin(consuming, publishing, names, active_layout, halt.clone());
        let links = (context.consuming.clone(), context.membership_link.clone());
        let replica = Replica {
            instance: &context.config.instance,
            process: context.process,
            at_work: context.config.at_work_max(),
            clock: context.clock,
            epochs: &context.epochs,
            reach: &context.reach,
            shares: &context.shares,
            presence: &context.presence,
            beliefs: &context.beliefs,
            inquiries: &context.inquiries,
            admin: context.admin.as_deref(),
        };
        let membership = Membership::join(links, names, layout, replica, context.liveness.clone(), halt);
        context.health.begin(layout.number, active_layout.partitions.iter().copied());
        let (metrics, health) = (context.metrics.lease(), context.health.clone());
        let lease_watch =
            watch_lease(membership.lease_until(), context.clock, layout.number, metrics, health);
        let mut layout_drivers = Self {
            layout,
            membership,
            _lease_watch: lease_watch,
            witnesses,
            placement: Placement::of(layout, &active_layout.witnesses),
            drains: active_layout.draining,
            draining: CancellationToken::new(),
            markers: None,
            previous_undrained: watch::Sender::new(previous.undrained.clone()),
            previous,
            stops: BTreeMap::new(),
        };
        let make = layout_drivers.maker(context);
        for partition in active_layout.partitions.iter().copied() {
            let stop = CancellationToken::new();
            layout_drivers.stops.insert(partition, stop.clone());
            let (driver, layout) = (make(partition), layout.number);
            drivers.spawn(async move { DriverEnded { layout, partition, exit: driver.run(stop).await } });
        }
        info!(
            layout = layout.number.0,
            partitions = layout.partitions,
            draining = active_layout.draining,
            previous_undrained = layout_drivers.previous.undrained.len(),
            "dispatching"
        );
        layout_drivers
    }

    /// Does what the layout document says of this layout: it drains, or a partition of it is drained. `beside`: the next
    /// layout is active too.
    pub fn observe(&mut self, context: &DispatchContext, active_layout: &ActiveLayout, beside: bool) {
        self.drains = active_layout.draining;
        if active_layout.draining && self.markers.is_none() {
            self.draining.cancel();
            self.witnesses.retire();
            let partitions: Vec<_> = active_layout.partitions.iter().copied().collect();
            self.markers =
                Some(Markers::begin(context.publishing.clone(), &context.names, self.layout, &partitions));
            let layout = self.layout.number.0;
            if beside {
                info!(
                    layout,
                    "the layout drains: publishes go to the next one, where a record waits until its partition here is drained"
                );
            } else {
                warn!(
                    layout,
                    "the layout drains: publishes go to the next one, which starts when all of this one is drained, since its witnesses do not show which record is in which partition"
                );
            }
        }
        for (partition, stop) in &self.stops {
            if !active_layout.partitions.contains(partition) {
                stop.cancel();
            }
        }
    }

    /// Takes in what the document says of the previous layout. `here`: partitions of it whose drivers have not ended in
    /// this process. Returns the partitions that are drained now and were not before.
    pub fn previous_drained(
        &mut self,
        newest: &PreviousLayout,
        here: &BTreeSet<PartitionNumber>,
    ) -> Vec<PartitionNumber> {
        let drained = self.previous.narrow(newest, |partition| here.contains(&partition));
        if !drained.is_empty() {
            self.previous_undrained.send_replace(self.previous.undrained.clone());
        }
        drained
    }

    /// Partitions whose drivers have not ended.
    pub fn left(&self) -> impl Iterator<Item = PartitionNumber> {
        self.stops.keys().copied()
    }

    /// Asks all drivers to stop.
    pub fn stop(&self) {
        for stop in self.stops.values() {
            stop.cancel();
        }
    }

    /// The partition's driver has ended.
    pub fn ended(&mut self, context: &DispatchContext, ended: &DriverEnded) {
        let stop = self.stops.remove(&ended.partition).expect("a driver ends once");
        if self.drains || stop.is_cancelled() {
            context.health.end(self.layout.number, ended.partition);
        } else {
            // It stays among the partitions that are not attached, so that this process is not ready.
            error!(layout = self.layout.number.0, partition = %ended.partition, "a partition that does not drain is not dispatched any more: restart the process");
        }
    }

    /// Returns true if all drivers have ended.
    pub fn has_ended(&self) -> bool {
        self.stops.is_empty()
    }

    /// Returns what makes the driver of a partition.
    fn maker<'a>(
        &self,
        context: &'a DispatchContext,
    ) -> impl Fn(PartitionNumber) -> Driver<AmqpSource, CurrentTargets, AnyLedger> + use<'a> {
        let (config, layout, placement) = (&context.config, self.layout, self.placement);
        let (previous, previous_undrained) = (self.previous.clone(), self.previous_undrained.subscribe());
        let window = NonZeroUsize::new(usize::from(layout.prefetch)).unwrap_or(NonZeroUsize::MIN);
        let limits_of_acks =
            if context.ledger.is_some() { AckLimits::with_ledger } else { AckLimits::for_prefetch };
        let shared = SourceContext {
            link: context.consuming.clone(),
            membership: self.membership.clone(),
            liveness: context.liveness.clone(),
            witnesses: self.witnesses.clone(),
            majority: context.majority.clone(),
            halt: context.halt.clone(),
            draining: self.draining.clone(),
            reach: context.reach.clone(),
            names: context.names.clone(),
            placement,
            dead_letters: DeadLetters::new(
                context.publishing.clone(),
                &context.names,
                self.witnesses.clone(),
            ),
            decoder: Arc::new(Decoder {
                routes: config.routes(),
                require_id: config.updates.require_id,
                body_bytes_max: config.updates.body_bytes_max,
            }),
            ack_limits: limits_of_acks(window.get()),
        };
        move |partition| {
            let source = AmqpSource::new(shared.clone(), &context.names, layout, partition, &config.instance);
            let spans = context.spans.clone().map(|spans| {
                PartitionSpans::new(spans, &context.names, (layout.number, partition), &config.instance)
            });
            let (previous, previous_undrained) = (previous.clone(), previous_undrained.clone());
            let place = DriverPlace { layout, placement, partition, previous, previous_undrained };
            context.driver(Arc::new(source), place, spans)
        }
    }
}

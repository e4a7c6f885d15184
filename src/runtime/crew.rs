//! The drivers of one layout, and what they share.

use std::collections::{BTreeMap, BTreeSet};
use std::num::NonZeroUsize;
use std::sync::Arc;

use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};
use uuid::Uuid;

use super::books::Books;
use super::breakers::Breakers;
use super::clock::Clock;
use super::driver::{Driver, DriverExit, PartitionContext};
use super::refusals::Refusals;
use super::releases::Releases;
use crate::admin::health::Health;
use crate::admin::metrics::{Metrics, TargetMetrics};
use crate::config::Config;
use crate::http::client::HttpTargets;
use lanekeeper_broker::{
    AmqpSource, DeadLetters, Decoder, Halt, Link, Markers, Members, Names, Pulse, Shared, Witnesses,
};
use lanekeeper_core::acks::AckLimits;
use lanekeeper_core::change::AtWork;
use lanekeeper_core::former::Former;
use lanekeeper_core::layout::{Layout, LayoutNumber, PartitionNumber};
use lanekeeper_core::partition::{Limits, Partition};
use lanekeeper_ledger::AnyLedger;

/// What the crews of all layouts share.
pub struct Yard {
    pub config: Config,
    pub consuming: Link,
    pub publishing: Link,
    pub names: Names,
    pub ledger: Option<Arc<AnyLedger>>,
    pub halt: Halt,
    pub targets: Arc<HttpTargets>,
    pub target_metrics: Arc<[TargetMetrics]>,
    pub metrics: Metrics,
    pub health: Health,
    pub breakers: Breakers,
    pub releases: Releases,
    pub refusals: Arc<Refusals>,
    pub pulse: Pulse,
    pub clock: Clock,
    /// Made anew at each start: tells replicas of one name apart.
    pub process: Uuid,
}

/// A driver that has ended.
pub struct Ended {
    pub layout: LayoutNumber,
    pub partition: PartitionNumber,
    pub ending: DriverExit,
}

/// One layout's drivers.
pub struct Crew {
    pub layout: Layout,
    pub members: Members,
    witnesses: Witnesses,
    draining: watch::Sender<bool>,
    markers: Option<Markers>,
    /// What is not drained of the layout before.
    former: Former,
    /// The same, for the drivers.
    former_told: watch::Sender<BTreeSet<PartitionNumber>>,
    /// Of the drivers that have not ended.
    stops: BTreeMap<PartitionNumber, CancellationToken>,
}

impl Crew {
    /// Starts a driver for each partition of the layout that may hold updates. Records wait for what is not drained of
    /// `former`.
    pub fn begin(yard: &Yard, at_work: &AtWork, former: Former, drivers: &mut JoinSet<Ended>) -> Self {
        let links = (yard.consuming.clone(), yard.publishing.clone());
        let (names, halt, layout) = (&yard.names, yard.halt.clone(), at_work.layout);
        let (consuming, publishing) = links.clone();
        let witnesses = Witnesses::begin(consuming, publishing, names, at_work, halt.clone());
        let members = Members::join(links, names, layout, (&yard.config.instance, yard.process), halt);
        yard.health.begin(layout.number, at_work.partitions.iter().copied());
        let mut crew = Self {
            layout,
            members,
            witnesses,
            draining: watch::Sender::new(false),
            markers: None,
            former_told: watch::Sender::new(former.undrained.clone()),
            former,
            stops: BTreeMap::new(),
        };
        let make = crew.maker(yard);
        for partition in at_work.partitions.iter().copied() {
            let stop = CancellationToken::new();
            crew.stops.insert(partition, stop.clone());
            let (driver, layout) = (make(partition), layout.number);
            drivers.spawn(async move { Ended { layout, partition, ending: driver.run(stop).await } });
        }
        info!(
            layout = layout.number.0,
            partitions = layout.partitions,
            draining = at_work.draining,
            former_undrained = crew.former.undrained.len(),
            "dispatching"
        );
        crew
    }

    /// What the document says of this layout now: it drains, or a partition of it is drained. `beside`: the next layout is
    /// at work beside it.
    pub fn heed(&mut self, yard: &Yard, at_work: &AtWork, beside: bool) {
        if at_work.draining && self.markers.is_none() {
            self.draining.send_replace(true);
            self.witnesses.retire();
            let partitions: Vec<_> = at_work.partitions.iter().copied().collect();
            self.markers =
                Some(Markers::begin(yard.publishing.clone(), &yard.names, self.layout, &partitions));
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
            if !at_work.partitions.contains(partition) {
                stop.cancel();
            }
        }
    }

    /// What the document says of the layout before, and which drivers of that have not ended here. Answers with what is
    /// drained of it and was not.
    pub fn former_drained(
        &mut self,
        told: &Former,
        here: &BTreeSet<PartitionNumber>,
    ) -> Vec<PartitionNumber> {
        let drained = self.former.narrow(told, |partition| here.contains(&partition));
        if !drained.is_empty() {
            self.former_told.send_replace(self.former.undrained.clone());
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
    pub fn ended(&mut self, yard: &Yard, ended: &Ended) {
        self.stops.remove(&ended.partition).expect("it has begun and ends once");
        yard.health.end(self.layout.number, ended.partition);
    }

    /// Whether no driver is left.
    pub fn has_ended(&self) -> bool {
        self.stops.is_empty()
    }

    /// Makes drivers.
    fn maker<'a>(
        &self,
        yard: &'a Yard,
    ) -> impl Fn(PartitionNumber) -> Driver<AmqpSource, HttpTargets, AnyLedger> + use<'a> {
        let (config, layout) = (&yard.config, self.layout);
        let (former, former_told) = (self.former.clone(), self.former_told.subscribe());
        let window = NonZeroUsize::new(usize::from(layout.prefetch)).unwrap_or(NonZeroUsize::MIN);
        let silence_max = config.broker.connection.heartbeat;
        let limits = Limits { in_flight_max: config.dispatch.in_flight_max, window, silence_max };
        let policy = Arc::new(config.policy.clone());
        let limits_of_acks =
            if yard.ledger.is_some() { AckLimits::with_ledger } else { AckLimits::for_prefetch };
        let shared = Shared {
            link: yard.consuming.clone(),
            members: self.members.clone(),
            pulse: yard.pulse.clone(),
            witnesses: self.witnesses.clone(),
            halt: yard.halt.clone(),
            draining: self.draining.subscribe(),
            dead_letters: DeadLetters::new(yard.publishing.clone(), &yard.names),
            decoder: Arc::new(Decoder {
                routes: config.routes(),
                require_id: config.updates.require_id,
                body_bytes_max: config.updates.body_bytes_max,
            }),
            ack_limits: limits_of_acks(window.get()),
        };
        let routes = Arc::new(config.routes());
        let row_lock = config.ledger.as_ref().is_some_and(|ledger| ledger.row_lock);
        let books = move |partition| {
            let ledger = (yard.ledger.clone()?, row_lock);
            Some(Books::new(ledger, Arc::clone(&routes), yard.metrics.ledger(), (layout.number, partition)))
        };
        move |partition| {
            let context = PartitionContext {
                layout,
                partition,
                source: Arc::new(AmqpSource::new(
                    shared.clone(),
                    &yard.names,
                    layout,
                    partition,
                    &config.instance,
                )),
                target: Arc::clone(&yard.targets),
                books: books(partition),
                drain_timeout: config.dispatch.drain_timeout,
                held_max: config.dispatch.held_max,
                clock: yard.clock,
                metrics: yard.metrics.partition(layout.number, partition),
                ledger_metrics: yard.metrics.ledger(),
                target_metrics: Arc::clone(&yard.target_metrics),
                refusals: Arc::clone(&yard.refusals),
                health: yard.health.clone(),
            };
            let core = Partition::new(limits, Arc::clone(&policy)).behind(former.clone());
            let shared_by_all = (yard.releases.clone(), yard.breakers.watch());
            Driver::new(context, core, former_told.clone(), shared_by_all)
        }
    }
}

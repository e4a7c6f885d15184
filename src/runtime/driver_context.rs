//! What the drivers of this process share, whatever their updates come from.

use std::collections::BTreeSet;
use std::num::NonZeroUsize;
use std::sync::Arc;

use tokio::sync::watch;
use uuid::Uuid;

use super::breakers::Breakers;
use super::dead_letter_log::DeadLetterLog;
use super::driver::{Driver, PartitionContext};
use super::inspection::DriverMailboxes;
use super::ledger_client::LedgerClient;
use super::notify::Notifier;
use super::pacers::Pacers;
use super::pauses::Pauses;
use super::refusals::Refusals;
use super::releases::Releases;
use super::step_down::ReachWatch;
use super::target_history::TargetHistories;
use crate::admin::health::Health;
use crate::admin::metrics::{Metrics, TargetMetrics};
use crate::config::Config;
use crate::http::current::CurrentTargets;
use crate::telemetry::{PartitionSpans, Spans};
use lanekeeper_broker::{Clock, Source};
use lanekeeper_core::layout::{Layout, PartitionNumber};
use lanekeeper_core::partition::{Limits, Partition};
use lanekeeper_core::placement::Placement;
use lanekeeper_core::previous_layout::PreviousLayout;
use lanekeeper_ledger::AnyLedger;

/// See the module.
pub struct DriverContext {
    pub config: Config,
    pub ledger: Option<Arc<AnyLedger>>,
    pub targets: Arc<CurrentTargets>,
    pub target_metrics: Arc<[TargetMetrics]>,
    pub metrics: Metrics,
    pub health: Health,
    pub breakers: Breakers,
    pub pacers: Pacers,
    pub releases: Releases,
    pub pauses: Pauses,
    pub refusals: Arc<Refusals>,
    pub notifier: Notifier,
    pub dead_letter_log: Arc<DeadLetterLog>,
    pub clock: Clock,
    /// `None`: traces are off.
    pub spans: Option<Spans>,
    pub reach_watch: ReachWatch,
    pub mailboxes: DriverMailboxes,
    pub histories: TargetHistories,
    /// Chosen at each start: tells replicas with the same `instance.name` apart.
    pub process: Uuid,
}

/// Which partition a driver is for.
#[derive(Clone, Debug)]
pub struct DriverPlace {
    pub layout: Layout,
    pub placement: Placement,
    pub partition: PartitionNumber,
    /// The layout before, which may hold earlier updates of the same records.
    pub previous: PreviousLayout,
    /// Which partitions of it are not drained.
    pub previous_undrained: watch::Receiver<BTreeSet<PartitionNumber>>,
}

impl DriverContext {
    /// A driver, which attaches when it is run. `spans`: those of the partition.
    pub fn driver<S: Source>(
        &self,
        source: Arc<S>,
        place: DriverPlace,
        spans: Option<PartitionSpans>,
    ) -> Driver<S, CurrentTargets, AnyLedger> {
        let DriverPlace { layout, placement, partition, previous, previous_undrained } = place;
        let config = &self.config;
        let window = NonZeroUsize::new(usize::from(layout.prefetch)).unwrap_or(NonZeroUsize::MIN);
        let limits = Limits { in_flight_max: config.dispatch.in_flight_max, window };
        let row_lock = config.ledger.as_ref().is_some_and(|ledger| ledger.row_lock);
        let ledger_client = self.ledger.clone().map(|ledger| {
            let routes = Arc::new(config.routes());
            LedgerClient::new((ledger, row_lock), routes, self.metrics.ledger(), (layout.number, partition))
        });
        let partition_context = PartitionContext {
            layout,
            placement,
            partition,
            source,
            target: Arc::clone(&self.targets),
            ledger_client,
            at_work: config.at_work_max(),
            drain_timeout: config.dispatch.drain_timeout,
            held_max: config.dispatch.held_max,
            clock: self.clock,
            metrics: self.metrics.partition(layout.number, partition),
            ledger_metrics: self.metrics.ledger(),
            target_metrics: Arc::clone(&self.target_metrics),
            refusals: Arc::clone(&self.refusals),
            notifier: self.notifier.clone(),
            reach_watch: self.reach_watch.clone(),
            dead_letter_log: Arc::clone(&self.dead_letter_log),
            health: self.health.clone(),
            spans,
            mailboxes: self.mailboxes.clone(),
            histories: self.histories.clone(),
        };
        let core = Partition::new(limits, Arc::new(config.policy.clone())).behind(previous);
        let target_names: Arc<[String]> = config.targets.iter().map(|target| target.name.clone()).collect();
        let shared_by_all = (
            self.releases.clone(),
            self.breakers.watch(),
            self.pacers.watch(),
            self.pauses.watch(target_names),
        );
        Driver::new(partition_context, core, previous_undrained, shared_by_all)
    }
}

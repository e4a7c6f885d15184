//! A driver between a broker, a target and perhaps a ledger in memory, in time that is paused: it passes only while
//! nothing has anything to do.

use std::collections::BTreeSet;
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use opentelemetry_sdk::trace::SpanData;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

use super::broker::{Content, MemoryBroker};
use super::facts::Facts;
use super::ledger::MemoryLedger;
use super::target::MemoryTarget;
use crate::admin::health::Health;
use crate::admin::metrics::Metrics;
use crate::config::{BreakerConfig, LimitsConfig};
use crate::runtime::breakers::Breakers;
use crate::runtime::driver::{Driver, DriverExit, PartitionContext};
use crate::runtime::inspection::DriverMailboxes;
use crate::runtime::ledger_client::LedgerClient;
use crate::runtime::notify::Notifier;
use crate::runtime::pacers::Pacers;
use crate::runtime::pauses::Pauses;
use crate::runtime::releases::Releases;
use crate::runtime::step_down::ReachWatch;
use crate::runtime::target_history::TargetHistories;
use crate::telemetry::{PartitionSpans, Spans};
use lanekeeper_broker::{Clock, Names};
use lanekeeper_core::layout::{Layout, LayoutNumber, PartitionNumber};
use lanekeeper_core::pacing::PacerLimits;
use lanekeeper_core::partition::{Limits, Partition};
use lanekeeper_core::placement::Placement;
use lanekeeper_core::policy::{FailurePolicies, FailurePolicy, Policy};
use lanekeeper_core::routes::{Routes, TargetId, TypePattern};
use lanekeeper_core::schedule::Schedule;
use lanekeeper_core::update::{RecordKey, Update, UpdateId};

/// Deliveries that a driver holds at most.
pub(super) const PREFETCH: u16 = 8;
pub(super) const DRAIN_TIMEOUT: Duration = Duration::from_secs(2);
pub(super) const HELD_MAX: Duration = Duration::from_secs(60);
/// The longest time that a request can be at work.
pub(super) const AT_WORK: Duration = Duration::from_secs(30);
/// No attempt starts if no note came back for longer.
pub(super) const LEASE: Duration = Duration::from_secs(10);
/// The waits between attempts; the last one repeats.
pub(super) const WAITS: [Duration; 3] =
    [Duration::from_secs(1), Duration::from_secs(2), Duration::from_secs(4)];
/// What takes longer in paused time never comes.
const PATIENCE: Duration = Duration::from_secs(3600);

/// What a world is made of.
#[derive(Clone)]
pub(super) struct Setup {
    pub(super) ledger: bool,
    pub(super) in_flight_max: usize,
    pub(super) breaker: BreakerConfig,
    /// What becomes of updates that the target rejects.
    pub(super) rejected: FailurePolicy,
    /// Of the only target.
    pub(super) limits: PacerLimits,
}

impl Setup {
    pub(super) fn without_ledger() -> Self {
        let rejected = FailurePolicy::DeadLetter;
        let limits = PacerLimits::default();
        Self { ledger: false, in_flight_max: 4, breaker: BreakerConfig::Off, rejected, limits }
    }

    pub(super) fn with_ledger() -> Self {
        Self { ledger: true, rejected: FailurePolicy::Park, ..Self::without_ledger() }
    }
}

pub(super) struct World {
    pub(super) facts: Facts,
    pub(super) broker: MemoryBroker,
    pub(super) target: Arc<MemoryTarget>,
    pub(super) ledger: Arc<MemoryLedger>,
    pub(super) breakers: Breakers,
    _pacers: Pacers,
    pub(super) stop: CancellationToken,
    /// Spans that have ended.
    ended_spans: mpsc::Receiver<SpanData>,
    driver: JoinHandle<DriverExit>,
}

impl World {
    /// A world without a ledger, as tests need it most.
    pub(super) fn begin() -> Self {
        Self::of(&Setup::without_ledger())
    }

    pub(super) fn of(setup: &Setup) -> Self {
        let facts = Facts::default().with_ledger(setup.ledger);
        let clock = Clock::start();
        let broker = MemoryBroker::new(facts.clone(), usize::from(PREFETCH), clock);
        let target = Arc::new(MemoryTarget::new(facts.clone()));
        let ledger = Arc::new(MemoryLedger::new(facts.clone()));
        let (metrics, health) = (Metrics::new(), Health::default());
        let limits_of_crm = LimitsConfig {
            name: "crm".to_owned(),
            targets: vec![TargetId(0)],
            limits: PacerLimits::default(),
        };
        let breakers = Breakers::new(&setup.breaker, &[limits_of_crm], &metrics, &health);
        let layout = Layout { number: LayoutNumber(1), partitions: 1, prefetch: PREFETCH };
        let partition = PartitionNumber(0);
        let routes = Arc::new(Routes::new([(TypePattern::Any, TargetId(0))]));
        let ledger_client = setup.ledger.then(|| {
            let of = (layout.number, partition);
            LedgerClient::new((Arc::clone(&ledger), false), routes, metrics.ledger(), of)
        });
        let releases = if setup.ledger { Releases::begin(Arc::clone(&ledger)) } else { Releases::none() };
        let (spans, ended_spans) = Spans::new(1.0, metrics.spans());
        let names = Names::new("updates");
        let context = PartitionContext {
            layout,
            placement: Placement::default(),
            partition,
            source: Arc::new(broker.clone()),
            target: Arc::clone(&target),
            ledger_client,
            at_work: AT_WORK,
            drain_timeout: DRAIN_TIMEOUT,
            held_max: HELD_MAX,
            clock,
            metrics: metrics.partition(layout.number, partition),
            ledger_metrics: metrics.ledger(),
            target_metrics: [metrics.target("crm")].into(),
            refusals: Arc::default(),
            notifier: Notifier::off(),
            reach_watch: ReachWatch::new(clock),
            dead_letter_log: Arc::default(),
            health,
            spans: Some(PartitionSpans::new(spans, &names, (layout.number, partition), "driver")),
            mailboxes: DriverMailboxes::default(),
            histories: TargetHistories::of(1),
        };
        let core = Partition::new(limits(setup.in_flight_max), Arc::new(policy(setup.rejected)));
        let (_, previous) = watch::channel(BTreeSet::new());
        let group = LimitsConfig { name: "crm".to_owned(), targets: vec![TargetId(0)], limits: setup.limits };
        let pacers = Pacers::begin(&[group], &metrics, clock);
        let pauses = Pauses::none().watch(["crm".to_owned()].into());
        let driver =
            Driver::new(context, core, previous, (releases, breakers.watch(), pacers.watch(), pauses));
        let stop = CancellationToken::new();
        let driver = tokio::spawn(driver.run(stop.clone()));
        Self { facts, broker, target, ledger, breakers, _pacers: pacers, stop, ended_spans, driver }
    }

    /// Publishes updates, named as in `"a-1 b-1 a-2"`.
    pub(super) fn publish(&self, ids: &str) {
        for id in ids.split_whitespace() {
            self.broker.publish(Content::Update(Arc::new(update(id))));
        }
    }

    /// Publishes an update in a trace.
    pub(super) fn publish_traced(&self, id: &str, traceparent: &str) {
        let headers = vec![("traceparent".to_owned(), traceparent.to_owned())];
        self.broker.publish(Content::Update(Arc::new(Update { headers, ..update(id) })));
    }

    /// The spans that have ended since this was called last.
    pub(super) fn spans(&mut self) -> Vec<SpanData> {
        std::iter::from_fn(|| self.ended_spans.try_recv().ok()).collect()
    }

    /// Waits until something is so. Time passes meanwhile.
    ///
    /// # Panics
    /// If the driver has ended, or an hour has passed.
    pub(super) async fn until(&mut self, what: &str, mut is_so: impl FnMut(&Self) -> bool) {
        let begun = Instant::now();
        while !is_so(self) {
            if self.driver.is_finished() {
                let exit = (&mut self.driver).await;
                panic!("the driver has ended before {what}: {exit:?}");
            }
            assert!(begun.elapsed() < PATIENCE, "never came: {what}; sent: {}", self.facts.sent());
            sleep(Duration::from_millis(1)).await;
        }
    }

    /// Waits until so many updates are acked.
    pub(super) async fn until_acked(&mut self, updates: usize) {
        self.until("all acks", |world| world.broker.acked() >= updates).await;
        assert_eq!(self.broker.acked(), updates);
    }

    /// Waits until the target has so many requests at once.
    pub(super) async fn until_in_flight(&mut self, requests: usize) {
        self.until("requests in flight", |world| world.facts.in_flight() == requests).await;
    }

    /// Waits until so many requests were made in all.
    pub(super) async fn until_sent(&mut self, requests: usize) {
        self.until("requests", |world| world.facts.requests().len() >= requests).await;
    }

    /// Waits for the end of the driver.
    pub(super) async fn exit(&mut self) -> DriverExit {
        let exit = tokio::time::timeout(PATIENCE, &mut self.driver).await.expect("the driver ends");
        exit.unwrap_or_else(|panic| std::panic::resume_unwind(panic.into_panic()))
    }

    pub(super) async fn stop(&mut self) -> DriverExit {
        self.stop.cancel();
        self.exit().await
    }
}

fn limits(in_flight_max: usize) -> Limits {
    Limits {
        in_flight_max: NonZeroUsize::new(in_flight_max).expect("at least one"),
        window: NonZeroUsize::new(usize::from(PREFETCH)).expect("at least one"),
    }
}

fn policy(rejected: FailurePolicy) -> Policy {
    Policy {
        schedule: Schedule::new(WAITS.to_vec(), 0.0),
        attempts_max: None,
        elapsed_max: None,
        retry_after_max: Duration::from_secs(60),
        failure: FailurePolicies::all(rejected),
        failure_of_targets: Vec::new(),
    }
}

fn update(id: &str) -> Update {
    let (record, _) = id.split_once('-').expect("an update id of this world");
    Update {
        record_key: RecordKey::new(record).expect("a record key"),
        id: UpdateId::published(id),
        target: TargetId(0),
        update_type: None,
        version: None,
        content_type: None,
        content_encoding: None,
        if_match: None,
        published_at: None,
        headers: Vec::new(),
        body: Bytes::copy_from_slice(id.as_bytes()),
    }
}

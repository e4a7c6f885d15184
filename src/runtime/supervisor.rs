//! Starts everything, stops everything.

use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tracing::{error, info, warn};
use uuid::Uuid;

use super::active_layouts::ActiveLayouts;
use super::auto_apply::{auto_apply, first_layout};
use super::beliefs;
use super::breakers::Breakers;
use super::driver::DriverExit;
use super::layout_drivers::{DispatchContext, DriverEnded};
use super::ledger_binding::{BindingError, LedgerAndExchange};
use super::pacers::Pacers;
use super::releases::Releases;
use super::step_down::{self, ReachWatch};
use super::upkeep::open_ledger;
use crate::admin;
use crate::admin::health::Health;
use crate::admin::metrics::Metrics;
use crate::config::Config;
use crate::http::client::{HttpTargets, TargetsFault};
use lanekeeper_broker::{
    Address, Beliefs, BindingGuard, Clock, Epochs, Follower, Halt, LayoutDocument, LayoutReconciler, Link,
    LivenessProbe, LogOnChange, Majority, Names, Reach, Shares, SourceError, ensure_topology,
};
use lanekeeper_core::error::error_chain;
use lanekeeper_core::layout::{Layout, LayoutNumber, Shape};
use lanekeeper_ledger::{AnyLedger, Ledger, LedgerError, TopologyPlace};

/// How long the others may take to learn that this process uses nothing of the limits any more. Under an alarm they do not.
const GIVE_UP_WITHIN: Duration = Duration::from_millis(500);
/// Between two tries to complete the topology: another process may be doing it.
const TOPOLOGY_RETRY_DELAY: Duration = Duration::from_millis(500);

/// Why the dispatcher could not start.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// The broker refuses what we need.
    #[error(transparent)]
    Source(#[from] SourceError),
    /// The ledger cannot be opened.
    #[error("ledger")]
    Ledger(#[from] LedgerError),
    /// The ledger and the exchange do not belong together.
    #[error("ledger")]
    Binding(#[source] BindingError),
    /// The targets' HTTP client cannot be made.
    #[error("targets: {0}")]
    Targets(#[from] TargetsFault),
    /// The port for health and metrics is taken or not ours.
    #[error("admin.listen: cannot listen on {address}; choose another address, or \"\" to turn it off")]
    Admin {
        /// `admin.listen`.
        address: SocketAddr,
        /// Why.
        #[source]
        source: std::io::Error,
    },
}

impl From<BindingError> for RunError {
    fn from(error: BindingError) -> Self {
        match error {
            BindingError::Source(fault) => Self::Source(fault),
            BindingError::Ledger(fault) => Self::Ledger(fault),
            BindingError::InUse { .. } | BindingError::Fault(_) => Self::Binding(error),
        }
    }
}

/// Dispatches until `shutdown` is done, then stops in order. May be killed at any moment. `adopt_ledger`: the
/// ledger belongs to the exchange from now on, whatever was used before.
///
/// # Errors
/// It could not start: see [`RunError`]. If the broker is only not reachable, it is waited for.
pub async fn run(
    config: Config,
    metrics: Metrics,
    adopt_ledger: bool,
    shutdown: impl Future<Output = ()>,
) -> Result<(), RunError> {
    let mut shutdown = pin!(shutdown);
    let targets = Arc::new(HttpTargets::new(&config.targets)?);
    let health = Health::default();
    serve_admin(&config, &metrics, &health).await?;
    let started = tokio::select! {
        started = start(&config, &metrics, adopt_ledger) => started?,
        () = shutdown.as_mut() => return Ok(()),
    };
    let (halt, clock) = (Halt::default(), Clock::start());
    let Started { address, consuming, publishing, membership_link, document, epochs, names, ledger, place } =
        started;
    let mut follower = Follower::begin(consuming.clone(), &names, document, halt.clone());
    let auto = config.updates.auto_apply.then(|| auto_apply(&config, wanted(&config)));
    let guard = BindingGuard::begin(consuming.clone(), address.clone(), &names, &config.instance, &follower);
    let reconciler = LayoutReconciler::begin(address, &names, &config.instance, &follower, auto, &epochs);
    let context = DispatchContext {
        liveness: LivenessProbe::begin(consuming.clone()),
        majority: Majority::new(publishing.clone(), &names),
        releases: ledger.clone().map_or_else(Releases::none, Releases::begin),
        breakers: Breakers::new(&config.breaker, &config.limits, &metrics, &health),
        pacers: Pacers::begin(&config.limits, &metrics, clock),
        target_metrics: config.targets.iter().map(|target| metrics.target(&target.name)).collect(),
        clock,
        epochs,
        reach_watch: ReachWatch::new(clock),
        reach: Reach::default(),
        shares: Shares::default(),
        beliefs: Beliefs::of(config.target_names().into_keys().collect()),
        refusals: Arc::default(),
        dead_letter_log: Arc::default(),
        process: Uuid::new_v4(),
        halt,
        config,
        consuming,
        publishing,
        membership_link,
        names,
        ledger,
        targets,
        metrics,
        health,
    };
    let _dividing = context.pacers.divide(context.shares.clone(), context.consuming.heartbeat());
    let names = context.config.target_names();
    let _believing = beliefs::follow(&context.beliefs, names, context.breakers.clone(), clock);
    let mut drivers = JoinSet::new();
    let mut active_layouts = follower.document().layouts.active_layouts();
    let mut running = ActiveLayouts::default();
    let of_the_ledger = context.ledger.clone();
    let mut unusable = pin!(unusable(of_the_ledger.as_deref()));
    let documents = follower.watch();
    let binding = LedgerAndExchange {
        ledger: context.ledger.as_deref(),
        place: &place,
        names: &context.names,
        instance: &context.config.instance,
        epochs: &context.epochs,
        adopt: false,
    };
    let mut unbound = pin!(binding.ended(&documents, &context.reach_watch));
    let (reach_watch, reach) = (context.reach_watch.clone(), context.reach.clone());
    let step_down = step_down::begin(reach_watch, reach, &context.config.targets);
    let halted: Option<RunError> = loop {
        running.follow(&context, &active_layouts, &mut drivers);
        tokio::select! {
            () = shutdown.as_mut() => break None,
            reason = context.halt.reason() => break Some(reason.into()),
            fault = unusable.as_mut() => break Some(fault.into()),
            fault = unbound.as_mut() => break Some(RunError::Binding(fault.into())),
            Some(ended) = drivers.join_next() => {
                let ended = ended.expect(DRIVER_PANIC);
                running.ended(&context, &ended);
                driver_ended(&reconciler, &ended);
            }
            document = follower.changed() => active_layouts = document.layouts.active_layouts(),
        }
    };
    if let Some(reason) = &halted {
        error!(error = error_chain(reason), "dispatching stops, since order can no longer be kept");
    }
    info!("stopping: attempts in flight are finished, no new ones start");
    context.health.set_stopping();
    running.stop();
    while let Some(ended) = drivers.join_next().await {
        ended.expect(DRIVER_PANIC);
    }
    context.shares.give_up(GIVE_UP_WITHIN).await;
    let document = documents.borrow().clone();
    binding.stopped(&document).await;
    if matches!(halted, Some(RunError::Source(SourceError::Moved { .. }))) {
        running.notify_moved().await;
    }
    drop((guard, reconciler, step_down, follower, running)); // their tasks would log lost connections
    let DispatchContext { consuming, publishing, membership_link, .. } = context;
    consuming.close().await;
    publishing.close().await;
    membership_link.close().await;
    halted.map_or(Ok(()), Err)
}

/// Waits until the ledger cannot be used any more.
async fn unusable(ledger: Option<&AnyLedger>) -> LedgerError {
    match ledger {
        Some(ledger) => ledger.unusable().await,
        None => std::future::pending().await,
    }
}

const DRIVER_PANIC: &str =
    "a driver's panic is a fault of ours, and a dead partition that looks alive is worse";

fn driver_ended(reconciler: &LayoutReconciler, ended: &DriverEnded) {
    let DriverEnded { layout, partition, exit } = ended;
    match exit {
        DriverExit::Stopped => return,
        DriverExit::Drained => info!(layout = layout.0, %partition, "the partition is drained"),
        DriverExit::Gone => error!(
            layout = layout.0,
            %partition,
            "the queue of a draining partition does not exist: unless it was drained and removed at this moment, somebody has deleted it, and the updates in it are lost"
        ),
    }
    reconciler.drained(*layout, *partition);
}

fn wanted(config: &Config) -> Shape {
    Shape { partitions: config.updates.partitions.get(), prefetch: config.dispatch.prefetch.get() }
}

/// Serves health and metrics from the start, so that monitoring sees a process that waits for its broker.
async fn serve_admin(config: &Config, metrics: &Metrics, health: &Health) -> Result<(), RunError> {
    let Some(address) = config.admin else { return Ok(()) };
    let fault = |source| RunError::Admin { address, source };
    let listener = TcpListener::bind(address).await.map_err(fault)?;
    info!(address = %listener.local_addr().map_err(fault)?, "serving health and metrics");
    tokio::spawn(admin::serve(listener, metrics.clone(), health.clone()));
    Ok(())
}

struct Started {
    address: Address,
    consuming: Link,
    publishing: Link,
    membership_link: Link,
    document: LayoutDocument,
    epochs: Epochs,
    names: Names,
    ledger: Option<Arc<AnyLedger>>,
    place: TopologyPlace,
}

/// Opens three connections (an alarm of the broker blocks those that publish, and notes must not wait behind dead letters), and
/// completes the topology.
async fn start(config: &Config, metrics: &Metrics, adopt_ledger: bool) -> Result<Started, RunError> {
    let ledger = open_ledger(config.ledger.as_ref(), metrics).await?;
    let address = Address::new(&config.broker.connection).map_err(SourceError::from)?;
    let instance = &config.instance;
    let names = Names::new(&config.updates.exchange);
    let wanted = wanted(config).numbered(LayoutNumber(1));
    let first = first_layout(config, wanted.shape());
    let name = |purpose| format!("lanekeeper {instance} {purpose}");
    let (mut log, epochs) = (LogOnChange::default(), Epochs::default());
    let (publishing, document, place) = loop {
        let connection = address.connect_patiently(&name("publish")).await.map_err(SourceError::from)?;
        let completed = async {
            let document = ensure_topology(&connection, &names, &first, instance).await?;
            let place = TopologyPlace {
                cluster: connection.server_property("cluster_name"),
                vhost: address.vhost().to_owned(),
                exchange: names.public().to_owned(),
            };
            let binding = LedgerAndExchange {
                ledger: ledger.as_deref(),
                place: &place,
                names: &names,
                instance,
                epochs: &epochs,
                adopt: adopt_ledger,
            };
            let document = binding.bind(&address, document).await?;
            Ok::<_, BindingError>((document, place))
        };
        match completed.await {
            Ok((document, place)) => break (connection, document, place),
            Err(error) if error.can_heal() => {
                if let BindingError::Source(_) = error {
                    address.avoid(&connection);
                }
                let text = error_chain(&error);
                if log.is_new(text.clone()) {
                    warn!(error = text, "topology not ready, trying again in 0.5 s");
                }
                tokio::time::sleep(TOPOLOGY_RETRY_DELAY).await;
            }
            Err(error) => return Err(error.into()),
        }
    };
    if let Some(ledger) = &ledger {
        place_parked_records(ledger, &document).await?;
    }
    epochs.observe(document.epoch);
    log_difference(document.layouts.in_force, wanted, config.updates.auto_apply);
    let reading = address.reading_bodies(config.updates.body_bytes_max as u64);
    let consuming = reading.connect_patiently(&name("consume")).await.map_err(SourceError::from)?;
    let membership_link = address.connect_patiently(&name("members")).await.map_err(SourceError::from)?;
    Ok(Started {
        membership_link: Link::keep(address.clone(), name("members"), membership_link),
        consuming: Link::keep(reading, name("consume"), consuming),
        publishing: Link::keep(address.clone(), name("publish"), publishing),
        address,
        document,
        epochs,
        names,
        ledger,
        place,
    })
}

/// Layouts began again, with a ledger that knows of later ones: what they parked is released by the partitions of now.
async fn place_parked_records(ledger: &AnyLedger, document: &LayoutDocument) -> Result<(), LedgerError> {
    let newest = LayoutNumber(document.layouts.number_max.max(document.layouts.in_force.number.0));
    let records = ledger.forget_layouts(newest).await?;
    if records > 0 {
        warn!(
            records,
            layout = newest.0,
            "records are parked by layouts that the broker knows no more: their keys decide from now on which partition sends them when they are released"
        );
    }
    Ok(())
}

/// Logs, once, what the config wants otherwise than the current layout.
fn log_difference(in_force: Layout, wanted: Layout, auto_apply: bool) {
    let advice = if auto_apply {
        "updates.auto_apply changes it as soon as no layout drains and nothing stands against it"
    } else {
        "`lanekeeper topology plan` shows what a change would do, `lanekeeper topology apply` makes it"
    };
    if in_force.partitions != wanted.partitions {
        warn!(
            in_force = in_force.partitions,
            config = wanted.partitions,
            "updates.partitions differs from the current layout, which stays: {advice}"
        );
    }
    if in_force.prefetch != wanted.prefetch {
        warn!(
            in_force = in_force.prefetch,
            config = wanted.prefetch,
            "dispatch.prefetch differs from the current layout, which stays: {advice}"
        );
    }
}

//! Starts everything, stops everything.

use std::net::SocketAddr;
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tracing::{error, info, warn};

use super::books::Books;
use super::breakers::Breakers;
use super::clock::Clock;
use super::driver::Driver;
use super::refusals::Refusals;
use super::releases::Releases;
use super::upkeep::open_ledger;
use crate::admin;
use crate::admin::health::Health;
use crate::admin::metrics::Metrics;
use crate::config::Config;
use crate::core::acks::AckLimits;
use crate::core::layout::{Layout, LayoutNumber};
use crate::core::partition::{Limits, Partition};
use crate::core::policy::FailurePolicy;
use crate::ledger::{AnyLedger, Ledger, LedgerError};
use crate::source::{
    Address, AmqpSource, DeadLetters, Decoder, Halt, LayoutDocument, Link, Members, Names, OwnLedger, Pulse,
    Shared, SourceError, Witnesses, chain, ensure_ledger, ensure_topology,
};
use crate::target::http::{HttpTargets, TargetsFault};

/// Another process may be making the layout at this moment.
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

/// Dispatches until `shutdown` is done, then drains. Ready to be killed at any moment in between. `adopt_ledger`: the
/// ledger belongs to the exchange from now on, whatever was used before.
///
/// # Errors
/// It could not start: see [`RunError`]. A broker that is merely not reachable is waited for.
pub async fn run(
    config: Config,
    adopt_ledger: bool,
    shutdown: impl Future<Output = ()>,
) -> Result<(), RunError> {
    let mut shutdown = std::pin::pin!(shutdown);
    let targets =
        Arc::new(HttpTargets::new(&config.targets, config.policy.conflict == FailurePolicy::Refetch)?);
    let (metrics, health) = (Metrics::new(), Health::default());
    let (stop, stopped) = watch::channel(false);
    serve_admin(&config, &metrics, &health).await?;
    let started = tokio::select! {
        started = start(&config, &metrics, adopt_ledger) => started?,
        () = shutdown.as_mut() => return Ok(()),
    };
    health.begin(started.document.in_force.partitions);
    let halt = Halt::default();
    let members = join(&config, &started, &halt);
    let mut drivers = JoinSet::new();
    for driver in drivers_of(&config, &started, &members, &halt, &targets, &metrics, &health) {
        drivers.spawn(driver.run(stopped.clone()));
    }
    info!(
        layout = started.document.in_force.number.0,
        partitions = started.document.in_force.partitions,
        "dispatching"
    );
    let halted = tokio::select! {
        () = shutdown.as_mut() => None,
        reason = halt.reason() => Some(reason),
        Some(ended) = drivers.join_next() => {
            ended.expect(DRIVER_PANIC);
            unreachable!("a driver works until it is asked to stop");
        }
    };
    if let Some(reason) = &halted {
        error!(error = chain(reason), "dispatch stops");
    }
    info!("stopping: attempts in flight are finished, no new ones start");
    health.set_draining();
    stop.send_replace(true);
    while let Some(ended) = drivers.join_next().await {
        ended.expect(DRIVER_PANIC);
    }
    if matches!(halted, Some(SourceError::Moved { .. })) {
        members.tell_moved().await;
    }
    started.consuming.close().await;
    started.publishing.close().await;
    halted.map_or(Ok(()), |reason| Err(reason.into()))
}

const DRIVER_PANIC: &str =
    "a driver's panic is a fault of ours, and a dead partition that looks alive is worse";

/// Serves health and metrics from the start, so that whoever looks sees a process that waits for its broker.
async fn serve_admin(config: &Config, metrics: &Metrics, health: &Health) -> Result<(), RunError> {
    let Some(address) = config.admin else { return Ok(()) };
    let fault = |source| RunError::Admin { address, source };
    let listener = TcpListener::bind(address).await.map_err(fault)?;
    info!(address = %listener.local_addr().map_err(fault)?, "health and metrics");
    tokio::spawn(admin::serve(listener, metrics.clone(), health.clone()));
    Ok(())
}

fn join(config: &Config, started: &Started, halt: &Halt) -> Members {
    let Started { consuming, publishing, document, names, .. } = started;
    let links = (consuming.clone(), publishing.clone());
    Members::join(links, names, document.in_force, &config.instance, halt.clone())
}

/// One driver per partition; what they share is made here.
fn drivers_of(
    config: &Config,
    started: &Started,
    members: &Members,
    halt: &Halt,
    targets: &Arc<HttpTargets>,
    metrics: &Metrics,
    health: &Health,
) -> Vec<Driver<AmqpSource, HttpTargets>> {
    let Started { consuming, publishing, document, names, ledger } = started;
    let layout = document.in_force;
    let window = NonZeroUsize::new(usize::from(layout.prefetch)).unwrap_or(NonZeroUsize::MIN);
    let silence_max = config.broker.heartbeat;
    let limits = Limits { in_flight_max: config.dispatch.in_flight_max, window, silence_max };
    let policy = Arc::new(config.policy.clone());
    let target_metrics: Arc<[_]> = config.targets.iter().map(|target| metrics.target(&target.name)).collect();
    let names_of_targets = config.targets.iter().map(|target| target.name.as_str());
    let breakers = Breakers::new(&config.breaker, names_of_targets, metrics, health);
    let (clock, refusals) = (Clock::start(), Arc::new(Refusals::default()));
    let shared = Shared {
        link: consuming.clone(),
        members: members.clone(),
        pulse: Pulse::begin(consuming.clone(), silence_max),
        witnesses: Witnesses::begin(consuming.clone(), publishing.clone(), names, document, halt.clone()),
        halt: halt.clone(),
        dead_letters: DeadLetters::new(publishing.clone(), names),
        decoder: Arc::new(Decoder {
            routes: config.routes(),
            require_id: config.updates.require_id,
            body_bytes_max: config.updates.body_bytes_max,
        }),
    };
    let releases = ledger.clone().map_or_else(Releases::none, Releases::begin);
    let routes = Arc::new(config.routes());
    let row_lock = config.ledger.as_ref().is_some_and(|ledger| ledger.row_lock);
    let books = |partition| {
        let ledger = (ledger.clone()?, row_lock);
        Some(Books::new(ledger, Arc::clone(&routes), metrics.ledger(), (layout.number, partition)))
    };
    let source = |partition| AmqpSource::new(shared.clone(), names, layout, partition, &config.instance);
    let driver = |partition| Driver {
        layout: layout.number,
        books: books(partition),
        releases: releases.clone(),
        ledger_metrics: metrics.ledger(),
        partition,
        core: Partition::new(limits, Arc::clone(&policy)),
        source: Arc::new(source(partition)),
        target: Arc::clone(targets),
        breakers: breakers.watch(),
        ack_limits: AckLimits::for_prefetch(window.get()),
        drain_timeout: config.dispatch.drain_timeout,
        held_max: config.dispatch.held_max,
        clock,
        metrics: metrics.partition(partition),
        target_metrics: Arc::clone(&target_metrics),
        refusals: Arc::clone(&refusals),
        health: health.clone(),
    };
    layout.partitions().map(driver).collect()
}

struct Started {
    consuming: Link,
    publishing: Link,
    document: LayoutDocument,
    names: Names,
    ledger: Option<Arc<AnyLedger>>,
}

/// Connects twice (an alarm freezes the connection that publishes) and makes the topology complete.
async fn start(config: &Config, metrics: &Metrics, adopt_ledger: bool) -> Result<Started, RunError> {
    let ledger = open_ledger(config.ledger.as_ref(), metrics).await?;
    let own = OwnLedger { identity: ledger.as_deref().map(AnyLedger::identity), adopt: adopt_ledger };
    let address = Address::new(&config.broker)?;
    let instance = &config.instance;
    let names = Names::new(&config.updates.exchange);
    let wanted = Layout {
        number: LayoutNumber(1),
        partitions: config.updates.partitions.get(),
        prefetch: config.dispatch.prefetch.get(),
    };
    let name = |purpose| format!("lanekeeper {instance} {purpose}");
    let mut told = String::new();
    let (publishing, document) = loop {
        let connection = address.connect_patiently(&name("publish")).await?;
        let completed = async {
            let document = ensure_topology(&connection, &names, wanted, instance).await?;
            ensure_ledger(&connection, &names, &document, own, instance).await?;
            Ok::<_, SourceError>(document)
        };
        match completed.await {
            Ok(document) => break (connection, document),
            Err(error) if error.can_heal() => {
                let text = chain(&error);
                if text != told {
                    warn!(error = text, "topology not ready, trying again");
                    told = text;
                }
                tokio::time::sleep(TOPOLOGY_RETRY_DELAY).await;
            }
            Err(error) => return Err(error.into()),
        }
    };
    let layout = document.in_force;
    if layout.partitions != wanted.partitions {
        warn!(
            in_force = layout.partitions,
            config = wanted.partitions,
            "updates.partitions differs from the layout in force, which stays"
        );
    }
    if layout.prefetch != wanted.prefetch {
        warn!(
            in_force = layout.prefetch,
            config = wanted.prefetch,
            "dispatch.prefetch differs from the layout in force, which stays: lowering it would break order"
        );
    }
    let consuming = address.connect_patiently(&name("consume")).await?;
    Ok(Started {
        consuming: Link::keep(address.clone(), name("consume"), consuming),
        publishing: Link::keep(address, name("publish"), publishing),
        document,
        names,
        ledger,
    })
}

//! Starts everything, stops everything.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tracing::{info, warn};

use super::clock::Clock;
use super::driver::Driver;
use crate::admin;
use crate::admin::health::Health;
use crate::admin::metrics::Metrics;
use crate::config::Config;
use crate::core::acks::AckLimits;
use crate::core::layout::{Layout, LayoutNumber};
use crate::core::partition::{Limits, Partition};
use crate::source::{
    Address, AmqpSource, DeadLetters, Decoder, Link, Names, SourceError, chain, ensure_topology,
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

/// Dispatches until `shutdown` is done, then drains. Ready to be killed at any moment in between.
///
/// # Errors
/// It could not start: see [`RunError`]. A broker that is merely not reachable is waited for.
pub async fn run(config: Config, shutdown: impl Future<Output = ()>) -> Result<(), RunError> {
    let mut shutdown = std::pin::pin!(shutdown);
    let targets = Arc::new(HttpTargets::new(&config.targets)?);
    let listener = match config.admin {
        Some(address) => {
            Some(TcpListener::bind(address).await.map_err(|source| RunError::Admin { address, source })?)
        }
        None => None,
    };
    let started = tokio::select! {
        started = start(&config) => started?,
        () = shutdown.as_mut() => return Ok(()),
    };
    let Started { consuming, publishing, layout, names } = started;
    let metrics = Metrics::new();
    let health = Health::new(layout.partitions);
    let (stop, stopped) = watch::channel(false);
    if let Some(listener) = listener {
        if let Ok(address) = listener.local_addr() {
            info!(%address, "health and metrics");
        }
        let until = until_true(stopped.clone());
        tokio::spawn(admin::serve(listener, metrics.clone(), health.clone(), until));
    }
    let mut drivers = JoinSet::new();
    let dead_letters = DeadLetters::new(publishing.clone(), &names);
    let decoder = Arc::new(Decoder {
        routes: config.routes(),
        require_id: config.updates.require_id,
        body_bytes_max: config.updates.body_bytes_max,
    });
    let limits = Limits { in_flight_max: config.dispatch.in_flight_max, window: window(layout) };
    let policy = Arc::new(config.policy.clone());
    let target_metrics = config.targets.iter().map(|target| metrics.target(&target.name)).collect();
    let clock = Clock::start();
    let target_metrics: Arc<[_]> = target_metrics;
    for partition in layout.partitions() {
        let source = AmqpSource::new(
            consuming.clone(),
            dead_letters.clone(),
            Arc::clone(&decoder),
            &names,
            layout,
            partition,
            &config.instance,
        );
        let driver = Driver {
            partition,
            core: Partition::new(limits, Arc::clone(&policy)),
            source: Arc::new(source),
            target: Arc::clone(&targets),
            ack_limits: AckLimits::for_prefetch(usize::from(layout.prefetch)),
            drain_timeout: config.dispatch.drain_timeout,
            clock,
            metrics: metrics.partition(partition),
            target_metrics: Arc::clone(&target_metrics),
            health: health.clone(),
        };
        drivers.spawn(driver.run(stopped.clone()));
    }
    info!(layout = layout.number.0, partitions = layout.partitions, "dispatching");
    shutdown.as_mut().await;
    info!("stopping: attempts in flight are finished, no new ones start");
    health.set_draining();
    stop.send_replace(true);
    while let Some(driver) = drivers.join_next().await {
        driver
            .expect("a driver's panic is a fault of ours: the process must not go on without its partition");
    }
    consuming.close().await;
    publishing.close().await;
    Ok(())
}

struct Started {
    consuming: Link,
    publishing: Link,
    layout: Layout,
    names: Names,
}

/// Connects twice (an alarm freezes the connection that publishes) and makes the topology complete.
async fn start(config: &Config) -> Result<Started, SourceError> {
    let address = Address::new(&config.broker)?;
    let instance = &config.instance;
    let names = Names::new(&config.updates.exchange);
    let wanted = Layout {
        number: LayoutNumber(1),
        partitions: config.updates.partitions.get(),
        prefetch: config.dispatch.prefetch.get(),
    };
    let name = |purpose| format!("lanekeeper {instance} {purpose}");
    let (consuming, layout) = loop {
        let connection = address.connect_patiently(&name("consume")).await?;
        match ensure_topology(&connection, &names, wanted, instance).await {
            Ok(layout) => break (connection, layout),
            Err(error) if error.can_heal() => {
                warn!(error = chain(&error), "topology not ready, trying again");
                tokio::time::sleep(TOPOLOGY_RETRY_DELAY).await;
            }
            Err(error) => return Err(error),
        }
    };
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
    let publishing = address.connect_patiently(&name("publish")).await?;
    Ok(Started {
        consuming: Link::keep(address.clone(), name("consume"), consuming),
        publishing: Link::keep(address, name("publish"), publishing),
        layout,
        names,
    })
}

fn window(layout: Layout) -> std::num::NonZeroUsize {
    std::num::NonZeroUsize::new(usize::from(layout.prefetch)).unwrap_or(std::num::NonZeroUsize::MIN)
}

async fn until_true(mut stop: watch::Receiver<bool>) {
    let _ = stop.wait_for(|stop| *stop).await;
}

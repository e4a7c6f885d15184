//! Starts and stops everything of a process whose updates come from SQS: one driver, and nothing that RabbitMQ needs.

use std::collections::BTreeSet;
use std::fs::{File, TryLockError};
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use ring::digest::{SHA256, digest};
use tokio::sync::watch;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};
use uuid::Uuid;

use super::breakers::Breakers;
use super::driver_context::{DriverContext, DriverPlace};
use super::inspection::DriverMailboxes;
use super::notify::Notifications;
use super::pacers::Pacers;
use super::pauses::Pauses;
use super::releases::Releases;
use super::reload::{self, AttachAgain, ReloadableParts};
use super::step_down::ReachWatch;
use super::supervisor::{Options, RunError, serve_admin, unusable};
use super::target_history::TargetHistories;
use super::upkeep::open_ledger;
use crate::admin;
use crate::admin::health::Health;
use crate::admin::metrics::Metrics;
use crate::config::{Config, Loaded, SqsConfig};
use crate::config_requests::ConfigRequests;
use crate::http::client::HttpTargets;
use crate::http::current::CurrentTargets;
use lanekeeper_broker::{Clock, LogOnChange};
use lanekeeper_core::error::error_chain;
use lanekeeper_core::layout::{LayoutNumber, PartitionNumber, Shape};
use lanekeeper_core::placement::Placement;
use lanekeeper_core::previous_layout::PreviousLayout;
use lanekeeper_core::witness::witnesses;
use lanekeeper_ledger::{AnyLedger, BoundTopology, LedgerConfig, LedgerPlace, TopologyPlace};
use lanekeeper_sqs::{QueueFacts, SqsClient, SqsCredentials, SqsDecoder, SqsSettings, SqsSource};

/// Between two tries to reach the queues at the start.
const RETRY_DELAY: Duration = Duration::from_secs(1);

/// Dispatches until `shutdown` is done, then stops in order. May be killed at any moment.
///
/// # Errors
/// It could not start: see [`RunError`]. If SQS is only not reachable, it is waited for.
///
/// # Panics
/// If the config has no `[sqs]`.
pub async fn run(
    loaded: Loaded,
    metrics: Metrics,
    options: Options,
    shutdown: impl Future<Output = ()>,
) -> Result<(), RunError> {
    let mut shutdown = pin!(shutdown);
    let mut config = loaded.config.clone();
    let ConfigRequests { sender: requests, received } = options.requests;
    let targets = HttpTargets::new(&config.targets)?;
    let targets = Arc::new(CurrentTargets::new(targets, requests.look_again()));
    let notifier = Notifications::new(&config, metrics.notify())?.notifier();
    let health = Health::default();
    let (in_force, config_in_force) = watch::channel(config.clone());
    let (access, ledger_slot) = (admin::Access::new(&config.admin), admin::LedgerSlot::default());
    let served = admin::Parts {
        access: access.clone(),
        metrics: metrics.clone(),
        health: health.clone(),
        requests,
        live: admin::Live::new(&config_in_force),
        config: config_in_force.clone(),
        ledger: ledger_slot.clone(),
        answerer: admin::AnswererSlot::default(),
        found_release: admin::FoundRelease::default(),
    };
    serve_admin(&config, served).await?;
    let clock = Clock::start();
    let client = SqsClient::new(&settings(&config)).await;
    let mut alone = None;
    let begun = async {
        let facts = checked(&client, sqs_of(&config)).await?;
        let ledger = open_ledger(config.ledger.as_ref(), &metrics).await?;
        let pauses = match &ledger {
            None => Pauses::none(),
            Some(ledger) => {
                let place = TopologyPlace::of_sqs(&sqs_of(&config).queue_url);
                bind(ledger, &facts.arn, place, options.adopt_ledger).await?;
                alone = lock_file(config.ledger.as_ref())?;
                Pauses::begin(Arc::clone(ledger)).await?
            }
        };
        Ok::<_, RunError>((ledger, pauses))
    };
    let (ledger, pauses) = tokio::select! {
        begun = begun => begun?,
        () = shutdown.as_mut() => return Ok(()),
    };
    ledger_slot.set(ledger.clone());
    let parts = ReloadableParts {
        in_force,
        targets: Arc::clone(&targets),
        address: None,
        ledger: ledger.clone(),
        log_filter: options.log_filter,
        access,
        notifier: notifier.clone(),
        metrics: metrics.config(),
    };
    let (_reloading, mut attach_again) = reload::begin(loaded, parts, received);
    let releases = ledger.clone().map_or_else(Releases::none, Releases::begin);
    let reach_watch = ReachWatch::new(clock);
    let mut unusable = pin!(unusable(ledger.as_deref()));
    let layout = Shape { partitions: 1, prefetch: config.dispatch.prefetch.get() }.numbered(LayoutNumber(1));
    let partition = PartitionNumber(0);
    let (_previous, previous_undrained) = watch::channel(BTreeSet::new());
    loop {
        health.begin(layout.number, [partition]);
        let context = DriverContext {
            config: config.clone(),
            ledger: ledger.clone(),
            targets: Arc::clone(&targets),
            target_metrics: config.targets.iter().map(|target| metrics.target(&target.name)).collect(),
            metrics: metrics.clone(),
            health: health.clone(),
            breakers: Breakers::new(&config.breaker, &config.limits, &metrics, &health),
            pacers: Pacers::begin(&config.limits, &metrics, clock),
            releases: releases.clone(),
            pauses: pauses.clone(),
            refusals: Arc::default(),
            notifier: notifier.clone(),
            dead_letter_log: Arc::default(),
            clock,
            spans: None,
            reach_watch: reach_watch.clone(),
            mailboxes: DriverMailboxes::default(),
            histories: TargetHistories::of(config.targets.len()),
            process: Uuid::new_v4(),
        };
        let target_names: Vec<String> = config.targets.iter().map(|target| target.name.clone()).collect();
        let _showing = pauses.show(&target_names, &metrics, &health);
        let decoder = SqsDecoder { routes: config.routes(), body_bytes_max: config.updates.body_bytes_max };
        let source = SqsSource::new(settings(&config), client.clone(), decoder, clock);
        let place = DriverPlace {
            layout,
            placement: Placement::of(layout, &witnesses(layout.partitions)),
            partition,
            previous: PreviousLayout::default(),
            previous_undrained: previous_undrained.clone(),
        };
        let stop = CancellationToken::new();
        let driver = context.driver(Arc::new(source), place, None).run(stop.clone());
        let mut driver = pin!(driver);
        let (halted, change) = tokio::select! {
            _ = driver.as_mut() => unreachable!("a partition that does not drain ends when it is asked to"),
            () = shutdown.as_mut() => (None, None),
            fault = unusable.as_mut() => (Some(RunError::from(fault)), None),
            Some(change) = attach_again.recv() => (None, Some(change)),
        };
        match (&halted, &change) {
            (_, Some(_)) => info!(
                "the config changes what dispatch depends on: attempts in flight are finished, then updates are received again"
            ),
            (fault, None) => {
                if let Some(fault) = fault {
                    error!(
                        error = error_chain(fault),
                        "dispatching stops, since order can no longer be kept"
                    );
                }
                info!("stopping: attempts in flight are finished, no new ones start");
                health.set_stopping();
            }
        }
        stop.cancel();
        driver.await;
        let Some(AttachAgain { config: wanted, done }) = change else {
            return halted.map_or(Ok(()), Err);
        };
        health.set_attaching_again();
        metrics.targets_change();
        let changed = targets.change(&wanted.targets).and_then(|()| notifier.change(&wanted));
        // A target is known by its number: updates are never received for a config whose targets are not in force.
        if changed.is_ok() {
            config = wanted;
        }
        let _ = done.send(changed);
    }
}

fn sqs_of(config: &Config) -> &SqsConfig {
    config.sqs.as_ref().expect("source.kind is \"sqs\"")
}

fn settings(config: &Config) -> SqsSettings {
    let sqs = sqs_of(config);
    let credentials = sqs.credentials.clone().map(|(access_key_id, secret_access_key, session_token)| {
        SqsCredentials { access_key_id, secret_access_key, session_token }
    });
    SqsSettings {
        queue_url: sqs.queue_url.clone(),
        dead_letter_queue_url: sqs.dead_letter_queue_url.clone(),
        endpoint_url: sqs.endpoint_url.clone(),
        region: sqs.region.clone(),
        credentials,
        visibility_timeout: sqs.visibility_timeout,
        wait_time: sqs.wait_time,
        receivers: sqs.receivers,
        at_work_max: config.at_work_max_of_sqs(),
        window: config.dispatch.prefetch.get().into(),
    }
}

/// Waits until both queues answer, and looks if they keep order.
async fn checked(client: &SqsClient, config: &SqsConfig) -> Result<QueueFacts, RunError> {
    let facts = patiently(client, false).await;
    let dead_letters = patiently(client, true).await;
    for (key, facts) in [("sqs.queue_url", &facts), ("sqs.dead_letter_queue_url", &dead_letters)] {
        if !facts.is_fifo {
            return Err(RunError::NotFifo { key });
        }
    }
    if facts.has_redrive_policy {
        warn!(
            queue = config.queue_url,
            "the queue has a RedrivePolicy: SQS takes an update away after some deliveries and goes on with later ones of its record. Remove the policy; updates that no target will have go to sqs.dead_letter_queue_url"
        );
    }
    Ok(facts)
}

/// SQS hands a record now to one process, now to another, and a file has no row locks: only one process may use it.
fn lock_file(config: Option<&LedgerConfig>) -> Result<Option<File>, RunError> {
    let Some(LedgerPlace::Sqlite(path)) = config.map(|config| &config.place) else { return Ok(None) };
    let mut lock = path.clone().into_os_string();
    lock.push(".lock");
    let file = File::options().create(true).truncate(false).write(true).open(&lock);
    match file.map_err(TryLockError::Error).and_then(|file| file.try_lock().map(|()| file)) {
        Ok(file) => Ok(Some(file)),
        Err(TryLockError::WouldBlock) => Err(RunError::LedgerInUse { path: path.clone() }),
        Err(TryLockError::Error(error)) => {
            warn!(%error, "cannot lock the ledger's file: see to it that only one process uses it");
            Ok(None)
        }
    }
}

async fn patiently(client: &SqsClient, of_dead_letters: bool) -> QueueFacts {
    let mut log = LogOnChange::default();
    loop {
        match client.facts(of_dead_letters).await {
            Ok(facts) => return facts,
            Err(fault) => {
                let key = if of_dead_letters { "sqs.dead_letter_queue_url" } else { "sqs.queue_url" };
                if log.is_new(fault.text.clone()) {
                    warn!(key, error = fault.text, "the SQS queue cannot be used yet, trying again in 1 s");
                }
            }
        }
        sleep(RETRY_DELAY).await;
    }
}

/// One queue, one ledger: parked updates and ids of two queues would mix.
async fn bind(ledger: &AnyLedger, arn: &str, place: TopologyPlace, adopt: bool) -> Result<(), RunError> {
    let hash = digest(&SHA256, arn.as_bytes());
    let identity = Uuid::from_bytes(*hash.as_ref().first_chunk().expect("SHA-256 has 32 bytes"));
    let before = ledger.binding().await?.topology;
    if let Some(bound) = before.as_ref().filter(|bound| bound.identity != identity)
        && !adopt
    {
        return Err(RunError::LedgerOfAnother { bound: bound.place.to_string(), own: place.to_string() });
    }
    let before = before.map(|bound| bound.identity);
    let own = place.to_string();
    let topology = BoundTopology { identity, place };
    if !ledger.bind(before, &topology, Uuid::new_v4(), None).await? {
        let bound = "a queue or exchange that has taken it at this moment".to_owned();
        return Err(RunError::LedgerOfAnother { bound, own });
    }
    Ok(())
}

//! Starts everything, stops everything.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::pin::pin;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tokio::net::TcpListener;
use tokio::sync::{Mutex, watch};
use tokio::task::JoinSet;
use tracing::{error, info};
use uuid::Uuid;

use super::active_layouts::ActiveLayouts;
use super::auto_apply::auto_apply;
use super::beliefs;
use super::breakers::Breakers;
use super::driver::DriverExit;
use super::driver_context::DriverContext;
use super::inspection::{
    DriverMailboxes, InspectedLedger, InspectedProcess, ReportedDoors, answer_questions,
};
use super::layout_drivers::{DispatchContext, DriverEnded};
use super::ledger_binding::{BindingError, LedgerAndExchange};
use super::notify::{Notifications, NotifyInputs};
use super::pacers::Pacers;
use super::releases::Releases;
use super::reload::{self, AttachAgain, ReloadableParts};
use super::start::{Started, start, wanted};
use super::step_down::{self, ReachWatch};
use super::target_history::TargetHistories;
use crate::admin;
use crate::admin::health::Health;
use crate::admin::metrics::Metrics;
use crate::config::{Config, Loaded};
use crate::config_requests::ConfigRequests;
use crate::http::client::{HttpTargets, TargetsFault};
use crate::http::current::CurrentTargets;
use crate::reload::LogFilter;
use crate::telemetry::Telemetry;
use lanekeeper_broker::{
    Beliefs, BindingGuard, Clock, Follower, Halt, Inquiries, LayoutReconciler, LivenessProbe, Majority,
    Presence, Reach, Shares, SourceError, take_door_reports,
};
use lanekeeper_core::error::error_chain;
use lanekeeper_ledger::{AnyLedger, LedgerError, LedgerPlace};

/// How long the others may take to learn that this process uses nothing of the limits any more. Under an alarm they do not.
const GIVE_UP_WITHIN: Duration = Duration::from_millis(500);

/// How long the end of the process waits for the last notifications.
const NOTIFY_WITHIN: Duration = Duration::from_secs(2);

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
    /// A queue of SQS keeps no order.
    #[error("{key} is no FIFO queue, and keeps no order: set it to a queue whose name ends with .fifo")]
    NotFifo {
        /// Which one.
        key: &'static str,
    },
    /// The ledger belongs to something else than the queue of SQS.
    #[error(
        "this ledger belongs to {bound}, not to {own}: parked updates and ids of the two would mix. Give each queue a ledger of its \
         own (ledger.url); if the other is gone for good, start `lanekeeper run --adopt-ledger` once"
    )]
    LedgerOfAnother {
        /// What the ledger says.
        bound: String,
        /// The queue.
        own: String,
    },
    /// Another process uses the ledger, which is a file.
    #[error(
        "another lanekeeper uses this ledger ({path}), and with SQS only one process may: stop it, or set ledger.url to PostgreSQL \
         for several"
    )]
    LedgerInUse {
        /// The ledger.
        path: PathBuf,
    },
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

/// What the caller of [`run`] gives, beside the config.
#[derive(Debug)]
pub struct Options {
    /// The ledger belongs to the exchange from now on, whatever was used before.
    pub adopt_ledger: bool,
    /// Sets the filter of the log.
    pub log_filter: LogFilter,
    /// Requests to read the config again.
    pub requests: ConfigRequests,
}

/// Dispatches until `shutdown` is done, then stops in order. May be killed at any moment.
///
/// # Errors
/// It could not start: see [`RunError`]. If the broker is only not reachable, it is waited for.
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
    let notifications = Notifications::new(&config, metrics.notify())?;
    let notifier = notifications.notifier();
    let health = Health::default();
    let (in_force, config_in_force) = watch::channel(config.clone());
    let (access, ledger_slot) = (admin::Access::new(&config.admin), admin::LedgerSlot::default());
    let answerer = admin::AnswererSlot::default();
    let served = admin::Parts {
        access: access.clone(),
        metrics: metrics.clone(),
        health: health.clone(),
        requests,
        live: admin::Live::new(&config_in_force),
        config: config_in_force.clone(),
        ledger: ledger_slot.clone(),
        answerer: answerer.clone(),
        found_release: admin::FoundRelease::default(),
    };
    let admin_url = serve_admin(&config, served).await?;
    let started = tokio::select! {
        started = start(&config, &metrics, options.adopt_ledger) => started?,
        () = shutdown.as_mut() => return Ok(()),
    };
    let (halt, clock) = (Halt::default(), Clock::start());
    let Started {
        address,
        consuming,
        publishing,
        membership_link,
        document,
        epochs,
        names,
        ledger,
        pauses,
        place,
    } = started;
    ledger_slot.set(ledger.clone());
    let telemetry = Telemetry::begin(config_in_force.clone(), metrics.spans(), clock)?;
    let parts = ReloadableParts {
        in_force,
        targets: Arc::clone(&targets),
        address: Some(address.clone()),
        ledger: ledger.clone(),
        log_filter: options.log_filter,
        access,
        notifier: notifier.clone(),
        metrics: metrics.config(),
    };
    let (_reloading, mut attach_again) = reload::begin(loaded, parts, received);
    let mut follower = Follower::begin(consuming.clone(), &names, document, halt.clone());
    let auto = config.updates.auto_apply.then(|| auto_apply(config_in_force.clone(), wanted(&config)));
    let (inquiries, asked) = Inquiries::new(&names);
    let asked = Arc::new(Mutex::new(asked));
    let doors = ReportedDoors::default();
    let taking_reports = {
        let doors = doors.clone();
        // Bodies on the connection that consumes can be bounded below the length of a report.
        take_door_reports(membership_link.clone(), &names, move |event| doors.observe(event))
    };
    let instance = config.instance.clone();
    let guard = BindingGuard::begin(consuming.clone(), address.clone(), &names, &instance, &follower);
    let reconciler = LayoutReconciler::begin(address, &names, &instance, &follower, auto, &epochs);
    let (reach_watch, reach) = (ReachWatch::new(clock), Reach::default());
    let liveness = LivenessProbe::begin(consuming.clone());
    let majority = Majority::new(publishing.clone(), &names);
    let releases = ledger.clone().map_or_else(Releases::none, Releases::begin);
    let presence = Presence::default();
    let inputs = NotifyInputs {
        health: health.clone(),
        presence: presence.clone(),
        consuming: consuming.clone(),
        publishing: membership_link.clone(),
        names: names.clone(),
    };
    let notify_task = notifications.begin(&config, inputs);
    let mut drivers = JoinSet::new();
    let mut active_layouts = follower.document().layouts.active_layouts();
    let mut unusable = pin!(unusable(ledger.as_deref()));
    let documents = follower.watch();
    let binding = LedgerAndExchange {
        ledger: ledger.as_deref(),
        place: &place,
        names: &names,
        instance: &instance,
        epochs: &epochs,
        adopt: false,
    };
    let mut unbound = pin!(binding.ended(&documents, &reach_watch));
    let (halted, running) = loop {
        let common = DriverContext {
            releases: releases.clone(),
            pauses: pauses.clone(),
            breakers: Breakers::new(&config.breaker, &config.limits, &metrics, &health),
            pacers: Pacers::begin(&config.limits, &metrics, clock),
            target_metrics: config.targets.iter().map(|target| metrics.target(&target.name)).collect(),
            clock,
            reach_watch: reach_watch.clone(),
            mailboxes: DriverMailboxes::default(),
            histories: TargetHistories::of(config.targets.len()),
            spans: telemetry.as_ref().map(Telemetry::spans),
            refusals: Arc::default(),
            notifier: notifier.clone(),
            dead_letter_log: Arc::default(),
            process: Uuid::new_v4(),
            config: config.clone(),
            ledger: ledger.clone(),
            targets: Arc::clone(&targets),
            metrics: metrics.clone(),
            health: health.clone(),
        };
        let context = DispatchContext {
            common,
            liveness: liveness.clone(),
            majority: majority.clone(),
            epochs: epochs.clone(),
            inquiries: inquiries.clone(),
            admin: admin_url.clone(),
            reach: reach.clone(),
            shares: Shares::default(),
            presence: presence.clone(),
            beliefs: Beliefs::of(config.target_names().into_keys().collect()),
            halt: halt.clone(),
            consuming: consuming.clone(),
            publishing: publishing.clone(),
            membership_link: membership_link.clone(),
            names: names.clone(),
        };
        let target_names: Vec<String> = config.targets.iter().map(|target| target.name.clone()).collect();
        let _showing = pauses.show(&target_names, &metrics, &health);
        let _dividing = context.pacers.divide(context.shares.clone(), context.consuming.heartbeat());
        let believing = config.target_names();
        let _believing = beliefs::follow(&context.beliefs, believing, context.breakers.clone(), clock);
        let inspected = Arc::new(inspected(&context, config_in_force.clone(), doors.clone()));
        if let Some(url) = &admin_url {
            answerer.set(url.clone(), answers_of(Arc::clone(&inspected)));
        }
        let _responder = answer_questions(Arc::clone(&asked), inspected, publishing.clone());
        let _step_down = step_down::begin(reach_watch.clone(), reach.clone(), Arc::clone(&targets));
        let mut running = ActiveLayouts::default();
        let mut end: End = loop {
            running.follow(&context, &active_layouts, &mut drivers);
            tokio::select! {
                () = shutdown.as_mut() => break End::Stop(None),
                reason = context.halt.reason() => break End::Stop(Some(reason.into())),
                fault = unusable.as_mut() => break End::Stop(Some(fault.into())),
                fault = unbound.as_mut() => break End::Stop(Some(RunError::Binding(fault.into()))),
                Some(ended) = drivers.join_next() => {
                    let ended = ended.expect(DRIVER_PANIC);
                    running.ended(&context, &ended);
                    driver_ended(&reconciler, &ended);
                }
                document = follower.changed() => active_layouts = document.layouts.active_layouts(),
                Some(change) = attach_again.recv() => break End::AttachAgain(Box::new(change)),
            }
        };
        end.announce(&health);
        running.stop();
        loop {
            let attaches_again = matches!(end, End::AttachAgain(_));
            tokio::select! {
                ended = drivers.join_next() => {
                    let Some(ended) = ended else { break };
                    let ended = ended.expect(DRIVER_PANIC);
                    if attaches_again {
                        running.ended(&context, &ended);
                        driver_ended(&reconciler, &ended);
                    }
                }
                // It need not wait until partitions were attached, and given back once more.
                () = shutdown.as_mut(), if attaches_again => {
                    end = End::Stop(None);
                    end.announce(&health);
                }
                reason = context.halt.reason(), if attaches_again => {
                    end = End::Stop(Some(reason.into()));
                    end.announce(&health);
                }
            }
        }
        running.end();
        context.shares.give_up(GIVE_UP_WITHIN).await;
        match end {
            End::Stop(halted) => break (halted, running),
            End::AttachAgain(change) => {
                health.set_attaching_again();
                metrics.targets_change();
                let AttachAgain { config: wanted, done } = *change;
                let changed = targets.change(&wanted.targets).and_then(|()| notifier.change(&wanted));
                // A target is known by its number: partitions are never attached with a config whose targets are not in force.
                if changed.is_ok() {
                    config = wanted;
                }
                let _ = done.send(changed);
            }
        }
    };
    if let Some(telemetry) = telemetry {
        telemetry.stop().await;
    }
    notify_task.stop(NOTIFY_WITHIN).await;
    let document = documents.borrow().clone();
    binding.stopped(&document).await;
    if matches!(halted, Some(RunError::Source(SourceError::Moved { .. }))) {
        running.notify_moved().await;
    }
    drop((guard, reconciler, follower, running, taking_reports)); // their tasks would log lost connections
    consuming.close().await;
    publishing.close().await;
    membership_link.close().await;
    halted.map_or(Ok(()), Err)
}

/// What answers questions while partitions are attached with this context.
fn inspected(
    context: &DispatchContext,
    config: watch::Receiver<Config>,
    doors: ReportedDoors,
) -> InspectedProcess {
    let configured = context.config.ledger.as_ref().zip(context.ledger.clone());
    let ledger = configured.map(|(config, ledger)| {
        let kind = match config.place {
            LedgerPlace::Sqlite(_) => "sqlite",
            LedgerPlace::Postgres(_) => "postgres",
        };
        InspectedLedger::new(kind, ledger)
    });
    InspectedProcess {
        instance: context.config.instance.clone(),
        process: context.process.to_string(),
        started_at: SystemTime::now(),
        clock: context.clock,
        health: context.health.clone(),
        mailboxes: context.mailboxes.clone(),
        targets: context.config.targets.iter().map(|target| target.name.clone()).collect(),
        config,
        breakers: context.breakers.clone(),
        pacers: context.pacers.clone(),
        pauses: context.pauses.clone(),
        histories: context.histories.clone(),
        ledger,
        doors,
    }
}

fn answers_of(inspected: Arc<InspectedProcess>) -> admin::Answerer {
    Arc::new(move |question| {
        let inspected = Arc::clone(&inspected);
        Box::pin(async move { inspected.answer(question).await })
    })
}

/// Why all drivers are to end.
enum End {
    /// The process stops; because of this, or as it was asked to.
    Stop(Option<RunError>),
    /// Partitions are attached again, with another config.
    AttachAgain(Box<AttachAgain>),
}

impl End {
    fn announce(&self, health: &Health) {
        match self {
            Self::Stop(reason) => {
                if let Some(reason) = reason {
                    error!(
                        error = error_chain(reason),
                        "dispatching stops, since order can no longer be kept"
                    );
                }
                info!("stopping: attempts in flight are finished, no new ones start");
                health.set_stopping();
            }
            Self::AttachAgain(_) => {
                info!(
                    "the config changes what partitions depend on: attempts in flight are finished, then all partitions are attached again"
                );
            }
        }
    }
}

/// Waits until the ledger cannot be used any more.
pub(super) async fn unusable(ledger: Option<&AnyLedger>) -> LedgerError {
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

/// Serves the port for operators from the start, so that monitoring sees a process that waits for its broker.
///
/// Returns the URL at which others reach it; `None`: there is no port.
pub(super) async fn serve_admin(config: &Config, parts: admin::Parts) -> Result<Option<String>, RunError> {
    let Some(address) = config.admin.listen else { return Ok(None) };
    let fault = |source| RunError::Admin { address, source };
    let listener = TcpListener::bind(address).await.map_err(fault)?;
    let bound = listener.local_addr().map_err(fault)?;
    info!(address = %bound, "serving health and metrics");
    tokio::spawn(admin::serve(listener, parts));
    Ok(Some(config.admin.url_at(bound)))
}

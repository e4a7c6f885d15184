//! Applies changes of the config while the process runs.
//!
//! One task reads: the config file when a person asks for it, and the files that `file:` values name when they change. A config
//! is applied whole or not at all. What only requests depend on is in force with the next attempt; for the rest, the supervisor
//! attaches the partitions again.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::{MissedTickBehavior, interval, timeout};
use tokio_util::task::AbortOnDropHandle;
use tracing::{error, info, warn};

use super::notify::Notifier;
use crate::admin::Access;
use crate::admin::metrics::ConfigMetrics;
use crate::config::{
    Change, Config, ConfigSource, Faults, FileStamp, Loaded, TakesEffect, changes, load_again,
    read_references_again,
};
use crate::config_requests::ConfigRequest;
use crate::http::client::TargetsFault;
use crate::http::current::CurrentTargets;
use lanekeeper_broker::Address;
use lanekeeper_core::error::error_chain;
use lanekeeper_ledger::AnyLedger;

/// How often it is looked if files have changed. A changed file is read when it has been the same twice: whoever writes it may
/// not be done.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);

/// Files that take longer are on a file system that does not answer, or no files but pipes.
const READ_SLOW: Duration = Duration::from_secs(10);

/// Sets the filter of the log, which the config's check has parsed.
#[derive(Clone)]
pub struct LogFilter(pub Arc<dyn Fn(&str) + Send + Sync>);

impl fmt::Debug for LogFilter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("LogFilter")
    }
}

/// What takes in changes.
pub(super) struct Reloadable {
    /// The config in force, for those who look at it now and then.
    pub(super) in_force: watch::Sender<Config>,
    pub(super) targets: Arc<CurrentTargets>,
    pub(super) address: Address,
    pub(super) ledger: Option<Arc<AnyLedger>>,
    pub(super) log_filter: LogFilter,
    /// Tokens and certificate of the admin port.
    pub(super) access: Access,
    pub(super) notifier: Notifier,
    pub(super) metrics: ConfigMetrics,
}

/// The supervisor is to attach the partitions again with this config.
pub(super) struct AttachAgain {
    pub(super) config: Config,
    /// It is in force.
    pub(super) done: oneshot::Sender<Result<(), TargetsFault>>,
}

/// Why a config is not applied.
#[derive(Debug, thiserror::Error)]
enum Refusal {
    #[error("{0}")]
    Faults(#[from] Faults),
    #[error("{0}")]
    Targets(#[from] TargetsFault),
    #[error("only a restart applies {0}")]
    Restart(String),
    #[error("{0}")]
    Other(String),
}

/// Runs until it is dropped. `loaded` is in force.
pub(super) fn begin(
    loaded: Loaded,
    parts: Reloadable,
    requests: mpsc::Receiver<ConfigRequest>,
) -> (AbortOnDropHandle<()>, mpsc::Receiver<AttachAgain>) {
    let (attach, attach_again) = mpsc::channel(1);
    let reloader = Reloader {
        tried: loaded.source.referenced().clone(),
        config_file: loaded.source.path().map(FileStamp::of),
        changing: None,
        attaching: None,
        is_asked: false,
        running: loaded,
        parts,
        attach,
    };
    (AbortOnDropHandle::new(tokio::spawn(reloader.run(requests))), attach_again)
}

/// Reads files where a wait for a disk keeps nothing else waiting. A thread that waits cannot be ended, so it is waited for.
async fn on_a_thread<A: Send + 'static>(read: impl FnOnce() -> A + Send + 'static) -> A {
    let mut reading = tokio::task::spawn_blocking(read);
    let read = if let Ok(read) = timeout(READ_SLOW, &mut reading).await {
        read
    } else {
        warn!(
            seconds = READ_SLOW.as_secs(),
            "the files of the config cannot be read yet: is a file system away, or does a file: value name a pipe? What is in force stays until they are read"
        );
        reading.await
    };
    read.expect("reading files does not panic")
}

type Stamps = BTreeMap<PathBuf, FileStamp>;

struct Reloader {
    /// What is in force.
    running: Loaded,
    parts: Reloadable,
    attach: mpsc::Sender<AttachAgain>,
    /// What the supervisor is bringing into force.
    attaching: Option<(Loaded, oneshot::Receiver<Result<(), TargetsFault>>)>,
    /// A person has asked while the supervisor was busy.
    is_asked: bool,
    /// The files of `file:` values, as they were when they were last read.
    tried: Stamps,
    /// As they were a moment ago, if they have changed.
    changing: Option<Stamps>,
    /// The config file, as it was when something was last said about it.
    config_file: Option<FileStamp>,
}

impl Reloader {
    async fn run(mut self, mut requests: mpsc::Receiver<ConfigRequest>) {
        let mut look = interval(LOOK_INTERVAL);
        look.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                biased;
                attached = Self::attached(&mut self.attaching) => self.attached_again(attached),
                request = requests.recv() => match request {
                    None => return, // the process ends
                    Some(ConfigRequest::Reload) => self.is_asked = true,
                    Some(ConfigRequest::LookAgain(done)) => {
                        self.look_again().await;
                        let _ = done.send(());
                    }
                    Some(ConfigRequest::Compare(answer)) => {
                        let compared = self.read(load_again).await;
                        let compared = compared.map(|wanted| changes(&self.running.shown, &wanted.shown));
                        let _ = answer.send(compared);
                    }
                },
                _ = look.tick() => self.look().await,
            }
            if self.is_asked && self.attaching.is_none() {
                self.is_asked = false;
                self.reload().await;
            }
        }
    }

    async fn attached(
        attaching: &mut Option<(Loaded, oneshot::Receiver<Result<(), TargetsFault>>)>,
    ) -> Result<(), Refusal> {
        match attaching {
            None => std::future::pending().await,
            Some((_, done)) => match done.await {
                Ok(attached) => Ok(attached?),
                Err(_) => Err(Refusal::Other("the process stops".to_owned())),
            },
        }
    }

    /// Reads a config, on a thread that may wait for a disk.
    async fn read(&self, read: fn(&ConfigSource) -> Result<Loaded, Faults>) -> Result<Loaded, Faults> {
        let source = self.running.source.clone();
        on_a_thread(move || read(&source)).await
    }

    /// The files of `file:` values, as they are now, and the config file. On a thread that may wait for a disk.
    async fn stamps(&self) -> (Stamps, Option<FileStamp>) {
        let source = self.running.source.clone();
        let stamps = move || {
            let referenced = source.referenced().keys();
            let stamps = referenced.map(|path| (path.clone(), FileStamp::of(path))).collect();
            (stamps, source.path().map(FileStamp::of))
        };
        on_a_thread(stamps).await
    }

    async fn reload(&mut self) {
        (_, self.config_file) = self.stamps().await;
        match self.read(load_again).await {
            Ok(wanted) => self.apply(wanted, true),
            Err(faults) => self.refused(&faults.into()),
        }
    }

    /// Files may have changed.
    async fn look(&mut self) {
        let (now, config_file) = self.stamps().await;
        if now == self.tried {
            self.changing = None;
        } else if self.changing.as_ref() == Some(&now) {
            self.read_references(now).await;
        } else {
            self.changing = Some(now);
        }
        if config_file != self.config_file {
            self.config_file = config_file;
            info!(
                "the config file has changed, and what is in force stays: SIGHUP applies it, and `lanekeeper check --against-running` shows what that would change"
            );
        }
    }

    /// A target has refused who we are, so what has changed is read at once.
    async fn look_again(&mut self) {
        let (now, _) = self.stamps().await;
        if now != self.tried {
            self.read_references(now).await;
        }
    }

    async fn read_references(&mut self, now: Stamps) {
        if self.attaching.is_some() {
            return; // the next look finds it
        }
        (self.tried, self.changing) = (now, None);
        match self.read(read_references_again).await {
            Ok(wanted) => self.apply(wanted, false),
            Err(faults) => self.refused(&faults.into()),
        }
    }

    /// `asked`: a person wants to know of it.
    fn apply(&mut self, wanted: Loaded, asked: bool) {
        let changes = changes(&self.running.shown, &wanted.shown);
        if changes.is_empty() {
            self.running.source = wanted.source;
            self.tried = self.running.source.referenced().clone();
            self.parts.metrics.applied(); // a file that was refused may be as it was again
            if asked {
                info!("the config was read again, and says the same as before");
            }
            return;
        }
        match self.begin_change(&wanted.config, &changes) {
            Err(refusal) => self.refused(&refusal),
            Ok(None) => self.in_force(wanted, &changes),
            Ok(Some(done)) => self.attaching = Some((wanted, done)),
        }
    }

    /// `None`: it is in force.
    fn begin_change(
        &self,
        config: &Config,
        changes: &[Change],
    ) -> Result<Option<oneshot::Receiver<Result<(), TargetsFault>>>, Refusal> {
        let with = |takes_effect| {
            let such = changes.iter().filter(move |change| change.takes_effect == takes_effect);
            such.map(ToString::to_string).collect::<Vec<_>>()
        };
        let restart = with(TakesEffect::AtTheNextStart);
        if !restart.is_empty() {
            return Err(Refusal::Restart(restart.join(", ")));
        }
        self.parts.targets.can_change(&config.targets)?;
        self.parts.notifier.can_change(config)?;
        self.change_others(config)?;
        if with(TakesEffect::WhenAttachedAgain).is_empty() {
            self.parts.targets.change(&config.targets)?;
            self.parts.notifier.change(config)?;
            return Ok(None);
        }
        let (done, when_done) = oneshot::channel();
        let asked = self.attach.try_send(AttachAgain { config: config.clone(), done });
        asked.map_err(|_| Refusal::Other("the process stops".to_owned()))?;
        Ok(Some(when_done))
    }

    /// What nothing else depends on.
    fn change_others(&self, config: &Config) -> Result<(), Refusal> {
        let users = self.parts.address.change_users(&config.broker.connection);
        users.map_err(|error| Refusal::Other(error_chain(&error)))?;
        if let (Some(ledger), Some(config)) = (&self.parts.ledger, &config.ledger) {
            ledger.change_users(config).map_err(|error| Refusal::Other(error_chain(&error)))?;
        }
        (self.parts.log_filter.0)(&config.log.filter);
        self.parts.access.change(&config.admin);
        Ok(())
    }

    fn attached_again(&mut self, attached: Result<(), Refusal>) {
        let Some((wanted, _)) = self.attaching.take() else { return };
        match attached {
            Ok(()) => {
                let changes = changes(&self.running.shown, &wanted.shown);
                self.in_force(wanted, &changes);
            }
            Err(refusal) => self.refused(&refusal),
        }
    }

    fn in_force(&mut self, wanted: Loaded, changes: &[Change]) {
        self.parts.metrics.applied();
        let changed: Vec<String> = changes.iter().map(ToString::to_string).collect();
        info!(changed = changed.join(", "), "the config has changed, and is in force");
        self.tried = wanted.source.referenced().clone();
        self.parts.in_force.send_replace(wanted.config.clone());
        self.running = wanted;
    }

    fn refused(&self, refusal: &Refusal) {
        self.parts.metrics.refused();
        error!(
            why = refusal.to_string().trim_end(),
            "the changed config is not applied: the one before stays in force, with all its values"
        );
    }
}

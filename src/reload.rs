//! Reads the config again while the process runs, and has its changes applied.
//!
//! One task reads: the config file when a person asks for it, and the files that `file:` values name when they change. A config
//! is applied whole or not at all. What applies it is a [`Reloadable`]: `runtime::reload` for a process that dispatches,
//! `ingest::reload` for a door.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};
use tokio::time::{MissedTickBehavior, interval, timeout};
use tokio_util::task::AbortOnDropHandle;
use tracing::{error, info, warn};

use crate::admin::metrics::ConfigMetrics;
use crate::config::{
    Change, Config, ConfigSource, Faults, FileStamp, Loaded, Purpose, TakesEffect, changes, load_again,
    read_references_again,
};
use crate::config_requests::ConfigRequest;
use crate::http::client::TargetsFault;

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
pub(crate) trait Reloadable: Send + Sync + 'static {
    /// Brings a config into force that only a restart would not have to. Faults that it finds leave the one before in force.
    ///
    /// # Errors
    /// Why it is not applied.
    fn begin_change(&self, config: &Config, changes: &[Change]) -> Result<BegunChange, Refusal>;

    /// The config is in force.
    fn in_force(&self, config: &Config);

    /// Metrics of the config.
    fn metrics(&self) -> &ConfigMetrics;
}

/// How far a change is.
#[derive(Debug)]
pub(crate) enum BegunChange {
    /// It is in force.
    Done,
    /// It is in force when this says so.
    Begun(oneshot::Receiver<Result<(), TargetsFault>>),
}

/// Why a config is not applied.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Refusal {
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
pub(crate) fn begin(
    loaded: Loaded,
    parts: impl Reloadable,
    requests: mpsc::Receiver<ConfigRequest>,
) -> AbortOnDropHandle<()> {
    let reloader = Reloader {
        tried: loaded.source.referenced().clone(),
        config_file: loaded.source.path().map(FileStamp::of),
        changing: None,
        attaching: None,
        is_asked: false,
        running: loaded,
        parts,
    };
    AbortOnDropHandle::new(tokio::spawn(reloader.run(requests)))
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

struct Reloader<P> {
    /// What is in force.
    running: Loaded,
    parts: P,
    /// What is being brought into force.
    attaching: Option<(Loaded, oneshot::Receiver<Result<(), TargetsFault>>)>,
    /// A person has asked while another change was being brought into force.
    is_asked: bool,
    /// The files of `file:` values, as they were when they were last read.
    tried: Stamps,
    /// As they were a moment ago, if they have changed.
    changing: Option<Stamps>,
    /// The config file, as it was when something was last said about it.
    config_file: Option<FileStamp>,
}

impl<P: Reloadable> Reloader<P> {
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
                        let compared = compared.map(|wanted| self.changes(&wanted));
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
    async fn read(
        &self,
        read: fn(&ConfigSource, Purpose) -> Result<Loaded, Faults>,
    ) -> Result<Loaded, Faults> {
        let (source, purpose) = (self.running.source.clone(), self.running.purpose);
        on_a_thread(move || read(&source, purpose)).await
    }

    /// What this process would change.
    fn changes(&self, wanted: &Loaded) -> Vec<Change> {
        changes(self.running.purpose, &self.running.shown, &wanted.shown)
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
        let changes = self.changes(&wanted);
        if changes.is_empty() {
            self.running.source = wanted.source;
            self.tried = self.running.source.referenced().clone();
            self.parts.metrics().applied(); // a file that was refused may be as it was again
            if asked {
                info!("the config was read again, and says the same as before");
            }
            return;
        }
        let restart: Vec<String> = changes
            .iter()
            .filter(|change| change.takes_effect == TakesEffect::AtTheNextStart)
            .map(ToString::to_string)
            .collect();
        let begun = if restart.is_empty() {
            self.parts.begin_change(&wanted.config, &changes)
        } else {
            Err(Refusal::Restart(restart.join(", ")))
        };
        match begun {
            Err(refusal) => self.refused(&refusal),
            Ok(BegunChange::Done) => self.in_force(wanted, &changes),
            Ok(BegunChange::Begun(done)) => self.attaching = Some((wanted, done)),
        }
    }

    fn attached_again(&mut self, attached: Result<(), Refusal>) {
        let Some((wanted, _)) = self.attaching.take() else { return };
        match attached {
            Ok(()) => {
                let changes = self.changes(&wanted);
                self.in_force(wanted, &changes);
            }
            Err(refusal) => self.refused(&refusal),
        }
    }

    fn in_force(&mut self, wanted: Loaded, changes: &[Change]) {
        self.parts.metrics().applied();
        let changed: Vec<String> = changes.iter().map(ToString::to_string).collect();
        info!(changed = changed.join(", "), "the config has changed, and is in force");
        self.tried = wanted.source.referenced().clone();
        self.parts.in_force(&wanted.config);
        self.running = wanted;
    }

    fn refused(&self, refusal: &Refusal) {
        self.parts.metrics().refused();
        error!(
            why = refusal.to_string().trim_end(),
            "the changed config is not applied: the one before stays in force, with all its values"
        );
    }
}

//! A dispatcher that is killed, stopped and started again, with all of its lives in one log.

use std::fs::OpenOptions;
use std::io::Write as _;
use std::path::PathBuf;
use std::time::Duration;

use tokio::time::{sleep, timeout};

use super::error::ChaosError;
use crate::testbed::{Dispatcher, Signal, metric_values, program};

const READY_TIMEOUT: Duration = Duration::from_secs(60);
const END_TIMEOUT: Duration = Duration::from_secs(60);
const METRICS_TIMEOUT: Duration = Duration::from_secs(5);
/// One per partition: 1 if it owns it.
const ACTIVE: &str = "lanekeeper_partition_active";
/// Lines of its log that are printed if updates do not arrive, and the metrics.
const LOG_LINES_SHOWN: usize = 12;
const METRICS_SHOWN: [&str; 8] =
    ["active", "held", "lanes", "in_flight", "keys", "circuit_state", "outcome", "oldest"];

/// What it is started with.
#[derive(Debug)]
pub(super) struct ReplicaSettings {
    pub(super) program: PathBuf,
    pub(super) config: PathBuf,
    pub(super) broker_url: String,
    pub(super) log: PathBuf,
}

/// See the module.
#[derive(Debug)]
pub(super) struct Replica {
    settings: ReplicaSettings,
    running: Dispatcher,
}

impl Replica {
    pub(super) fn start(settings: ReplicaSettings) -> Result<Self, ChaosError> {
        let running = dispatcher(&settings)?;
        Ok(Self { settings, running })
    }

    /// Waits until it consumes every partition.
    pub(super) async fn ready(&self) -> Result<(), ChaosError> {
        Ok(self.running.wait_ready(READY_TIMEOUT).await?)
    }

    /// Sends SIGKILL, and starts it again after `down`.
    pub(super) async fn kill(&mut self, down: Duration) -> Result<(), ChaosError> {
        self.running.process.kill()?;
        self.start_again(down, "SIGKILL").await
    }

    /// Sends SIGTERM, and starts it again `down` after it has ended.
    pub(super) async fn terminate(&mut self, down: Duration) -> Result<(), ChaosError> {
        // Before its first line it does not handle signals yet, and has begun nothing that could end well.
        let handles_signals = !self.running.process.log().is_empty();
        let status = self.running.process.terminate(END_TIMEOUT).await?;
        if handles_signals && !status.success() {
            return Err(ChaosError::Drain(status));
        }
        self.start_again(down, "SIGTERM").await
    }

    /// Sends SIGSTOP, and SIGCONT after `lasts`.
    pub(super) async fn freeze(&self, lasts: Duration) -> Result<(), ChaosError> {
        self.running.process.signal(Signal::STOP)?;
        sleep(lasts).await;
        Ok(self.running.process.signal(Signal::CONT)?)
    }

    /// Starts it again if it has ended by itself, as its operator's supervisor would; true if it had.
    pub(super) fn revive(&mut self) -> Result<bool, ChaosError> {
        let ended = self.running.process.exit_status()?.is_some();
        if ended {
            self.running = dispatcher(&self.settings)?;
        }
        Ok(ended)
    }

    /// Sends SIGTERM, and does not start it again.
    pub(super) async fn stop(&mut self) -> Result<(), ChaosError> {
        Ok(self.running.process.stop(END_TIMEOUT).await?)
    }

    /// Partitions that it owns, by its own account; none if it does not answer.
    pub(super) async fn owned(&self) -> u64 {
        let metrics = timeout(METRICS_TIMEOUT, self.running.metrics()).await;
        let Ok(Ok(metrics)) = metrics else { return 0 };
        metric_values(&metrics, ACTIVE).filter(|active| *active > 0.0).count() as u64
    }

    /// The end of its log, and those metrics of partitions and targets that are not zero.
    pub(super) async fn state(&self) -> String {
        let log = self.running.process.log();
        let lines: Vec<&str> = log.lines().collect();
        let last = lines[lines.len().saturating_sub(LOG_LINES_SHOWN)..].join("\n");
        let metrics = match timeout(METRICS_TIMEOUT, self.running.metrics()).await {
            Ok(Ok(metrics)) => metrics,
            Ok(Err(error)) => error,
            Err(_) => format!("no metrics within {} s", METRICS_TIMEOUT.as_secs()),
        };
        let is_zero = |line: &str| line.ends_with(" 0") || line.ends_with(" 0.0");
        let shown = |line: &&str| {
            !line.starts_with('#') && !is_zero(line) && METRICS_SHOWN.iter().any(|name| line.contains(name))
        };
        let metrics: Vec<_> = metrics.lines().filter(shown).collect();
        format!("{last}\n{}", metrics.join("\n"))
    }

    async fn start_again(&mut self, down: Duration, ended_by: &str) -> Result<(), ChaosError> {
        let log = OpenOptions::new().append(true).open(&self.settings.log);
        log.and_then(|mut log| writeln!(log, "=== {ended_by}")).map_err(ChaosError::system("write a log"))?;
        sleep(down).await;
        self.running = dispatcher(&self.settings)?;
        Ok(())
    }
}

fn dispatcher(settings: &ReplicaSettings) -> Result<Dispatcher, ChaosError> {
    let ReplicaSettings { program, config, broker_url, log } = settings;
    let mut command = program::run_command(program, config);
    command.env("LANEKEEPER_BROKER__URL", broker_url);
    Ok(Dispatcher::start(command, log)?)
}

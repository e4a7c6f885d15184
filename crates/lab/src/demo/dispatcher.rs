//! The demo's dispatcher: `lanekeeper run` as a process of its own, to be killed and started again.

use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use super::error::DemoError;
use crate::testbed::{self, log_tail, program};
use lanekeeper::config::Secret;

/// The variable that the demo's config takes the broker's URL from, so that no password is in a file.
pub(super) const BROKER_VARIABLE: &str = "LANEKEEPER_DEMO_BROKER";
/// Time limit of its end after SIGTERM: it has nothing left to do.
const STOP_TIMEOUT: Duration = Duration::from_secs(10);

/// A dispatcher, running or not. It ends with this value.
#[derive(Debug)]
pub(super) struct Dispatcher {
    config: PathBuf,
    /// The log of all processes.
    pub(super) log: PathBuf,
    broker_url: Secret,
    running: Option<testbed::Dispatcher>,
}

impl Dispatcher {
    /// Not started yet.
    pub(super) fn new(config: PathBuf, log: PathBuf, broker_url: Secret) -> Self {
        Self { config, log, broker_url, running: None }
    }

    /// Starts it; its process id.
    pub(super) fn start(&mut self) -> Result<u32, DemoError> {
        let executable = program::executable().map_err(DemoError::system("find the program lanekeeper"))?;
        let mut command = program::run_command(&executable, &self.config);
        command.env(BROKER_VARIABLE, self.broker_url.reveal()).stdout(Stdio::null());
        let started = testbed::Dispatcher::start(command, &self.log)?;
        Ok(self.running.insert(started).process.id())
    }

    /// Sends SIGKILL. When it has returned, the process is gone, and with it its connections.
    pub(super) fn kill(&mut self) -> Result<(), DemoError> {
        match self.running.take() {
            Some(mut running) => Ok(running.process.kill().map(drop)?),
            None => Ok(()),
        }
    }

    /// Sends SIGTERM. When it has returned, the process has ended in order: what it settled is settled at the broker too.
    ///
    /// # Errors
    /// It did not end, or not with success.
    pub(super) async fn stop(&mut self) -> Result<(), DemoError> {
        let Some(running) = &mut self.running else { return Ok(()) };
        let status = running.process.terminate(STOP_TIMEOUT).await?;
        if !status.success() {
            return Err(DemoError::Drain(status));
        }
        self.running = None;
        Ok(())
    }

    /// # Errors
    /// It was started and has ended by itself.
    pub(super) fn check(&mut self) -> Result<(), DemoError> {
        match &mut self.running {
            Some(running) => Ok(running.process.check()?),
            None => Ok(()),
        }
    }

    /// # Errors
    /// It does not consume every partition yet: why.
    pub(super) async fn ready(&self) -> Result<(), String> {
        match &self.running {
            Some(running) => running.ready().await,
            None => Err("it was not started".to_owned()),
        }
    }

    /// Updates that it has received and has not settled; `None`: it does not answer.
    pub(super) async fn unsettled(&self) -> Option<u64> {
        self.running.as_ref()?.unsettled().await
    }

    /// The end of its log; empty if there is none.
    pub(super) fn log_tail(&self) -> String {
        log_tail(&self.log)
    }
}

//! `lanekeeper run` as a process of its own, to be killed and started again.

use std::fs::{File, OpenOptions};
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::process::{Child, Command};
use tokio::time::timeout;

use super::failure::Failure;
use crate::product;
use lanekeeper::config::Secret;

/// The variable that the demo's config takes the broker's URL from, so that no password is in a file.
pub(super) const BROKER_VARIABLE: &str = "LANEKEEPER_DEMO_BROKER";
/// How our own variables begin. Set for the demo, they are not for its dispatcher, whose config is the demo's.
const OWN_VARIABLES: &str = "LANEKEEPER_";
/// How long `/metrics` may take.
const METRICS_TIMEOUT: Duration = Duration::from_secs(2);
/// How long it may take to end in order: it has nothing left to do.
const STOP_TIMEOUT: Duration = Duration::from_secs(10);
/// Deliveries that the dispatcher holds unsettled, per partition.
const HELD: &str = "lanekeeper_held{";
/// Lines of the log that are shown when the demo fails.
const TAIL_LINES: usize = 20;

/// A dispatcher, running or not. It ends with this value.
#[derive(Debug)]
pub(super) struct Dispatcher {
    config: PathBuf,
    /// Standard error of all its lives.
    pub(super) log: PathBuf,
    broker_url: Secret,
    /// Where it tells its metrics.
    pub(super) admin: SocketAddr,
    child: Option<Child>,
}

impl Dispatcher {
    /// Not started yet.
    ///
    /// # Errors
    /// No port is free.
    pub(super) fn new(config: PathBuf, log: PathBuf, broker_url: Secret) -> Result<Self, Failure> {
        // Free now; should somebody else take it meanwhile, the dispatcher says so and the demo ends.
        let admin = TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr());
        let admin = admin.map_err(Failure::system("find a free port for the dispatcher"))?;
        Ok(Self { config, log, broker_url, admin, child: None })
    }

    /// Starts it; its process id.
    pub(super) fn start(&mut self) -> Result<u32, Failure> {
        let step = "start `lanekeeper run`";
        let log = OpenOptions::new().create(true).append(true).open(&self.log);
        let mut command = Command::new(product::executable().map_err(Failure::system(step))?);
        for (name, _) in std::env::vars_os() {
            if name.to_string_lossy().starts_with(OWN_VARIABLES) {
                command.env_remove(name);
            }
        }
        let child = command
            .args(["run", "--config"])
            .arg(&self.config)
            .env(BROKER_VARIABLE, self.broker_url.reveal())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log.map_err(Failure::system("write the dispatcher's log"))?)
            .kill_on_drop(true)
            .spawn()
            .map_err(Failure::system(step))?;
        let id = child.id().expect("it was not waited for yet");
        self.child = Some(child);
        Ok(id)
    }

    /// SIGKILL. When it has returned, the process is gone, and with it its connections.
    pub(super) async fn kill(&mut self) -> Result<(), Failure> {
        match self.child.take() {
            Some(mut child) => child.kill().await.map_err(Failure::system("kill the dispatcher")),
            None => Ok(()),
        }
    }

    /// SIGTERM. When it has returned, the process has ended in order: what it settled is settled at the broker too.
    ///
    /// # Errors
    /// It did not end, or not with success.
    pub(super) async fn stop(&mut self) -> Result<(), Failure> {
        let step = "stop the dispatcher";
        let Some(child) = &mut self.child else { return Ok(()) };
        let id = child.id().map(|id| id.to_string()).unwrap_or_default();
        // Every Unix has this shell and its `kill`; the standard library only sends SIGKILL.
        let killing = Command::new("/bin/sh").args(["-c", "kill -s TERM \"$1\"", "sh", &id]).status();
        killing.await.map_err(Failure::system(step))?;
        match timeout(STOP_TIMEOUT, child.wait()).await {
            Ok(ended) => match ended.map_err(Failure::system(step))? {
                status if status.success() => self.child = None,
                status => return Err(Failure::DispatcherEnded(status)),
            },
            Err(_) => return Err(Failure::DispatcherStays { seconds: STOP_TIMEOUT.as_secs() }),
        }
        Ok(())
    }

    /// # Errors
    /// It was started and has ended by itself.
    pub(super) fn check(&mut self) -> Result<(), Failure> {
        let Some(child) = &mut self.child else { return Ok(()) };
        match child.try_wait().map_err(Failure::system("ask for the dispatcher"))? {
            Some(status) => Err(Failure::DispatcherEnded(status)),
            None => Ok(()),
        }
    }

    /// Updates that it has from the broker and has not settled; `None` where it does not answer.
    pub(super) async fn held(&self) -> Option<u64> {
        let metrics = timeout(METRICS_TIMEOUT, self.metrics()).await.ok()?.ok()?;
        let values = metrics.lines().filter(|line| line.starts_with(HELD));
        let held: Vec<u64> =
            values.map(|line| line.rsplit(' ').next()?.parse().ok()).collect::<Option<_>>()?;
        (!held.is_empty()).then(|| held.iter().sum())
    }

    /// One plain request: for this a client library would be too much.
    async fn metrics(&self) -> io::Result<String> {
        let mut stream = TcpStream::connect(self.admin).await?;
        stream.write_all(b"GET /metrics HTTP/1.0\r\n\r\n").await?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await?;
        Ok(answer)
    }

    /// The end of its log; empty where there is none.
    pub(super) fn log_tail(&self) -> String {
        let log = File::open(&self.log).and_then(io::read_to_string).unwrap_or_default();
        let lines: Vec<&str> = log.lines().collect();
        lines[lines.len().saturating_sub(TAIL_LINES)..].join("\n")
    }
}

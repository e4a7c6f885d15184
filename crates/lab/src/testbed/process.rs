//! A program that runs as a process of its own, with its log (standard error) in a file.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read as _, Seek as _, SeekFrom};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, ExitStatus, Stdio};
use std::time::Duration;

use super::usage::Usage;
pub use rustix::process::Signal;
use rustix::process::{Pid, WaitId, WaitIdOptions, kill_process, kill_process_group, waitid};
use tokio::time::{sleep, timeout};

const POLL_INTERVAL: Duration = Duration::from_millis(10);
/// Lines of a log that an error shows.
const LOG_LINES_SHOWN: usize = 20;

/// A process, killed when this value is dropped.
#[derive(Debug)]
pub struct Process {
    name: String,
    child: Child,
    /// True if it has a process group of its own: signals then go to everything that it starts, too.
    is_group: bool,
    log: PathBuf,
    /// Where its log begins in the file, which can hold logs of earlier processes.
    log_start: u64,
}

/// Why a process does not do what it should.
#[derive(Debug, thiserror::Error)]
pub enum ProcessError {
    /// It did not start.
    #[error("cannot start {name}")]
    Start {
        /// The process.
        name: String,
        /// The operating system's error.
        #[source]
        source: io::Error,
    },
    /// The operating system refused something.
    #[error("cannot {action} {name}")]
    System {
        /// What was tried.
        action: &'static str,
        /// The process.
        name: String,
        /// The operating system's error.
        #[source]
        source: io::Error,
    },
    /// It ended, and nobody asked for that.
    #[error("{name} ended too early ({status}); its log ends with:\n{log_tail}")]
    EndedEarly {
        /// The process.
        name: String,
        /// How it ended.
        status: ExitStatus,
        /// The end of its log.
        log_tail: String,
    },
    /// It does not consume every partition yet.
    #[error("{name} is not ready after {} s: {reason}", limit.as_secs())]
    NotReady {
        /// The process.
        name: String,
        /// How long it was given.
        limit: Duration,
        /// What it answered last.
        reason: String,
    },
    /// It got a signal to end and still runs.
    #[error("{name} still runs {} s after the signal to end", limit.as_secs())]
    StillRuns {
        /// The process.
        name: String,
        /// How long it was given.
        limit: Duration,
    },
}

impl Process {
    /// Starts `command`, which `name` stands for in errors. Its log is appended to the file `log`; it gets no input.
    ///
    /// # Errors
    /// It does not start, or the log cannot be written.
    pub fn start(name: &str, command: Command, log: &Path) -> Result<Self, ProcessError> {
        Self::spawn(name, command, log, false)
    }

    /// As [`Self::start`], in a process group of its own: signals go to everything that it starts, too.
    ///
    /// # Errors
    /// It does not start, or the log cannot be written.
    pub fn start_group(name: &str, mut command: Command, log: &Path) -> Result<Self, ProcessError> {
        command.process_group(0);
        Self::spawn(name, command, log, true)
    }

    fn spawn(name: &str, mut command: Command, log: &Path, is_group: bool) -> Result<Self, ProcessError> {
        let name = name.to_owned();
        let opened = OpenOptions::new().create(true).append(true).open(log);
        let opened = opened.and_then(|file| Ok((file.metadata()?.len(), file)));
        let (log_start, file) = match opened {
            Ok(opened) => opened,
            Err(source) => return Err(ProcessError::System { action: "write the log of", name, source }),
        };
        match command.stdin(Stdio::null()).stderr(file).spawn() {
            Ok(child) => Ok(Self { name, child, is_group, log: log.to_owned(), log_start }),
            Err(source) => Err(ProcessError::Start { name, source }),
        }
    }

    /// Its process id.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Its standard output, once, if its command pipes it.
    pub fn take_stdout(&mut self) -> Option<ChildStdout> {
        self.child.stdout.take()
    }

    /// # Errors
    /// [`ProcessError::EndedEarly`]: it does not run any more.
    pub fn check(&mut self) -> Result<(), ProcessError> {
        match self.exit_status()? {
            None => Ok(()),
            Some(status) => {
                let log_tail = tail(&self.log());
                Err(ProcessError::EndedEarly { name: self.name.clone(), status, log_tail })
            }
        }
    }

    /// How it ended; `None`: it runs.
    ///
    /// # Errors
    /// The operating system does not say.
    pub fn exit_status(&mut self) -> Result<Option<ExitStatus>, ProcessError> {
        let status = self.child.try_wait();
        status.map_err(|source| self.system_error("ask for the state of", source))
    }

    /// Sends a signal.
    ///
    /// # Errors
    /// It has ended.
    pub fn signal(&self, signal: Signal) -> Result<(), ProcessError> {
        let pid = Pid::from_child(&self.child);
        let sent = if self.is_group { kill_process_group(pid, signal) } else { kill_process(pid, signal) };
        sent.map_err(|errno| self.system_error("send a signal to", errno.into()))
    }

    /// Sends SIGKILL. When it has returned, the process is gone, and with it its connections.
    ///
    /// # Errors
    /// The operating system refuses.
    pub fn kill(&mut self) -> Result<ExitStatus, ProcessError> {
        if let Some(status) = self.exit_status()? {
            return Ok(status);
        }
        self.signal(Signal::KILL)?;
        self.child.wait().map_err(|source| self.system_error("wait for", source))
    }

    /// Waits until it ends.
    ///
    /// # Errors
    /// [`ProcessError::StillRuns`] after `limit`.
    pub async fn wait(&mut self, limit: Duration) -> Result<ExitStatus, ProcessError> {
        let ended = timeout(limit, async {
            loop {
                match self.child.try_wait() {
                    Ok(None) => sleep(POLL_INTERVAL).await,
                    Ok(Some(status)) => return Ok(status),
                    Err(source) => return Err(source),
                }
            }
        });
        match ended.await {
            Ok(ended) => ended.map_err(|source| self.system_error("wait for", source)),
            Err(_) => Err(ProcessError::StillRuns { name: self.name.clone(), limit }),
        }
    }

    /// Waits until it ends; what it has used by then, except for memory, which is gone. It is still to be waited for.
    ///
    /// # Errors
    /// [`ProcessError::StillRuns`] after `limit`.
    pub async fn usage_at_end(&self, limit: Duration) -> Result<Usage, ProcessError> {
        let pid = Pid::from_child(&self.child);
        let options = WaitIdOptions::EXITED | WaitIdOptions::NOHANG | WaitIdOptions::NOWAIT;
        let ended = timeout(limit, async {
            while waitid(WaitId::Pid(pid), options)?.is_none() {
                sleep(POLL_INTERVAL).await;
            }
            io::Result::Ok(Usage::of(self.id()))
        });
        match ended.await {
            Ok(ended) => ended.map_err(|source| self.system_error("wait for", source)),
            Err(_) => Err(ProcessError::StillRuns { name: self.name.clone(), limit }),
        }
    }

    /// Sends SIGTERM and waits until it ends.
    ///
    /// # Errors
    /// [`ProcessError::StillRuns`] after `limit`.
    pub async fn terminate(&mut self, limit: Duration) -> Result<ExitStatus, ProcessError> {
        if let Some(status) = self.exit_status()? {
            return Ok(status);
        }
        self.signal(Signal::TERM)?;
        self.wait(limit).await
    }

    /// Sends SIGTERM and waits until it ends; after `limit` sends SIGKILL.
    ///
    /// # Errors
    /// The operating system refuses.
    pub async fn stop(&mut self, limit: Duration) -> Result<(), ProcessError> {
        match self.terminate(limit).await {
            Err(ProcessError::StillRuns { .. }) => self.kill().map(drop),
            ended => ended.map(drop),
        }
    }

    /// What it has logged so far; empty if the file cannot be read.
    pub fn log(&self) -> String {
        let read = || {
            let mut file = File::open(&self.log)?;
            file.seek(SeekFrom::Start(self.log_start))?;
            let mut bytes = Vec::new();
            file.read_to_end(&mut bytes)?;
            io::Result::Ok(String::from_utf8_lossy(&bytes).into_owned())
        };
        read().unwrap_or_default()
    }

    fn system_error(&self, action: &'static str, source: io::Error) -> ProcessError {
        ProcessError::System { action, name: self.name.clone(), source }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // In a group there can be processes left although the first one has ended.
        if self.is_group {
            let _ = kill_process_group(Pid::from_child(&self.child), Signal::KILL);
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The last lines of a log file, of whatever processes wrote to it; empty if there is none.
pub fn log_tail(log: &Path) -> String {
    tail(&fs::read_to_string(log).unwrap_or_default())
}

fn tail(text: &str) -> String {
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(LOG_LINES_SHOWN)..].join("\n")
}

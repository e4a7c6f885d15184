//! The built binary as a process.

use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};

use lanekeeper_lab::testbed::{self as lab, Signal, Usage, metric_values, program};
use tempfile::TempDir;

use super::until;
use super::wait::PATIENCE;

const BINARY: &str = env!("CARGO_BIN_EXE_lanekeeper");

/// What a command that ended has printed.
pub struct Output {
    pub code: Option<i32>,
    pub stdout: String,
    pub stderr: String,
}

/// The binary, to be started otherwise.
pub fn lanekeeper_command() -> Command {
    Command::new(BINARY)
}

/// The binary, with other names than those of the system: this file in place of `/etc/hosts`.
pub fn command_knowing(names: &Path) -> Command {
    let mut command = Command::new("unshare");
    command
        .args(["--map-root-user", "--mount", "sh", "-c", "mount --bind \"$0\" /etc/hosts && exec \"$@\""])
        .arg(names)
        .arg(BINARY);
    command
}

/// Runs a command to its end.
pub fn lanekeeper(arguments: &[&str], environment: &[(&str, String)], input: &[u8]) -> Output {
    let mut child = Command::new(BINARY)
        .args(arguments)
        .envs(environment.iter().map(|(name, value)| (*name, value.as_str())))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the binary starts");
    let mut stdin = child.stdin.take().expect("it is piped");
    let input = input.to_vec();
    // A command that ends early has not read it all.
    let writing = std::thread::spawn(move || stdin.write_all(&input).is_ok());
    let output = child.wait_with_output().expect("it ends");
    writing.join().expect("it does not panic");
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    Output { code: output.status.code(), stdout: text(&output.stdout), stderr: text(&output.stderr) }
}

/// A `lanekeeper run` with its log. Killed when the test ends.
pub struct Dispatcher {
    lab: lab::Dispatcher,
    /// Holds the log.
    _dir: TempDir,
}

impl Dispatcher {
    pub fn start(config: &Path) -> Self {
        Self::start_with(config, &[])
    }

    /// With an authority whose certificates it trusts, and no other.
    pub fn start_trusting(config: &Path, authority: &Path) -> Self {
        let mut command = program::run_command(Path::new(BINARY), config);
        command.env("SSL_CERT_FILE", authority);
        Self::begin(command)
    }

    /// With options of `run` besides.
    pub fn start_with(config: &Path, options: &[&str]) -> Self {
        Self::start_program(Path::new(BINARY), config, options)
    }

    /// Perhaps of another version.
    pub fn start_program(program: &Path, config: &Path, options: &[&str]) -> Self {
        let mut command = program::run_command(program, config);
        command.args(options);
        Self::begin(command)
    }

    /// With `disk` as a disk of its own of 32 MiB, most of it taken, until somebody writes to the named pipe
    /// `relieved`.
    pub fn start_on_a_small_disk(config: &Path, disk: &Path, relieved: &Path) -> Self {
        const SCRIPT: &str = "mount -t tmpfs -o size=32m none \"$0\" && head -c 30000000 /dev/zero >\"$0/ballast\" && \
            { read -r _ <\"$1\"; rm \"$0/ballast\"; } & shift; exec \"$@\"";
        let mut command = program::command(Path::new("unshare"));
        command
            .args(["--map-root-user", "--mount", "sh", "-c", SCRIPT])
            .args([disk, relieved])
            .args([BINARY, "run", "--config"])
            .arg(config);
        Self::begin(command)
    }

    /// A command of the test's own.
    pub fn start_command(command: Command) -> Self {
        Self::begin(command)
    }

    fn begin(command: Command) -> Self {
        let dir = tempfile::tempdir().expect("a directory can be made");
        let lab = lab::Dispatcher::start(command, &dir.path().join("log")).expect("the binary starts");
        Self { lab, _dir: dir }
    }

    /// Where it tells health and metrics.
    pub async fn admin(&self) -> String {
        until("the address of health and metrics", || async {
            self.lab.admin().ok_or_else(|| self.lab.process.log())
        })
        .await
    }

    /// Attached to every partition.
    pub async fn ready(&self) {
        until("a ready dispatcher", || self.lab.ready()).await;
    }

    /// All metrics, as text.
    pub async fn metrics(&self) -> String {
        until("metrics", || self.lab.metrics()).await
    }

    /// The value of a metric, summed over its labels.
    pub async fn metric(&self, name: &str) -> f64 {
        metric_values(&self.metrics().await, name).sum()
    }

    /// The first line of the log with this text.
    pub async fn logged(&self, text: &str) -> String {
        until(&format!("a log line with {text:?}"), || async {
            let log = self.log();
            log.iter().find(|line| line.contains(text)).cloned().ok_or_else(|| log.join("\n"))
        })
        .await
    }

    pub fn log(&self) -> Vec<String> {
        self.lab.process.log().lines().map(str::to_owned).collect()
    }

    pub fn terminate(&self) {
        self.signal(Signal::TERM);
    }

    /// Its process id.
    pub fn id(&self) -> u32 {
        self.lab.process.id()
    }

    pub fn signal(&self, signal: Signal) {
        self.lab.process.signal(signal).expect("it can be signalled");
    }

    /// SIGKILL, and waits until it is gone.
    pub fn kill(&mut self) {
        self.lab.process.kill().expect("it can be killed");
    }

    /// Waits until it ends by itself; its exit code.
    pub async fn ended(&mut self) -> Option<i32> {
        self.lab.process.wait(PATIENCE).await.expect("it ends").code()
    }

    /// Resident memory in MiB: now and at most.
    pub fn memory(&self) -> Usage {
        Usage::of(self.lab.process.id())
    }
}

impl Drop for Dispatcher {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let log = self.log();
            let tail = &log[log.len().saturating_sub(40)..];
            eprintln!("the dispatcher's log ends with:\n{}", tail.join("\n"));
        }
    }
}

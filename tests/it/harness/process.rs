//! The built binary as a process.

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};

use super::{http, until};

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
    child: Child,
    log: Arc<Mutex<Vec<String>>>,
}

impl Dispatcher {
    pub fn start(config: &Path) -> Self {
        Self::begin(Command::new(BINARY).args(["run", "--config"]).arg(config))
    }

    /// With an authority whose certificates it trusts, and no other.
    pub fn start_trusting(config: &Path, authority: &Path) -> Self {
        let mut command = Command::new(BINARY);
        Self::begin(command.env("SSL_CERT_FILE", authority).args(["run", "--config"]).arg(config))
    }

    /// With options of `run` besides.
    pub fn start_with(config: &Path, options: &[&str]) -> Self {
        Self::begin(Command::new(BINARY).args(["run", "--config"]).arg(config).args(options))
    }

    /// With `disk` as a disk of its own of 32 MiB, most of it taken, until somebody writes to the named pipe
    /// `relieved`.
    pub fn start_on_a_small_disk(config: &Path, disk: &Path, relieved: &Path) -> Self {
        const SCRIPT: &str = "mount -t tmpfs -o size=32m none \"$0\" && head -c 30000000 /dev/zero >\"$0/ballast\" && \
            { read -r _ <\"$1\"; rm \"$0/ballast\"; } & shift; exec \"$@\"";
        Self::begin(
            Command::new("unshare")
                .args(["--map-root-user", "--mount", "sh", "-c", SCRIPT])
                .args([disk, relieved])
                .args([BINARY, "run", "--config"])
                .arg(config),
        )
    }

    fn begin(command: &mut Command) -> Self {
        let mut child = command
            .env_remove("LANEKEEPER_BROKER__URL")
            .env("NO_COLOR", "1")
            .stdin(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the binary starts");
        let log = Arc::new(Mutex::new(Vec::new()));
        let lines = BufReader::new(child.stderr.take().expect("it is piped")).lines();
        let kept = Arc::clone(&log);
        std::thread::spawn(move || {
            for line in lines.map_while(Result::ok) {
                kept.lock().expect("no panic holds it").push(line);
            }
        });
        Self { child, log }
    }

    /// Where it tells health and metrics.
    pub async fn admin(&self) -> String {
        let line = self.logged("health and metrics").await;
        line.split("address=").nth(1).expect("the line names it").trim().to_owned()
    }

    /// Attached to every partition.
    pub async fn ready(&self) {
        let address = self.admin().await;
        until("a ready dispatcher", || async {
            match http().get(format!("http://{address}/readyz")).send().await {
                Ok(answer) if answer.status().is_success() => Ok(()),
                Ok(answer) => Err(answer.text().await.unwrap_or_default()),
                Err(error) => Err(error.to_string()),
            }
        })
        .await;
    }

    /// All metrics, as text.
    pub async fn metrics(&self) -> String {
        let url = format!("http://{}/metrics", self.admin().await);
        http().get(url).send().await.expect("it answers").text().await.expect("with text")
    }

    /// The value of a metric, summed over its labels.
    pub async fn metric(&self, name: &str) -> f64 {
        let text = self.metrics().await;
        let values = text.lines().filter(|line| line.split(['{', ' ']).next() == Some(name));
        values.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum()
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
        self.log.lock().expect("no panic holds it").clone()
    }

    pub fn terminate(&self) {
        self.signal("TERM");
    }

    pub fn signal(&self, signal: &str) {
        let pid = self.child.id().to_string();
        let status = Command::new("kill").args([format!("-{signal}"), pid]).status();
        assert!(status.expect("kill can be run").success());
    }

    /// SIGKILL, and waits until it is gone.
    pub fn kill(&mut self) {
        self.child.kill().expect("it can be killed");
        self.child.wait().expect("it ends");
    }

    /// Waits until it ends by itself; its exit code.
    pub async fn ended(&mut self) -> Option<i32> {
        let child = Mutex::new(&mut self.child);
        until("the end of the dispatcher", || async {
            let ended = child.lock().expect("no panic holds it").try_wait().expect("it can be asked");
            ended.ok_or_else(|| "it runs".to_owned())
        })
        .await
        .code()
    }

    /// Resident memory in KiB: now and at most (`VmRSS`, `VmHWM` of proc(5)).
    pub fn memory_kib(&self) -> (u64, u64) {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).expect("it runs");
        let value = |name: &str| {
            let line = status.lines().find(|line| line.starts_with(name)).expect("Linux tells it");
            line.split_whitespace().nth(1).and_then(|value| value.parse().ok()).expect("in KiB")
        };
        (value("VmRSS:"), value("VmHWM:"))
    }
}

impl Drop for Dispatcher {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            let log = self.log();
            let tail = &log[log.len().saturating_sub(40)..];
            eprintln!("the dispatcher's log ends with:\n{}", tail.join("\n"));
        }
    }
}

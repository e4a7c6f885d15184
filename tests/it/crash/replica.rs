//! A replica that is killed, stopped and started again, and keeps the log of all its lives.

use std::path::PathBuf;
use std::time::Duration;

use crate::harness::{Dispatcher, pace};

/// Lines of its log that are told where updates do not arrive.
const LOG_LINES_SHOWN: usize = 12;
const METRICS_TIMEOUT: Duration = Duration::from_secs(5);

pub struct Replica {
    config: PathBuf,
    log: PathBuf,
    running: Dispatcher,
}

impl Replica {
    pub fn start(config: PathBuf, log: PathBuf) -> Self {
        let running = Dispatcher::start(&config);
        Self { config, log, running }
    }

    pub async fn ready(&self) {
        self.running.ready().await;
    }

    pub async fn kill(&mut self, down: Duration) {
        self.running.kill();
        self.again(down, "SIGKILL").await;
    }

    pub async fn terminate(&mut self, down: Duration) {
        // Before its first line it does not take signals yet, and has begun nothing that could end well.
        let takes_signals = !self.running.log().is_empty();
        self.running.terminate();
        let code = self.running.ended().await;
        assert!(code == Some(0) || !takes_signals, "a drain ends well, whatever the broker does: {code:?}");
        self.again(down, "SIGTERM").await;
    }

    pub async fn freeze(&mut self, lasts: Duration) {
        self.running.signal("STOP");
        pace(lasts).await;
        self.running.signal("CONT");
    }

    /// The end of its log, and what of its metrics is not zero and tells of partitions and targets.
    pub async fn state(&self) -> String {
        let shown = ["active", "held", "lanes", "in_flight", "keys", "circuit_state", "outcome", "oldest"];
        let log = self.running.log();
        let last = log[log.len().saturating_sub(LOG_LINES_SHOWN)..].join("\n");
        let metrics = match tokio::time::timeout(METRICS_TIMEOUT, self.running.metrics()).await {
            Ok(metrics) => metrics,
            Err(_) => "it does not answer".to_owned(),
        };
        let zero = |line: &str| line.ends_with(" 0") || line.ends_with(" 0.0");
        let metrics = metrics.lines().filter(|line| !line.starts_with('#') && !zero(line));
        let metrics: Vec<_> = metrics.filter(|line| shown.iter().any(|name| line.contains(name))).collect();
        format!("{last}\n{}", metrics.join("\n"))
    }

    async fn again(&mut self, down: Duration, why: &str) {
        self.keep_log(why);
        pace(down).await;
        self.running = Dispatcher::start(&self.config);
    }

    /// Appends the log of this life to the file.
    pub fn keep_log(&self, ended_by: &str) {
        use std::io::Write as _;
        let mut file = std::fs::OpenOptions::new().append(true).create(true).open(&self.log).expect("a log");
        for line in self.running.log() {
            writeln!(file, "{line}").expect("the log is written");
        }
        writeln!(file, "=== {ended_by}").expect("the log is written");
    }
}

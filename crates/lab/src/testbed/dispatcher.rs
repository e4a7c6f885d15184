//! `lanekeeper run` as a process of its own.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use tokio::time::{sleep, timeout};

use super::http::client;
use super::process::{Process, ProcessError};

/// What it is called in errors.
const NAME: &str = "the dispatcher";
const POLL_INTERVAL: Duration = Duration::from_millis(50);
/// The log line that names the address of health and metrics, and what comes before the address.
const ADMIN_LINE: &str = "health and metrics";
const ADMIN_FIELD: &str = "address=";
/// Deliveries that it holds unsettled, per partition.
const UNSETTLED: &str = "lanekeeper_held";

/// A dispatcher, killed when this value is dropped.
#[derive(Debug)]
pub struct Dispatcher {
    /// The process: its log, signals, and how it ends.
    pub process: Process,
}

impl Dispatcher {
    /// Starts `command`, which has to be a `lanekeeper run` that logs text. Its log is appended to the file `log`.
    ///
    /// # Errors
    /// It does not start, or the log cannot be written.
    pub fn start(command: Command, log: &Path) -> Result<Self, ProcessError> {
        Ok(Self { process: Process::start(NAME, command, log)? })
    }

    /// Where it serves health and metrics, `HOST:PORT`; `None`: it does not yet.
    pub fn admin(&self) -> Option<String> {
        let log = self.process.log();
        let line = log.lines().find(|line| line.contains(ADMIN_LINE))?;
        Some(line.split_once(ADMIN_FIELD)?.1.trim().to_owned())
    }

    /// # Errors
    /// It does not consume every partition yet, as owner or standby: what it answers.
    pub async fn ready(&self) -> Result<(), String> {
        self.get("/readyz").await.map(drop)
    }

    /// Waits until [`Self::ready`].
    ///
    /// # Errors
    /// [`ProcessError::NotReady`] after `limit`.
    pub async fn wait_ready(&self, limit: Duration) -> Result<(), ProcessError> {
        let mut reason = String::new();
        let ready = async {
            while let Err(answer) = self.ready().await {
                reason = answer;
                sleep(POLL_INTERVAL).await;
            }
        };
        let ended = timeout(limit, ready).await;
        ended.map_err(|_| ProcessError::NotReady { name: NAME.to_owned(), limit, reason })
    }

    /// All metrics, as text.
    ///
    /// # Errors
    /// It does not answer, or with an error.
    pub async fn metrics(&self) -> Result<String, String> {
        self.get("/metrics").await
    }

    /// Deliveries that it has received and has not settled; `None`: it does not answer, or has no partition yet.
    pub async fn unsettled(&self) -> Option<u64> {
        let metrics = self.metrics().await.ok()?;
        let values: Vec<f64> = metric_values(&metrics, UNSETTLED).collect();
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a count")]
        (!values.is_empty()).then(|| values.iter().sum::<f64>() as u64)
    }

    /// The body of a 2xx answer; as an error anything else.
    async fn get(&self, path: &str) -> Result<String, String> {
        let address = self.admin().ok_or("its log does not name an address for health and metrics")?;
        let url = format!("http://{address}{path}");
        let response = client().get(url).send().await.map_err(|error| error.to_string())?;
        let status = response.status();
        let body = response.text().await.map_err(|error| error.to_string())?;
        if status.is_success() { Ok(body) } else { Err(format!("{path}: {status}: {body}")) }
    }
}

/// The values of a metric in the text of `/metrics`, one per set of labels.
pub fn metric_values<'a>(metrics: &'a str, name: &'a str) -> impl Iterator<Item = f64> + 'a {
    let lines = metrics.lines().filter(move |line| line.split(['{', ' ']).next() == Some(name));
    lines.filter_map(|line| line.rsplit(' ').next()?.parse().ok())
}

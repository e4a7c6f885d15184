//! A `lanekeeper publish` that gets new updates for as long as the crash test lasts.

use std::process::Stdio;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use fastrand::Rng;
use serde_json::json;
use tokio::io::AsyncWriteExt as _;
use tokio::process::{Child, Command};
use tokio::time::sleep;

use super::error::ChaosError;

const RECORDS: usize = 100;
/// Lines that are written together, and the time until the next ones.
const BATCH: u64 = 30;
const BATCH_INTERVAL: Duration = Duration::from_millis(100);
/// Keeps this choice apart from that of the faults, which has the same seed.
const SEED_OF_RECORDS: u64 = 0x7075_626c;

/// The process, killed when this value is dropped.
#[derive(Debug)]
pub(super) struct Publisher {
    process: Child,
}

impl Publisher {
    /// `command`: a `lanekeeper publish` without a file.
    pub(super) fn start(command: std::process::Command) -> Result<Self, ChaosError> {
        let mut command = Command::from(command);
        command.stdin(Stdio::piped()).stdout(Stdio::null()).kill_on_drop(true);
        let process = command.spawn().map_err(ChaosError::system("start `lanekeeper publish`"))?;
        Ok(Self { process })
    }

    /// Publishes until `stop`; how many updates there were, all of them confirmed.
    pub(super) async fn publish_until(mut self, stop: &AtomicBool, seed: u64) -> Result<u64, ChaosError> {
        let mut rng = Rng::with_seed(seed ^ SEED_OF_RECORDS);
        let mut sequences = [0_u64; RECORDS];
        let mut stdin = self.process.stdin.take().expect("it is piped");
        let mut published = 0;
        while !stop.load(Ordering::Relaxed) {
            let mut lines = String::new();
            for _ in 0..BATCH {
                let record = rng.usize(..RECORDS);
                sequences[record] += 1;
                let sequence = sequences[record];
                let line = json!({
                    "key": format!("record-{record}"),
                    "id": format!("{record}-{sequence}"),
                    "type": "record.updated",
                    "body": {"sequence": sequence},
                });
                lines += &line.to_string();
                lines.push('\n');
            }
            let written = stdin.write_all(lines.as_bytes()).await;
            written.map_err(ChaosError::system("write to `lanekeeper publish`"))?;
            published += BATCH;
            sleep(BATCH_INTERVAL).await;
        }
        drop(stdin);
        let status =
            self.process.wait().await.map_err(ChaosError::system("wait for `lanekeeper publish`"))?;
        if status.success() { Ok(published) } else { Err(ChaosError::Publisher(status)) }
    }
}

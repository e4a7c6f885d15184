//! A `lanekeeper publish` that gets new updates for as long as the crash test lasts.

use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use fastrand::Rng;
use serde_json::json;
use tokio::io::AsyncWriteExt as _;
use tokio::process::{Child, Command};
use tokio::time::sleep;

use super::error::ChaosError;

/// The time from one batch of lines to the next.
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
    pub(super) async fn publish_until(
        mut self,
        stop: &AtomicBool,
        mut load: Load,
    ) -> Result<u64, ChaosError> {
        let mut stdin = self.process.stdin.take().expect("it is piped");
        let mut published = 0;
        while !stop.load(Ordering::Relaxed) {
            let mut lines = String::new();
            published += load.write_batch(&mut lines);
            let written = stdin.write_all(lines.as_bytes()).await;
            written.map_err(ChaosError::system("write to `lanekeeper publish`"))?;
            sleep(BATCH_INTERVAL).await;
        }
        drop(stdin);
        let status =
            self.process.wait().await.map_err(ChaosError::system("wait for `lanekeeper publish`"))?;
        if status.success() { Ok(published) } else { Err(ChaosError::Publisher(status)) }
    }
}

/// Records that get updates. Their keys are `NAME-0`, `NAME-1` and so on, the type of the updates is `NAME.updated`.
#[derive(Clone, Copy, Debug)]
pub(super) struct RecordKind {
    pub(super) name: &'static str,
    pub(super) records: usize,
    /// Updates that are written together.
    pub(super) batch: u64,
    /// They are written with every so manieth batch.
    pub(super) every: u64,
}

/// Endless updates of random records, each with its sequence within the record.
#[derive(Debug)]
pub(super) struct Load {
    rng: Rng,
    kinds: Vec<(RecordKind, Vec<u64>)>,
    batches: u64,
    extra_updates: Arc<AtomicU64>,
}

impl Load {
    pub(super) fn new(seed: u64, kinds: &[RecordKind]) -> Self {
        let kinds = kinds.iter().map(|kind| (*kind, vec![0; kind.records])).collect();
        let rng = Rng::with_seed(seed ^ SEED_OF_RECORDS);
        Self { rng, kinds, batches: 0, extra_updates: Arc::default() }
    }

    /// How many updates of the first kind the next batch has in addition; whoever sets it gets them once.
    pub(super) fn extra_updates(&self) -> Arc<AtomicU64> {
        Arc::clone(&self.extra_updates)
    }

    /// Adds the lines of the next batch; how many there are.
    fn write_batch(&mut self, lines: &mut String) -> u64 {
        let mut written = 0;
        let mut extra_updates = self.extra_updates.swap(0, Ordering::Relaxed);
        for (kind, sequences) in &mut self.kinds {
            if !self.batches.is_multiple_of(kind.every) {
                continue;
            }
            for _ in 0..kind.batch + std::mem::take(&mut extra_updates) {
                let record = self.rng.usize(..kind.records);
                sequences[record] += 1;
                let (name, sequence) = (kind.name, sequences[record]);
                let line = json!({
                    "key": format!("{name}-{record}"),
                    "id": format!("{name}-{record}-{sequence}"),
                    "type": format!("{name}.updated"),
                    "body": {"sequence": sequence},
                });
                *lines += &line.to_string();
                lines.push('\n');
                written += 1;
            }
        }
        self.batches += 1;
        written
    }
}

//! One case: a broker, a target with a limit, dispatchers, and a backlog.

use std::fs::{self, File};
use std::io::{BufWriter, Write as _};
use std::net::SocketAddr;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio::task::spawn_blocking;
use tokio::time::{Instant, sleep_until};

use super::case::{Case, Figures, Phase};
use super::error::PacingError;
use crate::receiver::{
    Fault, FaultAnswer, Outage, RateLimit, RateLimitReport, Receiver, ReceiverSettings, RefusalBody,
};
use crate::testbed::{Dispatcher, PrivateBroker, Process, log_tail, metric_values, program};

const EXCHANGE: &str = "pacing";
const READY_TIMEOUT: Duration = Duration::from_secs(60);
const PUBLISH_TIMEOUT: Duration = Duration::from_secs(600);
const STOP_TIMEOUT: Duration = Duration::from_secs(15);
const POLL_INTERVAL: Duration = Duration::from_millis(500);
/// Seconds that the start of the dispatchers takes, at most, and pauses between measurements.
const SECONDS_OF_START: u64 = 20;
/// Updates of each record that are left at the end, at least.
const LEFT_PER_RECORD: u64 = 5;
/// What the target says during its outage.
const RETRY_AFTER: Duration = Duration::from_secs(2);
const DEAD_LETTERED: &str = "lanekeeper_updates_dead_lettered_total";

/// What all cases have in common.
#[derive(Clone, Debug)]
pub(super) struct RunSettings {
    /// Seconds after the dispatchers are ready.
    pub(super) measured: Range<u64>,
    /// Seconds that the target is away after that.
    pub(super) outage: Option<u64>,
    pub(super) records: u32,
    pub(super) latency: Duration,
    /// Of the target's config.
    pub(super) target_lines: Vec<String>,
    /// Where logs stay; `None`: nowhere.
    pub(super) logs: Option<PathBuf>,
}

/// Runs a case. What it has started has ended when this has returned.
pub(super) async fn run(case: Case, settings: &RunSettings) -> Result<Vec<Figures>, PacingError> {
    let stage = Stage::new(case, settings).await?;
    let listener =
        TcpListener::bind("127.0.0.1:0").await.map_err(PacingError::system("listen on 127.0.0.1"))?;
    let target = listener.local_addr().map_err(PacingError::system("listen on 127.0.0.1"))?;
    let configs = (1..=case.processes)
        .map(|number| stage.write_config(number, target, &settings.target_lines))
        .collect::<Result<Vec<_>, _>>()?;

    // The first one declares the queues, so that the updates are there before the others begin.
    let mut first = stage.dispatcher(1, &configs[0])?;
    first.wait_ready(READY_TIMEOUT).await?;
    first.process.stop(STOP_TIMEOUT).await?;
    let Range { start, end } = settings.measured;
    let after = settings.outage.map_or(0, |_| end - start);
    let updates = u64::from(case.rate) * (end + after + SECONDS_OF_START)
        + u64::from(settings.records) * LEFT_PER_RECORD;
    stage.publish(&configs[0], updates, settings.records).await?;

    let receiver = receiver(case, settings);
    let serving = receiver.clone();
    tokio::spawn(async move { serving.run(listener, std::future::pending()).await });
    let mut dispatchers = Vec::new();
    for (number, config) in (1..).zip(&configs) {
        dispatchers.push(stage.dispatcher(number, config)?);
    }
    for dispatcher in &dispatchers {
        dispatcher.wait_ready(READY_TIMEOUT).await?;
    }
    let mut measuring = Measuring { began: Instant::now(), receiver, dispatchers };
    let zero = measuring.limit()?.now;
    measuring.pass(end).await?;
    let mut figures = vec![measuring.figures(Phase::Usual, zero + start..zero + end).await?];
    if let Some(outage) = settings.outage {
        measuring.receiver.begin_outage(Outage {
            retry_after: Some(RETRY_AFTER),
            ..Outage::of_all(Fault { applied: false, answer: FaultAnswer::Page(503) })
        });
        measuring.pass(end + outage + 1).await?;
        measuring.receiver.end_outage();
        let ended = measuring.limit()?.now;
        measuring.pass(end + outage + 2 + after).await?;
        figures.push(measuring.figures(Phase::AfterOutage, ended..ended + after).await?);
    }
    let applied = measuring.receiver.report(0).counts.updates;
    if applied + u64::from(settings.records) > updates {
        return Err(PacingError::NoBacklog { published: updates, accepted: applied });
    }
    for mut dispatcher in measuring.dispatchers {
        dispatcher.process.stop(STOP_TIMEOUT).await?;
    }
    Ok(figures)
}

/// A case that goes on.
struct Measuring {
    began: Instant,
    receiver: Receiver,
    dispatchers: Vec<Dispatcher>,
}

impl Measuring {
    /// Waits until so many seconds have passed since the beginning, and one more, so that all of them are over.
    async fn pass(&mut self, seconds: u64) -> Result<(), PacingError> {
        let end = self.began + Duration::from_secs(seconds + 1);
        while Instant::now() < end {
            for dispatcher in &mut self.dispatchers {
                dispatcher.process.check()?;
            }
            sleep_until(end.min(Instant::now() + POLL_INTERVAL)).await;
        }
        Ok(())
    }

    fn limit(&self) -> Result<RateLimitReport, PacingError> {
        self.receiver.rate_limit().ok_or(PacingError::NoSeconds)
    }

    async fn figures(&self, phase: Phase, seconds: Range<u64>) -> Result<Figures, PacingError> {
        let mut given_up = 0.0;
        for dispatcher in &self.dispatchers {
            let metrics = dispatcher.metrics().await.map_err(PacingError::Metrics)?;
            given_up += metric_values(&metrics, DEAD_LETTERED).sum::<f64>();
        }
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a count")]
        let given_up = given_up as u64;
        let counts = self.receiver.report(0).counts;
        let out_of_order = counts.reorders + counts.overlaps;
        let limit = self.limit()?;
        let shares = limit.shares(seconds.clone()).ok_or(PacingError::NoSeconds)?;
        let most = seconds.filter_map(|second| limit.second(second));
        let most = most.map(|counts| counts.accepted + counts.refused).max().unwrap_or_default();
        Ok(Figures { phase, shares, most, given_up, out_of_order })
    }
}

fn receiver(case: Case, settings: &RunSettings) -> Receiver {
    let limit = RateLimit {
        requests: case.rate,
        window: Duration::from_secs(1),
        capacity: None,
        fields: case.fields,
        refusal: RefusalBody::Problem,
    };
    Receiver::new(ReceiverSettings {
        rate_limit: Some(limit),
        latency: settings.latency,
        ..ReceiverSettings::default()
    })
}

/// A broker, and directories.
struct Stage {
    program: PathBuf,
    broker: PrivateBroker,
    logs: PathBuf,
    dir: TempDir,
}

impl Stage {
    async fn new(case: Case, settings: &RunSettings) -> Result<Self, PacingError> {
        let program = program::executable().map_err(PacingError::system("find the program lanekeeper"))?;
        let dir = tempfile::Builder::new().prefix("lanekeeper-pacing-").tempdir();
        let dir = dir.map_err(PacingError::system("make a temporary directory"))?;
        let logs = settings.logs.as_deref().unwrap_or(dir.path());
        let logs = logs.join(format!("{}-{}-{}", case.rate, case.form(), case.processes));
        fs::create_dir_all(&logs).map_err(PacingError::system("make the directory for logs"))?;
        let broker_dir = dir.path().join("broker");
        let broker = spawn_blocking(move || PrivateBroker::start(&broker_dir, None)).await;
        let broker = broker.expect("a script's call does not panic")?;
        Ok(Self { program, broker, logs, dir })
    }

    fn write_config(
        &self,
        number: u16,
        target: SocketAddr,
        target_lines: &[String],
    ) -> Result<PathBuf, PacingError> {
        let config = self.dir.path().join(format!("{number}.toml"));
        let text = config_text(number, target, target_lines);
        fs::write(&config, text).map_err(PacingError::system("write a config"))?;
        Ok(config)
    }

    fn dispatcher(&self, number: u16, config: &Path) -> Result<Dispatcher, PacingError> {
        let mut command = program::run_command(&self.program, config);
        command.env("LANEKEEPER_BROKER__URL", self.broker.url());
        Ok(Dispatcher::start(command, &self.logs.join(format!("dispatcher-{number}.log")))?)
    }

    /// When this has returned, the updates are confirmed.
    async fn publish(&self, config: &Path, updates: u64, records: u32) -> Result<(), PacingError> {
        let lines = self.dir.path().join("updates.jsonl");
        write_updates(&lines, updates, records).map_err(PacingError::system("write the updates"))?;
        let log = self.logs.join("publish.log");
        let mut command = program::command(&self.program);
        command.arg("publish").arg("--config").arg(config).arg(&lines).stdout(Stdio::null());
        command.env("LANEKEEPER_BROKER__URL", self.broker.url());
        let status = Process::start("the publisher", command, &log)?.wait(PUBLISH_TIMEOUT).await?;
        if status.success() { Ok(()) } else { Err(PacingError::Publish { status, log_tail: log_tail(&log) }) }
    }
}

fn config_text(number: u16, target: SocketAddr, target_lines: &[String]) -> String {
    let target_lines = target_lines.join("\n");
    format!(
        r#"instance.name = "pacing-{number}"
updates.exchange = "{EXCHANGE}"
updates.partitions = 8
admin.listen = "127.0.0.1:0"
ledger.url = "none"
failure = {{ rejected = "dead_letter", exhausted = "dead_letter", conflict = "dead_letter" }}

[[target]]
name = "receiver"
types = ["*"]
url = "http://{target}/records/{{record_key}}"
{target_lines}
"#
    )
}

/// Lines for `lanekeeper publish`: one update of each record after another.
fn write_updates(path: &Path, updates: u64, records: u32) -> std::io::Result<()> {
    let mut file = BufWriter::new(File::create(path)?);
    for number in 0..updates {
        let (record, sequence) = (number % u64::from(records), number / u64::from(records) + 1);
        writeln!(
            file,
            r#"{{"key":"record-{record}","id":"{record}-{sequence}","type":"record.updated","body":{{"sequence":{sequence}}}}}"#
        )?;
    }
    file.flush()
}

//! One run: queues, receiver, updates, forwarder, verdict.

use std::net::SocketAddr;
use std::process::Stdio;
use std::time::Duration;

use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::process::ChildStdout;
use tokio::time::{Instant, sleep, sleep_until, timeout};

use super::contender::Contender;
use super::error::BenchError;
use super::load::{Load, STUCK, record_key};
use super::scenario::{Figure, Scenario};
use super::stage::{Stage, Topology};
use super::verdict::{Expected, Wrong, judge};
use crate::receiver::Report;
use crate::testbed::http::client;
use crate::testbed::{Process, Usage, program};

/// Time between two requests for the report, at least.
const POLL_INTERVAL: Duration = Duration::from_millis(100);
/// With many records a report takes longer: the receiver is left alone for this many times as long.
const POLL_PAUSE: u32 = 20;
/// Time between the last update and the last look at memory.
const CALM: Duration = Duration::from_secs(2);
const RECEIVER_START_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a process may take to end in order.
const STOP_TIMEOUT: Duration = Duration::from_secs(15);

/// The figures of one run.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Measured {
    /// Updates per second, from the first request to the last answer.
    pub(super) rate: f64,
    /// Processor time of the forwarder from its start, in seconds per 10,000 updates.
    pub(super) cpu: f64,
    /// The same of the broker; `None`: its process is not known.
    pub(super) broker: Option<f64>,
    /// Most resident memory of the forwarder, in MB.
    pub(super) peak_mb: f64,
    /// Updates that were applied again.
    pub(super) duplicates: u64,
    pub(super) special: ScenarioFigure,
}

/// What only some scenarios measure.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum ScenarioFigure {
    None,
    /// Share of the usual rate that the stuck record's neighbours had, in each half of the time.
    Kept([f64; 2]),
    /// From publishing to receipt, in milliseconds: p50, p99, p99.9.
    Delays([f64; 3]),
    /// Share of the time in which the hottest record had a request in progress: at most 1.
    Hottest(f64),
    Memory(Memory),
}

/// Resident memory of the forwarder, in MB.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Memory {
    /// After a twentieth of the updates.
    pub(super) early: f64,
    /// Most and least from then on, until all updates had arrived.
    pub(super) most: f64,
    pub(super) least: f64,
    /// Two seconds after all updates had arrived.
    pub(super) after: f64,
}

/// One run, with new queues. They are deleted when this has returned.
pub(super) async fn run(
    stage: &Stage,
    scenario: &Scenario,
    contender: &Contender,
    seed: u64,
) -> Result<Result<Measured, Wrong>, BenchError> {
    let topology = stage.declare(scenario).await?;
    let measured = Run { stage, scenario, topology: &topology }.go(contender, seed).await;
    stage.remove(&topology).await?;
    measured
}

struct Run<'a> {
    stage: &'a Stage,
    scenario: &'a Scenario,
    topology: &'a Topology,
}

impl Run<'_> {
    async fn go(&self, contender: &Contender, seed: u64) -> Result<Result<Measured, Wrong>, BenchError> {
        let Self { stage, scenario, topology } = self;
        let load = Load::new(scenario, seed);
        let expected = Expected { updates: load.len() as u64, records: load.records() as u64 };
        let mut bulk = stage.publisher(topology).await?;
        if scenario.pace.is_none() {
            load.publish(&mut bulk).await?;
        }
        let mut receiver = Receiver::start(stage, scenario, seed).await?;
        stage.quiet().await;
        let broker_before = stage.broker_seconds();
        let mut forwarder = contender.start(stage, topology, &receiver.target()).await?;
        let mut special = ScenarioFigure::None;
        if let Some(pace) = scenario.pace {
            let warm = load.publish_warm_up(&mut bulk).await? as u64;
            self.all_arrived(&mut receiver, &mut forwarder.process, warm).await?;
            let begun = Instant::now();
            let publishing = load.publish_paced(&mut bulk, begun, pace);
            let (all_published, halves) =
                tokio::join!(publishing, self.watch_halves(&receiver, &load, begun, pace));
            all_published?;
            if let Some(kept) = halves? {
                special = ScenarioFigure::Kept(kept);
            }
        }
        let watched = self.all_arrived(&mut receiver, &mut forwarder.process, expected.updates).await?;
        let usage = Usage::of(forwarder.process.id());
        let memory = watched.memory().filter(|_| scenario.figure == Figure::Memory);
        let broker_after = stage.broker_seconds();
        if let Some(memory) = memory {
            sleep(CALM).await;
            special =
                ScenarioFigure::Memory(Memory { after: Usage::of(forwarder.process.id()).now_mb, ..memory });
        }
        forwarder.process.stop(STOP_TIMEOUT).await?;
        bulk.close().await;
        // Only now, so that no later request is missed by the verdict.
        let report = receiver.report(0).await?;
        receiver.process.stop(STOP_TIMEOUT).await?;
        if let (Figure::Delays, Some(delays)) = (scenario.figure, &report.delays) {
            special = ScenarioFigure::Delays(
                [delays.p50_us, delays.p99_us, delays.p999_us].map(|us| us as f64 / 1000.0),
            );
        }
        if scenario.figure == Figure::Hottest {
            special = ScenarioFigure::Hottest(report.busiest_us as f64 / report.span_us.max(1) as f64);
        }
        let per_10k = |seconds: f64| seconds * 10_000.0 / load.len() as f64;
        let Usage { cpu_seconds, peak_mb, .. } = usage;
        Ok(judge(&report, expected).map(|()| Measured {
            rate: load.len() as f64 / Duration::from_micros(report.span_us.max(1)).as_secs_f64(),
            cpu: per_10k(cpu_seconds),
            broker: broker_after.zip(broker_before).map(|(after, before)| per_10k(after - before)),
            peak_mb,
            duplicates: report.counts.duplicates,
            special,
        }))
    }

    /// Waits until so many updates have arrived, or none arrives any more: the verdict then says what is missing.
    async fn all_arrived(
        &self,
        receiver: &mut Receiver,
        forwarder: &mut Process,
        updates: u64,
    ) -> Result<MemorySamples, BenchError> {
        let (mut seen, mut changed) = (0, Instant::now());
        let mut watched = MemorySamples::default();
        loop {
            forwarder.check()?;
            receiver.process.check()?;
            let asked = Instant::now();
            let report = receiver.report(0).await?;
            let took = asked.elapsed();
            if report.counts.updates >= updates && report.in_progress == 0 {
                return Ok(watched);
            }
            if self.scenario.figure == Figure::Memory && report.counts.updates >= updates / 20 {
                watched.samples_mb.push(Usage::of(forwarder.id()).now_mb);
            }
            if report.counts.requests != seen {
                (seen, changed) = (report.counts.requests, Instant::now());
            } else if changed.elapsed() > self.stage.patience {
                return Ok(watched);
            }
            sleep(POLL_INTERVAL.max(took * POLL_PAUSE)).await;
        }
    }

    /// Counts updates of the stuck record's neighbours, for each half of the time that it is stuck.
    async fn watch_halves(
        &self,
        receiver: &Receiver,
        load: &Load,
        begun: Instant,
        pace: f64,
    ) -> Result<Option<[f64; 2]>, BenchError> {
        let Some(stuck_for) = self.scenario.stuck_for else { return Ok(None) };
        let mut counts = Vec::new();
        for by in [Duration::ZERO, stuck_for / 2, stuck_for] {
            sleep_until(begun + by).await;
            let arrived = receiver.neighbours(load).await?;
            counts.push((arrived, load.neighbours_published(begun.elapsed().min(stuck_for), pace) as f64));
        }
        let share = |from: (f64, f64), to: (f64, f64)| (to.0 - from.0) / (to.1 - from.1);
        Ok(Some([share(counts[0], counts[1]), share(counts[1], counts[2])]))
    }
}

/// Resident memory while updates arrived.
#[derive(Debug, Default)]
struct MemorySamples {
    samples_mb: Vec<f64>,
}

impl MemorySamples {
    fn memory(&self) -> Option<Memory> {
        let early = self.samples_mb.first().copied()?;
        let most = self.samples_mb.iter().copied().fold(early, f64::max);
        let least = self.samples_mb.iter().copied().fold(early, f64::min);
        Some(Memory { early, most, least, after: 0.0 })
    }
}

/// A `lanekeeper-lab receiver` as a process of its own. It applies repeats, so that they can be counted.
struct Receiver {
    process: Process,
    address: SocketAddr,
}

impl Receiver {
    async fn start(stage: &Stage, scenario: &Scenario, seed: u64) -> Result<Self, BenchError> {
        let own = std::env::current_exe().map_err(BenchError::system("find this program"))?;
        let mut command = program::command(&own);
        command.args(["receiver", "--listen", "127.0.0.1:0", "--without", "idempotency,fencing"]);
        command.args(["--latency", &format!("{}us", scenario.latency.as_micros())]);
        command.args(["--latency-jitter", &scenario.latency_jitter.to_string()]);
        command.args(["--seed", &seed.to_string()]);
        if let Some(stuck_for) = scenario.stuck_for {
            let failing = format!("{}=503:{}ms", record_key(STUCK), stuck_for.as_millis());
            command.args(["--fail-record", &failing]);
        }
        command.stdout(Stdio::piped());
        let mut process = Process::start_group("the receiver", command, &stage.file("receiver.log"))?;
        let output = process.take_stdout().ok_or(BenchError::ReceiverSilent)?;
        let output =
            ChildStdout::from_std(output).map_err(BenchError::system("read what the receiver prints"))?;
        let mut lines = BufReader::new(output).lines();
        let line = timeout(RECEIVER_START_TIMEOUT, lines.next_line()).await;
        let line = line.ok().and_then(Result::ok).flatten().ok_or(BenchError::ReceiverSilent)?;
        let address = line.rsplit("http://").next().and_then(|address| address.parse().ok());
        Ok(Self { process, address: address.ok_or(BenchError::ReceiverSilent)? })
    }

    /// The URL that a record key is appended to.
    fn target(&self) -> String {
        format!("http://{}/records/", self.address)
    }

    async fn report(&self, records: usize) -> Result<Report, BenchError> {
        let asking = async {
            let url = format!("http://{}/report?records={records}", self.address);
            let body = client().get(url).send().await?.bytes().await?;
            Ok(serde_json::from_slice(&body)?)
        };
        asking.await.map_err(BenchError::Report)
    }

    /// How many updates of the stuck record's neighbours have arrived.
    async fn neighbours(&self, load: &Load) -> Result<f64, BenchError> {
        let report = self.report(usize::MAX).await?;
        let neighbours = report.by_record.iter().filter(|(key, _)| load.is_neighbour(key));
        Ok(neighbours.map(|(_, record)| record.counts.updates as f64).sum())
    }
}

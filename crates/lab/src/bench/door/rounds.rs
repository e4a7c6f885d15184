//! One round.

use std::time::Duration;

use futures_util::future::try_join_all;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until};

use super::super::error::BenchError;
use super::super::load::Load;
use super::super::scenario::{Scenario, ScenarioName};
use super::super::stage::{INSTANCE, Stage, Topology};
use super::client::{Client, request};
use super::figures::{Cost, Percentiles, Round};
use super::{Arguments, DoorProcess, END_TIMEOUT, lanekeeper};
use crate::testbed::{Process, Usage, metric_values};

/// Connections by which latency is measured, to the door and to the broker: a slow answer delays no other request.
const LATENCY_CONNECTIONS: usize = 16;
/// Requests at the beginning that are not measured: connections are made, code is loaded.
const WARM_UP: usize = 100;
const CONFIRM_SUM: &str = "lanekeeper_ingest_confirm_duration_seconds_sum";
const CONFIRM_COUNT: &str = "lanekeeper_ingest_confirm_duration_seconds_count";

pub(super) async fn run(stage: &Stage, arguments: &Arguments, number: u16) -> Result<Round, BenchError> {
    let mut scenario = Scenario::new(ScenarioName::Drain0, 1.0);
    scenario.updates = arguments.updates as usize;
    let load = Load::new(&scenario, u64::from(number));
    let is_first = number % 2 == 1;
    let mut door = None;
    if is_first {
        door = Some(
            with_queues(stage, &scenario, async |topology| by_door(stage, topology, arguments, &load).await)
                .await?,
        );
    }
    let publish =
        with_queues(stage, &scenario, async |topology| by_publish(stage, topology, &load).await).await?;
    let (door, door_mb) = match door {
        Some(door) => door,
        None => {
            with_queues(stage, &scenario, async |topology| by_door(stage, topology, arguments, &load).await)
                .await?
        }
    };
    scenario.updates = (arguments.rate * arguments.seconds) as usize + WARM_UP;
    let load = Load::new(&scenario, u64::from(number));
    let (at_door, at_broker, inside_ms) = with_queues(stage, &scenario, async |topology| {
        latencies(stage, topology, arguments.rate, &load).await
    })
    .await?;
    Ok(Round { door, door_mb, publish, at_door, at_broker, inside_ms })
}

/// With a new exchange and its queues, which are deleted afterwards.
async fn with_queues<T>(
    stage: &Stage,
    scenario: &Scenario,
    part: impl AsyncFnOnce(&Topology) -> Result<T, BenchError>,
) -> Result<T, BenchError> {
    let topology = stage.declare(scenario).await?;
    stage.quiet().await;
    let done = part(&topology).await;
    stage.remove(&topology).await?;
    done
}

async fn by_door(
    stage: &Stage,
    topology: &Topology,
    arguments: &Arguments,
    load: &Load,
) -> Result<(Cost, f64), BenchError> {
    let mut door = DoorProcess::start(stage, topology, arguments.connections).await?;
    // All updates of a record go by one connection.
    let mut requests = vec![Vec::new(); usize::from(arguments.connections)];
    let connections = requests.len();
    for planned in load.planned() {
        requests[planned.record as usize % connections].push(request(&load.outgoing(planned, false)));
    }
    let mut clients = Vec::new();
    for requests in requests {
        clients.push((Client::connect(door.address).await?, requests));
    }
    let id = door.process.process.id();
    let (before, begun) = (Usage::of(id), Instant::now());
    let mut sending = JoinSet::new();
    for (client, requests) in clients {
        sending.spawn(client.send_all(requests));
    }
    while let Some(sent) = sending.join_next().await {
        sent.expect("a client does not panic")?;
    }
    let (took, after) = (begun.elapsed(), Usage::of(id));
    door.process.process.stop(END_TIMEOUT).await?;
    Ok((Cost::new(load.len(), took, after.cpu_seconds - before.cpu_seconds), after.peak_mb))
}

async fn by_publish(stage: &Stage, topology: &Topology, load: &Load) -> Result<Cost, BenchError> {
    let mut lines = Vec::new();
    for planned in load.planned() {
        let update = load.outgoing(planned, false);
        let (key, id) = (update.record_key.as_str(), update.id.as_str());
        lines.extend_from_slice(
            format!(r#"{{"key":"{key}","id":"{id}","type":"record.updated","body":"#).as_bytes(),
        );
        lines.extend_from_slice(&update.body);
        lines.extend_from_slice(b"}\n");
    }
    let file = stage.file("updates.jsonl");
    std::fs::write(&file, lines).map_err(BenchError::system("write the updates"))?;
    let config = format!("instance.name = \"{INSTANCE}\"\nupdates.exchange = \"{}\"\n", topology.exchange);
    let mut command = lanekeeper(stage, "publish", "publish.toml", &config)?;
    command.arg(&file);
    let begun = Instant::now();
    let mut process = Process::start("lanekeeper publish", command, &stage.file("publish.log"))?;
    let usage = process.usage_at_end(END_TIMEOUT * 10).await?;
    let took = begun.elapsed();
    let status = process.wait(END_TIMEOUT).await?;
    if !status.success() {
        return Err(BenchError::NotAccepted { answer: process.log() });
    }
    Ok(Cost::new(load.len(), took, usage.cpu_seconds))
}

/// Of the door, of the broker, and the mean time in milliseconds from a complete request to its confirm.
async fn latencies(
    stage: &Stage,
    topology: &Topology,
    rate: u32,
    load: &Load,
) -> Result<(Percentiles, Percentiles, f64), BenchError> {
    let mut door = DoorProcess::start(stage, topology, 256).await?;
    let period = Duration::from_secs(1) / rate;
    let mut requests = vec![Vec::new(); LATENCY_CONNECTIONS];
    let mut direct = vec![Vec::new(); LATENCY_CONNECTIONS];
    let mut publishers = Vec::new();
    for _ in 0..LATENCY_CONNECTIONS {
        publishers.push(stage.publisher(topology).await?);
    }
    let begun = Instant::now() + period;
    for (number, planned) in load.planned().enumerate() {
        let due = begun + period * u32::try_from(number).expect("the arguments bound it");
        let update = load.outgoing(planned, false);
        requests[number % LATENCY_CONNECTIONS].push((due, request(&update)));
        direct[number % LATENCY_CONNECTIONS].push((due + period / 2, update));
    }
    let mut sending = JoinSet::new();
    for requests in requests {
        let client = Client::connect(door.address).await?;
        sending.spawn(client.send_paced(requests));
    }
    let publishing = publishers.into_iter().zip(direct).map(async |(mut publisher, updates)| {
        let mut took = Vec::with_capacity(updates.len());
        for (due, update) in &updates {
            sleep_until(*due).await;
            publisher.publish(update).await?;
            publisher.confirmed().await?;
            took.push(due.elapsed());
        }
        publisher.close().await;
        Ok::<_, BenchError>(took)
    });
    let answering = async { sending.join_all().await.into_iter().collect::<Result<Vec<_>, _>>() };
    let (at_door, at_broker) = tokio::try_join!(answering, try_join_all(publishing))?;
    let after_warm_up = |connections: Vec<Vec<Duration>>| {
        connections
            .into_iter()
            .flat_map(|took| took.into_iter().skip(WARM_UP / LATENCY_CONNECTIONS))
            .collect()
    };
    let metrics = door.process.metrics().await.unwrap_or_default();
    let value = |name| metric_values(&metrics, name).sum::<f64>();
    let inside_ms = value(CONFIRM_SUM) / value(CONFIRM_COUNT) * 1000.0;
    door.process.process.stop(END_TIMEOUT).await?;
    Ok((Percentiles::of(after_warm_up(at_door)), Percentiles::of(after_warm_up(at_broker)), inside_ms))
}

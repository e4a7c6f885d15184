//! `lanekeeper-lab bench-door`: what `lanekeeper ingest` costs, compared with `lanekeeper publish` on the same broker.

mod client;
mod figures;
mod rounds;

use std::net::SocketAddr;
use std::process::{Command, Stdio};
use std::time::Duration;

use super::error::BenchError;
use super::observers::free_address;
use super::stage::{INSTANCE, Stage, Topology};
use crate::command::{self, Exit, StopSignals};
use crate::testbed::{Dispatcher, load_average, program};
use client::TOKEN;
use figures::Round;

/// How long a door may take to be ready.
const READY_TIMEOUT: Duration = Duration::from_secs(30);
/// The door and the broker get this long to end what they do.
const END_TIMEOUT: Duration = Duration::from_secs(60);

const AFTER_HELP: &str = "\
Each round has three parts, each with new queues, and the order of the first two changes from round to round:

  door      clients send updates of 1 KiB by PUT on connections that stay open, each after the answer to the one before
  publish   `lanekeeper publish` publishes the same updates from a file
  latency   updates at a steady rate by the door, and as many published directly, in turn

A line has the median, and in brackets the lowest, the highest and the number of rounds. Processor time is in seconds per
10,000 updates, of the door and of `publish`, the start of `publish` included. Ratios are taken within a round. The clients
are in this process, and take processor time beside the door. All latencies are from when a request is due: at the door to
its answer, at the broker to its confirm. \"adds\" is the difference.

In the project's sources a private RabbitMQ is started (scripts/broker); elsewhere name one with --broker.

Exit codes: 0 measured, 1 a request was not accepted, or something else, 2 the command line, 3 broker.";

/// Options of `lanekeeper-lab bench-door`.
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = AFTER_HELP)]
pub struct Arguments {
    /// Rounds.
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = clap::value_parser!(u16).range(1..=1000))]
    repeats: u16,
    /// Updates of a round, by each of both ways.
    #[arg(long, value_name = "N", default_value_t = 50_000, value_parser = clap::value_parser!(u32).range(1..=10_000_000))]
    updates: u32,
    /// Connections of the clients.
    #[arg(long, value_name = "N", default_value_t = 64, value_parser = clap::value_parser!(u16).range(1..=10_000))]
    connections: u16,
    /// Updates per second while latency is measured.
    #[arg(long, value_name = "N", default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    rate: u32,
    /// How long latency is measured in each round, in seconds.
    #[arg(long, value_name = "N", default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..=3_600))]
    seconds: u32,
    /// Use this broker instead of a private one: amqp://USER:PASSWORD@HOST:PORT/VHOST.
    #[arg(long, value_name = "URL", env = "LANEKEEPER_BENCH_BROKER", hide_env_values = true)]
    broker: Option<String>,
}

/// Runs it.
pub fn main(arguments: &Arguments) -> Exit {
    command::runtime().block_on(async {
        bench_until_stopped(arguments).await.unwrap_or_else(|failure| {
            command::print_error(&failure);
            failure.exit()
        })
    })
}

async fn bench_until_stopped(arguments: &Arguments) -> Result<Exit, BenchError> {
    let mut signals = StopSignals::new().map_err(BenchError::system("handle signals"))?;
    tokio::select! {
        biased;
        signal = signals.next() => Err(BenchError::Interrupted(signal)),
        measured = bench(arguments) => measured,
    }
}

async fn bench(arguments: &Arguments) -> Result<Exit, BenchError> {
    let stage = Stage::new(arguments.broker.as_deref(), END_TIMEOUT).await?;
    let mut measured: Vec<Round> = Vec::new();
    for number in 1..=arguments.repeats {
        let load = load_average();
        let round = rounds::run(&stage, arguments, number).await?;
        eprintln!(
            "# round {number}, load {load} before: {}",
            figures::lines(std::slice::from_ref(&round)).join("; ")
        );
        measured.push(round);
    }
    for line in figures::lines(&measured) {
        println!("{line}");
    }
    Ok(Exit::Done)
}

/// A `lanekeeper ingest`.
struct DoorProcess {
    process: Dispatcher,
    address: SocketAddr,
}

impl DoorProcess {
    async fn start(stage: &Stage, topology: &Topology, connections: u16) -> Result<Self, BenchError> {
        let address = free_address().map_err(BenchError::system("find a free port"))?;
        let connections_max = u32::from(connections) * 2;
        let text = format!(
            r#"instance.name = "{INSTANCE}"
updates.exchange = "{exchange}"
admin.listen = "127.0.0.1:0"

[ingest]
listen = "{address}"
connections_max = {connections_max}

[[ingest.client]]
name = "bench"
tokens = ["{TOKEN}"]
"#,
            exchange = topology.exchange,
        );
        let command = lanekeeper(stage, "ingest", "door.toml", &text)?;
        let process = Dispatcher::start(command, &stage.file("door.log"))?;
        process.wait_ready(READY_TIMEOUT).await?;
        Ok(Self { process, address })
    }
}

/// A command of the product with a config. URLs are in the environment, since they have passwords.
fn lanekeeper(stage: &Stage, name: &str, file: &str, config: &str) -> Result<Command, BenchError> {
    let path = stage.file(file);
    std::fs::write(&path, config).map_err(BenchError::system("write a config"))?;
    let own = program::executable().map_err(BenchError::system("find the program lanekeeper"))?;
    let mut command = program::command(&own);
    command.args([name, "--config"]).arg(&path).stdout(Stdio::null());
    command.env("LANEKEEPER_BROKER__URL", stage.broker.urls[0].reveal());
    Ok(command)
}

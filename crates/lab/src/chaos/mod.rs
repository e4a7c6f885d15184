//! `lanekeeper-lab chaos`: a crash test. Replicas, broker, connections and target fail while updates are published, and the
//! receiver judges.

mod cluster;
mod error;
mod publisher;
mod replica;
mod result;
mod run;
mod schedule;

use std::path::{Path, PathBuf};
use std::time::Duration;

use cluster::{ClusterChaosSettings, Extent, FaultKind, LedgerKind};
use error::ChaosError;
use run::Chaos;

use crate::command::{self, Exit, StopSignals};

const AFTER_HELP: &str = "\
Starts a private RabbitMQ (scripts/broker), a reference target and three `lanekeeper run` without a ledger, and publishes
to 100 records. Meanwhile it sends SIGKILL, SIGTERM and SIGSTOP to replicas, kills and restarts the broker, closes its
connections, and makes the target refuse, hang or cut connections. Equal seeds give the same faults in the same order.

Prints each fault, and at the end the number of faults, updates, and updates that were lost, reordered, overlapped or
sent again (duplicates: allowed without a ledger).

With --cluster: three RabbitMQ nodes (scripts/cluster), a `lanekeeper run` connected to each, and two targets with timeouts
of 1 s and 30 s that go on working when their client is gone. Nodes are killed, stopped, restarted and cut off from the
others (that needs root), and dispatchers are killed and stopped. Also judged is what is interleaved: repetitions that do
not go on in order up to the newest update; with a ledger every repetition of another update than the newest.

Run it in the top directory of the project's sources. It needs the program lanekeeper beside lanekeeper-lab or on the PATH.

Exit codes: 0 nothing was lost, reordered or overlapped; 1 something was, or the test did not come to its end; 2 the
command line; 3 the broker did not start.";

/// Options of `lanekeeper-lab chaos`.
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = AFTER_HELP)]
pub struct Arguments {
    /// How long faults are injected.
    #[arg(long, value_name = "N", default_value_t = 10, value_parser = clap::value_parser!(u64).range(1..=10_000))]
    minutes: u64,
    /// Equal seeds give the same faults.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// RabbitMQ's version, as for scripts/broker: 4; without it the one that is installed.
    #[arg(long, value_name = "VERSION")]
    rabbitmq: Option<String>,
    /// Directory for the logs of replicas and publisher; without it a new one in the directory for temporary files.
    #[arg(long, value_name = "DIR")]
    logs: Option<PathBuf>,
    /// Three nodes instead of one, which are killed, stopped and split.
    #[arg(long)]
    cluster: bool,
    /// Which ledger the dispatchers share.
    #[arg(long, requires = "cluster", value_enum, default_value_t = LedgerKind::None)]
    ledger: LedgerKind,
    /// Only these kinds of faults; several with commas.
    #[arg(long, requires = "cluster", value_enum, value_delimiter = ',')]
    faults: Vec<FaultKind>,
    /// Inject each kind of fault once, however long it takes.
    #[arg(long, requires = "cluster", conflicts_with = "minutes")]
    once: bool,
    /// Erlang's `net_ticktime`: nodes notice after 0.75 to 1.25 times this that another one does not answer.
    #[arg(long, value_name = "SECONDS", requires = "cluster", default_value_t = 8)]
    net_ticktime: u16,
}

/// Runs it.
pub fn main(arguments: &Arguments) -> Exit {
    command::runtime().block_on(async {
        match chaos(arguments).await {
            Ok(true) => Exit::Done,
            Ok(false) => Exit::Other,
            Err(error) => {
                command::print_error(&error);
                error.exit()
            }
        }
    })
}

/// True if it was flawless.
async fn chaos(arguments: &Arguments) -> Result<bool, ChaosError> {
    let mut signals = StopSignals::new().map_err(ChaosError::system("handle signals"))?;
    let logs = log_directory(arguments.logs.as_deref())?;
    println!("logs: {}", logs.display());
    let lasts = Duration::from_secs(60 * arguments.minutes);
    let running = async {
        let (result, flawless) = if arguments.cluster {
            let extent = if arguments.once { Extent::Once } else { Extent::Lasts(lasts) };
            let result = cluster::run(arguments.cluster_settings(logs), extent).await?;
            (result.to_string(), result.is_flawless())
        } else {
            let chaos = Chaos::start(arguments.seed, arguments.rabbitmq.clone(), logs).await?;
            let result = chaos.run(lasts).await?;
            (result.to_string(), result.is_flawless())
        };
        println!("{result}");
        Ok(flawless)
    };
    tokio::select! {
        biased;
        signal = signals.next() => Err(ChaosError::Interrupted(signal)),
        result = running => result,
    }
}

impl Arguments {
    fn cluster_settings(&self, logs: PathBuf) -> ClusterChaosSettings {
        ClusterChaosSettings {
            seed: self.seed,
            rabbitmq: self.rabbitmq.clone(),
            logs,
            ledger: self.ledger,
            net_ticktime_seconds: self.net_ticktime,
            faults: self.faults.clone(),
        }
    }
}

/// The directory that was asked for, made if it is not there; else a new one, which stays.
fn log_directory(asked_for: Option<&Path>) -> Result<PathBuf, ChaosError> {
    let made = match asked_for {
        Some(directory) => std::fs::create_dir_all(directory).map(|()| directory.to_owned()),
        None => {
            tempfile::Builder::new().prefix("lanekeeper-chaos-logs-").tempdir().map(tempfile::TempDir::keep)
        }
    };
    made.map_err(ChaosError::system("make the directory for logs"))
}

//! `lanekeeper-lab chaos`: a crash test. Replicas, broker, connections and target fail while updates are published, and the
//! receiver judges.

mod error;
mod publisher;
mod replica;
mod result;
mod run;
mod schedule;

use std::path::{Path, PathBuf};
use std::time::Duration;

use error::ChaosError;
use result::ChaosResult;
use run::Chaos;

use crate::command::{self, Exit, StopSignals};

const AFTER_HELP: &str = "\
Starts a private RabbitMQ (scripts/broker), a reference target and three `lanekeeper run` without a ledger, and publishes
to 100 records. Meanwhile it sends SIGKILL, SIGTERM and SIGSTOP to replicas, kills and restarts the broker, closes its
connections, and makes the target refuse, hang or cut connections. Equal seeds give the same faults in the same order.

Prints each fault, and at the end the number of faults, updates, and updates that were lost, reordered, overlapped or
sent again (duplicates: allowed without a ledger).

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
}

/// Runs it.
pub fn main(arguments: &Arguments) -> Exit {
    command::runtime().block_on(async {
        match chaos(arguments).await {
            Ok(result) if result.is_flawless() => Exit::Done,
            Ok(_) => Exit::Other,
            Err(error) => {
                command::print_error(&error);
                error.exit()
            }
        }
    })
}

async fn chaos(arguments: &Arguments) -> Result<ChaosResult, ChaosError> {
    let mut signals = StopSignals::new().map_err(ChaosError::system("handle signals"))?;
    let logs = log_directory(arguments.logs.as_deref())?;
    println!("logs: {}", logs.display());
    let Arguments { minutes, seed, ref rabbitmq, .. } = *arguments;
    let running = async {
        let chaos = Chaos::start(seed, rabbitmq.clone(), logs).await?;
        chaos.run(Duration::from_secs(60 * minutes)).await
    };
    let result = tokio::select! {
        biased;
        signal = signals.next() => Err(ChaosError::Interrupted(signal)),
        result = running => result,
    }?;
    println!("{result}");
    Ok(result)
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

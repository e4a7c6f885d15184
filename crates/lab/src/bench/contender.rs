//! What is measured: Lanekeeper in several configs, or another program that forwards from the same queues.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use super::error::BenchError;
use super::observers::{Observers, free_address};
use super::scenario::Scenario;
use super::stage::{INSTANCE, PREFETCH, Stage, Topology};
use crate::testbed::{PrivatePostgres, Process, program};

/// Attempts in flight per partition: the product's default.
const IN_FLIGHT_MAX: u16 = 32;
const STRICT_IN_FLIGHT_MAX: u16 = 1;

/// What can be compared with Lanekeeper without a ledger.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(super) enum Compared {
    /// One update at a time per partition, in queue order.
    Strict,
    /// Lanekeeper without a ledger again, to see the spread.
    None,
    /// With the ledger in SQLite.
    Sqlite,
    /// With the ledger in a private PostgreSQL.
    Postgres,
    /// While `lanekeeper status --watch` and three readers of the overview's events look on.
    Observed,
    /// A loop of the same client libraries, with lanes and nothing else: the ceiling.
    Bare,
}

/// One of those that take turns.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Contender {
    /// Without a ledger.
    Lanekeeper,
    Compared(Compared),
    /// Another build of this program, without a ledger.
    Build(PathBuf),
    /// Any other program.
    Peer {
        name: String,
        command: String,
    },
}

/// The process that forwards, and the server that it needs.
#[derive(Debug)]
pub(super) struct Forwarder {
    pub(super) process: Process,
    _postgres: Option<PrivatePostgres>,
    _observers: Option<Observers>,
}

impl Contender {
    /// `NAME=COMMAND`, or a command whose last word then is the name.
    pub(super) fn peer(text: &str) -> Result<Self, String> {
        let is_name =
            |name: &str| !name.is_empty() && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-');
        let (name, command) = match text.split_once('=') {
            Some((name, command)) if is_name(name) => (name, command),
            _ => (text.rsplit(['/', ' ']).next().unwrap_or_default(), text),
        };
        if command.trim().is_empty() {
            return Err("write a command, or NAME=COMMAND".to_owned());
        }
        Ok(Self::Peer { name: name.to_owned(), command: command.to_owned() })
    }

    /// Its name in the output; empty for Lanekeeper without a ledger.
    pub(super) fn name(&self) -> String {
        match self {
            Self::Lanekeeper => String::new(),
            Self::Compared(Compared::Strict) => "strict".to_owned(),
            Self::Compared(Compared::None) => "none".to_owned(),
            Self::Compared(Compared::Sqlite) => "sqlite".to_owned(),
            Self::Compared(Compared::Postgres) => "postgres".to_owned(),
            Self::Compared(Compared::Observed) => "observed".to_owned(),
            Self::Compared(Compared::Bare) => "bare".to_owned(),
            Self::Build(_) => "before".to_owned(),
            Self::Peer { name, .. } => name.clone(),
        }
    }

    /// False if it cannot do this scenario: the bare loop ends at the first failure.
    pub(super) fn can(&self, scenario: &Scenario) -> bool {
        *self != Self::Compared(Compared::Bare) || scenario.stuck_for.is_none()
    }

    /// Starts it. `target` is the URL of the receiver's records; the record key is to be appended.
    pub(super) async fn start(
        &self,
        stage: &Stage,
        topology: &Topology,
        target: &str,
    ) -> Result<Forwarder, BenchError> {
        let own = program::executable().map_err(BenchError::system("find the program lanekeeper"))?;
        let (mut postgres, mut observed) = (None, None);
        let command = match self {
            Self::Lanekeeper | Self::Compared(Compared::None) => {
                lanekeeper(&own, stage, topology, target, IN_FLIGHT_MAX, "none")?
            }
            Self::Build(path) => lanekeeper(path, stage, topology, target, IN_FLIGHT_MAX, "none")?,
            Self::Compared(Compared::Strict) => {
                lanekeeper(&own, stage, topology, target, STRICT_IN_FLIGHT_MAX, "none")?
            }
            Self::Compared(Compared::Sqlite) => {
                let ledger = format!("sqlite://{}", stage.file(&topology.exchange).display());
                lanekeeper(&own, stage, topology, target, IN_FLIGHT_MAX, &ledger)?
            }
            Self::Compared(Compared::Postgres) => {
                let server = postgres.insert(stage.postgres().await?);
                lanekeeper(&own, stage, topology, target, IN_FLIGHT_MAX, server.url())?
            }
            Self::Compared(Compared::Observed) => {
                let admin = free_address().map_err(BenchError::system("find a free port"))?;
                observed = Some(admin);
                let mut command = lanekeeper(&own, stage, topology, target, IN_FLIGHT_MAX, "none")?;
                command.env("LANEKEEPER_ADMIN__LISTEN", admin.to_string());
                command
            }
            Self::Compared(Compared::Bare) => {
                let path = own.with_file_name("lanekeeper-bare-loop");
                if !path.is_file() {
                    return Err(BenchError::NoBareLoop { path: path.display().to_string() });
                }
                for_peers(program::command(&path), stage, topology, target)
            }
            Self::Peer { command, .. } => {
                let mut shell = program::command(Path::new("/bin/sh"));
                shell.args(["-c", command]);
                for_peers(shell, stage, topology, target)
            }
        };
        let who = format!("the forwarder ({})", self.name());
        let process = Process::start_group(&who, command, &stage.file("forwarder.log"))?;
        let observers = observed.map(|admin| Observers::start(&own, stage, &config_file(stage), admin));
        Ok(Forwarder { process, _postgres: postgres, _observers: observers.transpose()? })
    }
}

/// What is not set here has its default. URLs are in the environment, since they have passwords.
fn lanekeeper(
    lanekeeper: &Path,
    stage: &Stage,
    topology: &Topology,
    target: &str,
    in_flight_max: u16,
    ledger: &str,
) -> Result<Command, BenchError> {
    let (exchange, partitions) = (&topology.exchange, topology.queues().len());
    let policies = match ledger {
        "none" => {
            r#"failure = { rejected = "dead_letter", exhausted = "dead_letter", conflict = "dead_letter" }"#
        }
        _ => "",
    };
    let text = format!(
        r#"{policies}
instance.name = "{INSTANCE}"
updates.exchange = "{exchange}"
updates.partitions = {partitions}
dispatch.in_flight_max = {in_flight_max}
admin.listen = ""
ledger.connections_max = 256

[[target]]
name = "receiver"
types = ["*"]
url = "{target}{{record_key}}"
"#
    );
    let path = config_file(stage);
    std::fs::write(&path, text).map_err(BenchError::system("write a config"))?;
    let mut command = program::run_command(lanekeeper, &path);
    command.stdout(Stdio::null());
    command.env("LANEKEEPER_BROKER__URL", stage.broker.urls[0].reveal());
    command.env("LANEKEEPER_LEDGER__URL", ledger);
    Ok(command)
}

fn config_file(stage: &Stage) -> PathBuf {
    stage.file("lanekeeper.toml")
}

/// Sets the variables that benches/peers/README.md describes.
fn for_peers(mut command: Command, stage: &Stage, topology: &Topology, target: &str) -> Command {
    command.stdout(Stdio::null());
    command.env("BENCH_BROKER_URL", stage.broker.urls[0].reveal());
    command.env("BENCH_QUEUES", topology.queues().join(" "));
    command.env("BENCH_TARGET", target);
    command.env("BENCH_PREFETCH", PREFETCH.to_string());
    command.env("BENCH_IN_FLIGHT_MAX", IN_FLIGHT_MAX.to_string());
    command
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_peer_has_the_name_that_it_is_given_or_that_of_its_file() {
        let check = |text: &str, name: &str, command: &str| {
            let expected = Contender::Peer { name: name.to_owned(), command: command.to_owned() };
            assert_eq!(Contender::peer(text), Ok(expected), "{text}");
        };
        check("node=node benches/peers/lanes.mjs", "node", "node benches/peers/lanes.mjs");
        check("python3 benches/peers/serial.py", "serial.py", "python3 benches/peers/serial.py");
        check("X_Y=1 ./peer", "peer", "X_Y=1 ./peer");
        assert!(Contender::peer("name=").is_err());
    }
}

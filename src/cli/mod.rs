//! The command line: one file per command, exit codes in one place.

mod check;
mod doctor;
mod lab;
mod log;
mod parked;
mod publish;
mod run;
mod topology;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};

use crate::config::{self, Config, Environment, Loaded, Purpose};

/// Forwards updates from RabbitMQ to HTTP APIs: in order per record, one at a time per record.
#[derive(Debug, Parser)]
#[command(name = "lanekeeper", version, after_help = EXIT_CODES)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

const EXIT_CODES: &str =
    "Exit codes: 0 done, 1 other, 2 config, 3 broker, 4 ledger; 10 `topology plan` has something to do.";

#[derive(Debug, Subcommand)]
enum Command {
    /// Forward updates to their targets until SIGTERM or Ctrl-C, then finish what is in flight.
    Run(run::Arguments),
    /// Publish updates from JSON lines, with confirms, in order per record.
    Publish(publish::Arguments),
    /// Show the config in force, where each value comes from, and the retry schedule.
    Check(check::Arguments),
    /// List, show, release, discard or export parked updates.
    Parked(parked::Arguments),
    /// Look at the broker as it is: everything that could lose or reorder updates, each with the command that removes it.
    Doctor(doctor::Arguments),
    /// Show the layouts of partitions, and change them under load.
    Topology(topology::Arguments),
    /// Moved: `lanekeeper-lab receiver`.
    #[command(hide = true)]
    Receiver(lab::Arguments),
    /// Moved: `lanekeeper-lab demo`.
    #[command(hide = true)]
    Demo(lab::Arguments),
    /// Moved: `lanekeeper-lab bench`.
    #[command(hide = true)]
    Bench(lab::Arguments),
}

/// Options of every command that reads the config.
#[derive(Clone, Debug, Args)]
pub struct ConfigArguments {
    /// Config file (TOML); what it leaves out is as in the built-in config/default.toml.
    #[arg(short, long, value_name = "FILE", env = "LANEKEEPER_CONFIG")]
    config: Option<PathBuf>,
}

impl ConfigArguments {
    /// The config for a command that forwards updates. If it has faults, they are printed and the command is to end.
    ///
    /// # Errors
    /// [`Exit::Config`], with every fault on standard error.
    pub fn load(&self) -> Result<Config, Exit> {
        self.load_for(Purpose::Dispatch).map(|loaded| loaded.config)
    }

    /// As [`Self::load`], with the origin of each value, and for either purpose.
    ///
    /// # Errors
    /// [`Exit::Config`], with every fault on standard error.
    pub fn load_for(&self, purpose: Purpose) -> Result<Loaded, Exit> {
        config::load(self.config.as_deref(), &Environment::of_process(), purpose).map_err(|faults| {
            eprintln!("{faults}");
            Exit::Config
        })
    }
}

/// What a command ends with, as the shell sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// 0: done.
    Done,
    /// 1: anything that has no code of its own.
    Other,
    /// 2: the config or the command line.
    Config,
    /// 3: the broker.
    Broker,
    /// 4: the ledger.
    Ledger,
    /// 10: nothing is wrong, and there is something to do.
    Pending,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(match exit {
            Exit::Done => 0,
            Exit::Other => 1,
            Exit::Config => 2,
            Exit::Broker => 3,
            Exit::Ledger => 4,
            Exit::Pending => 10,
        })
    }
}

/// Reads the command line, runs the command, reports its error once.
#[must_use]
pub fn main() -> ExitCode {
    // One TLS provider for both clients; a second installation would be a fault of ours.
    rustls::crypto::ring::default_provider().install_default().expect("the TLS provider is installed once");
    let exit = match Cli::parse().command {
        Command::Run(arguments) => run::main(&arguments),
        Command::Publish(arguments) => publish::main(&arguments),
        Command::Check(arguments) => check::main(&arguments),
        Command::Parked(arguments) => parked::main(&arguments),
        Command::Doctor(arguments) => doctor::main(&arguments),
        Command::Topology(arguments) => topology::main(&arguments),
        Command::Receiver(arguments) => lab::main("receiver", &arguments),
        Command::Demo(arguments) => lab::main("demo", &arguments),
        Command::Bench(arguments) => lab::main("bench", &arguments),
    };
    exit.into()
}

/// The runtime of every command: as many workers as there are cores.
fn tokio_runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("the runtime starts")
}

/// Says once what went wrong, with its causes.
fn report(error: &dyn std::error::Error) {
    eprintln!("error: {}", lanekeeper_core::error::error_chain(error));
}

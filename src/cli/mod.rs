//! The command line: one file per command. Begin with [`main`], which picks the command.

mod against_running;
mod arguments;
mod check;
mod doctor;
mod exit;
mod ingest;
mod lab;
mod ledger;
mod log;
mod notify;
mod parked;
mod process;
mod publish;
mod rehearsal;
mod run;
mod signals;
mod status;
mod target;
mod test;
mod topology;
mod try_update;
mod why;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

pub use arguments::ConfigArguments;
pub use exit::Exit;

/// Forwards updates from RabbitMQ to HTTP APIs: in order per record, one at a time per record.
#[derive(Debug, Parser)]
#[command(name = "lanekeeper", version, after_help = exit::help())]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Forward updates to their targets until SIGTERM or Ctrl-C, then finish what is in flight.
    Run(run::Arguments),
    /// Publish updates from JSON lines, with confirms, in order per record.
    Publish(publish::Arguments),
    /// Take updates by HTTP and publish them, until SIGTERM or Ctrl-C: each is answered when the broker has confirmed it.
    Ingest(ingest::Arguments),
    /// Show the effective config, where each value comes from, the retry schedule, and warnings.
    Check(check::Arguments),
    /// Show the request that an update would become, and send it if asked to.
    Try(try_update::Arguments),
    /// Test the config: cases in files, of what it makes of updates and answers.
    Test(test::Arguments),
    /// Show what a record waits for, and what ends the wait.
    Why(why::Arguments),
    /// Show how all processes, partitions and targets are, and if a person must act.
    Status(status::Arguments),
    /// List, show, release, discard or export parked updates.
    Parked(parked::Arguments),
    /// Forget what the ledger knows of a record: its version.
    Ledger(ledger::Arguments),
    /// Examine the broker: list everything that could lose or reorder updates, each with the command that fixes it.
    Doctor(doctor::Arguments),
    /// Show the layouts (partitions and their queues), and change them while updates flow.
    Topology(topology::Arguments),
    /// Believe the rejections of a target for some time, without a restart.
    Target(target::Arguments),
    /// Send a test notification to who is told of events.
    Notify(notify::Arguments),
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

/// Parses the command line, runs the command and reports its error once.
#[must_use]
pub fn main() -> ExitCode {
    // The AMQP and the HTTP client share one TLS provider. Installing it twice would be a fault of ours.
    rustls::crypto::ring::default_provider().install_default().expect("the TLS provider is installed once");
    let exit = match Cli::parse().command {
        Command::Run(arguments) => run::main(&arguments),
        Command::Publish(arguments) => publish::main(&arguments),
        Command::Ingest(arguments) => ingest::main(&arguments),
        Command::Check(arguments) => check::main(&arguments),
        Command::Try(arguments) => try_update::main(&arguments),
        Command::Test(arguments) => test::main(&arguments),
        Command::Why(arguments) => why::main(&arguments),
        Command::Status(arguments) => status::main(&arguments),
        Command::Parked(arguments) => parked::main(&arguments),
        Command::Ledger(arguments) => ledger::main(&arguments),
        Command::Doctor(arguments) => doctor::main(&arguments),
        Command::Topology(arguments) => topology::main(&arguments),
        Command::Target(arguments) => target::main(&arguments),
        Command::Notify(arguments) => notify::main(&arguments),
        Command::Receiver(arguments) => lab::main("receiver", &arguments),
        Command::Demo(arguments) => lab::main("demo", &arguments),
        Command::Bench(arguments) => lab::main("bench", &arguments),
    };
    exit.into()
}

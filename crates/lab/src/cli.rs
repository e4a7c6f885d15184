//! The command line of `lanekeeper-lab`.

use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::{bench, chaos, demo, pacing, receiver, stuck};

/// Shows and measures Lanekeeper: reference target, demonstration, benchmark, crash test.
#[derive(Debug, Parser)]
#[command(name = "lanekeeper-lab", version, after_help = "Exit codes: 0 done, 1 other, 2 config, 3 broker.")]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the reference target: it keeps records, has safeguards against races, and reports what it saw.
    Receiver(Box<receiver::command::Arguments>),
    /// Show in a minute what Lanekeeper is for: updates race without it, and the same updates do not with it.
    Demo(demo::Arguments),
    /// Set up five records that wait, each for another reason, to tell them apart with `lanekeeper why`.
    Stuck(stuck::Arguments),
    /// Measure how fast updates are forwarded. The order is judged in every run.
    Bench(bench::Arguments),
    /// Measure what a door costs, `lanekeeper ingest`, compared with `lanekeeper publish`.
    BenchDoor(bench::door::Arguments),
    /// Measure how much of a target's rate limit is used, and how many requests it refuses.
    Pacing(pacing::Arguments),
    /// Crash replicas, broker, connections and target while updates are published, and judge what arrives.
    Chaos(chaos::Arguments),
}

/// Reads the command line, runs the command, prints its error once.
#[must_use]
pub fn main() -> ExitCode {
    // One TLS provider for all clients; a second installation would be a fault of ours.
    rustls::crypto::ring::default_provider().install_default().expect("the TLS provider is installed once");
    let exit = match Cli::parse().command {
        Command::Receiver(arguments) => receiver::command::main(&arguments),
        Command::Demo(arguments) => demo::main(&arguments),
        Command::Stuck(arguments) => stuck::main(&arguments),
        Command::Bench(arguments) => bench::main(&arguments),
        Command::BenchDoor(arguments) => bench::door::main(&arguments),
        Command::Pacing(arguments) => pacing::main(&arguments),
        Command::Chaos(arguments) => chaos::main(&arguments),
    };
    exit.into()
}

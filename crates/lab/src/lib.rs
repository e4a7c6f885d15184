//! What shows and measures Lanekeeper, and does not operate it: a reference target that judges the order it sees, a
//! demonstration, and a benchmark. Tests of the product use the receiver as a library.
//!
//! Begin with [`receiver`]: every other part is judged by what it saw.

pub mod bench;
pub mod demo;
mod plain_http;
mod product;
pub mod receiver;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

pub use lanekeeper::cli::{ConfigArguments, Exit};

/// Shows and measures Lanekeeper: reference target, demonstration, benchmark.
#[derive(Debug, Parser)]
#[command(name = "lanekeeper-lab", version, after_help = "Exit codes: 0 done, 1 other, 2 config, 3 broker.")]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the reference target: it keeps records, honours the remedies against races, and reports what it saw.
    Receiver(receiver::command::Arguments),
    /// Show the whole story in a minute: racing updates without Lanekeeper, then with it.
    Demo(demo::Arguments),
    /// Measure how fast updates are forwarded, with the order judged in every run.
    Bench(bench::Arguments),
}

/// Reads the command line, runs the command, reports its error once.
#[must_use]
pub fn main() -> ExitCode {
    // One TLS provider for all clients; a second installation would be a fault of ours.
    rustls::crypto::ring::default_provider().install_default().expect("the TLS provider is installed once");
    let exit = match Cli::parse().command {
        Command::Receiver(arguments) => receiver::command::main(&arguments),
        Command::Demo(arguments) => demo::main(&arguments),
        Command::Bench(arguments) => bench::main(&arguments),
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

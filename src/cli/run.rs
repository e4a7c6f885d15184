//! `lanekeeper run`.

use std::process::exit;

use tokio::signal::unix::{SignalKind, signal};
use tracing::{info, warn};

use super::{ConfigArguments, Exit, log};
use crate::runtime::{self, RunError};
use lanekeeper_broker::SourceError;

/// Options of `lanekeeper run`.
#[derive(Clone, Debug, clap::Args)]
pub struct Arguments {
    #[command(flatten)]
    config: ConfigArguments,
    /// Let this process's ledger belong to the exchange from now on, whatever was used before. What was parked or known in
    /// the ledger before is not known in this one.
    #[arg(long)]
    adopt_ledger: bool,
}

/// Dispatches until SIGTERM or Ctrl-C.
pub fn main(arguments: &Arguments) -> Exit {
    let config = match arguments.config.load() {
        Ok(config) => config,
        Err(exit) => return exit,
    };
    log::start(&config.log);
    let runtime = super::tokio_runtime();
    match runtime.block_on(async { runtime::run(config, arguments.adopt_ledger, until_signal()).await }) {
        Ok(()) => {
            info!("stopped");
            Exit::Done
        }
        Err(error) => {
            super::report(&error);
            match error {
                RunError::Ledger(_) | RunError::Source(SourceError::OtherLedger { .. }) => Exit::Ledger,
                RunError::Source(_) => Exit::Broker,
                RunError::Targets(_) | RunError::Admin { .. } => Exit::Config,
            }
        }
    }
}

/// Done at the first SIGTERM or Ctrl-C. A second one ends the process at once: what is in flight comes back later.
async fn until_signal() {
    let mut terminate = signal(SignalKind::terminate()).expect("the runtime takes signals");
    let mut interrupt = signal(SignalKind::interrupt()).expect("the runtime takes signals");
    let mut either = async move || {
        tokio::select! {
            _ = terminate.recv() => "SIGTERM",
            _ = interrupt.recv() => "Ctrl-C",
        }
    };
    // Not within the macro: where the filter keeps the line out, it would not be waited for.
    let signal = either().await;
    info!(signal, "asked to stop");
    tokio::spawn(async move {
        let signal = either().await;
        warn!(signal, "asked to stop again: not waiting for attempts in flight");
        exit(1);
    });
}

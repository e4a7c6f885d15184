//! `lanekeeper run`.

use std::process::exit;

use tokio::signal::unix::{SignalKind, signal};
use tracing::{info, warn};

use super::{ConfigArguments, Exit, log};
use crate::runtime::{self, RunError};

/// Options of `lanekeeper run`.
#[derive(Clone, Debug, clap::Args)]
pub struct Arguments {
    #[command(flatten)]
    config: ConfigArguments,
}

/// Dispatches until SIGTERM or Ctrl-C.
pub fn main(arguments: &Arguments) -> Exit {
    let config = match arguments.config.load() {
        Ok(config) => config,
        Err(exit) => return exit,
    };
    log::start(&config.log);
    let runtime = super::tokio_runtime();
    match runtime.block_on(async { runtime::run(config, until_signal()).await }) {
        Ok(()) => {
            info!("stopped");
            Exit::Done
        }
        Err(error) => {
            super::report(&error);
            match error {
                RunError::Source(_) => Exit::Broker,
                RunError::Ledger(_) => Exit::Ledger,
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
    info!(signal = either().await, "asked to stop");
    tokio::spawn(async move {
        let signal = either().await;
        warn!(signal, "asked to stop again: not waiting for attempts in flight");
        exit(1);
    });
}

//! `lanekeeper run`.

use std::process::exit;

use tokio::signal::unix::{SignalKind, signal};
use tracing::{info, warn};

use super::arguments::ConfigArguments;
use super::exit::Exit;
use super::log;
use super::process::{report, tokio_runtime};
use crate::config::{Purpose, UNNAMED_SSLMODE, unnamed_sslmode};
use crate::runtime::{self, RunError};

/// Options of `lanekeeper run`.
#[derive(Clone, Debug, clap::Args)]
pub struct Arguments {
    #[command(flatten)]
    config: ConfigArguments,
    /// Use this process's ledger for the exchange from now on, even if another one was used before. The parked updates and
    /// the ids in the other ledger are not copied.
    #[arg(long)]
    adopt_ledger: bool,
}

/// Dispatches until SIGTERM or Ctrl-C.
pub fn main(arguments: &Arguments) -> Exit {
    let config = match arguments.config.load(Purpose::Dispatch) {
        Ok(loaded) => loaded.config,
        Err(exit) => return exit,
    };
    log::start(&config.log);
    for host in unnamed_sslmode(&config) {
        warn!(host, "ledger.url names no sslmode for this host: {UNNAMED_SSLMODE}");
    }
    let runtime = tokio_runtime();
    let running = async { Box::pin(runtime::run(config, arguments.adopt_ledger, until_signal())).await };
    match runtime.block_on(running) {
        Ok(()) => {
            info!("stopped");
            Exit::Done
        }
        Err(error) => {
            report(&error);
            match error {
                RunError::Ledger(_) | RunError::Binding(_) => Exit::Ledger,
                RunError::Source(_) => Exit::Broker,
                RunError::Targets(_) | RunError::Admin { .. } => Exit::Config,
            }
        }
    }
}

/// Returns at the first SIGTERM or Ctrl-C. A second one ends the process at once; updates in flight are then delivered
/// again later.
async fn until_signal() {
    let mut terminate = signal(SignalKind::terminate()).expect("the runtime takes signals");
    let mut interrupt = signal(SignalKind::interrupt()).expect("the runtime takes signals");
    let mut either = async move || {
        tokio::select! {
            _ = terminate.recv() => "SIGTERM",
            _ = interrupt.recv() => "Ctrl-C",
        }
    };
    // Not within the macro: if the filter drops the line, the macro does not evaluate its fields.
    let signal = either().await;
    info!(signal, "asked to stop");
    tokio::spawn(async move {
        let signal = either().await;
        warn!(signal, "asked to stop again, exiting without waiting for attempts in flight");
        exit(1);
    });
}

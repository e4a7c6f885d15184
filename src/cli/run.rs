//! `lanekeeper run`.

use std::process::exit;
use std::time::Duration;

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::arguments::ConfigArguments;
use super::exit::Exit;
use super::log::{self, LogQueue};
use super::process::tokio_runtime;
use crate::admin::metrics::Metrics;
use crate::config::{Purpose, UNNAMED_SSLMODE, unnamed_sslmode};
use crate::runtime::{self, RunError};
use lanekeeper_core::error::error_chain;

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

/// Ends threads that wait for the operating system, such as for the address of a name, when everything else has ended.
const THREADS_END_MAX: Duration = Duration::from_secs(1);

/// Dispatches until SIGTERM or Ctrl-C.
pub fn main(arguments: &Arguments) -> Exit {
    let config = match arguments.config.load(Purpose::Dispatch) {
        Ok(loaded) => loaded.config,
        Err(exit) => return exit,
    };
    let metrics = Metrics::new();
    let log = log::start(&config.log, metrics.log());
    for host in unnamed_sslmode(&config) {
        warn!(host, "ledger.url names no sslmode for this host: {UNNAMED_SSLMODE}");
    }
    let runtime = tokio_runtime();
    let ended = runtime.block_on(async {
        let stop = CancellationToken::new();
        tokio::spawn(Signals::take().follow(stop.clone(), log.clone()));
        Box::pin(runtime::run(config, metrics, arguments.adopt_ledger, stop.cancelled_owned())).await
    });
    let exit = match ended {
        Ok(()) => {
            info!("stopped");
            Exit::Done
        }
        Err(error) => {
            // Not by `report`, which waits for whoever reads standard error.
            log.push(format!("error: {}\n", error_chain(&error)).as_bytes());
            match error {
                RunError::Ledger(_) | RunError::Binding(_) => Exit::Ledger,
                RunError::Source(_) => Exit::Broker,
                RunError::Targets(_) | RunError::Admin { .. } => Exit::Config,
            }
        }
    };
    runtime.shutdown_timeout(THREADS_END_MAX);
    log.flush();
    exit
}

/// The signals that this process takes.
struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hangup: Signal,
}

impl Signals {
    fn take() -> Self {
        let take = |kind| signal(kind).expect("the runtime takes signals");
        Self {
            terminate: take(SignalKind::terminate()),
            interrupt: take(SignalKind::interrupt()),
            hangup: take(SignalKind::hangup()),
        }
    }

    /// Sets `stop` at the first SIGTERM or Ctrl-C. A second one ends the process at once, whatever it is doing; updates in
    /// flight are then delivered again later.
    async fn follow(mut self, stop: CancellationToken, log: LogQueue) {
        let signal = self.next().await;
        // Not within the macro: if the filter drops the line, the macro does not evaluate its fields.
        info!(signal, "asked to stop");
        stop.cancel();
        let signal = self.next().await;
        warn!(signal, "asked to stop again, exiting without waiting for attempts in flight");
        log.flush();
        exit(1);
    }

    /// The next signal that asks for an end.
    async fn next(&mut self) -> &'static str {
        loop {
            tokio::select! {
                _ = self.terminate.recv() => return "SIGTERM",
                _ = self.interrupt.recv() => return "Ctrl-C",
                // A terminal sends it when it closes, and so do people who want the config read again.
                _ = self.hangup.recv() => {
                    warn!("SIGHUP is ignored: the config is read at the start only, so restart the process to change it");
                }
            }
        }
    }
}

//! `lanekeeper run`.

use std::process::exit;
use std::time::{Duration, SystemTime};

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::arguments::ConfigArguments;
use super::exit::Exit;
use super::log::{self, LogQueue};
use super::process::tokio_runtime;
use crate::admin::metrics::Metrics;
use crate::config::{Expiring, Purpose, UNNAMED_SSLMODE, expiring, unnamed_sslmode};
use crate::config_requests::{ConfigRequestSender, ConfigRequests};
use crate::runtime::{self, Options, RunError};
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
    let loaded = match arguments.config.load(Purpose::Dispatch) {
        Ok(loaded) => loaded,
        Err(exit) => return exit,
    };
    let metrics = Metrics::new();
    let (log, log_filter) = log::start(&loaded.config.log, metrics.log());
    for host in unnamed_sslmode(&loaded.config) {
        warn!(host, "ledger.url names no sslmode for this host: {UNNAMED_SSLMODE}");
    }
    for Expiring { target, expires, left } in expiring(&loaded.config.targets, SystemTime::now()) {
        match left {
            None => {
                warn!(
                    target_name = target,
                    expires, "client certificate has expired, the target will refuse it: renew it"
                );
            }
            Some(left) => {
                warn!(target_name = target, expires, left, "client certificate expires soon: renew it");
            }
        }
    }
    let runtime = tokio_runtime();
    let ended = runtime.block_on(async {
        let (stop, requests) = (CancellationToken::new(), ConfigRequests::new());
        tokio::spawn(Signals::take(requests.sender.clone()).follow(stop.clone(), log.clone()));
        let options = Options { adopt_ledger: arguments.adopt_ledger, log_filter, requests };
        Box::pin(runtime::run(loaded, metrics, options, stop.cancelled_owned())).await
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
    requests: ConfigRequestSender,
}

impl Signals {
    fn take(requests: ConfigRequestSender) -> Self {
        let take = |kind| signal(kind).expect("the runtime takes signals");
        Self {
            requests,
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
                // A terminal sends it, too, when it closes.
                _ = self.hangup.recv() => {
                    info!("SIGHUP: reading the config again");
                    self.requests.reload();
                }
            }
        }
    }
}

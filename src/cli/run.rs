//! `lanekeeper run`.

use std::time::{Duration, SystemTime};

use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::arguments::ConfigArguments;
use super::exit::Exit;
use super::log;
use super::process::tokio_runtime;
use super::signals::Signals;
use crate::admin::metrics::Metrics;
use crate::config::{Expiring, Purpose, UNNAMED_SSLMODE, expiring, unnamed_sslmode};
use crate::config_requests::ConfigRequests;
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
        tokio::spawn(Signals::take(requests.sender.clone()).follow(
            stop.clone(),
            "attempts in flight",
            log.clone(),
        ));
        let options = Options { adopt_ledger: arguments.adopt_ledger, log_filter, requests };
        let stopped = stop.cancelled_owned();
        #[cfg(feature = "sqs")]
        if loaded.config.sqs.is_some() {
            return Box::pin(runtime::run_sqs(loaded, metrics, options, stopped)).await;
        }
        Box::pin(runtime::run(loaded, metrics, options, stopped)).await
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
                RunError::Ledger(_)
                | RunError::Binding(_)
                | RunError::LedgerOfAnother { .. }
                | RunError::LedgerInUse { .. } => Exit::Ledger,
                RunError::Source(_) => Exit::Broker,
                RunError::Targets(_) | RunError::Admin { .. } | RunError::NotFifo { .. } => Exit::Config,
            }
        }
    };
    runtime.shutdown_timeout(THREADS_END_MAX);
    log.flush();
    exit
}

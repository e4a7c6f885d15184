//! `lanekeeper ingest`.

use std::process::exit;

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::arguments::ConfigArguments;
use super::exit::Exit;
use super::log::{self, LogQueue};
use super::process::tokio_runtime;
use crate::config::Purpose;
use crate::ingest::{self, IngestError, IngestMetrics};
use lanekeeper_broker::publisher::PublishError;
use lanekeeper_core::error::error_chain;

/// Options of `lanekeeper ingest`.
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = AFTER_HELP)]
pub struct Arguments {
    #[command(flatten)]
    config: ConfigArguments,
}

const AFTER_HELP: &str = "\
docs/ingest.md has the requests and their answers.

Exit codes: 0 after SIGTERM or Ctrl-C, 1 cannot listen, 2 config, 3 the exchange is gone, or the broker refuses updates.
A broker that is not there is waited for.";

/// Takes updates until SIGTERM or Ctrl-C.
pub fn main(arguments: &Arguments) -> Exit {
    let config = match arguments.config.load(Purpose::Ingest) {
        Ok(loaded) => loaded.config,
        Err(exit) => return exit,
    };
    let metrics = IngestMetrics::new();
    let (log, _) = log::start(&config.log, metrics.log());
    let runtime = tokio_runtime();
    let ended = runtime.block_on(async {
        let stop = CancellationToken::new();
        tokio::spawn(follow_signals(stop.clone(), log.clone()));
        ingest::run(config, metrics, stop).await
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
                IngestError::Listen { .. } => Exit::Other,
                IngestError::Publish(PublishError::Connect(error)) if error.is_of_the_url() => Exit::Config,
                IngestError::Publish(_) => Exit::Broker,
            }
        }
    };
    runtime.shutdown_background();
    log.flush();
    exit
}

/// Sets `stop` at the first SIGTERM or Ctrl-C. A second one ends the process at once: whoever waits for an answer gets none.
async fn follow_signals(stop: CancellationToken, log: LogQueue) {
    let take = |kind| signal(kind).expect("the runtime takes signals");
    let (mut terminate, mut interrupt) = (take(SignalKind::terminate()), take(SignalKind::interrupt()));
    let signal = next(&mut terminate, &mut interrupt).await;
    info!(signal, "asked to stop");
    stop.cancel();
    let signal = next(&mut terminate, &mut interrupt).await;
    warn!(signal, "asked to stop again, exiting without waiting for requests");
    log.flush();
    exit(1);
}

async fn next(terminate: &mut Signal, interrupt: &mut Signal) -> &'static str {
    tokio::select! {
        _ = terminate.recv() => "SIGTERM",
        _ = interrupt.recv() => "Ctrl-C",
    }
}

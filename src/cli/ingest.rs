//! `lanekeeper ingest`.

use tokio_util::sync::CancellationToken;
use tracing::info;

use super::arguments::ConfigArguments;
use super::exit::Exit;
use super::log;
use super::process::tokio_runtime;
use super::signals::Signals;
use crate::config::Purpose;
use crate::config_requests::ConfigRequests;
use crate::ingest::{self, DoorOptions, IngestError, IngestMetrics};
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
    let loaded = match arguments.config.load_for_rabbitmq(Purpose::Ingest) {
        Ok(loaded) => loaded,
        Err(exit) => return exit,
    };
    let metrics = IngestMetrics::new();
    let (log, log_filter) = log::start(&loaded.config.log, metrics.log());
    let runtime = tokio_runtime();
    let ended = runtime.block_on(async {
        let (stop, requests) = (CancellationToken::new(), ConfigRequests::new());
        tokio::spawn(Signals::take(requests.sender.clone()).follow(stop.clone(), "requests", log.clone()));
        Box::pin(ingest::run(loaded, metrics, DoorOptions { log_filter, requests }, stop)).await
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

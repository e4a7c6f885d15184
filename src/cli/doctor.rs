//! `lanekeeper doctor`.

use super::arguments::BrokerArguments;
use super::exit::Exit;
use super::process::{print, report, tokio_runtime};
use crate::config::{Loaded, Purpose};
use crate::doctor::examine;
use lanekeeper_broker::SourceError;

/// Options of `lanekeeper doctor`.
#[derive(Clone, Debug, clap::Args)]
pub struct Arguments {
    #[command(flatten)]
    broker: BrokerArguments,
    /// Print one JSON object instead of text.
    #[arg(long)]
    json: bool,
}

/// Examines the broker and the config, and prints what could lose or reorder updates. Of a config for a door alone, it examines
/// what the door needs.
pub fn main(arguments: &Arguments) -> Exit {
    let Loaded { config, purpose, .. } = match arguments.broker.load(Purpose::Examine) {
        Ok(loaded) => loaded,
        Err(exit) => return exit,
    };
    let examination = match tokio_runtime().block_on(examine(&config, purpose)) {
        Ok(examination) => examination,
        Err(error) => {
            report(&error);
            let of_the_url = matches!(&error, SourceError::Connect(error) if error.is_of_the_url());
            return if of_the_url { Exit::Config } else { Exit::Broker };
        }
    };
    let exchange = &config.updates.exchange;
    let text = if arguments.json {
        format!("{:#}\n", examination.json(exchange))
    } else {
        examination.text(exchange)
    };
    print(&text, if examination.has_errors() { Exit::Other } else { Exit::Done })
}

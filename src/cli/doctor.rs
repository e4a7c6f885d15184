//! `lanekeeper doctor`.

use std::io::Write as _;

use serde_json::Value as Json;

use super::{ConfigArguments, Exit};
use crate::config::{Config, Purpose, management_url};
use crate::doctor::examine;
use lanekeeper_broker::SourceError;

/// Options of `lanekeeper doctor`.
#[derive(Clone, Debug, clap::Args)]
pub struct Arguments {
    #[command(flatten)]
    config: ConfigArguments,
    /// Where RabbitMQ's management API is, instead of `broker.management_url`.
    #[arg(long, value_name = "URL", env = "LANEKEEPER_MANAGEMENT_URL", hide_env_values = true)]
    management: Option<String>,
    /// Print one JSON object instead of text.
    #[arg(long)]
    json: bool,
}

/// Looks at broker and config, and says what could lose or reorder updates.
pub fn main(arguments: &Arguments) -> Exit {
    let config = match config(arguments) {
        Ok(config) => config,
        Err(exit) => return exit,
    };
    let examination = match super::tokio_runtime().block_on(examine(&config)) {
        Ok(examination) => examination,
        Err(error) => {
            super::report(&error);
            let of_the_url = matches!(&error, SourceError::Connect(error) if error.is_of_the_url());
            return if of_the_url { Exit::Config } else { Exit::Broker };
        }
    };
    let exchange = &config.updates.exchange;
    let report = if arguments.json {
        format!("{:#}\n", examination.json(exchange))
    } else {
        examination.text(exchange)
    };
    let exit = if examination.has_errors() { Exit::Other } else { Exit::Done };
    match std::io::stdout().write_all(report.as_bytes()) {
        Ok(()) => exit,
        // Whoever reads it has read enough, as in `doctor | head`.
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => exit,
        Err(_) => Exit::Other,
    }
}

/// Without targets, too: who looks after the broker need not know them.
fn config(arguments: &Arguments) -> Result<Config, Exit> {
    let mut config = arguments.config.load_for(Purpose::Publish)?.config;
    if let Some(url) = arguments.management.as_deref().filter(|url| !url.is_empty()) {
        config.broker.management_url = management_url(&mut Json::from(url)).map_err(|problem| {
            eprintln!("error: --management: {problem}");
            Exit::Config
        })?;
    }
    Ok(config)
}

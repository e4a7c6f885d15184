//! `lanekeeper why`: what a record waits for, and what ends the wait.

mod text;

use std::time::Duration;

use tokio::time::timeout;

use super::arguments::ConfigArguments;
use super::exit::Exit;
use super::parked::record_key;
use super::process::{print, tokio_runtime};
use crate::config::{Config, Purpose};
use crate::inspect::asker::{Asker, ledger_report};
use crate::inspect::report::{RecordLedgerReport, RecordReport};

use lanekeeper_broker::SourceError;
use lanekeeper_core::error::error_chain;
use lanekeeper_core::update::RecordKey;
use lanekeeper_ledger::{AnyLedger, LedgerConfig, LedgerPlace};

/// Options of `lanekeeper why`.
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = AFTER_HELP)]
pub struct Arguments {
    #[command(flatten)]
    config: ConfigArguments,
    /// The record key.
    #[arg(value_name = "KEY", value_parser = record_key)]
    record: RecordKey,
    /// Print one JSON object instead of text.
    #[arg(long)]
    json: bool,
}

/// How long it may take to open the ledger.
const OPEN_TIMEOUT: Duration = Duration::from_secs(1);

const AFTER_HELP: &str = "\
It asks the broker, all processes and the ledger, and takes up to two seconds. The key is not published: the question has a
salted hash of it, and the answers are stored nowhere.

Exit codes: 0 done, whatever the record waits for; 2 config, 3 broker.";

/// Asks, and prints the answer.
pub fn main(arguments: &Arguments) -> Exit {
    // Whoever asks need not be able to reach the targets.
    let config = match arguments.config.load_for_rabbitmq(Purpose::Operate) {
        Ok(loaded) => loaded.config,
        Err(exit) => return exit,
    };
    let report = tokio_runtime().block_on(ask(&config, &arguments.record));
    match report {
        Ok(report) if arguments.json => super::status::print_json(&report),
        Ok(report) => print(&text::text(&report), Exit::Done),
        Err(fault) => super::status::failed(&fault),
    }
}

async fn ask(config: &Config, record: &RecordKey) -> Result<RecordReport, SourceError> {
    let ledger = async {
        match &config.ledger {
            None => None,
            Some(ledger) => Some(ask_ledger(ledger, record).await),
        }
    };
    Asker::for_command(config).record(record, ledger).await
}

/// Opening a file that is not there would create it, and an empty ledger would say that nothing is parked.
async fn ask_ledger(config: &LedgerConfig, record: &RecordKey) -> Result<RecordLedgerReport, String> {
    if let LedgerPlace::Sqlite(path) = &config.place
        && !path.exists()
    {
        return Err(format!(
            "there is no ledger {}: run this command in the dispatcher's directory, or set ledger.url to an absolute path",
            path.display()
        ));
    }
    let opening = timeout(OPEN_TIMEOUT, AnyLedger::open(config.clone())).await;
    let opened = opening.map_err(|_| format!("it was not open within {} s", OPEN_TIMEOUT.as_secs()))?;
    let ledger = opened.map_err(|fault| error_chain(&fault))?;
    ledger_report(&ledger, record).await
}

//! `lanekeeper ledger`: changes what the ledger knows of a record. Works while dispatchers run.

use std::io::Write;

use super::arguments::ConfigArguments;
use super::exit::Exit;
use super::parked::error::CommandError;
use super::parked::{on_ledger, record_key};
use super::process::say_error;
use crate::config::Purpose;
use crate::printable::printable as shown;
use lanekeeper_core::update::RecordKey;
use lanekeeper_ledger::{AnyLedger, Ledger};

/// Options of `lanekeeper ledger`.
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = AFTER_HELP)]
pub struct Arguments {
    #[command(subcommand)]
    command: Command,
}

const AFTER_HELP: &str = "Exit codes: 0 done, 1 no version is known of a record, 2 config, 4 ledger.";

#[derive(Clone, Debug, clap::Subcommand)]
enum Command {
    /// Forget the highest `record-version` that was applied to a record, so that updates with lower ones are applied again.
    ///
    /// For a record that was given a version by mistake: later updates with the versions that it should have are dropped as
    /// superseded. Those that were dropped must be published again, with new ids.
    ForgetVersion {
        #[command(flatten)]
        config: ConfigArguments,
        /// The record keys.
        #[arg(value_name = "KEY", value_parser = record_key, required = true)]
        records: Vec<RecordKey>,
    },
}

/// Opens the ledger and runs the command.
pub fn main(arguments: &Arguments) -> Exit {
    let Command::ForgetVersion { config, records } = &arguments.command;
    let loaded = match config.load(Purpose::Operate) {
        Ok(loaded) => loaded,
        Err(exit) => return exit,
    };
    on_ledger(loaded.config, async |ledger, out| forget_versions(ledger, records, out).await)
}

async fn forget_versions(
    ledger: &AnyLedger,
    records: &[RecordKey],
    out: &mut impl Write,
) -> Result<Exit, CommandError> {
    let mut exit = Exit::Done;
    for record_key in records {
        let record = shown(record_key.as_str());
        if let Some(version) = ledger.forget_version(record_key).await? {
            writeln!(out, "{record}: version {version} is forgotten")?;
        } else {
            say_error(format_args!("error: the ledger knows no version of {record}"));
            exit = Exit::Other;
        }
    }
    Ok(exit)
}

//! `lanekeeper ledger`: changes what the ledger knows of a record, and lists what people have changed. Works while dispatchers
//! run.

use std::io::{self, Write};

use serde_json::{Value as Json, json};

use super::arguments::{ConfigArguments, OperatorArguments};
use super::exit::Exit;
use super::parked::error::CommandError;
use super::parked::output::time;
use super::parked::{on_ledger, record_key};
use super::process::say_error;
use crate::config::Purpose;
use crate::printable::printable as shown;
use lanekeeper_core::update::RecordKey;
use lanekeeper_ledger::{AnyLedger, Change, ChangeFilter, ChangeSubject, Operations as _, OperatorReason};

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
        #[command(flatten)]
        operator: OperatorArguments,
    },
    /// List what people have changed: releases, discards, …, the newest first, with who, when and why.
    Changes {
        #[command(flatten)]
        config: ConfigArguments,
        /// List only the changes of this record alone.
        #[arg(long, value_name = "KEY", value_parser = record_key)]
        record: Option<RecordKey>,
        /// List at most N changes.
        #[arg(long, value_name = "N", default_value = "100", value_parser = clap::value_parser!(u32).range(1..=10_000))]
        limit: u32,
        /// Print one JSON object per line.
        #[arg(long)]
        json: bool,
    },
}

/// Opens the ledger and runs the command.
pub fn main(arguments: &Arguments) -> Exit {
    let (Command::ForgetVersion { config, .. } | Command::Changes { config, .. }) = &arguments.command;
    let loaded = match config.load(Purpose::Operate) {
        Ok(loaded) => loaded,
        Err(exit) => return exit,
    };
    on_ledger(loaded.config, async |ledger, out| match &arguments.command {
        Command::ForgetVersion { records, operator, .. } => {
            forget_versions(ledger, records, &operator.reason(), out).await
        }
        Command::Changes { record, limit, json, .. } => {
            let filter = ChangeFilter { record_key: record.clone() };
            let changes = ledger.changes(&filter, None, *limit).await?;
            list(&changes, *json, out)?;
            Ok(Exit::Done)
        }
    })
}

fn list(changes: &[Change], as_json: bool, out: &mut impl Write) -> io::Result<()> {
    if as_json {
        return changes.iter().try_for_each(|change| writeln!(out, "{}", change_json(change)));
    }
    if changes.is_empty() {
        return writeln!(out, "Nothing was changed.");
    }
    writeln!(
        out,
        "{:<20} {:<14} {:<24} {:>7} {:>7} {:<12} WHY",
        "WHEN", "CHANGE", "OF", "RECORDS", "UPDATES", "WHO"
    )?;
    changes.iter().try_for_each(|change| {
        let OperatorReason { who, why } = &change.operator_reason;
        writeln!(
            out,
            "{:<20} {:<14} {:<24} {:>7} {:>7} {:<12} {}",
            time(change.at_ms),
            shown(change.kind.name()),
            shown(subject(change)),
            change.records,
            change.updates,
            shown(who),
            if why.is_empty() { "-".to_owned() } else { shown(why) },
        )
    })
}

fn subject(change: &Change) -> &str {
    match &change.subject {
        ChangeSubject::Record(record_key) => record_key.as_str(),
        ChangeSubject::Named(words) => words,
    }
}

fn change_json(change: &Change) -> Json {
    let (record_key, subject) = match &change.subject {
        ChangeSubject::Record(record_key) => (Some(record_key.as_str()), None),
        ChangeSubject::Named(words) => (None, Some(words)),
    };
    json!({
        "at": time(change.at_ms),
        "change": change.kind.name(),
        "record_key": record_key,
        "of": subject,
        "records": change.records,
        "updates": change.updates,
        "who": change.operator_reason.who,
        "why": change.operator_reason.why,
    })
}

async fn forget_versions(
    ledger: &AnyLedger,
    records: &[RecordKey],
    operator_reason: &OperatorReason,
    out: &mut impl Write,
) -> Result<Exit, CommandError> {
    let mut exit = Exit::Done;
    for record_key in records {
        let record = shown(record_key.as_str());
        if let Some(version) = ledger.forget_version(record_key, operator_reason).await? {
            writeln!(out, "{record}: version {version} is forgotten")?;
        } else {
            say_error(format_args!("error: the ledger knows no version of {record}"));
            exit = Exit::Other;
        }
    }
    Ok(exit)
}

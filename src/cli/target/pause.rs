//! `target pause` and `target resume`: written to the ledger, which every dispatcher asks.

use std::io::Write as _;

use crate::cli::arguments::ConfigArguments;
use crate::cli::exit::Exit;
use crate::cli::parked::{on_ledger, pause::refused};
use crate::cli::process::say_error;
use crate::config::{Config, Purpose};
use crate::pausing;
use lanekeeper_ledger::OperatorReason;

pub(super) fn pause(config: &ConfigArguments, name: &str, operator_reason: &OperatorReason) -> Exit {
    let config = match load(config) {
        Ok(config) => config,
        Err(exit) => return exit,
    };
    on_ledger(config.clone(), async |ledger, out| {
        if let Err(error) = pausing::pause_target(ledger, &config, name, operator_reason).await {
            return refused(error);
        }
        writeln!(
            out,
            "{name} is paused: within 2 s no dispatcher starts a request there, until `lanekeeper target resume {name}`"
        )?;
        Ok(Exit::Done)
    })
}

pub(super) fn resume(config: &ConfigArguments, name: &str, operator_reason: &OperatorReason) -> Exit {
    let config = match load(config) {
        Ok(config) => config,
        Err(exit) => return exit,
    };
    on_ledger(config.clone(), async |ledger, out| {
        if let Err(error) = pausing::resume_target(ledger, &config, name, operator_reason).await {
            return refused(error);
        }
        writeln!(out, "{name} is resumed: within 2 s its updates are attempted, in order")?;
        Ok(Exit::Done)
    })
}

/// A config with a ledger.
fn load(config: &ConfigArguments) -> Result<Config, Exit> {
    let config = config.load(Purpose::Operate)?.config;
    if config.ledger.is_none() {
        say_error(
            "error: ledger.url is \"none\": a pause is written to the ledger, which tells all dispatchers; without a ledger, stop \
             the dispatchers instead",
        );
        return Err(Exit::Config);
    }
    Ok(config)
}

//! `parked pause`, `parked resume` and `parked paused`.

use std::io::Write;

use serde_json::json;

use super::error::CommandError;
use super::output::{shown, time};
use crate::cli::exit::Exit;
use crate::cli::process::say_error;
use crate::pausing::{self, PauseError, ResumedRecord, since};
use lanekeeper_core::update::RecordKey;
use lanekeeper_ledger::{AnyLedger, Operations, OperatorReason, PausedRecord};

/// Records per query.
const RECORDS_PER_QUERY: u32 = 500;

/// Pauses a record.
pub(super) async fn pause(
    ledger: &AnyLedger,
    record_key: &RecordKey,
    operator_reason: &OperatorReason,
    out: &mut impl Write,
) -> Result<Exit, CommandError> {
    if let Err(error) = pausing::pause_record(ledger, record_key, operator_reason).await {
        return refused(error);
    }
    writeln!(
        out,
        "{} is paused: its updates are parked, in order, until `lanekeeper parked resume` is called for it",
        shown(record_key.as_str())
    )?;
    Ok(Exit::Done)
}

/// Says why nothing was changed.
pub(in crate::cli) fn refused(error: PauseError) -> Result<Exit, CommandError> {
    let exit = match error {
        PauseError::Ledger(fault) => return Err(fault.into()),
        PauseError::UnknownTarget(_) => Exit::Config,
        PauseError::AlreadyPaused { .. } | PauseError::NotPaused(_) | PauseError::TooManyPaused(_) => {
            Exit::Other
        }
    };
    say_error(format_args!("error: {error}"));
    Ok(exit)
}

/// Resumes a record.
pub(super) async fn resume(
    ledger: &AnyLedger,
    record_key: &RecordKey,
    operator_reason: &OperatorReason,
    out: &mut impl Write,
) -> Result<Exit, CommandError> {
    let record = shown(record_key.as_str());
    match pausing::resume_record(ledger, record_key, operator_reason).await {
        Err(error) => return refused(error),
        Ok(ResumedRecord { updates, still_parked: None }) => {
            writeln!(out, "{record} is resumed; {updates} released")?;
        }
        Ok(ResumedRecord { still_parked: Some(reason), .. }) => {
            writeln!(
                out,
                "{record} is resumed, but stays parked, since its oldest update failed ({}): release or discard it",
                reason.kind.name()
            )?;
        }
    }
    Ok(Exit::Done)
}

/// Lists the paused records.
pub(super) async fn list(
    ledger: &AnyLedger,
    as_json: bool,
    out: &mut impl Write,
) -> Result<Exit, CommandError> {
    let mut after = None;
    loop {
        let page = ledger.paused_records(after.as_ref(), RECORDS_PER_QUERY).await?;
        if page.is_empty() && after.is_none() && !as_json {
            writeln!(out, "No record is paused.")?;
        }
        for PausedRecord { record_key, pause, updates } in &page {
            let OperatorReason { who, why } = &pause.operator_reason;
            if as_json {
                let since = time(pause.since_ms);
                let record_key = record_key.as_str();
                let line = json!({
                    "record_key": record_key, "since": since, "who": who, "why": why, "updates": updates,
                });
                writeln!(out, "{line}")?;
            } else {
                let record = shown(record_key.as_str());
                writeln!(out, "{record:<24} {}; {updates} parked", since(pause))?;
            }
        }
        match page.into_iter().next_back() {
            Some(last) => after = Some(last.record_key),
            None => return Ok(Exit::Done),
        }
    }
}

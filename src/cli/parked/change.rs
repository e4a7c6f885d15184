//! `parked release` and `parked discard`.

use std::io::Write;

use super::error::CommandError;
use super::output::{not_parked, shown};
use crate::cli::exit::Exit;
use crate::cli::process::say_error;
use lanekeeper_core::update::RecordKey;
use lanekeeper_ledger::{
    AnyLedger, Discarded, Ledger, Operations, OperatorReason, ParkKind, Released, Selection,
};

/// Releases records.
pub(super) async fn release(
    ledger: &AnyLedger,
    records: &[RecordKey],
    reason: Option<ParkKind>,
    operator_reason: &OperatorReason,
    out: &mut impl Write,
) -> Result<Exit, CommandError> {
    let mut exit = Exit::Done;
    let selection = match reason {
        Some(kind) => Selection::Reason(kind),
        None if records.is_empty() => Selection::All,
        None => {
            for record_key in records {
                if ledger.parked_record(record_key).await?.is_none() {
                    exit = not_parked(record_key);
                }
            }
            Selection::Keys(records.to_vec())
        }
    };
    let Released { records, paused, .. } = ledger.release(&selection, operator_reason).await?;
    writeln!(out, "{records} {} released", if records == 1 { "record" } else { "records" })?;
    if paused > 0 {
        out.flush()?;
        say_error(format_args!(
            "{paused} not released, since a person has paused {}: lanekeeper parked paused, lanekeeper parked resume KEY",
            if paused == 1 { "it" } else { "them" }
        ));
        exit = Exit::Other;
    }
    Ok(exit)
}

/// Discards the oldest `head` updates of a record; `None`: all of them.
pub(super) async fn discard(
    ledger: &AnyLedger,
    record_key: &RecordKey,
    head: Option<u32>,
    operator_reason: &OperatorReason,
    out: &mut impl Write,
) -> Result<Exit, CommandError> {
    match ledger.discard(record_key, head, operator_reason).await? {
        Discarded::Done { updates, left: 0 } => {
            writeln!(out, "{updates} discarded; the record is no longer parked")?;
            Ok(Exit::Done)
        }
        Discarded::Done { updates, left } => {
            writeln!(out, "{updates} discarded, {left} still parked: release the record to send them")?;
            Ok(Exit::Done)
        }
        Discarded::NotParked => Ok(not_parked(record_key)),
        Discarded::Releasing => {
            say_error(format_args!(
                "error: nothing is discarded: {} was released and its updates are on their way; try again if its oldest \
                 update fails and parks it again",
                shown(record_key.as_str())
            ));
            Ok(Exit::Other)
        }
    }
}

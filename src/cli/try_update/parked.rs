//! `try --parked`: the oldest parked update of a record, which its owner sends.

use std::io::Write as _;
use std::sync::Arc;
use std::time::Duration;

use lanekeeper_core::update::{RecordKey, Update};
use lanekeeper_ledger::{
    AnyLedger, Ledger as _, Operations as _, OperatorReason, ParkedRecord, ParkedState, Selection,
};
use tokio::time::{Instant, sleep};

use super::{Rehearsal, request};
use crate::cli::exit::Exit;
use crate::cli::parked::error::CommandError;
use crate::cli::parked::on_ledger;
use crate::cli::parked::output::not_parked;
use crate::cli::process::say_error;
use crate::config::Config;
use crate::printable::{printable, printable_lines};

/// How long the end of a release is waited for. It goes on without us.
const RELEASE_TIMEOUT: Duration = Duration::from_secs(60);
const POLL_INTERVAL: Duration = Duration::from_millis(250);

pub(super) fn main(config: Config, rehearsal: &Rehearsal, record_key: &RecordKey, send: bool) -> Exit {
    on_ledger(config, async |ledger, out| {
        let Some(record) = ledger.parked_record(record_key).await? else { return Ok(not_parked(record_key)) };
        let Some(parked) = ledger.parked_updates(record_key, None, 1).await?.into_iter().next() else {
            return Ok(not_parked(record_key));
        };
        let Some(update) = rehearsal.restored(parked.update) else {
            say_error("error: no target takes updates of its type any more; see [[target]] types");
            return Ok(Exit::Other);
        };
        match request(rehearsal, Arc::<Update>::new(update)) {
            Ok(text) => write!(out, "{}", printable_lines(&text))?,
            Err(fault) => {
                say_error(format_args!("error: {fault}"));
                return Ok(Exit::Other);
            }
        }
        out.flush()?;
        if !send {
            return Ok(Exit::Done);
        }
        if record.state == ParkedState::Releasing {
            say_error("error: not sent: the record was released, and its updates are on their way");
            return Ok(Exit::Other);
        }
        let who = std::env::var("USER").unwrap_or_else(|_| "unknown".to_owned());
        let operator_reason = OperatorReason { who, why: "lanekeeper try --send".to_owned() };
        ledger.release(&Selection::Keys(vec![record_key.clone()]), &operator_reason).await?;
        writeln!(
            out,
            "\nreleased: the owner of its partition sends it, and the {} behind it",
            record.updates - 1
        )?;
        out.flush()?;
        match ended(ledger, &record).await? {
            End::Sent => {
                writeln!(out, "applied: the record is no longer parked")?;
                Ok(Exit::Done)
            }
            End::ParkedAgain(record) => {
                let status =
                    record.reason.status.map_or_else(String::new, |status| format!(" (status {status})"));
                writeln!(
                    out,
                    "parked again: {}{status}: {}",
                    record.reason.kind.name(),
                    printable(&record.reason.detail)
                )?;
                Ok(Exit::Other)
            }
            End::UnderWay => {
                say_error(format_args!(
                    "error: not sent within {} s: the release goes on; is a dispatcher running, and is its target open? \
                     `lanekeeper parked list` shows what became of it",
                    RELEASE_TIMEOUT.as_secs()
                ));
                Ok(Exit::Other)
            }
        }
    })
}

enum End {
    /// Nothing of the record is parked.
    Sent,
    ParkedAgain(ParkedRecord),
    UnderWay,
}

async fn ended(ledger: &AnyLedger, before: &ParkedRecord) -> Result<End, CommandError> {
    let until = Instant::now() + RELEASE_TIMEOUT;
    while Instant::now() < until {
        match ledger.parked_record(&before.record_key).await? {
            None => return Ok(End::Sent),
            Some(record) if record.state == ParkedState::Parked => return Ok(End::ParkedAgain(record)),
            Some(_) => sleep(POLL_INTERVAL).await,
        }
    }
    Ok(End::UnderWay)
}

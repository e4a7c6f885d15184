//! `lanekeeper try`: shows the request that an update would become, and sends it if a person wants that.

mod idle;
mod parked;

use std::io::Read as _;
use std::sync::Arc;

use lanekeeper_core::outcome::{Outcome, OutcomeKind};
use lanekeeper_core::policy::FailurePolicies;
use lanekeeper_core::update::{RecordKey, Update};

use super::arguments::ConfigArguments;
use super::exit::Exit;
use super::process::{print, say_error, tokio_runtime};
use super::rehearsal::{self, Rehearsal};
use crate::config::{Config, Purpose};
use crate::http::client::HttpTargets;
use crate::http::{AttemptEnd, Target as _};

/// Options of `lanekeeper try`.
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = AFTER_HELP)]
pub struct Arguments {
    /// The update, as a line of `lanekeeper publish`; without it, or with "-", standard input.
    #[arg(value_name = "JSON", conflicts_with = "parked")]
    line: Option<String>,
    /// The oldest parked update of this record, instead of a line.
    #[arg(long, value_name = "KEY", value_parser = super::parked::record_key)]
    parked: Option<RecordKey>,
    /// Send it, and show what the target answers and what would follow. A line goes to the target from here, and only if the
    /// record's partition holds nothing, since no update of the record may be on its way, and if the ledger does not know its id.
    /// Publish nothing to the record until it has ended: an update that comes in between is not kept back. The ledger does not
    /// learn of it: if the update is published later, it is sent again. A parked update is released, with all that is parked
    /// behind it: the owner of its partition sends them, in order.
    #[arg(long)]
    send: bool,
    #[command(flatten)]
    config: ConfigArguments,
}

const AFTER_HELP: &str = "\
Secrets are shown as ***, and so are headers whose values are written in the config. Exit codes: 0 done, and with --send applied; \
1 not sent, or not applied; 2 config, or this is no update; 3 broker; 4 ledger.";

/// Standard input is not read beyond this.
const LINE_BYTES_MAX: u64 = 64 * 1024 * 1024;

/// Shows, and perhaps sends.
pub fn main(arguments: &Arguments) -> Exit {
    let loaded = match arguments.config.load(Purpose::Dispatch) {
        Ok(loaded) => loaded,
        Err(exit) => return exit,
    };
    let rehearsal = match Rehearsal::new(&loaded) {
        Ok(rehearsal) => rehearsal,
        Err(fault) => return fail(&fault, Exit::Config),
    };
    let config = loaded.config;
    if let Some(record_key) = &arguments.parked {
        return parked::main(config, &rehearsal, record_key, arguments.send);
    }
    let update = match line(arguments.line.as_deref()).and_then(|line| rehearsal.update(line.as_bytes())) {
        Ok(update) => update,
        Err(fault) => return fail(&fault, Exit::Config),
    };
    let shown = match request(&rehearsal, Arc::clone(&update)) {
        Ok(shown) => shown,
        Err(fault) => return fail(&fault, Exit::Other),
    };
    let exit = print(&shown, Exit::Done);
    if !arguments.send || exit != Exit::Done {
        return exit;
    }
    send(&config, update)
}

fn fail(fault: &str, exit: Exit) -> Exit {
    say_error(format_args!("error: {fault}"));
    exit
}

fn line(given: Option<&str>) -> Result<String, String> {
    if let Some(line) = given.filter(|line| *line != "-") {
        return Ok(line.to_owned());
    }
    let mut line = String::new();
    let read = std::io::stdin().take(LINE_BYTES_MAX).read_to_string(&mut line);
    read.map_err(|error| format!("cannot read standard input: {error}"))?;
    if line.trim().is_empty() {
        return Err("no update was given: write it as an argument, or on standard input".to_owned());
    }
    if line.trim().lines().count() > 1 {
        return Err("standard input has more than one line; try one update at a time".to_owned());
    }
    Ok(line)
}

/// The request of the first attempt, as text.
fn request(rehearsal: &Rehearsal, update: Arc<Update>) -> Result<String, String> {
    let target = rehearsal.previews.name(update.target).to_owned();
    let preview = rehearsal
        .previews
        .request(&rehearsal::attempt(update, 1, None))
        .map_err(|why| format!("this update would be rejected, and not sent to target {target:?}: {why}"))?;
    let first = if preview.fetches_etag {
        "first the record's ETag is fetched with GET, and sent in If-Match\n"
    } else {
        ""
    };
    Ok(format!("target {target}\n{first}{}", rehearsal::as_text(&preview)))
}

fn send(config: &Config, update: Arc<Update>) -> Exit {
    let targets = match HttpTargets::new(&config.targets) {
        Ok(targets) => targets,
        Err(fault) => return fail(&fault.to_string(), Exit::Config),
    };
    let failure = config.policy.failure_of(update.target);
    let sent = tokio_runtime().block_on(async {
        idle::refuse_if_busy(config, &update).await?;
        Ok::<_, idle::Busy>(targets.send(rehearsal::attempt(update, 1, None)).await)
    });
    match sent {
        Ok((outcome, receipt)) => {
            let exit = if outcome == Outcome::Applied { Exit::Done } else { Exit::Other };
            print(&format!("\n{}", verdict(&(outcome, receipt), failure)), exit)
        }
        Err(busy) => fail(&format!("not sent: {busy}"), busy.exit()),
    }
}

/// What the target has answered, and what a dispatcher would do then.
fn verdict((outcome, receipt): &AttemptEnd, failure: FailurePolicies) -> String {
    let status =
        if receipt.status == 0 { "no answer".to_owned() } else { format!("status {}", receipt.status) };
    let why = outcome.failure().map(|failure| format!(": {failure}")).unwrap_or_default();
    let kind = outcome.kind();
    let follows = match kind {
        OutcomeKind::Applied => "the update would be settled".to_owned(),
        OutcomeKind::Retryable => "it would be tried again, as [retry] says".to_owned(),
        OutcomeKind::Refused => {
            "it would be tried again, since the target refuses us and not this update".to_owned()
        }
        OutcomeKind::Rejected => format!("failure.rejected = \"{}\" would apply", failure.rejected.name()),
        OutcomeKind::Conflict => format!("failure.conflict = \"{}\" would apply", failure.conflict.name()),
        OutcomeKind::Known | OutcomeKind::Withheld => "nothing was sent".to_owned(),
    };
    format!("{status}, {}{why}\n{follows}\n", kind.name())
}

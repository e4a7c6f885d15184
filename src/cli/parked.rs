//! `lanekeeper parked`: what waits for a person, and what the person decides. Works while dispatchers run, from any
//! process that reaches the ledger.

mod change;
mod output;

use std::io::{self, Write};
use std::num::NonZeroU32;

use super::{ConfigArguments, Exit};
use crate::config::Purpose;
use lanekeeper_core::update::RecordKey;
use lanekeeper_ledger::LedgerPlace;
use lanekeeper_ledger::{AnyLedger, Ledger, LedgerError, ParkKind};

/// Rows that are asked for at once.
const PAGE: u32 = 500;

/// Updates with bodies that are asked for at once: each can be as large as `updates.body_bytes_max`.
const BODIES: u32 = 16;

/// Options of `lanekeeper parked`.
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = AFTER_HELP)]
pub struct Arguments {
    #[command(subcommand)]
    command: Command,
}

const AFTER_HELP: &str = "\
Exit codes: 0 done, 1 no such record or it cannot be changed now, 2 config, 4 ledger.";

#[derive(Clone, Debug, clap::Subcommand)]
enum Command {
    /// Show which records are parked: how many updates each, since when, and why.
    List {
        #[command(flatten)]
        config: ConfigArguments,
        /// Only this record.
        #[arg(long, value_name = "KEY", value_parser = record_key)]
        record: Option<RecordKey>,
        /// Print one JSON object a line.
        #[arg(long)]
        json: bool,
    },
    /// Show the parked updates of a record, oldest first, with their bodies.
    Show {
        #[command(flatten)]
        config: ConfigArguments,
        /// The record.
        #[arg(value_name = "KEY", value_parser = record_key)]
        record: RecordKey,
        /// At most so many.
        #[arg(long, value_name = "N", default_value = "10")]
        limit: NonZeroU32,
        /// Print one JSON object a line.
        #[arg(long)]
        json: bool,
    },
    /// Let parked updates go out, in order, before anything newer of their records. A head that fails again parks its
    /// record again.
    Release {
        #[command(flatten)]
        config: ConfigArguments,
        /// These records.
        #[arg(value_name = "KEY", value_parser = record_key, required_unless_present_any = ["all", "reason"])]
        records: Vec<RecordKey>,
        /// All records.
        #[arg(long, conflicts_with_all = ["records", "reason"])]
        all: bool,
        /// Records parked for this reason: rejected, exhausted, conflict, `id_reused`.
        #[arg(long, value_name = "REASON", value_parser = reason, conflicts_with = "records")]
        reason: Option<ParkKind>,
    },
    /// Drop the first parked updates of a record for good. Who and why is kept in the ledger; bodies are not: export
    /// them first if they may be needed. The rest stays parked until it is released.
    Discard {
        #[command(flatten)]
        config: ConfigArguments,
        /// The record.
        #[arg(value_name = "KEY", value_parser = record_key)]
        record: RecordKey,
        /// So many.
        #[arg(long, value_name = "N", default_value = "1", conflicts_with = "all")]
        head: NonZeroU32,
        /// All of them.
        #[arg(long)]
        all: bool,
        /// Why, for those who ask later.
        #[arg(long, value_name = "TEXT")]
        why: String,
        /// Who decided it.
        #[arg(long, value_name = "NAME", env = "USER", default_value = "unknown")]
        who: String,
    },
    /// Print parked updates as JSON lines that `lanekeeper publish` reads. They stay parked.
    Export {
        #[command(flatten)]
        config: ConfigArguments,
        /// These records; all without.
        #[arg(value_name = "KEY", value_parser = record_key)]
        records: Vec<RecordKey>,
    },
}

fn record_key(text: &str) -> Result<RecordKey, String> {
    RecordKey::new(text).map_err(|fault| fault.to_string())
}

fn reason(text: &str) -> Result<ParkKind, String> {
    // Nothing is parked only for being behind another: that is what the head of a record is parked for.
    let kinds = ParkKind::ALL.into_iter().filter(|kind| *kind != ParkKind::Behind);
    let named = ParkKind::named(text).filter(|kind| *kind != ParkKind::Behind);
    named.ok_or_else(|| {
        let kinds: Vec<_> = kinds.map(ParkKind::name).collect();
        format!("write one of {}", kinds.join(", "))
    })
}

/// Why a command ends without having done all.
enum Stopped {
    /// The ledger.
    Ledger(LedgerError),
    /// Standard output.
    Output(io::Error),
}

impl From<LedgerError> for Stopped {
    fn from(error: LedgerError) -> Self {
        Self::Ledger(error)
    }
}

impl From<io::Error> for Stopped {
    fn from(error: io::Error) -> Self {
        Self::Output(error)
    }
}

/// Runs it.
pub fn main(arguments: &Arguments) -> Exit {
    let (Command::List { config, .. }
    | Command::Show { config, .. }
    | Command::Release { config, .. }
    | Command::Discard { config, .. }
    | Command::Export { config, .. }) = &arguments.command;
    let loaded = match config.load_for(Purpose::Operate) {
        Ok(loaded) => loaded,
        Err(exit) => return exit,
    };
    let Some(ledger) = loaded.config.ledger else {
        eprintln!("error: ledger.url is \"none\": nothing is parked anywhere");
        return Exit::Config;
    };
    // Opening would make it, and an empty ledger in the wrong directory says that nothing is parked.
    if let LedgerPlace::Sqlite(path) = &ledger.place
        && !path.exists()
    {
        eprintln!(
            "error: there is no ledger {}: start in the directory of the dispatcher, or write an absolute path into \
             ledger.url",
            path.display()
        );
        return Exit::Ledger;
    }
    let runtime = super::tokio_runtime();
    let result = runtime.block_on(async {
        let ledger = AnyLedger::open(ledger).await?;
        let mut out = io::BufWriter::new(io::stdout().lock());
        let exit = run(&ledger, &arguments.command, &mut out).await?;
        out.flush()?;
        Ok(exit)
    });
    match result {
        Ok(exit) => exit,
        // Whoever reads it has read enough, as in `parked list | head`.
        Err(Stopped::Output(error)) if error.kind() == io::ErrorKind::BrokenPipe => Exit::Done,
        Err(Stopped::Output(error)) => {
            super::report(&error);
            Exit::Other
        }
        Err(Stopped::Ledger(error)) => {
            super::report(&error);
            Exit::Ledger
        }
    }
}

async fn run(ledger: &AnyLedger, command: &Command, out: &mut impl Write) -> Result<Exit, Stopped> {
    match command {
        Command::List { record, json, .. } => output::list(ledger, record.as_ref(), *json, out).await,
        Command::Show { record, limit, json, .. } => output::show(ledger, record, *limit, *json, out).await,
        Command::Export { records, .. } => output::export(ledger, records, out).await,
        Command::Release { records, reason, .. } => change::release(ledger, records, *reason, out).await,
        Command::Discard { record, head, all, why, who, .. } => {
            let head = (!all).then_some(head.get());
            change::discard(ledger, record, head, who, why, out).await
        }
    }
}

/// All parked records, page by page.
async fn each_record(
    ledger: &AnyLedger,
    mut visit: impl FnMut(&lanekeeper_ledger::ParkedRecord) -> io::Result<()>,
) -> Result<(), Stopped> {
    let mut after = None;
    loop {
        let page = ledger.parked_records(after.as_ref(), PAGE).await?;
        for record in &page {
            visit(record)?;
        }
        match page.into_iter().next_back() {
            Some(last) => after = Some(last.record_key),
            None => return Ok(()),
        }
    }
}

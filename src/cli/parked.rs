//! `lanekeeper parked`: shows parked updates, releases and discards them, pauses and resumes records. Works while dispatchers run, in any process
//! that can open the ledger.

mod change;
pub(super) mod error;
pub(super) mod output;
pub(super) mod pause;

use std::io::{self, BufWriter, StdoutLock, Write};
use std::num::NonZeroU32;

use self::error::CommandError;
use super::arguments::{ConfigArguments, OperatorArguments};
use super::exit::Exit;
use super::process::{report, say_error, tokio_runtime};
use crate::config::{Config, Purpose};
use lanekeeper_broker::Address;
use lanekeeper_core::update::RecordKey;
use lanekeeper_ledger::{AnyLedger, BoundTopology, LedgerPlace, OperatorReason, ParkKind, TopologyPlace};

/// Options of `lanekeeper parked`.
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = AFTER_HELP)]
pub struct Arguments {
    #[command(subcommand)]
    command: Command,
}

const AFTER_HELP: &str = "\
Exit codes: 0 done, 1 the record is not parked or cannot be changed now, 2 config, 4 ledger.";

#[derive(Clone, Debug, clap::Subcommand)]
enum Command {
    /// List the parked records: how many updates each has, since when it is parked, and why.
    List {
        #[command(flatten)]
        config: ConfigArguments,
        /// List only this record.
        #[arg(long, value_name = "KEY", value_parser = record_key)]
        record: Option<RecordKey>,
        /// Print one JSON object per line.
        #[arg(long)]
        json: bool,
    },
    /// Show the parked updates of a record, oldest first, with their bodies.
    Show {
        #[command(flatten)]
        config: ConfigArguments,
        /// The record key.
        #[arg(value_name = "KEY", value_parser = record_key)]
        record: RecordKey,
        /// Show at most N updates.
        #[arg(long, value_name = "N", default_value = "10")]
        limit: NonZeroU32,
        /// Print one JSON object per line.
        #[arg(long)]
        json: bool,
    },
    /// Release records: their parked updates are sent, in order, before newer updates of the records.
    ///
    /// If the oldest of them fails again, its record is parked again.
    Release {
        #[command(flatten)]
        config: ConfigArguments,
        /// The record keys.
        #[arg(value_name = "KEY", value_parser = record_key, required_unless_present_any = ["all", "reason"])]
        records: Vec<RecordKey>,
        /// Release all parked records.
        #[arg(long, conflicts_with_all = ["records", "reason"])]
        all: bool,
        /// Release the records that are parked for this reason: rejected, exhausted, conflict or `id_reused`.
        #[arg(long, value_name = "REASON", value_parser = reason, conflicts_with = "records")]
        reason: Option<ParkKind>,
        #[command(flatten)]
        operator: OperatorArguments,
    },
    /// Drop the oldest parked updates of a record permanently. The rest stays parked until it is released.
    ///
    /// The ledger keeps who discarded them and why, but not their bodies: export them first if you may need them.
    Discard {
        #[command(flatten)]
        config: ConfigArguments,
        /// The record key.
        #[arg(value_name = "KEY", value_parser = record_key)]
        record: RecordKey,
        /// Drop the N oldest updates.
        #[arg(long, value_name = "N", default_value = "1", conflicts_with = "all")]
        head: NonZeroU32,
        /// Drop all updates of the record.
        #[arg(long)]
        all: bool,
        /// The reason, kept in the ledger.
        #[arg(long, value_name = "TEXT")]
        why: String,
        /// The person who decided it, kept in the ledger.
        #[arg(long, value_name = "NAME", env = "USER", default_value = "unknown")]
        who: String,
    },
    /// Pause a record: from now on its updates are parked, in order, until it is resumed. Nothing of it needs to be parked yet.
    ///
    /// A request that is out ends. A release that is under way ends with the request that is out.
    Pause {
        #[command(flatten)]
        config: ConfigArguments,
        /// The record key.
        #[arg(value_name = "KEY", value_parser = record_key)]
        record: RecordKey,
        #[command(flatten)]
        operator: OperatorArguments,
    },
    /// Resume a paused record: what was parked because of the pause is released.
    Resume {
        #[command(flatten)]
        config: ConfigArguments,
        /// The record key.
        #[arg(value_name = "KEY", value_parser = record_key)]
        record: RecordKey,
        #[command(flatten)]
        operator: OperatorArguments,
    },
    /// List the paused records: since when, by whom, why, and how many updates of each are parked.
    Paused {
        #[command(flatten)]
        config: ConfigArguments,
        /// Print one JSON object per line.
        #[arg(long)]
        json: bool,
    },
    /// Print parked updates as JSON lines that `lanekeeper publish` reads. They stay parked.
    Export {
        #[command(flatten)]
        config: ConfigArguments,
        /// The record keys; by default all parked records.
        #[arg(value_name = "KEY", value_parser = record_key)]
        records: Vec<RecordKey>,
    },
}

pub(super) fn record_key(text: &str) -> Result<RecordKey, String> {
    RecordKey::new(text).map_err(|fault| fault.to_string())
}

fn reason(text: &str) -> Result<ParkKind, String> {
    // No record is parked for the reason "behind": a record has the reason of its first parked update. Paused ones are resumed.
    let can_be_released = |kind: &ParkKind| !matches!(kind, ParkKind::Behind | ParkKind::Paused);
    let kinds = ParkKind::ALL.into_iter().filter(can_be_released);
    let named = ParkKind::named(text).filter(can_be_released);
    named.ok_or_else(|| {
        let kinds: Vec<_> = kinds.map(ParkKind::name).collect();
        format!("write one of {}", kinds.join(", "))
    })
}

/// Opens the ledger and runs the command.
pub fn main(arguments: &Arguments) -> Exit {
    let (Command::List { config, .. }
    | Command::Show { config, .. }
    | Command::Release { config, .. }
    | Command::Discard { config, .. }
    | Command::Pause { config, .. }
    | Command::Resume { config, .. }
    | Command::Paused { config, .. }
    | Command::Export { config, .. }) = &arguments.command;
    let loaded = match config.load(Purpose::Operate) {
        Ok(loaded) => loaded,
        Err(exit) => return exit,
    };
    on_ledger(loaded.config, async |ledger, out| run(ledger, &arguments.command, out).await)
}

/// Opens a ledger that exists, runs a command on it, and reports its error. The command writes to standard output.
pub(super) fn on_ledger(
    config: Config,
    command: impl AsyncFnOnce(&AnyLedger, &mut BufWriter<StdoutLock<'static>>) -> Result<Exit, CommandError>,
) -> Exit {
    let Config { ledger, broker, updates, sqs, .. } = config;
    let Some(ledger) = ledger else {
        say_error(format_args!(
            "error: ledger.url is \"none\": without a ledger nothing is parked, and no version is known"
        ));
        return Exit::Config;
    };
    // Opening would create it, and an empty ledger in the wrong directory would say that nothing is parked.
    if let LedgerPlace::Sqlite(path) = &ledger.place
        && !path.exists()
    {
        say_error(format_args!(
            "error: there is no ledger {}: run this command in the dispatcher's directory, or set ledger.url to an \
             absolute path",
            path.display()
        ));
        return Exit::Ledger;
    }
    let runtime = tokio_runtime();
    let result = runtime.block_on(async {
        let ledger = AnyLedger::open(ledger).await?;
        let own = if let Some(sqs) = &sqs {
            TopologyPlace::of_sqs(&sqs.queue_url)
        } else {
            let vhost = Address::new(&broker.connection)
                .map_or_else(|_| "/".to_owned(), |address| address.vhost().to_owned());
            TopologyPlace { cluster: None, vhost, exchange: updates.exchange }
        };
        refuse_other_exchange(&ledger, own).await?;
        let mut out = BufWriter::new(io::stdout().lock());
        let exit = command(&ledger, &mut out).await?;
        out.flush()?;
        Ok(exit)
    });
    match result {
        Ok(exit) => exit,
        // The reader has read enough, as in `parked list | head`.
        Err(CommandError::Output(error)) if error.kind() == io::ErrorKind::BrokenPipe => Exit::Done,
        Err(error) => {
            report(&error);
            match error {
                CommandError::Ledger(_) | CommandError::OtherExchange { .. } => Exit::Ledger,
                CommandError::Output(_) => Exit::Other,
            }
        }
    }
}

/// What is released goes to the targets of the dispatchers of the ledger's exchange: the config must be theirs.
async fn refuse_other_exchange(ledger: &AnyLedger, own: TopologyPlace) -> Result<(), CommandError> {
    match ledger.binding().await?.topology {
        Some(BoundTopology { place, .. }) if !place.can_be(&own) => {
            Err(CommandError::OtherExchange { bound: place.to_string(), own: own.to_string() })
        }
        Some(_) | None => Ok(()),
    }
}

async fn run(ledger: &AnyLedger, command: &Command, out: &mut impl Write) -> Result<Exit, CommandError> {
    match command {
        Command::List { record, json, .. } => output::list(ledger, record.as_ref(), *json, out).await,
        Command::Show { record, limit, json, .. } => output::show(ledger, record, *limit, *json, out).await,
        Command::Export { records, .. } => output::export(ledger, records, out).await,
        Command::Release { records, reason, operator, .. } => {
            change::release(ledger, records, *reason, &operator.reason(), out).await
        }
        Command::Pause { record, operator, .. } => {
            pause::pause(ledger, record, &operator.reason(), out).await
        }
        Command::Resume { record, operator, .. } => {
            pause::resume(ledger, record, &operator.reason(), out).await
        }
        Command::Paused { json, .. } => pause::list(ledger, *json, out).await,
        Command::Discard { record, head, all, why, who, .. } => {
            let head = (!all).then_some(head.get());
            let operator_reason = OperatorReason { who: who.clone(), why: why.clone() };
            change::discard(ledger, record, head, &operator_reason, out).await
        }
    }
}

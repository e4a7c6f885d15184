//! `lanekeeper-lab demo`: updates that race without Lanekeeper, the same updates with it, and what the API saw of both.

mod api;
mod console;
mod direct;
mod dispatcher;
mod error;
mod proof;
mod publish;
mod race;
mod safeguard;
mod safeguard_proof;
mod stage;
mod stall_timeout;
mod table;
mod through;
mod workload;
mod writer;

use crate::command::{self, ConfigArguments, Exit, StopSignals};
use crate::receiver::StoreAddress;
use api::{Api, ApiSafeguard};
use console::{Console, Paint, count, paint};
use error::DemoError;
use lanekeeper::config::Purpose;
use lanekeeper_broker::ConnectionSettings;
use proof::Proof;
use stage::Stage;
use workload::Workload;

/// The variable with the URL of RabbitMQ's UI, if there is one.
const MANAGEMENT_VARIABLE: &str = "LANEKEEPER_MANAGEMENT_URL";

const AFTER_HELP: &str = "\
It needs a running RabbitMQ: broker.url of the config, or LANEKEEPER_BROKER__URL. It declares an exchange and queues of
its own there, named lanekeeper-demo-…, and deletes them at the end, also after Ctrl-C. In the project's sources,
scripts/demo starts a private RabbitMQ for it. It also needs the program lanekeeper, beside this one or on the PATH.

Exit codes: 0 the proof holds, 1 it does not, or the demo was stopped, 2 config, 3 broker.";

/// Options of `lanekeeper-lab demo`.
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = AFTER_HELP)]
pub struct Arguments {
    #[command(flatten)]
    config: ConfigArguments,
    /// Customers.
    #[arg(long, value_name = "N", default_value_t = 40, conflicts_with = "remedy", value_parser = clap::value_parser!(u64).range(10..=200))]
    records: u64,
    /// Updates of each customer.
    #[arg(long, value_name = "N", default_value_t = 25, conflicts_with = "remedy", value_parser = clap::value_parser!(u64).range(10..=100))]
    updates: u64,
    /// Show one safeguard against races: what goes wrong without it, and that nothing does with it.
    #[arg(long, visible_alias = "safeguard", value_name = "SAFEGUARD", value_enum)]
    remedy: Option<Safeguard>,
    /// With --safeguard: where the API keeps its records, as for `lanekeeper-lab receiver`. Records that are there are deleted.
    /// Without it memory; for row-locks the PostgreSQL of `LANEKEEPER_POSTGRES_URL`, as scripts/postgres sets it, else SQLite.
    #[arg(long, value_name = "STORE", requires = "remedy")]
    store: Option<StoreAddress>,
    /// With equal seeds the updates are the same, and the same attempts fail.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Leave the demo's exchanges and queues in RabbitMQ, to look at them.
    #[arg(long)]
    keep: bool,
}

/// A remedy against races.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Safeguard {
    /// The API recognizes a repeated request by its key, and does not apply it again.
    Idempotency,
    /// The API refuses a change that is based on an outdated version, or is itself outdated.
    Versions,
    /// The API locks a record from reading to writing.
    RowLocks,
    /// Lanekeeper's own: one update after another, in order. The whole story in short.
    Sequence,
}

/// Runs it.
pub fn main(arguments: &Arguments) -> Exit {
    let broker = match arguments.config.load(Purpose::Publish) {
        Ok(loaded) => loaded.config.broker.connection,
        Err(exit) => return exit,
    };
    command::runtime().block_on(demo(arguments, broker))
}

async fn demo(arguments: &Arguments, broker: ConnectionSettings) -> Exit {
    let mut stop = match StopSignals::with_hang_up() {
        Ok(stop) => stop,
        Err(error) => {
            command::print_error(&error);
            return Exit::Other;
        }
    };
    let console = Console::new();
    let set = tokio::select! {
        biased;
        signal = stop.next() => Err(DemoError::Interrupted(signal)),
        stage = Stage::new(broker) => stage,
    };
    let mut stage = match set {
        Ok(stage) => stage,
        Err(failure) => {
            command::print_error(&failure);
            return failure.exit();
        }
    };
    let shown = tokio::select! {
        biased;
        signal = stop.next() => Err(DemoError::Interrupted(signal)),
        shown = show(arguments, &mut stage, &console) => shown,
    };
    console.end_progress();
    let (exit, keep_log) = match &shown {
        Ok(exit) => (*exit, *exit != Exit::Done),
        Err(failure) => {
            command::print_error(failure);
            (failure.exit(), !matches!(failure, DemoError::Interrupted(_)))
        }
    };
    let tail = stage.dispatcher.log_tail();
    let keep_log = keep_log && !tail.is_empty();
    if keep_log {
        eprintln!("\nThe log of `lanekeeper run`, {}, ends with:\n{tail}", stage.dispatcher.log.display());
    }
    let cleared = tokio::select! {
        biased;
        signal = stop.next() => Err(DemoError::Interrupted(signal)),
        cleared = stage.clear_away(arguments.keep, keep_log) => cleared,
    };
    if arguments.keep && stage.is_declared() {
        console.say(&format!("Left in RabbitMQ: exchanges and queues named {}…", stage.exchange));
    }
    if let Err(failure) = cleared {
        command::print_error(&failure);
        if stage.is_declared() && !arguments.keep {
            eprintln!("Exchanges and queues named {}… may be left in RabbitMQ.", stage.exchange);
        }
        return if exit == Exit::Done { failure.exit() } else { exit };
    }
    exit
}

/// The story that was asked for.
async fn show(arguments: &Arguments, stage: &mut Stage, console: &Console) -> Result<Exit, DemoError> {
    let safeguard = match arguments.remedy {
        None => {
            let workload = Workload::new(arguments.records, arguments.updates, arguments.seed);
            return story(&workload, stage, console).await;
        }
        Some(Safeguard::Sequence) => return story(&Workload::short(arguments.seed), stage, console).await,
        Some(Safeguard::Idempotency) => ApiSafeguard::Idempotency,
        Some(Safeguard::Versions) => ApiSafeguard::Versions,
        Some(Safeguard::RowLocks) => ApiSafeguard::RowLocks,
    };
    safeguard::story(safeguard, arguments.store.as_ref(), arguments.seed, stage, console).await
}

/// Both acts and the proof.
async fn story(workload: &Workload, stage: &mut Stage, console: &Console) -> Result<Exit, DemoError> {
    let [api_takes, api_fails] = workload.api_described();
    console.say(&format!(
        "An API keeps {}. Each is updated {} times, every {} ms: {}.",
        count(workload.records, "customer"),
        workload.each,
        workload.pace.as_millis(),
        count(workload.total(), "update"),
    ));
    console.say(&api_takes);
    console.say(&api_fails);

    console.heading(
        "1. Without Lanekeeper: each update is sent as soon as it happens, and again after an error",
    );
    console.detail("The HTTP client and the waits between retries are those of Lanekeeper.");
    let api = Api::start(workload.api_settings(), &StoreAddress::Memory).await?;
    let config = stage.direct_config(&api.url)?;
    let without = direct::act(&config, workload, &api, console).await?;

    console.heading("2. With Lanekeeper: the same updates, API and errors, and a crash as well");
    console.detail(&format!("Updates are published to RabbitMQ, exchange {}.", stage.exchange));
    console.detail("Lanekeeper sends them to the API: in order, and one at a time per customer.");
    if let Some(url) = management_url() {
        console.detail(&format!("Watch it at {url}"));
    }
    let api = Api::start(workload.api_settings(), &StoreAddress::Memory).await?;
    let with = through::act(stage, workload, &api, console).await?;

    console.heading("The proof: what the API saw");
    let proof = Proof { total: workload.total(), without: &without, with: &with };
    proof.print(console);
    console.say("");
    let faults = proof.faults();
    if !faults.is_empty() {
        console.say("The proof does NOT hold:");
        for fault in faults {
            console.say(&format!("  {fault}"));
        }
        return Ok(Exit::Other);
    }
    let holds = paint(Paint::Good, "The proof holds.");
    let repeats = count(with.replayed, "repeat");
    console.say(&format!("{holds} After errors and the crash Lanekeeper sent {repeats}, each with"));
    console.say("the Idempotency-Key of the first request: the API recognized them and applied none twice.");
    console.say("Next: README.md has the promise, its limits, a first config, and how to publish.");
    Ok(Exit::Done)
}

/// The URL of RabbitMQ's UI, without its password unless that is the well-known one.
fn management_url() -> Option<String> {
    let mut url = url::Url::parse(&std::env::var(MANAGEMENT_VARIABLE).ok()?).ok()?;
    let user = url.username().to_owned();
    let login = match (user.as_str(), url.password()) {
        ("", _) => String::new(),
        ("guest", Some("guest")) => " (user guest, password guest)".to_owned(),
        _ => format!(" (user {user})"),
    };
    url.set_password(None).and_then(|()| url.set_username("")).ok()?;
    Some(format!("{url}{login}"))
}

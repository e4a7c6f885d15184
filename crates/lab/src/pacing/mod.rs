//! `lanekeeper-lab pacing`: how much of a target's rate limit is used, and how many requests the target refuses.

mod case;
mod error;
mod run;

use std::path::PathBuf;
use std::time::Duration;

use case::{Case, Figures};
use error::PacingError;
use run::RunSettings;

use crate::command::{self, Exit, StopSignals};
use crate::receiver::RateLimitFields;

/// The receiver keeps 1,000 seconds, and the start takes some.
const SECONDS_MAX: u64 = 900;

const AFTER_HELP: &str = "\
Each case has a private RabbitMQ (scripts/broker), a reference target with a rate limit that all records share, and one
or more `lanekeeper run` without a ledger. More updates than the limit lets through are published before they start. What
they do in the seconds from --skip to --seconds is printed as a row of a markdown table:

  used              share of the limit that was used
  refused           share of the requests that were answered 429
  most in a second  requests that the target got, those that it refused included
  given up          updates that were dead-lettered
  goal              with fields that state the limit: at least 95 % used, at most 3 % refused; without: 85 % and 5 %
                    (Retry-After alone states no limit); no update given up, reordered or overlapped; after an
                    outage used does not count, since the target is asked now and then at first

Run it in the top directory of the project's sources. It needs the program lanekeeper beside lanekeeper-lab or on the PATH.

Exit codes: 0 every case has its goal; 1 one has not, or a case did not come to its end; 2 the command line.";

/// Options of `lanekeeper-lab pacing`.
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = AFTER_HELP)]
pub struct Arguments {
    /// Requests per second that the target accepts; several with commas.
    #[arg(
        long,
        value_name = "N,…",
        default_value = "5,50,500",
        value_delimiter = ',',
        value_parser = clap::value_parser!(u32).range(1..=100_000)
    )]
    rates: Vec<u32>,
    /// What answers say about the limit; several with commas.
    #[arg(
        long,
        value_name = "FORM,…",
        default_value = "none,retry-after,ratelimit,x-ratelimit,x-ratelimit-epoch",
        value_delimiter = ',',
        value_enum
    )]
    headers: Vec<RateLimitFields>,
    /// Numbers of dispatchers; several with commas.
    #[arg(
        long,
        value_name = "N,…",
        default_value = "1,3",
        value_delimiter = ',',
        value_parser = clap::value_parser!(u16).range(1..=16)
    )]
    processes: Vec<u16>,
    /// How long each case is, once the dispatchers are ready.
    #[arg(long, value_name = "N", default_value_t = 360, value_parser = clap::value_parser!(u64).range(1..=SECONDS_MAX))]
    seconds: u64,
    /// Seconds at the beginning that are not measured.
    #[arg(long, value_name = "N", default_value_t = 60)]
    skip: u64,
    /// An outage of so many seconds after that (503 with Retry-After), and a row for as long after it as was measured before.
    #[arg(long, value_name = "N")]
    outage: Option<u64>,
    /// Records that the updates are of, evenly.
    #[arg(long, value_name = "N", default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    records: u32,
    /// Time that a request takes at the target.
    #[arg(long, value_name = "DURATION", default_value = "5ms", value_parser = humantime::parse_duration)]
    latency: Duration,
    /// A line of TOML for the target's config, such as `rate_max = "50/s"`. Repeatable.
    #[arg(long, value_name = "TOML")]
    target: Vec<String>,
    /// Directory for the logs of the dispatchers; without it they are deleted.
    #[arg(long, value_name = "DIR")]
    logs: Option<PathBuf>,
}

impl Arguments {
    fn cases(&self) -> impl Iterator<Item = Case> {
        let fields = |processes, rate| {
            self.headers.iter().map(move |fields| Case { rate, fields: *fields, processes })
        };
        let rates = move |processes| self.rates.iter().flat_map(move |rate| fields(processes, *rate));
        self.processes.iter().flat_map(move |processes| rates(*processes))
    }
}

/// Runs it.
pub fn main(arguments: &Arguments) -> Exit {
    if arguments.skip >= arguments.seconds {
        eprintln!("error: --skip has to be less than --seconds");
        return Exit::Config;
    }
    let outage = arguments.outage.unwrap_or_default();
    if outage.saturating_add(2 * arguments.seconds - arguments.skip) > SECONDS_MAX {
        eprintln!("error: with its outage, a case would take more than {SECONDS_MAX} seconds");
        return Exit::Config;
    }
    command::runtime().block_on(async {
        match pacing_until_stopped(arguments).await {
            Ok(true) => Exit::Done,
            Ok(false) => Exit::Other,
            Err(error) => {
                command::print_error(&error);
                Exit::Other
            }
        }
    })
}

async fn pacing_until_stopped(arguments: &Arguments) -> Result<bool, PacingError> {
    let mut signals = StopSignals::new().map_err(PacingError::system("handle signals"))?;
    tokio::select! {
        biased;
        signal = signals.next() => Err(PacingError::Interrupted(signal)),
        reached = pacing(arguments) => reached,
    }
}

/// True if every case has its goal.
async fn pacing(arguments: &Arguments) -> Result<bool, PacingError> {
    let settings = RunSettings {
        measured: arguments.skip..arguments.seconds,
        outage: arguments.outage,
        records: arguments.records,
        latency: arguments.latency,
        target_lines: arguments.target.clone(),
        logs: arguments.logs.clone(),
    };
    println!("{}", Figures::HEAD);
    let mut all_reached = true;
    for case in arguments.cases() {
        for figures in run::run(case, &settings).await? {
            println!("{}", figures.row(case));
            all_reached &= figures.reach_goal(case);
        }
    }
    Ok(all_reached)
}

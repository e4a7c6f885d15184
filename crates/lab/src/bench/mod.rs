//! `lanekeeper-lab bench`: the loads of docs/performance.md on a real broker. The order is judged in every run.

mod contender;
pub mod door;
mod error;
mod load;
mod observers;
mod output;
mod run;
mod scenario;
mod stage;
mod verdict;

use std::path::PathBuf;
use std::time::Duration;

use clap::ValueEnum as _;

use crate::command::{self, Exit, StopSignals};
use crate::testbed::{ProcessError, load_average};
use contender::{Compared, Contender};
use error::BenchError;
use run::Measured;
use scenario::{Scenario, ScenarioName};
use stage::Stage;

/// Share of the updates for strict mode, which is about ten times slower.
const STRICT_SHARE: f64 = 0.1;

const AFTER_HELP: &str = "\
Each run has a new exchange with new queues, Lanekeeper and the receiver as processes of their own, and for equal seeds
the same updates. What is compared takes turns, round by round. A line has the median, and in brackets the lowest, the
highest and the number of runs. Processor time is in seconds per 10,000 updates, of the forwarder and of the broker;
memory is the forwarder's highest.

The receiver judges the order. If an update is missing, or if updates of a record came out of order or at the same time,
FAIL is printed and no figure.

In the project's sources a private RabbitMQ is started (scripts/broker); elsewhere name one with --broker. Exchanges and
queues are named lanekeeper-bench-… and are deleted at the end. Processor time and memory are known on Linux only.

  --compare bare needs lanekeeper-bare-loop, which is built with lanekeeper-lab
  --peer: benches/peers/README.md says what such a program gets, and has three of them

Exit codes: 0 measured, 1 a run failed, 2 the command line, 3 broker.";

/// Options of `lanekeeper-lab bench`.
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = AFTER_HELP)]
pub struct Arguments {
    /// What to measure; all scenarios without it.
    #[arg(value_name = "SCENARIO", value_enum)]
    scenarios: Vec<ScenarioName>,
    /// Runs of each scenario.
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = clap::value_parser!(u16).range(1..=1000))]
    repeats: u16,
    /// Share of the updates, such as 0.1 for a quick look.
    #[arg(long, value_name = "F", default_value_t = 1.0, value_parser = parse_scale)]
    scale: f64,
    /// Compare Lanekeeper with these; several with commas.
    #[arg(long, value_name = "WHAT", value_enum, value_delimiter = ',')]
    compare: Vec<Compared>,
    /// Compare it with another program that forwards from the same queues: NAME=COMMAND, or a command. Repeatable.
    #[arg(long, value_name = "COMMAND", value_parser = Contender::peer)]
    peer: Vec<Contender>,
    /// Compare it with another build of Lanekeeper.
    #[arg(long, value_name = "PROGRAM")]
    before: Option<PathBuf>,
    /// Use this broker instead of a private one: amqp://USER:PASSWORD@HOST:PORT/VHOST.
    #[arg(long, value_name = "URL", env = "LANEKEEPER_BENCH_BROKER", hide_env_values = true)]
    broker: Option<String>,
    /// Fail if Lanekeeper needs more processor time than this, in seconds per 10,000 updates.
    #[arg(long, value_name = "SECONDS")]
    cpu_max: Option<f64>,
    /// If nothing arrives for so long, the updates that are missing count as lost.
    #[arg(long, value_name = "DURATION", default_value = "60s", value_parser = humantime::parse_duration)]
    patience: Duration,
    /// With equal seeds the updates are the same.
    #[arg(long, default_value_t = 1)]
    seed: u64,
}

fn parse_scale(text: &str) -> Result<f64, String> {
    match text.parse() {
        Ok(scale) if scale > 0.0 && scale <= 100.0 => Ok(scale),
        _ => Err("write a number above 0, up to 100, such as 0.1".to_owned()),
    }
}

impl Arguments {
    fn names(&self) -> Vec<ScenarioName> {
        if self.scenarios.is_empty() {
            ScenarioName::value_variants().to_vec()
        } else {
            self.scenarios.clone()
        }
    }

    fn contenders(&self) -> Vec<Contender> {
        let compared = self.compare.iter().map(|compared| Contender::Compared(*compared));
        let before = self.before.iter().map(|path| Contender::Build(path.clone()));
        [Contender::Lanekeeper].into_iter().chain(compared).chain(before).chain(self.peer.clone()).collect()
    }
}

/// Runs it.
pub fn main(arguments: &Arguments) -> Exit {
    command::runtime().block_on(async {
        bench_until_stopped(arguments).await.unwrap_or_else(|failure| {
            command::print_error(&failure);
            failure.exit()
        })
    })
}

async fn bench_until_stopped(arguments: &Arguments) -> Result<Exit, BenchError> {
    let mut signals = StopSignals::new().map_err(BenchError::system("handle signals"))?;
    tokio::select! {
        biased;
        signal = signals.next() => Err(BenchError::Interrupted(signal)),
        measured = bench(arguments) => measured,
    }
}

async fn bench(arguments: &Arguments) -> Result<Exit, BenchError> {
    let stage = Stage::new(arguments.broker.as_deref(), arguments.patience).await?;
    let mut exit = Exit::Done;
    for name in arguments.names() {
        if !measure(arguments, &stage, &Scenario::of(name, arguments.scale)).await? {
            exit = Exit::Other;
        }
    }
    Ok(exit)
}

/// A scenario, a contender and its runs; `None` if one of them was wrong: then there is no figure.
struct Entry {
    scenario: Scenario,
    contender: Contender,
    runs: Option<Vec<Measured>>,
}

/// Measures all rounds. Returns false if a run was wrong, or needed too much processor time.
async fn measure(arguments: &Arguments, stage: &Stage, scenarios: &[Scenario]) -> Result<bool, BenchError> {
    let contenders = arguments.contenders();
    let entry = |scenario: &Scenario, contender: &Contender| Entry {
        scenario: match contender {
            Contender::Compared(Compared::Strict) if scenario.pace.is_none() => {
                scenario.clone().scaled(STRICT_SHARE)
            }
            _ => scenario.clone(),
        },
        contender: contender.clone(),
        runs: Some(Vec::new()),
    };
    let mut entries: Vec<Entry> = scenarios
        .iter()
        .flat_map(|scenario| contenders.iter().map(move |contender| entry(scenario, contender)))
        .filter(|Entry { scenario, contender, .. }| contender.can(scenario))
        .collect();
    for round in 1..=arguments.repeats {
        for Entry { scenario, contender, runs } in &mut entries {
            let Some(measured) = runs else { continue };
            let (name, load) = (contender.name(), load_average());
            let seed = arguments.seed.wrapping_add(round.into());
            let wrong = match run::run(stage, scenario, contender, seed).await {
                Ok(Ok(one)) => {
                    let line = output::line(scenario.name, &name, std::slice::from_ref(&one));
                    eprintln!("# round {round}, load {load} before: {line}");
                    measured.push(one);
                    continue;
                }
                Ok(Err(wrong)) => wrong.to_string(),
                // The figures of the others are still right.
                Err(BenchError::Process(ended @ ProcessError::EndedEarly { .. })) => ended.to_string(),
                Err(failure) => return Err(failure),
            };
            println!("{}", output::failed(scenario.name, &name, &wrong));
            *runs = None;
        }
    }
    Ok(print_results(arguments, &entries))
}

/// Prints the figures, then the ratios. Returns false if a run was wrong, or needed too much processor time.
fn print_results(arguments: &Arguments, entries: &[Entry]) -> bool {
    let mut well = true;
    for Entry { scenario, contender, runs } in entries {
        let (scenario, name) = (scenario.name, contender.name());
        let Some(runs) = runs else {
            well = false;
            continue;
        };
        println!("{}", output::line(scenario, &name, runs));
        let over =
            arguments.cpu_max.filter(|max| *contender == Contender::Lanekeeper && output::cpu(runs) > *max);
        if let Some(max) = over {
            let wrong = format!("CPU {:.2} s/10k is over {max:.2}", output::cpu(runs));
            println!("{}", output::failed(scenario, &name, &wrong));
            well = false;
        }
    }
    let Some(first) = entries.first() else { return well };
    for theirs in &entries[1..] {
        let same = theirs.scenario.name == first.scenario.name;
        let against = if same { theirs.contender.name() } else { theirs.scenario.name.to_owned() };
        if let (Some(ours), Some(runs), true) =
            (&first.runs, &theirs.runs, same || theirs.contender == Contender::Lanekeeper)
        {
            println!("{}", output::ratio(first.scenario.name, &against, ours, runs));
        }
    }
    well
}

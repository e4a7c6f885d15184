//! `lanekeeper target`: tells running dispatchers what a person knows of a target, and pauses targets.

mod pause;

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::arguments::{ConfigArguments, OperatorArguments};
use super::exit::Exit;
use super::process::{print, report, say_error, tokio_runtime};
use crate::config::{BreakerConfig, Config, Purpose};
use crate::wall_time::format_seconds;
use lanekeeper_broker::{Address, BELIEF_MAX, Names, Operator, SourceError};

/// Options of `lanekeeper target`.
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = AFTER_HELP)]
pub struct Arguments {
    #[command(subcommand)]
    command: Command,
}

const AFTER_HELP: &str = "\
Exit codes: 0 done, 1 it is paused already, or not paused, 2 config, or the config has no such target, 3 broker, 4 ledger.";

#[derive(Clone, Debug, clap::Subcommand)]
enum Command {
    /// Believe the rejections (4xx) of a target for some time, although record after record gets the same one.
    ///
    /// All running dispatchers of the exchange, and those that start within that time, then treat each rejected update as
    /// failure.rejected says, and count the rejection as an answer of the target: if it is shut, it opens with its next probe.
    /// If something before the target answers, such as an ingress without a backend, every update that it rejects is parked.
    Believe {
        #[command(flatten)]
        config: ConfigArguments,
        /// The name of the target, or the `limits` that it shares with others: it then holds for all of them.
        #[arg(value_name = "NAME")]
        name: String,
        /// For how long, from now: 1s to 1d. It cannot be taken back; of several commands, the latest end counts.
        #[arg(long = "for", value_name = "TIME", default_value = "1h", value_parser = belief_time)]
        lasts: Duration,
    },
    /// Pause a target: within two seconds no dispatcher starts a request there, until it is resumed. Requests that are out end.
    ///
    /// Updates for it wait, in order; that costs them no attempt and none of `retry.elapsed_max`. It holds over restarts. It needs
    /// a ledger, which tells all dispatchers.
    Pause {
        #[command(flatten)]
        config: ConfigArguments,
        /// The name of the target.
        #[arg(value_name = "NAME")]
        name: String,
        #[command(flatten)]
        operator: OperatorArguments,
    },
    /// Resume a paused target: its updates are attempted again, in order.
    Resume {
        #[command(flatten)]
        config: ConfigArguments,
        /// The name of the target.
        #[arg(value_name = "NAME")]
        name: String,
        #[command(flatten)]
        operator: OperatorArguments,
    },
}

fn belief_time(text: &str) -> Result<Duration, String> {
    let lasts = humantime::parse_duration(text).map_err(|fault| fault.to_string())?;
    if (Duration::from_secs(1)..=BELIEF_MAX).contains(&lasts) {
        Ok(lasts)
    } else {
        Err("write a time from 1s to 1d".to_owned())
    }
}

/// Tells the dispatchers: by the stream of members what a person believes, by the ledger what is paused.
pub fn main(arguments: &Arguments) -> Exit {
    match &arguments.command {
        Command::Believe { config, name, lasts } => tell_belief(config, name, *lasts),
        Command::Pause { config, name, operator } => pause::pause(config, name, &operator.reason()),
        Command::Resume { config, name, operator } => pause::resume(config, name, &operator.reason()),
    }
}

fn tell_belief(config: &ConfigArguments, name: &str, lasts: Duration) -> Exit {
    let config = match config.load_for_rabbitmq(Purpose::Publish) {
        Ok(loaded) => loaded.config,
        Err(exit) => return exit,
    };
    let names = config.target_names();
    if !names.contains_key(name) {
        say_error(format_args!("error: {}", unknown(name, &names)));
        return Exit::Config;
    }
    if config.breaker == BreakerConfig::Off {
        say_error(
            "warning: breakers are off in this config: a process with it believes every rejection anyway",
        );
    }
    let until = SystemTime::now() + lasts;
    // Rounded up: a second is not to be over before it began.
    let until = until.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs() + 1);
    match tokio_runtime().block_on(believe(&config, name, until)) {
        Ok(()) => {
            let until = format_seconds(until);
            let text = format!(
                "rejections of {name} are believed until {until}: published to all processes, and each logs it\n"
            );
            print(&text, Exit::Done)
        }
        Err(error) => {
            report(&error);
            match error {
                SourceError::Connect(error) if error.is_of_the_url() => Exit::Config,
                _ => Exit::Broker,
            }
        }
    }
}

async fn believe(config: &Config, name: &str, until: u64) -> Result<(), SourceError> {
    let names = Names::new(&config.updates.exchange);
    let address = Address::new(&config.broker.connection)?;
    let operator = Operator::connect(&address, names, &config.instance).await?;
    let published = operator.believe(name, until).await;
    operator.close().await;
    published
}

fn unknown<T>(name: &str, names: &BTreeMap<String, T>) -> String {
    let known: Vec<&str> = names.keys().map(String::as_str).collect();
    match known[..] {
        [] => format!("the config has no target {name:?}, and no other: give the config of the dispatchers"),
        _ => format!(
            "the config has no target {name:?}, and no limits of that name; it has {}",
            known.join(", ")
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_is_a_second_to_a_day() {
        for (text, expected) in [("1s", Some(1)), ("90m", Some(5400)), ("1d", Some(86_400))] {
            assert_eq!(belief_time(text).ok().map(|time| time.as_secs()), expected, "{text}");
        }
        for text in ["999ms", "0s", "25h", "soon", "-1s", ""] {
            assert!(belief_time(text).is_err(), "{text}");
        }
    }

    #[test]
    fn an_unknown_target_is_told_with_those_that_there_are() {
        let names = ["crm", "erp"].map(|name| (name.to_owned(), ())).into_iter().collect();
        assert_eq!(
            unknown("cmr", &names),
            "the config has no target \"cmr\", and no limits of that name; it has crm, erp"
        );
    }
}

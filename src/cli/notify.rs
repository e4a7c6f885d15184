//! `lanekeeper notify`: tries the receivers of `[[notify]]`.

use super::arguments::ConfigArguments;
use super::exit::Exit;
use super::process::{print, report, say_error, tokio_runtime};
use crate::config::{Config, Purpose};
use crate::runtime::notify::send_tests;

/// Options of `lanekeeper notify`.
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = AFTER_HELP)]
pub struct Arguments {
    #[command(subcommand)]
    command: Command,
}

const AFTER_HELP: &str = "\
Exit codes: 0 all have taken it, 1 one has not, 2 config, or the config has no such receiver.";

#[derive(Clone, Debug, clap::Subcommand)]
enum Command {
    /// Send a test notification to the receivers of the config, once, and say if each has taken it.
    ///
    /// Its type is lanekeeper.test, and it says that nothing has happened.
    Test {
        #[command(flatten)]
        config: ConfigArguments,
        /// Only the receiver of this name.
        #[arg(value_name = "NAME")]
        name: Option<String>,
    },
}

/// Sends it, and prints a line for each receiver.
pub fn main(arguments: &Arguments) -> Exit {
    let Command::Test { config, name } = &arguments.command;
    let config = match config.load(Purpose::Publish) {
        Ok(loaded) => loaded.config,
        Err(exit) => return exit,
    };
    let names: Vec<&str> = config.notify.iter().map(|notify| notify.receiver.name.as_str()).collect();
    let wanted = |of: &&str| name.as_ref().is_none_or(|name| name == of);
    let numbers: Vec<usize> =
        names.iter().enumerate().filter(|(_, of)| wanted(of)).map(|(number, _)| number).collect();
    if numbers.is_empty() {
        say_error(format_args!("error: {}", unknown(name.as_deref(), &names)));
        return Exit::Config;
    }
    match tokio_runtime().block_on(send_tests(&config, &numbers)) {
        Ok(ended) => {
            let shown = numbers.iter().zip(&ended).map(|(number, ended)| line(&config, *number, ended));
            let exit = if ended.iter().all(Result::is_ok) { Exit::Done } else { Exit::Other };
            print(&shown.collect::<String>(), exit)
        }
        Err(fault) => {
            report(&fault);
            Exit::Config
        }
    }
}

fn line(config: &Config, number: usize, ended: &Result<(), String>) -> String {
    let name = &config.notify[number].receiver.name;
    match ended {
        Ok(()) => format!("{name}: taken\n"),
        Err(why) => format!("{name}: not taken: {why}\n"),
    }
}

fn unknown(name: Option<&str>, names: &[&str]) -> String {
    match (name, names) {
        (_, []) => "the config has no [[notify]]: config/default.toml has its keys".to_owned(),
        (name, names) => {
            let name = name.unwrap_or_default();
            format!("the config has no [[notify]] of the name {name:?}; it has {}", names.join(", "))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unknown_receiver_is_told_with_those_that_there_are() {
        assert_eq!(
            unknown(Some("pager"), &["chat", "on-call"]),
            "the config has no [[notify]] of the name \"pager\"; it has chat, on-call"
        );
        assert!(unknown(None, &[]).starts_with("the config has no [[notify]]: "));
    }
}

//! `lanekeeper topology`: the layouts in the broker, and how they are changed, under load.

mod apply;
mod plan;
mod show;
mod snapshot;

use std::io::Write as _;
use std::time::Duration;

use serde_json::Value as Json;

use self::snapshot::TopologySnapshot;
use super::{ConfigArguments, Exit};
use crate::config::{Config, Purpose, management_url};
use crate::doctor::change::dangers_of_change;
use lanekeeper_broker::{Address, Names, SourceError, definitions};

/// Options of `lanekeeper topology`.
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = AFTER_HELP)]
pub struct Arguments {
    #[command(subcommand)]
    command: Command,
}

const SHOW_HELP: &str = "\
Columns: `ready` updates wait in the queue, now. What follows is told by the dispatchers, which are asked over the broker
and have 2 seconds to answer (`?`: not answered; `-`: there is nothing): `unsettled` updates are held by the owner,
`held for`: how long it has held the oldest of them, since the broker handed it over (what was given back counts anew),
`published`: how long ago the oldest of them was published, where publishers set a timestamp, `waiting` records wait for
another attempt or for a target that is shut. `drained`: of a layout that drains; what is `ready` there are markers.";

const AFTER_HELP: &str = "\
Exit codes: 0 done, or (plan) nothing to do; 10 (plan) there is something to do; 1 something is in the way; 2 config;
3 broker.";

#[derive(Clone, Debug, clap::Subcommand)]
enum Command {
    /// Show the layouts: partitions, who owns them, what waits in them and for how long, what is drained.
    #[command(after_help = SHOW_HELP)]
    Show {
        #[command(flatten)]
        config: ConfigArguments,
        /// Print one JSON object.
        #[arg(long)]
        json: bool,
    },
    /// Show what `apply` would do, and what could go wrong. Changes nothing.
    Plan {
        #[command(flatten)]
        place: Place,
    },
    /// Make the layout what the config says (updates.partitions, dispatch.prefetch), while updates are published and
    /// dispatched: none is lost, doubled or reordered. Can be interrupted and called again.
    Apply {
        #[command(flatten)]
        place: Place,
        /// Return as soon as publishes go to the new layout: dispatchers drain and remove the old one by themselves.
        #[arg(long)]
        no_wait: bool,
        /// How long the old layout may take to drain; then the command ends with exit code 1, and the drain goes on.
        #[arg(long, value_name = "TIME", value_parser = humantime::parse_duration)]
        timeout: Option<Duration>,
    },
    /// Print RabbitMQ definitions (JSON) of the first layout, as the config says, for a broker that has none: imported
    /// there, they let publishers begin before the first dispatcher does.
    Export {
        #[command(flatten)]
        config: ConfigArguments,
    },
}

/// Where the layouts are.
#[derive(Clone, Debug, clap::Args)]
struct Place {
    #[command(flatten)]
    config: ConfigArguments,
    /// Where RabbitMQ's management API is, instead of `broker.management_url`.
    #[arg(long, value_name = "URL", env = "LANEKEEPER_MANAGEMENT_URL", hide_env_values = true)]
    management: Option<String>,
}

impl Place {
    fn config(&self) -> Result<Config, Exit> {
        let mut config = config(&self.config)?;
        if let Some(url) = self.management.as_deref().filter(|url| !url.is_empty()) {
            config.broker.management_url = management_url(&mut Json::from(url)).map_err(|problem| {
                eprintln!("error: --management: {problem}");
                Exit::Config
            })?;
        }
        Ok(config)
    }
}

/// Without targets, too: who looks after the broker need not know them.
fn config(arguments: &ConfigArguments) -> Result<Config, Exit> {
    Ok(arguments.load_for(Purpose::Publish)?.config)
}

/// Looks at layouts, or changes them.
pub fn main(arguments: &Arguments) -> Exit {
    let config = match &arguments.command {
        Command::Show { config: arguments, .. } | Command::Export { config: arguments } => config(arguments),
        Command::Plan { place } | Command::Apply { place, .. } => place.config(),
    };
    let config = match config {
        Ok(config) => config,
        Err(exit) => return exit,
    };
    let done = super::tokio_runtime().block_on(async {
        match &arguments.command {
            Command::Show { json, .. } => {
                let snapshot = TopologySnapshot::look(&config).await?;
                Ok(print(&if *json { show::json(&snapshot) } else { show::text(&snapshot) }, Exit::Done))
            }
            Command::Plan { .. } => {
                let snapshot = TopologySnapshot::look(&config).await?;
                let dangers = dangers_of_change(&config, plan::wanted(&config)).await?;
                let plan = plan::Plan::of(&snapshot, &config, dangers);
                let exit = if plan.is_empty() { Exit::Done } else { Exit::Pending };
                Ok(print(&plan.to_string(), exit))
            }
            Command::Apply { no_wait, timeout, .. } => apply::run(&config, *no_wait, *timeout).await,
            Command::Export { .. } => {
                let shape = plan::wanted(&config);
                let vhost = Address::new(&config.broker.connection)?.vhost().to_owned();
                let definitions = definitions(&Names::new(&config.updates.exchange), shape, &vhost);
                Ok(print(&format!("{definitions:#}\n"), Exit::Done))
            }
        }
    });
    done.unwrap_or_else(|error: SourceError| {
        super::report(&error);
        match error {
            SourceError::Connect(error) if error.is_of_the_url() => Exit::Config,
            _ => Exit::Broker,
        }
    })
}

fn print(text: &str, exit: Exit) -> Exit {
    match std::io::stdout().write_all(text.as_bytes()) {
        Ok(()) => exit,
        // Whoever reads it has read enough, as in `topology show | head`.
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => exit,
        Err(_) => Exit::Other,
    }
}

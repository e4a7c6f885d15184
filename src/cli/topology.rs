//! `lanekeeper topology`: shows the layouts in the broker, and changes them while updates flow.

mod apply;
mod blocking;
mod format;
mod plan;
mod show;
pub(super) mod snapshot;

use std::time::Duration;

use self::apply::Manner;
use self::snapshot::TopologySnapshot;
use super::arguments::{BrokerArguments, ConfigArguments};
use super::exit::Exit;
use super::process::{print, report, say_error, tokio_runtime};
use crate::config::{Config, Purpose};
use crate::doctor::change::dangers_of_change;
use lanekeeper_broker::{Address, Adopted, Names, Operator, SourceError, definitions};

/// Options of `lanekeeper topology`.
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = AFTER_HELP)]
pub struct Arguments {
    #[command(subcommand)]
    command: Command,
}

const SHOW_HELP: &str = "\
Columns:
  ready      messages in the queue that no consumer holds
  unsettled  updates that the owner holds
  held for   for how long the owner has held the oldest of them
  published  how long ago the oldest of them was published, if its publisher set a timestamp
  waiting    records that wait for another attempt, or for a target that is shut
  drained    of a draining layout: whether the partition is drained; messages in it are then markers, not updates
  owner      the replica that owns the partition

`ready` is read from the queue, `drained` from the layout document. The owner answers the rest within 2 seconds. `?`: no answer;
`-`: nothing.";

const AFTER_HELP: &str = "\
Exit codes: 0 done, 1 something blocks the change, 2 config, 3 broker; `plan`: 0 nothing to do, 10 something to do.";

#[derive(Clone, Debug, clap::Subcommand)]
enum Command {
    /// Show the layouts: their partitions, owners, backlog, and which partitions are drained.
    #[command(after_help = SHOW_HELP)]
    Show {
        #[command(flatten)]
        config: ConfigArguments,
        /// Print one JSON object instead of text.
        #[arg(long)]
        json: bool,
    },
    /// Show what `apply` would do, and what could go wrong. Changes nothing.
    Plan {
        #[command(flatten)]
        broker: BrokerArguments,
    },
    /// Change the layout to what the config says (updates.partitions, dispatch.prefetch) while updates flow.
    ///
    /// No update is lost, sent twice or reordered by it. You can interrupt the command and call it again.
    Apply {
        #[command(flatten)]
        broker: BrokerArguments,
        /// Return as soon as publishes go to the new layout; dispatchers drain and delete the old one by themselves.
        #[arg(long)]
        no_wait: bool,
        /// How long to wait for the old layout to drain. Then the command ends with exit code 1, and dispatchers go on
        /// draining it.
        #[arg(long, value_name = "TIME", value_parser = humantime::parse_duration)]
        timeout: Option<Duration>,
        /// Change the layout although the management API is not seen. If something else than the layout is bound to the
        /// ingress (`rabbitmqctl list_bindings` shows it), updates that are confirmed during the switch are lost.
        #[arg(long)]
        without_management: bool,
    },
    /// Write a layout document for the layout that the broker has, if the document is gone or older than the exchanges and
    /// queues: `run` then says so.
    ///
    /// Stop all dispatchers first. The layout gets the prefetch of the config (dispatch.prefetch), which must not be lower than
    /// it was: updates that were returned to a queue would be delivered in another order.
    Adopt {
        #[command(flatten)]
        broker: BrokerArguments,
    },
    /// Print the first layout as RabbitMQ definitions (JSON), for a broker that has no layout yet.
    ///
    /// With the definitions imported, publishers can start before the first dispatcher does.
    Export {
        #[command(flatten)]
        config: ConfigArguments,
    },
}

/// Shows the layouts, or changes them. Needs no targets: who administers the broker need not know them.
pub fn main(arguments: &Arguments) -> Exit {
    let config = match &arguments.command {
        Command::Show { config, .. } | Command::Export { config } => {
            config.load_for_rabbitmq(Purpose::Publish).map(|loaded| loaded.config)
        }
        Command::Plan { broker } | Command::Apply { broker, .. } | Command::Adopt { broker } => {
            // Who administers the broker need not know the targets.
            broker.load(Purpose::Publish).map(|loaded| loaded.config)
        }
    };
    let config = match config {
        Ok(config) => config,
        Err(exit) => return exit,
    };
    let done = tokio_runtime().block_on(async {
        match &arguments.command {
            Command::Show { json, .. } => {
                let snapshot = TopologySnapshot::take(&config).await?;
                Ok(print(&if *json { show::json(&snapshot) } else { show::text(&snapshot) }, Exit::Done))
            }
            Command::Plan { .. } => {
                let snapshot = TopologySnapshot::take(&config).await?;
                let dangers = dangers_of_change(&config, config.layout_shape()).await?;
                let plan = plan::Plan::of(&snapshot, &config, dangers);
                let exit = if plan.is_empty() { Exit::Done } else { Exit::Pending };
                Ok(print(&plan.to_string(), exit))
            }
            Command::Apply { no_wait, timeout, without_management, .. } => {
                let (no_wait, timeout, without_management) = (*no_wait, *timeout, *without_management);
                apply::run(&config, Manner { no_wait, timeout, without_management }).await
            }
            Command::Adopt { .. } => adopt(&config).await,
            Command::Export { .. } => {
                let shape = config.layout_shape();
                let vhost = Address::new(&config.broker.connection)?.vhost().to_owned();
                let definitions = definitions(&Names::new(&config.updates.exchange), shape, &vhost);
                Ok(print(&format!("{definitions:#}\n"), Exit::Done))
            }
        }
    });
    done.unwrap_or_else(|error: SourceError| {
        report(&error);
        match error {
            SourceError::Connect(error) if error.is_of_the_url() => Exit::Config,
            _ => Exit::Broker,
        }
    })
}

async fn adopt(config: &Config) -> Result<Exit, SourceError> {
    let names = Names::new(&config.updates.exchange);
    let address = Address::new(&config.broker.connection)?;
    let operator = Operator::connect(&address, names, &config.instance).await?;
    let adopted = operator.adopt(config.layout_shape().prefetch).await;
    operator.close().await;
    Ok(match adopted? {
        Adopted::Written(layout) => {
            let text = format!(
                "layout {} with {} partitions and prefetch {} is current\n",
                layout.number.0, layout.partitions, layout.prefetch
            );
            print(&text, Exit::Done)
        }
        Adopted::Refused(why) => {
            say_error(format_args!("error: nothing is written: {why}"));
            Exit::Other
        }
    })
}

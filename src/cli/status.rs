//! `lanekeeper status`: how all processes, partitions and targets are, and if a person must act.

mod text;
mod watch;

use std::time::Duration;

use serde::Serialize;

use super::arguments::ConfigArguments;
use super::exit::Exit;
use super::process::{print, report, say_error, tokio_runtime};
use crate::config::Purpose;
use crate::inspect::asker::Asker;
use lanekeeper_broker::SourceError;

/// Options of `lanekeeper status`.
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = AFTER_HELP)]
pub struct Arguments {
    #[command(flatten)]
    config: ConfigArguments,
    /// Show it again and again, like top. Keys: q quits, o sorts by the oldest update, r by ready, h by held, n by name.
    #[arg(long, conflicts_with = "json")]
    watch: bool,
    /// With --watch: how long to wait between two looks, 1s to 1h.
    #[arg(long, value_name = "TIME", default_value = "2s", value_parser = interval)]
    every: Duration,
    /// Show the records of this partition instead, such as l1.p003, those first whose oldest update came first. It shows
    /// record keys.
    #[arg(long, value_name = "PARTITION", value_parser = place, conflicts_with = "watch")]
    partition: Option<(u32, u16)>,
    /// Show this target instead: what each process knows of it, and what it did in the last ten minutes.
    #[arg(long, value_name = "NAME", conflicts_with_all = ["watch", "partition"])]
    target: Option<String>,
    /// With --partition: how many records at most, 1 to 1000.
    #[arg(long, value_name = "N", default_value = "50", value_parser = clap::value_parser!(u16).range(1..=1000))]
    limit: u16,
    /// Print one JSON object instead of text.
    #[arg(long)]
    json: bool,
}

const AFTER_HELP: &str = "\
The first line says if a person must act, and on what. Columns:
  READY    updates in the partition's queue that no process holds
  HELD     updates that the owner holds
  OUT      attempts in flight
  WAIT     records that wait: for a retry, a target, a limit, an earlier owner or layout
  OLDEST   how long the owner has held the update that it has held longest
Doors (`lanekeeper ingest`) are shown as they have reported themselves, every two seconds:
  PENDING  updates that wait for the broker's confirm
  ACCEPTED, KNOWN   updates since the start of the door; PER MIN in the last minute
  REFUSED  requests that were answered with a problem, since the start of the door

Exit codes: 0 done, 1 no such partition or target, 2 config, 3 broker. Whether a person must act is in the first line, and in `verdict` of --json.";

fn interval(text: &str) -> Result<Duration, String> {
    let interval = humantime::parse_duration(text).map_err(|fault| fault.to_string())?;
    if (Duration::from_secs(1)..=Duration::from_secs(3600)).contains(&interval) {
        Ok(interval)
    } else {
        Err("write a time from 1s to 1h".to_owned())
    }
}

/// `l1.p003`.
fn place(text: &str) -> Result<(u32, u16), String> {
    let parse = || {
        let (layout, partition) = text.strip_prefix('l')?.split_once(".p")?;
        Some((layout.parse().ok()?, partition.parse().ok()?))
    };
    parse().ok_or_else(|| "write it as the status shows it, such as l1.p003".to_owned())
}

/// Asks, and prints what the processes answer.
pub fn main(arguments: &Arguments) -> Exit {
    // Whoever asks need not know the targets.
    let config = match arguments.config.load_for_rabbitmq(Purpose::Publish) {
        Ok(loaded) => loaded.config,
        Err(exit) => return exit,
    };
    let asker = Asker::for_command(&config);
    if arguments.watch {
        return tokio_runtime().block_on(watch::watch(&asker, arguments.every));
    }
    if let Some(place) = arguments.partition {
        let limit = usize::from(arguments.limit);
        return match tokio_runtime().block_on(asker.partition(place, limit)) {
            Ok(None) => {
                say_error(format_args!("error: there is no such partition: `lanekeeper status` lists them"));
                Exit::Other
            }
            Ok(Some(found)) if arguments.json => print_json(&found.json()),
            Ok(Some(found)) => print(&text::of_partition(&found), Exit::Done),
            Err(fault) => failed(&fault),
        };
    }
    if let Some(name) = &arguments.target {
        return match tokio_runtime().block_on(asker.target(name)) {
            Ok(None) => {
                say_error(format_args!(
                    "error: no process that answered has such a target: `lanekeeper status` lists them"
                ));
                Exit::Other
            }
            Ok(Some(answers)) if arguments.json => print_json(&answers),
            Ok(Some(answers)) => print(&text::of_target(&answers), Exit::Done),
            Err(fault) => failed(&fault),
        };
    }
    match tokio_runtime().block_on(asker.status()) {
        Ok(report) if arguments.json => print_json(&report),
        Ok(report) => print(&text::text(&report, text::Sort::Name, None), Exit::Done),
        Err(fault) => failed(&fault),
    }
}

/// Prints one object.
pub(super) fn print_json(report: &impl Serialize) -> Exit {
    match serde_json::to_string_pretty(report) {
        Ok(json) => print(&format!("{json}\n"), Exit::Done),
        Err(fault) => {
            say_error(format_args!("error: {fault}"));
            Exit::Other
        }
    }
}

/// Reports that the broker could not be asked.
pub(super) fn failed(fault: &SourceError) -> Exit {
    report(fault);
    match fault {
        SourceError::Connect(error) if error.is_of_the_url() => Exit::Config,
        _ => Exit::Broker,
    }
}

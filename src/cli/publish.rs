//! `lanekeeper publish`.

mod console;
mod input;
mod report;

use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;

use super::arguments::ConfigArguments;
use super::exit::Exit;
use super::process::{interrupted, say_error};
use crate::config::{Config, Purpose};
use input::Input;
use lanekeeper_broker::publisher::{
    OutboxLimits, PublishError, Publisher, PublisherExit, PublisherSettings, ShortText,
};
use lanekeeper_core::error::error_chain;
use report::Report;

/// Updates that are read ahead, as a multiple of the window: they wait behind unconfirmed updates of their records.
const READ_AHEAD: usize = 10;

/// Bytes that are read ahead.
const HELD_BYTES_MAX: usize = 64 * 1024 * 1024;

/// After so many records whose updates the broker refuses, the command gives up.
const ABANDONED_MAX: usize = 1_000;

/// Lines queued between the reading thread and the publisher. Few: a line can be as large as the body limit.
const LINES_IN_CHANNEL_MAX: usize = 64;

/// Options of `lanekeeper publish`.
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = FORMAT)]
pub struct Arguments {
    /// File of JSON lines; without it, or with "-", standard input.
    file: Option<PathBuf>,
    #[command(flatten)]
    config: ConfigArguments,
    /// Stop at the first bad line. Without this option bad lines are skipped, and later lines of the same record are
    /// published.
    #[arg(long)]
    strict: bool,
    /// How many updates may be published and not yet confirmed, each of another record.
    #[arg(long, value_name = "N", default_value = "1000")]
    window: NonZeroUsize,
    /// How long to retry an update that the broker refuses (a full queue, no route). Then it counts as not confirmed, with
    /// all later updates of its record. Time without a connection, or under an alarm of the broker, does not count.
    #[arg(long, value_name = "DURATION", default_value = "30s", value_parser = humantime::parse_duration)]
    give_up_after: Duration,
}

const FORMAT: &str = r#"One JSON object per line:
  {"key":"customer-17","id":"u-1","type":"customer.updated","version":3,"body":{"name":"Ada"}}

  key           record key, 1 to 255 bytes; updates of one record keep the order of their lines
  body          any JSON; sent exactly as written, a string with its quotes
  body_base64   any bytes, instead of body
  id            update id; by default a new UUID per line, which stays the same when this command publishes the line
                again, and changes when you run the command again
  type          picks the target
  version       integer that grows with every update of the record; sent as header record-version
  headers       object of strings, integers and booleans
  content_type  default: application/json; with body_base64: application/octet-stream

A line with an unknown member is bad. Blank lines are skipped.

Exit codes: 0 every line is confirmed, 1 a line is bad or not confirmed, 2 config, 3 broker."#;

/// The publisher's settings, and the body limit.
fn settings(arguments: &Arguments) -> Result<(PublisherSettings, usize), Exit> {
    let Config { instance, broker, updates, .. } =
        arguments.config.load_for_rabbitmq(Purpose::Publish)?.config;
    let in_flight_max = arguments.window.get();
    let limits = OutboxLimits {
        in_flight_max,
        held_max: in_flight_max.saturating_mul(READ_AHEAD),
        held_bytes_max: HELD_BYTES_MAX,
        give_up_after: Some(arguments.give_up_after),
        abandoned_max: ABANDONED_MAX,
    };
    let exchange = ShortText::new(updates.exchange).expect("the config's check bounds the exchange's name");
    let settings = PublisherSettings { connection: broker.connection, instance, exchange, limits };
    Ok((settings, updates.body_bytes_max))
}

/// Publishes the lines, and prints how many were confirmed.
pub fn main(arguments: &Arguments) -> Exit {
    let (settings, body_bytes_max) = match settings(arguments) {
        Ok(settings) => settings,
        Err(exit) => return exit,
    };
    let input = match Input::open(arguments.file.as_deref(), body_bytes_max, arguments.strict) {
        Ok(input) => input,
        Err(error) => {
            let file = arguments.file.as_deref().unwrap_or("-".as_ref());
            say_error(format_args!("lanekeeper publish: cannot read {}: {error}", file.display()));
            return Exit::Other;
        }
    };
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    let runtime = runtime.expect("the async runtime starts");
    let exit = runtime.block_on(publish(settings, input));
    // Without waiting for the thread that reads standard input: it may never return.
    runtime.shutdown_background();
    exit
}

async fn publish(settings: PublisherSettings, input: Input) -> Exit {
    let exchange = settings.exchange.as_str().to_owned();
    let publisher = match Publisher::connect(settings).await {
        Ok(publisher) => publisher,
        Err(error) => {
            say_error(format_args!("lanekeeper publish: {}", error_chain(&error)));
            return exit_of(&error);
        }
    };
    let mut report = Report::new(exchange, input.bytes());
    let (sender, receiver) = mpsc::channel(LINES_IN_CHANNEL_MAX);
    let reading = input.read(sender, report.console());
    report.follow(Arc::clone(&reading));
    let result = publisher.run(receiver, |event| report.event(&event), interrupted()).await;
    match (report.finish(&result), result) {
        (_, Err(error)) => exit_of(&error),
        (true, Ok(PublisherExit::Finished)) => Exit::Done,
        (_, Ok(_)) => Exit::Other,
    }
}

fn exit_of(error: &PublishError) -> Exit {
    match error {
        PublishError::Connect(error) if error.is_of_the_url() => Exit::Config,
        _ => Exit::Broker,
    }
}

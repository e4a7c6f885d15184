//! `lanekeeper publish`.

mod input;
mod report;

use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;

use super::{ConfigArguments, Exit};
use crate::config::{Config, Purpose};
use input::Input;
use lanekeeper_broker::publisher::{
    OutboxLimits, PublishError, Publisher, PublisherExit, PublisherSettings, ShortText,
};
use lanekeeper_core::error::error_chain;
use report::Report;

/// Updates read ahead of the window, as a multiple of it: so much may wait behind unconfirmed ones of its record.
const READ_AHEAD: usize = 10;

/// Bytes read ahead.
const HELD_BYTES_MAX: usize = 64 * 1024 * 1024;

/// Records given up before the command gives up.
const ABANDONED_MAX: usize = 1_000;

/// Lines between the reading thread and the publisher. Few: a line can be as large as the body limit.
const LINES_IN_CHANNEL_MAX: usize = 64;

/// Options of `lanekeeper publish`.
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = FORMAT)]
pub struct Arguments {
    /// File of JSON lines; standard input without it, or with "-".
    file: Option<PathBuf>,
    #[command(flatten)]
    config: ConfigArguments,
    /// Publish nothing after the first bad line. Without it a bad line is a gap: later lines, also of its record, go on.
    #[arg(long)]
    strict: bool,
    /// Updates published and not yet confirmed, each of another record.
    #[arg(long, value_name = "N", default_value = "1000")]
    window: NonZeroUsize,
    /// How long the broker may refuse an update (a full queue, no route) before it counts as not confirmed, with all
    /// later ones of its record. Waiting for a lost connection or for an alarm to end does not count.
    #[arg(long, value_name = "DURATION", default_value = "30s", value_parser = humantime::parse_duration)]
    give_up_after: Duration,
}

const FORMAT: &str = r#"One JSON object per line:
  {"key":"customer-17","id":"u-1","type":"customer.updated","version":3,"body":{"name":"Ada"}}

  key           the record, 1 to 255 bytes; updates of one record keep the order of their lines
  body          any JSON; sent exactly as written, a string with its quotes
  body_base64   instead of body: bytes of any kind
  id            update id; without it each line gets a UUID, which stays the same when this command publishes the
                line again, but is another one when you run the command again
  type          picks the target
  version       integer that grows with every update of the record: header record-version
  headers       object of strings, integers and booleans
  content_type  application/json without it; with body_base64 application/octet-stream

Unknown members are faults. Blank lines are skipped.

Exit codes: 0 every line is confirmed, 1 some line is bad or not confirmed, 2 config, 3 broker."#;

/// What publishing needs of the config, and the body limit.
fn settings(arguments: &Arguments) -> Result<(PublisherSettings, usize), Exit> {
    let Config { instance, broker, updates, .. } = arguments.config.load_for(Purpose::Publish)?.config;
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

/// Runs it.
pub fn main(arguments: &Arguments) -> Exit {
    let (settings, body_bytes_max) = match settings(arguments) {
        Ok(settings) => settings,
        Err(exit) => return exit,
    };
    let input = match Input::open(arguments.file.as_deref(), body_bytes_max, arguments.strict) {
        Ok(input) => input,
        Err(error) => {
            let file = arguments.file.as_deref().unwrap_or("-".as_ref());
            eprintln!("lanekeeper publish: cannot read {}: {error}", file.display());
            return Exit::Other;
        }
    };
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    let runtime = runtime.expect("the async runtime starts");
    let exit = runtime.block_on(publish(settings, input));
    // Nothing is left to wait for, and a thread that reads the terminal would keep us.
    runtime.shutdown_background();
    exit
}

async fn publish(settings: PublisherSettings, input: Input) -> Exit {
    let exchange = settings.exchange.as_str().to_owned();
    let publisher = match Publisher::connect(settings).await {
        Ok(publisher) => publisher,
        Err(error) => {
            eprintln!("lanekeeper publish: {}", error_chain(&error));
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

async fn interrupted() {
    let mut terminate = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate())
        .expect("a handler for SIGTERM can be set");
    tokio::select! {
        _ = tokio::signal::ctrl_c() => {}
        _ = terminate.recv() => {}
    }
}

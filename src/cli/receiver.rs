//! `lanekeeper receiver`.

use std::fmt;
use std::io::{self, Write};
use std::net::SocketAddr;
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::runtime;
use tokio::signal::unix::{SignalKind, signal};

use super::Exit;
use crate::receiver::{FailingRecord, Fault, Receiver, ReceiverSettings};

const AFTER_HELP: &str = "\
The last segment of a request's path names the record; any method but GET and HEAD writes it.
Order is judged by the integer member \"sequence\" (1, 2, 3, … per record) of a JSON body.

  curl -X PUT -d '{\"sequence\":1}' http://127.0.0.1:8099/customers/42   write a record
  curl http://127.0.0.1:8099/customers/42                              its value
  curl 'http://127.0.0.1:8099/report?records=10'                       what was seen, with 10 records
  curl -X DELETE http://127.0.0.1:8099/report                          forget it

The report counts updates (different ones applied), duplicates (applied again), reorders (applied after a later one),
gaps (missing below the highest), overlaps (two requests of one record at once) and outdated (records whose value is
not the latest).";

/// Options of `lanekeeper receiver`.
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = AFTER_HELP)]
pub struct Arguments {
    /// Where to listen; port 0 takes a free one.
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:8099")]
    listen: SocketAddr,
    /// Time that every request takes, such as 5ms.
    #[arg(long, value_name = "DURATION", default_value = "0ms", value_parser = humantime::parse_duration)]
    latency: Duration,
    /// Share by which the latency varies up and down, 0 to 1.
    #[arg(long, value_name = "SHARE", default_value_t = 0.0, value_parser = parse_share, allow_negative_numbers = true)]
    latency_jitter: f64,
    /// Share of requests that fail, 0 to 1.
    #[arg(long, value_name = "SHARE", default_value_t = 0.0, value_parser = parse_share, allow_negative_numbers = true)]
    fail_share: f64,
    /// How they fail: a status, hang, applied-then-STATUS or applied-then-hang; several with commas.
    #[arg(long, value_name = "FAULTS", default_value = "500", value_delimiter = ',')]
    fail_with: Vec<Fault>,
    /// Let only first attempts (lanekeeper-attempt: 1, or no such header) fail.
    #[arg(long)]
    first_attempts_only: bool,
    /// Send Retry-After with 429 and 503; whole seconds.
    #[arg(long, value_name = "DURATION", value_parser = humantime::parse_duration)]
    retry_after: Option<Duration>,
    /// How long "hang" takes.
    #[arg(long, value_name = "DURATION", default_value = "30s", value_parser = humantime::parse_duration)]
    hang_for: Duration,
    /// Let every request of one record fail, for a time from its first request on or for ever. Repeatable.
    #[arg(long, value_name = "KEY=FAULT[:DURATION]")]
    fail_record: Vec<FailingRecord>,
    /// Answer an Idempotency-Key that was applied before without applying it again.
    #[arg(long)]
    honour_idempotency_key: bool,
    /// Equal seeds make the same attempts fail.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Threads that serve requests.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=256))]
    threads: u16,
}

impl Arguments {
    fn settings(&self) -> ReceiverSettings {
        ReceiverSettings {
            latency: self.latency,
            latency_jitter: self.latency_jitter,
            fail_share: self.fail_share,
            fail_with: self.fail_with.clone(),
            first_attempts_only: self.first_attempts_only,
            retry_after: self.retry_after,
            hang_for: self.hang_for,
            fail_records: self.fail_record.clone(),
            honour_idempotency_key: self.honour_idempotency_key,
            seed: self.seed,
        }
    }
}

fn parse_share(text: &str) -> Result<f64, String> {
    match text.parse() {
        Ok(share) if (0.0..=1.0).contains(&share) => Ok(share),
        _ => Err("write a number from 0 to 1, such as 0.3".to_owned()),
    }
}

/// Runs it.
pub fn main(arguments: &Arguments) -> Exit {
    let mut builder = match arguments.threads {
        1 => runtime::Builder::new_current_thread(),
        threads => {
            let mut builder = runtime::Builder::new_multi_thread();
            builder.worker_threads(threads.into());
            builder
        }
    };
    let served = builder.enable_all().build().and_then(|runtime| runtime.block_on(serve(arguments)));
    match served {
        Ok(()) => Exit::Done,
        Err(fault) => {
            eprintln!("lanekeeper: cannot serve on {}: {fault}", arguments.listen);
            Exit::Other
        }
    }
}

async fn serve(arguments: &Arguments) -> io::Result<()> {
    let stopped = stop_signal()?;
    let listener = TcpListener::bind(arguments.listen).await?;
    say(format_args!("listening on http://{}", listener.local_addr()?));
    let receiver = Receiver::new(arguments.settings());
    receiver.run(listener, stopped).await?;
    let report = receiver.report(0);
    say(format_args!("{} records: {}", report.records, report.counts));
    Ok(())
}

/// A line on standard output. That nobody reads it any more (`| head -1`) is no reason to stop.
fn say(line: fmt::Arguments<'_>) {
    let _ = writeln!(io::stdout(), "{line}");
}

/// Ends with Ctrl-C or SIGTERM, which are caught from now on.
fn stop_signal() -> io::Result<impl Future<Output = ()> + Send + 'static> {
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    Ok(async move {
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
    })
}

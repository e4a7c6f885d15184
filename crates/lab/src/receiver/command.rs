//! `lanekeeper-lab receiver`.

use std::fmt;
use std::io::{self, Write};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::runtime;

use super::{
    AnswerEnd, EXTRA_FIELDS_MAX, FailingRecord, Fault, OpenStoreError, Outage, PlannedOutage, RateLimit,
    RateLimitFields, Receiver, ReceiverSettings, RefusalBody, Safeguard, Safeguards, SilentAddress,
    StoreAddress, TlsFiles,
};
use crate::command::{self, Exit, StopSignals};

const AFTER_HELP: &str = "\
The last segment of a request's path names the record; any method but GET and HEAD writes it. A JSON body with an
integer member \"add\" adds this number to the record's \"total\"; any other body becomes the record's value.
Order is judged by the integer member \"sequence\" (1, 2, 3, … per record) of a JSON body.

Each update is applied in one transaction, and the record is locked from reading to writing. Checked, in this order:
lanekeeper-tenure (403 if a newer owner has written), Idempotency-Key (the first answer again; 422 if the body differs;
409 while the first request is in progress), record-version (--superseded), If-Match and If-None-Match (412, 428).
docs/receiving.md says why, with the SQL.

  curl -X PUT -d '{\"sequence\":1}' http://127.0.0.1:8099/customers/42   write a record
  curl http://127.0.0.1:8099/customers/42                              its value
  curl 'http://127.0.0.1:8099/report?records=10'                       what was seen, with 10 records
  curl -X DELETE http://127.0.0.1:8099/report                          delete it, and all records

The report counts updates (different updates that were applied), duplicates (applied again), reorders (applied after a
later one), gaps (missing below the highest sequence), overlaps (two requests of one record at the same time) and
outdated (records whose value is not the latest). With --rate-limit it counts accepted and refused requests, second by
second.";

/// Options of `lanekeeper-lab receiver`.
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = AFTER_HELP)]
pub struct Arguments {
    /// Where to listen; port 0 means any free port.
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:8099")]
    listen: SocketAddr,
    /// Time that every request takes, such as 5ms.
    #[arg(long, value_name = "DURATION", default_value = "0ms", value_parser = humantime::parse_duration)]
    latency: Duration,
    /// Share by which the latency varies, up and down: 0 to 1.
    #[arg(long, value_name = "SHARE", default_value_t = 0.0, value_parser = parse_share, allow_negative_numbers = true)]
    latency_jitter: f64,
    /// Share of requests that fail, 0 to 1.
    #[arg(long, value_name = "SHARE", default_value_t = 0.0, value_parser = parse_share, allow_negative_numbers = true)]
    fail_share: f64,
    /// How they fail: a status, a status after gateway- (plain text, as from a gateway) or page- (HTML, as from a firewall or a maintenance page), hang or cut; with applied-then- before it the update is applied. Several with commas.
    #[arg(long, value_name = "FAULTS", default_value = "500", value_delimiter = ',')]
    fail_with: Vec<Fault>,
    /// Fail only first attempts (lanekeeper-attempt: 1, or no such header).
    #[arg(long)]
    first_attempts_only: bool,
    /// Send Retry-After with 429 and 503, in whole seconds.
    #[arg(long, value_name = "DURATION", value_parser = humantime::parse_duration)]
    retry_after: Option<Duration>,
    /// How long "hang" takes, and a connection that hangs stays open.
    #[arg(long, value_name = "DURATION", default_value = "30s", value_parser = humantime::parse_duration)]
    hang_for: Duration,
    /// Fail every request of one record: for a time from its first request on, else always. With :retry-after-DURATION behind it, 429 and 503 say so. Repeatable.
    #[arg(long, value_name = "KEY=FAULT[:DURATION]")]
    fail_record: Vec<FailingRecord>,
    /// Answer 429 to requests beyond this rate, of all records together, such as 50/s or 1000/1m.
    #[arg(long, value_name = "RATE")]
    rate_limit: Option<RateLimit>,
    /// Requests that the rate limit accepts at once after a pause; without it those of one second.
    #[arg(long, value_name = "N", requires = "rate_limit", value_parser = clap::value_parser!(u32).range(1..))]
    rate_limit_burst: Option<u32>,
    /// What answers say about the rate limit.
    #[arg(long, value_name = "FORM", value_enum, default_value = "none", requires = "rate_limit")]
    rate_limit_headers: RateLimitFields,
    /// The body of a refusal: a problem document, or plain text as from a gateway.
    #[arg(long, value_name = "BODY", value_enum, default_value = "problem", requires = "rate_limit")]
    rate_limit_body: RefusalBody,
    /// Let all requests fail, as behind a gateway whose backend is away: see --fail-with. They do not reach the rate limit.
    #[arg(long, value_name = "FAULT")]
    outage: Option<Fault>,
    /// When the outage begins, from the receiver's start on.
    #[arg(
        long,
        value_name = "DURATION",
        default_value = "0s",
        value_parser = humantime::parse_duration,
        requires = "outage"
    )]
    outage_after: Duration,
    /// How long the outage is; without it for good.
    #[arg(long, value_name = "DURATION", value_parser = humantime::parse_duration, requires = "outage")]
    outage_for: Option<Duration>,
    /// Share of the records that the outage is of, 0 to 1.
    #[arg(
        long,
        value_name = "SHARE",
        default_value_t = 1.0,
        value_parser = parse_share,
        allow_negative_numbers = true,
        requires = "outage"
    )]
    outage_share: f64,
    /// Serve https with this certificate (PEM), over HTTP/2 and HTTP/1.1. The port serves plain HTTP too.
    #[arg(long, value_name = "FILE", requires = "tls_key")]
    tls_certificate: Option<PathBuf>,
    /// The certificate's private key (PEM).
    #[arg(long, value_name = "FILE", requires = "tls_certificate")]
    tls_key: Option<PathBuf>,
    /// From the request after so many on, all connections that exist then say nothing any more, and are closed after --hang-for. New ones work.
    #[arg(long, value_name = "REQUESTS", value_parser = clap::value_parser!(u64).range(1..))]
    hang_connections_after: Option<u64>,
    /// A second address that swallows packets, as behind a firewall that drops them. Port 0 means that of --listen, for a name that leads to both.
    #[arg(long, value_name = "ADDRESS")]
    silent: Option<SocketAddr>,
    /// How the end of an answer shows: by its length, or by the end of the connection, over TLS with or without a farewell (`close_notify`). Other ways than length offer no HTTP/2.
    #[arg(
        long,
        value_name = "WAY",
        value_enum,
        default_value = "length",
        requires_if("close-without-notify", "tls_certificate")
    )]
    answer_end: AnswerEnd,
    /// Header fields that each answer has besides its own, 0 to 10000.
    #[arg(long, value_name = "N", default_value_t = 0, value_parser = clap::value_parser!(u16).range(0..=i64::from(EXTRA_FIELDS_MAX)))]
    extra_fields: u16,
    /// Give each answer a header field whose value goes on in the next line, over HTTP/1.
    #[arg(long)]
    folded_field: bool,
    /// Where to keep the records: `memory`, `sqlite://FILE` or `postgres://USER:PASSWORD@HOST:PORT/DATABASE`.
    #[arg(
        long,
        value_name = "STORE",
        default_value = "memory",
        env = "LANEKEEPER_RECEIVER_STORE",
        hide_env_values = true
    )]
    store: StoreAddress,
    /// Time between reading a record and writing it, as an application needs it.
    #[arg(long, value_name = "DURATION", default_value = "0ms", value_parser = humantime::parse_duration)]
    think: Duration,
    /// Go on with a request whose sender has gone away, as most applications do, for so long from its beginning. Without
    /// this it ends with its connection.
    #[arg(long, value_name = "DURATION", value_parser = humantime::parse_duration)]
    finish_abandoned: Option<Duration>,
    /// Leave out these safeguards, to see the race: idempotency, versions, row-locks, fencing; several with commas.
    #[arg(long, value_name = "SAFEGUARDS", value_delimiter = ',')]
    without: Vec<Safeguard>,
    /// Answer 428 to a write without If-Match and If-None-Match.
    #[arg(long)]
    require_if_match: bool,
    /// Status that answers a record-version at or below the record's.
    #[arg(long, value_name = "STATUS", default_value_t = 200, value_parser = clap::value_parser!(u16).range(200..=599))]
    superseded: u16,
    /// With equal seeds the same attempts fail.
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
            rate_limit: self.rate_limit.map(|limit| RateLimit {
                capacity: self.rate_limit_burst,
                fields: self.rate_limit_headers,
                refusal: self.rate_limit_body,
                ..limit
            }),
            outage: self.outage.map(|fault| PlannedOutage {
                outage: Outage { share: self.outage_share, ..Outage::of_all(fault) },
                after: self.outage_after,
                lasts: self.outage_for,
            }),
            hang_connections_after: self.hang_connections_after,
            tls: self
                .tls_certificate
                .clone()
                .zip(self.tls_key.clone())
                .map(|(certificate, key)| TlsFiles { certificate, key }),
            answer_end: self.answer_end,
            extra_fields: self.extra_fields,
            folded_field: self.folded_field,
            think: self.think,
            finish_abandoned: self.finish_abandoned,
            safeguards: self
                .without
                .iter()
                .fold(Safeguards::ALL, |safeguards, safeguard| safeguards.without(*safeguard)),
            require_if_match: self.require_if_match,
            superseded_status: self.superseded,
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
    let served = builder.enable_all().build().expect("the runtime starts").block_on(serve(arguments));
    match served {
        Ok(()) => Exit::Done,
        Err(error) => {
            command::print_error(&error);
            Exit::Other
        }
    }
}

/// Why the receiver does not serve.
#[derive(Debug, thiserror::Error)]
enum ServeError {
    #[error("cannot serve on {listen}")]
    Listener {
        listen: SocketAddr,
        #[source]
        source: io::Error,
    },
    #[error(transparent)]
    Store(#[from] OpenStoreError),
    #[error("cannot be silent at {address}")]
    Silent {
        address: SocketAddr,
        #[source]
        source: io::Error,
    },
}

async fn serve(arguments: &Arguments) -> Result<(), ServeError> {
    let listener_error = |source| ServeError::Listener { listen: arguments.listen, source };
    let receiver = Receiver::open(arguments.settings(), &arguments.store).await?;
    let mut signals = StopSignals::new().map_err(listener_error)?;
    let listener = TcpListener::bind(arguments.listen).await.map_err(listener_error)?;
    let address = listener.local_addr().map_err(listener_error)?;
    let scheme = if arguments.tls_certificate.is_some() { "https" } else { "http" };
    // Kept until the end: dropped, it would refuse connections.
    let silent = match arguments.silent {
        Some(silent) => Some(silent_at(silent, address.port()).await?),
        None => None,
    };
    print_line(format_args!("listening on {scheme}://{address}"));
    if let Some(silent) = &silent {
        print_line(format_args!("silent at {}", silent.address));
    }
    let stopped = async move {
        signals.next().await;
    };
    receiver.run(listener, stopped).await.map_err(listener_error)?;
    let report = receiver.report(0);
    print_line(format_args!("{} records: {}", report.records, report.counts));
    if let Some(limit) = report.rate_limit {
        print_line(format_args!("{limit}"));
    }
    Ok(())
}

/// At this address; port 0 means `port`.
async fn silent_at(mut address: SocketAddr, port: u16) -> Result<SilentAddress, ServeError> {
    if address.port() == 0 {
        address.set_port(port);
    }
    SilentAddress::at(address).await.map_err(|source| ServeError::Silent { address, source })
}

/// Prints a line. An error means that nobody reads it any more (`| head -1`), which is no reason to stop.
fn print_line(line: fmt::Arguments<'_>) {
    let _ = writeln!(io::stdout(), "{line}");
}

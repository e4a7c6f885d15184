//! Where the log goes is not Lanekeeper's affair: a pipe that nobody reads, a pipe whose reader is gone, a full disk, a
//! closed descriptor. Dispatch goes on, and the process ends as it would otherwise.

use std::fmt::Write as _;
use std::fs::{File, OpenOptions};
use std::io::{PipeReader, Read as _, pipe};
use std::net::TcpListener;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD_NO_PAD as BASE64;
use lanekeeper_lab::receiver::ReceiverSettings;
use lanekeeper_lab::testbed::{metric_values, program};
use lapin::BasicProperties;
use lapin::options::BasicPublishOptions;

use crate::harness::{
    Authority, Dispatcher, HttpsTarget, Postgres, World, assert_flawless, http, lanekeeper_command, until,
    updates,
};

/// Longer than any wait of the process, shorter than a stop that waits for a reader.
const END_MAX: Duration = Duration::from_secs(20);

/// Updates of each record after which a queue of some MiB is full: at `trace` each logs several KiB.
const SEQUENCES_MAX: usize = 300;

/// Where standard error goes.
#[derive(Clone, Copy, Debug)]
enum LogTo {
    /// A pipe that nobody reads, and that stays open.
    UnreadPipe,
    /// A pipe whose reader has gone.
    BrokenPipe,
    FullDisk,
    /// The process begins without the descriptor.
    Nowhere,
}

/// `lanekeeper` with a log that cannot be looked into; killed when the test ends.
struct Logging {
    process: Option<std::process::Child>,
    admin: String,
    /// The end that nobody reads.
    pipe: Option<PipeReader>,
}

impl Logging {
    fn start(world: &World, to: LogTo, extra: &str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port is free");
        let admin = listener.local_addr().expect("it has one").to_string();
        drop(listener);
        let config = world.config(extra).replace("127.0.0.1:0", &admin);
        let path = world.write_config(&config);
        let mut command = program::command(Path::new("sh"));
        let redirect = if matches!(to, LogTo::Nowhere) { "2>&-" } else { "" };
        command.arg("-c").arg(format!("exec \"$0\" \"$@\" {redirect}"));
        command.arg(lanekeeper_command().get_program()).args(["run", "--config"]).arg(path);
        let (process, pipe) = spawn(command, to);
        Self { process: Some(process), admin, pipe }
    }

    async fn metric(&self, name: &str) -> Result<f64, String> {
        let url = format!("http://{}/metrics", self.admin);
        let answer = http().get(url).send().await.map_err(|error| error.to_string())?;
        let text = answer.text().await.map_err(|error| error.to_string())?;
        Ok(metric_values(&text, name).sum())
    }

    fn signal(&self, name: &str) {
        let id = self.process.as_ref().expect("it runs").id().to_string();
        let sent = Command::new("kill").args([&format!("-{name}"), &id]).status().expect("kill starts");
        assert!(sent.success());
    }

    /// Waits until it ends by itself; its exit code, and what is in the pipe.
    async fn ended(&mut self) -> (Option<i32>, String) {
        let begun = Instant::now();
        let process = self.process.as_mut().expect("it runs");
        let code = until("the end of the process", || {
            let status = process.try_wait().expect("it can be asked");
            async move { status.map(|status| status.code()).ok_or_else(|| "it runs".to_owned()) }
        })
        .await;
        assert!(begun.elapsed() < END_MAX, "it took {:?}", begun.elapsed());
        let mut text = String::new();
        if let Some(mut pipe) = self.pipe.take() {
            pipe.read_to_string(&mut text).expect("it is text");
        }
        (code, text)
    }
}

impl Drop for Logging {
    fn drop(&mut self) {
        if let Some(process) = &mut self.process {
            let _ = process.kill();
            let _ = process.wait();
        }
    }
}

fn spawn(mut command: Command, to: LogTo) -> (std::process::Child, Option<PipeReader>) {
    let mut kept = None;
    match to {
        LogTo::UnreadPipe | LogTo::BrokenPipe => {
            let (reader, writer) = pipe().expect("the system gives a pipe");
            kept = matches!(to, LogTo::UnreadPipe).then_some(reader);
            command.stderr(writer);
        }
        LogTo::FullDisk => drop(command.stderr(full_disk())),
        LogTo::Nowhere => drop(command.stderr(Stdio::null())),
    }
    (command.stdin(Stdio::null()).stdout(Stdio::null()).spawn().expect("it starts"), kept)
}

fn full_disk() -> File {
    OpenOptions::new().write(true).open("/dev/full").expect("Linux has it")
}

async fn dispatches_with(to: LogTo, exchange: &str) {
    let world = World::new(exchange).await;
    let ledger = world.ledger();
    // Enough lines to fill a pipe (64 KiB) and the queue behind it.
    let extra = format!("{ledger}updates.partitions = 2\nlog.filter = \"trace\"");
    let mut dispatcher = Logging::start(&world, to, &extra);
    until("a ready dispatcher", || async {
        let answer = http().get(format!("http://{}/readyz", dispatcher.admin)).send().await;
        answer.and_then(reqwest::Response::error_for_status).map(drop).map_err(|error| error.to_string())
    })
    .await;
    // Until the queue is full, too.
    let (mut sequence, mut dropped) = (0, 0.0);
    while sequence < SEQUENCES_MAX && (sequence == 0 || dropped == 0.0) {
        world.publish(updates(100, sequence + 30).skip(100 * sequence)).await;
        sequence += 30;
        let all = u64::try_from(100 * sequence).expect("it is small");
        assert_flawless(&world.applied(all).await, all);
        dropped = dispatcher.metric("lanekeeper_log_lines_dropped_total").await.expect("it serves metrics");
        if matches!(to, LogTo::Nowhere) {
            break;
        }
    }
    assert_eq!(
        dropped > 0.0,
        !matches!(to, LogTo::Nowhere),
        "{to:?}: after {sequence} updates of each record"
    );
    dispatcher.signal("HUP");
    world.publish(updates(100, sequence + 1).skip(100 * sequence)).await;
    let all = u64::try_from(100 * (sequence + 1)).expect("it is small");
    assert_flawless(&world.applied(all).await, all);
    dispatcher.signal("TERM");
    assert_eq!(dispatcher.ended().await.0, Some(0), "{to:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_that_nobody_reads_stops_neither_dispatch_nor_the_end() {
    dispatches_with(LogTo::UnreadPipe, "log-unread").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_whose_reader_is_gone_ends_nothing() {
    dispatches_with(LogTo::BrokenPipe, "log-broken").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_on_a_full_disk_ends_nothing() {
    dispatches_with(LogTo::FullDisk, "log-full").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_process_without_standard_error_dispatches() {
    dispatches_with(LogTo::Nowhere, "log-nowhere").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_error_that_nobody_can_read_still_is_the_exit_code() {
    let world = World::new("log-error").await;
    let gone = world.dir.path().join("gone").join("ledger.db");
    let extra = format!("ledger.url = \"sqlite://{}\"", gone.display());
    for to in [LogTo::BrokenPipe, LogTo::FullDisk, LogTo::Nowhere, LogTo::UnreadPipe] {
        let mut dispatcher = Logging::start(&world, to, &extra);
        let (code, text) = dispatcher.ended().await;
        assert_eq!(code, Some(4), "{to:?}: {text}");
        if matches!(to, LogTo::UnreadPipe) {
            assert!(text.contains("error: ledger: "), "what is written before the end is there: {text}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn sighup_is_logged_and_disturbs_nothing() {
    let world = World::new("hangup").await;
    let mut dispatcher = Logging::start(&world, LogTo::UnreadPipe, "updates.partitions = 2");
    until("a ready dispatcher", || async {
        let answer = http().get(format!("http://{}/readyz", dispatcher.admin)).send().await;
        answer.and_then(reqwest::Response::error_for_status).map(drop).map_err(|error| error.to_string())
    })
    .await;
    dispatcher.signal("HUP");
    world.publish(updates(10, 5)).await;
    assert_flawless(&world.applied(50).await, 50);
    dispatcher.signal("TERM");
    let (code, text) = dispatcher.ended().await;
    assert_eq!(code, Some(0), "{text}");
    assert!(text.contains("the config was read again, and says the same as before"), "{text}");
    assert!(text.trim_end().ends_with("stopped"), "the last line is written: {text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_signal_ends_a_process_that_halts() {
    let settings = ReceiverSettings {
        fail_records: vec!["record-0=hang:50s".parse().expect("a failing record")],
        hang_for: Duration::from_secs(50),
        ..ReceiverSettings::default()
    };
    let world = World::with("log-halt", settings).await;
    let config = world.config("updates.partitions = 1\ndispatch.drain_timeout = \"50s\"");
    let mut dispatcher = world.start(&config.replace("timeout = \"1s\"", "timeout = \"50s\""));
    dispatcher.ready().await;
    world.publish(updates(1, 1)).await;
    until("a request in progress", || async {
        match world.receiver.report(0).in_progress {
            1 => Ok(()),
            other => Err(other.to_string()),
        }
    })
    .await;
    let channel = world.channel().await;
    let (stream, body) = (format!("{}.topology", world.exchange), br#"{"version": 999}"#);
    let options = BasicPublishOptions::default();
    let properties = BasicProperties::default().with_delivery_mode(2);
    channel.basic_publish("".into(), stream.as_str().into(), options, body, properties).await.unwrap();
    dispatcher.logged("dispatching stops").await;
    let begun = Instant::now();
    dispatcher.terminate();
    dispatcher.logged("asked to stop").await;
    dispatcher.terminate();
    assert_eq!(dispatcher.ended().await, Some(1));
    assert!(begun.elapsed() < END_MAX, "it took {:?}", begun.elapsed());
}

/// Every command whose output somebody may stop reading, on a broker and a ledger that have something to show.
#[tokio::test(flavor = "multi_thread")]
async fn commands_end_plainly_if_nobody_reads_them() {
    let settings = ReceiverSettings {
        fail_records: vec!["record-0=422:1ms".parse().expect("a failing record")],
        ..ReceiverSettings::default()
    };
    let world = World::with("log-pipes", settings).await;
    let ledger = world.ledger();
    let mut dispatcher = world.dispatcher(&format!("{ledger}updates.partitions = 2")).await;
    world.publish(updates(1, 50)).await;
    until("parked updates", || async {
        let parked = dispatcher.metric("lanekeeper_updates_parked_total").await;
        if parked >= 50.0 { Ok(()) } else { Err(parked.to_string()) }
    })
    .await;
    dispatcher.terminate();
    assert_eq!(dispatcher.ended().await, Some(0));
    let config = world.dir.path().join("lanekeeper.toml");
    let lines = world.dir.path().join("updates.jsonl");
    std::fs::write(&lines, updates(1, 1).map(|line| line.to_string() + "\n").collect::<String>()).unwrap();
    let lines = lines.to_str().unwrap();
    for (arguments, expected) in [
        (&["check"][..], 0),
        (&["publish", lines], 0),
        (&["parked", "list"], 0),
        (&["parked", "show", "record-0"], 0),
        (&["parked", "show", "record-0", "--json"], 0),
        (&["parked", "export"], 0),
        (&["parked", "show", "nobody"], 1),
        (&["parked", "release", "record-0"], 0),
        (&["topology", "show"], 0),
        (&["topology", "plan"], 0),
        (&["topology", "export"], 0),
        (&["topology", "apply"], 0),
        (&["--help"], 0),
        (&["nonsense"], 2),
    ] {
        let mut command = program::command(Path::new(lanekeeper_command().get_program()));
        command.args(arguments).env("LANEKEEPER_CONFIG", &config);
        command.env("LANEKEEPER_MANAGEMENT_URL", world.broker.management_url());
        let (reader, writer) = pipe().expect("the system gives a pipe");
        drop(reader);
        command.stdout(writer.try_clone().unwrap()).stderr(writer).stdin(Stdio::null());
        let status = tokio::task::spawn_blocking(move || command.status()).await.unwrap().expect("it starts");
        assert_eq!(status.code(), Some(expected), "{arguments:?}: {status}");
    }
}

/// What no line may contain: each has this in it.
const SECRET: &str = "hunter2";

#[tokio::test(flavor = "multi_thread")]
async fn no_secret_is_in_the_log_at_any_filter() {
    let world = World::new("log-secrets").await;
    let (broker, postgres) = (std::sync::Arc::clone(&world.broker), Postgres::start());
    let node = std::sync::Arc::clone(&broker);
    tokio::task::spawn_blocking(move || {
        node.ctl(&["add_user", "discreet", "hunter2-broker"]);
        node.ctl(&["set_user_tags", "discreet", "administrator"]);
        node.ctl(&["set_permissions", "discreet", ".*", ".*", ".*"]);
    })
    .await
    .expect("it does not panic");
    let authority = Authority::new("ours");
    let issued = authority.issue("localhost");
    let (https, http2) =
        (HttpsTarget::start(b"http/1.1", &issued).await, HttpsTarget::start(b"h2", &issued).await);
    let with_password = |url: &str, user: &str, password: &str| {
        let (scheme, rest) = url.split_once("://").expect("it is a URL");
        let (_, host) = rest.rsplit_once('@').unwrap_or(("", rest));
        format!("{scheme}://{user}:{password}@{host}")
    };
    let (before, _) = postgres.url().split_once('@').expect("it has a user");
    let (_, of_postgres) = before.rsplit_once(':').expect("it has a password");
    let extra = format!(
        "updates.partitions = 2\nupdates.auto_apply = true\nledger.url = \"{}\"\nbroker.management_url = \"{}\"\n\
         log.filter = \"trace,lapin=trace,lapin::io_loop=trace,[io_loop]=trace,lapin::returned_messages=trace\"\n",
        postgres.url(),
        with_password(world.broker.management_url(), "discreet", "hunter2-broker"),
    );
    let mut config = world.config(&extra).replace("guest:guest@", "discreet:hunter2-broker@");
    config = config.replace("types = [\"*\"]", "types = [\"other\"]");
    let refused = "http://127.0.0.1:9";
    for (name, url, pattern) in [
        ("plain", world.target.as_str(), "plain.*"),
        ("https", &format!("https://localhost:{}", https.port), "https.*"),
        ("http2", &format!("https://localhost:{}", http2.port), "http2.*"),
        ("refused", refused, "refused.*"),
    ] {
        let _ = write!(
            config,
            "[[target]]\nname = \"{name}\"\ntypes = [\"{pattern}\"]\ntimeout = \"1s\"\n\
             url = \"{url}/records/hunter2-path/{{record_key}}?token=hunter2-query\"\n\
             headers = {{ authorization = \"Bearer hunter2-header\", x-key = \"${{SECRET}}\" }}\n"
        );
    }
    let path = world.write_config(&config);
    let mut command = program::run_command(Path::new(lanekeeper_command().get_program()), &path);
    command.env("SSL_CERT_FILE", authority.file()).env("SECRET", "hunter2-variable");
    let mut dispatcher = Dispatcher::start_command(command);
    dispatcher.ready().await;
    let of = |kind: &str, id: &str| serde_json::json!({"key": id, "id": id, "type": format!("{kind}.updated"), "body": {"sequence": 1, "note": "hunter2-body"}});
    world
        .publish([
            of("plain", "1"),
            of("https", "2"),
            of("http2", "5"),
            of("refused", "3"),
            of("nobody", "4"),
        ])
        .await;
    dispatcher.logged("hyper").await;
    for target in ["plain", "https", "http2", "refused"] {
        until("an attempt", || async {
            let text = dispatcher.metrics().await;
            let of_target = format!("lanekeeper_attempts_total{{target=\"{target}\"");
            if text.contains(&of_target) { Ok(()) } else { Err(text) }
        })
        .await;
    }
    dispatcher.terminate();
    assert_eq!(dispatcher.ended().await, Some(0));
    let log = dispatcher.log();
    for library in ["lapin", "sqlx", "hyper", "h2", "rustls", "lanekeeper"] {
        assert!(log.iter().any(|line| line.contains(library)), "lines of {library} are in the log");
    }
    let telling: Vec<&String> =
        log.iter().filter(|line| tells(line, SECRET) || tells(line, of_postgres)).collect();
    assert_eq!(telling, [&""; 0]);
}

/// Plain, in hexadecimal, as a list of bytes, or in base64 (HTTP's Basic) at each of three alignments.
fn tells(line: &str, secret: &str) -> bool {
    let list: Vec<String> = secret.bytes().map(|byte| byte.to_string()).collect();
    let mut hex = String::new();
    for byte in secret.bytes() {
        let _ = write!(hex, "{byte:02x}");
    }
    let base64 = |skipped: usize| {
        let encoded = BASE64.encode([&vec![b' '; skipped][..], secret.as_bytes()].concat());
        // The characters that depend on the secret alone.
        let (from, to) = ([0, 2, 3][skipped], (skipped + secret.len()) * 8 / 6);
        encoded[from..to].to_owned()
    };
    line.contains(secret)
        || line.to_ascii_lowercase().contains(&hex)
        || line.contains(&list.join(", "))
        || (0..3).any(|skipped| line.contains(&base64(skipped)))
}

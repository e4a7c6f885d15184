//! `lanekeeper publish` against a real broker, judged by what is in the queue.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::{Read, Write};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::{Arc, Condvar, Mutex};
use std::thread::JoinHandle;
use std::time::Instant;

use lapin::ExchangeKind;
use lapin::types::AMQPValue;

use crate::harness::Broker;
use crate::queues::{Arrived, DEADLINE, Exchange, assert_complete, sequences};

/// A process whose standard error is read all the time.
pub struct Running {
    child: Child,
    stderr: Arc<(Mutex<String>, Condvar)>,
    reader: Option<JoinHandle<()>>,
}

impl Running {
    /// `child` has standard error piped.
    pub fn new(mut child: Child) -> Self {
        let stderr = Arc::new((Mutex::new(String::new()), Condvar::new()));
        let (mut pipe, shared) = (child.stderr.take().unwrap(), Arc::clone(&stderr));
        let reader = std::thread::spawn(move || {
            let mut bytes = [0; 4096];
            while let Ok(count @ 1..) = pipe.read(&mut bytes) {
                shared.0.lock().unwrap().push_str(&String::from_utf8_lossy(&bytes[..count]));
                shared.1.notify_all();
            }
        });
        Self { child, stderr, reader: Some(reader) }
    }

    /// Waits until standard error holds `text`.
    pub fn wait_for_stderr(&self, text: &str) {
        let waiting = |seen: &mut String| !seen.contains(text);
        let seen = self.stderr.0.lock().unwrap();
        let (seen, waited) = self.stderr.1.wait_timeout_while(seen, DEADLINE, waiting).unwrap();
        assert!(!waited.timed_out(), "{text:?} is not in standard error:\n{seen}");
    }

    /// What standard error holds so far.
    pub fn stderr(&self) -> String {
        self.stderr.0.lock().unwrap().clone()
    }

    /// Waits for the end of the process and of what it has written to standard error.
    pub fn wait(&mut self) -> ExitStatus {
        let ended = Instant::now() + DEADLINE;
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                if let Some(reader) = self.reader.take() {
                    reader.join().unwrap();
                }
                return status;
            }
            assert!(Instant::now() < ended, "it does not end; standard error:\n{}", self.stderr());
            std::thread::park_timeout(std::time::Duration::from_millis(5));
        }
    }

    fn stdout(&mut self) -> String {
        let mut text = String::new();
        self.child.stdout.take().unwrap().read_to_string(&mut text).unwrap();
        text
    }

    fn interrupt(&self) {
        let sent = Command::new("kill").args(["-INT", &self.child.id().to_string()]).status().unwrap();
        assert!(sent.success());
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// `updates` updates of each of `records` records, in turn.
fn lines(records: usize, updates: u64) -> String {
    let mut text = String::new();
    for sequence in 0..updates {
        for record in 0..records {
            let version = sequence + 1;
            let _ = writeln!(
                text,
                r#"{{"key":"record-{record}","type":"customer.updated","version":{version},"body":{{"sequence":{sequence}}}}}"#
            );
        }
    }
    text
}

fn command(url: &str, exchange: &str, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_lanekeeper"));
    command
        .arg("publish")
        .args(arguments)
        .env_remove("LANEKEEPER_CONFIG")
        .env("LANEKEEPER_BROKER__URL", url)
        .env("LANEKEEPER_UPDATES__EXCHANGE", exchange)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    command
}

/// Starts it; the input is written by a thread, and closed after that.
fn start(url: &str, exchange: &Exchange, arguments: &[&str], input: String) -> Running {
    let mut child = command(url, &exchange.name, arguments).spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    std::thread::spawn(move || {
        let _ = stdin.write_all(input.as_bytes());
    });
    Running::new(child)
}

fn run(url: &str, exchange: &Exchange, arguments: &[&str], input: String) -> Output {
    let mut running = start(url, exchange, arguments, input);
    let status = running.wait();
    let stdout = running.stdout().into_bytes();
    Output { status, stdout, stderr: running.stderr().into_bytes() }
}

fn check(output: &Output, code: i32, stdout: &str, stderr: &[&str]) {
    let printed = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(code), "{printed}");
    assert_eq!(String::from_utf8_lossy(&output.stdout), format!("{stdout}\n"), "{printed}");
    for text in stderr {
        assert!(printed.contains(text), "{text:?} is not in standard error:\n{printed}");
    }
}

#[test]
fn many_records_arrive_in_order() {
    let broker = Broker::shared();
    let url = broker.url();
    let exchange = Exchange::with_queue(url);
    let output = run(url, &exchange, &["--window", "50"], lines(200, 50));
    check(&output, 0, "published 10000 confirmed 10000 bad lines 0 not confirmed 0", &[]);
    assert!(output.stderr.is_empty(), "nothing to say: {}", String::from_utf8_lossy(&output.stderr));
    let arrived = exchange.drain();
    assert_eq!(arrived.len(), 10_000, "none twice");
    assert_complete(&arrived, 200, 50);
}

#[test]
fn a_line_arrives_as_it_is_written() {
    let broker = Broker::shared();
    let url = broker.url();
    let exchange = Exchange::with_queue(url);
    let line = r#"{"key":"clé/1","id":"u-1","type":"customer.updated","version":7,
        "headers":{"if-match":"\"e\"","dry":true},"body":{"n":1.10,"big":123456789012345678901}}"#;
    let bytes = r#"{"key":"b","body_base64":"AP8="}"#;
    let input = format!("{}\r\n\n{bytes}", line.replace('\n', ""));
    check(&run(url, &exchange, &[], input), 0, "published 2 confirmed 2 bad lines 0 not confirmed 0", &[]);
    let arrived = exchange.drain();
    let properties = &arrived[0].properties;
    assert_eq!(arrived[0].record_key, "clé/1");
    assert_eq!(arrived[0].body, br#"{"n":1.10,"big":123456789012345678901}"#);
    assert_eq!(arrived[0].id(), "u-1");
    assert_eq!(properties.kind().as_ref().unwrap().as_str(), "customer.updated");
    assert_eq!(properties.content_type().as_ref().unwrap().as_str(), "application/json");
    assert_eq!(*properties.delivery_mode(), Some(2));
    assert!(properties.timestamp().is_some());
    let headers: BTreeMap<&str, &AMQPValue> = properties
        .headers()
        .as_ref()
        .unwrap()
        .inner()
        .iter()
        .map(|(name, value)| (name.as_str(), value))
        .collect();
    assert_eq!(headers["record-version"], &AMQPValue::LongLongInt(7));
    assert_eq!(headers["if-match"], &AMQPValue::LongString("\"e\"".into()));
    assert_eq!(headers["dry"], &AMQPValue::Boolean(true));
    assert_eq!(arrived[1].body, [0, 255]);
    assert!(!arrived[1].id().is_empty());
}

#[test]
fn a_bad_line_is_named_and_the_rest_goes_on_unless_strict() {
    let broker = Broker::shared();
    let url = broker.url();
    let exchange = Exchange::with_queue(url);
    let mut input = lines(1, 3);
    input.push_str("not json\n");
    input.push_str(&lines(1, 4).lines().last().unwrap().replace("record-0", "record-1"));
    let printed = ["line 4 skipped: "];
    let counts = "published 4 confirmed 4 bad lines 1 not confirmed 0";
    check(&run(url, &exchange, &[], input.clone()), 1, counts, &printed);
    assert_eq!(exchange.drain().len(), 4);
    let counts = "published 3 confirmed 3 bad lines 1 not confirmed 0";
    let printed = ["line 4 skipped: ", "nothing after line 4 was published"];
    check(&run(url, &exchange, &["--strict"], input), 1, counts, &printed);
    assert_complete(&exchange.drain(), 1, 3);
}

#[test]
fn a_line_beyond_every_bound_is_skipped() {
    let broker = Broker::shared();
    let url = broker.url();
    let exchange = Exchange::with_queue(url);
    let large = format!(r#"{{"key":"a","body":"{}"}}"#, "x".repeat(5_000_000));
    let input = format!("{large}\n{}", lines(1, 2));
    let counts = "published 2 confirmed 2 bad lines 1 not confirmed 0";
    check(&run(url, &exchange, &[], input), 1, counts, &["line 1 skipped: the line has 5000021 bytes"]);
    assert_complete(&exchange.drain(), 1, 2);
}

#[test]
fn a_full_queue_delays_updates_and_keeps_their_order() {
    let broker = Broker::shared();
    let url = broker.url();
    let mut exchange = Exchange::declare(url, ExchangeKind::Fanout);
    let full = [
        ("x-max-length", AMQPValue::LongInt(5)),
        ("x-overflow", AMQPValue::LongString("reject-publish".into())),
    ];
    exchange.queue("", &full);
    let mut running = start(url, &exchange, &[], lines(3, 20));
    running.wait_for_stderr("the broker refuses updates (negative confirm");
    let arrived = exchange.take(60);
    assert_eq!(running.wait().code(), Some(0), "{}", running.stderr());
    assert_complete(&arrived, 3, 20);
}

#[test]
fn a_queue_that_stays_full_gives_whole_records_up() {
    let broker = Broker::shared();
    let url = broker.url();
    let mut exchange = Exchange::declare(url, ExchangeKind::Fanout);
    let full = [
        ("x-max-length", AMQPValue::LongInt(5)),
        ("x-overflow", AMQPValue::LongString("reject-publish".into())),
    ];
    exchange.queue("", &full);
    let output = run(url, &exchange, &["--give-up-after", "1s"], lines(3, 20));
    assert_eq!(output.status.code(), Some(1));
    let printed = String::from_utf8_lossy(&output.stderr);
    assert!(printed.contains("an earlier update of the same record is not confirmed"), "{printed}");
    assert!(printed.contains("not confirmed: lines "), "{printed}");
    // What counts as confirmed is there, and of each record it is a beginning without gaps.
    let arrived = exchange.drain();
    let counts = String::from_utf8_lossy(&output.stdout);
    assert!(counts.contains(&format!("confirmed {} bad lines 0", arrived.len())), "{counts}");
    for (record_key, sequences) in sequences(&arrived) {
        assert_eq!(sequences[0], 0, "{record_key}");
    }
}

#[test]
fn an_exchange_without_a_queue_is_reported_and_waited_for() {
    let broker = Broker::shared();
    let url = broker.url();
    let mut exchange = Exchange::declare(url, ExchangeKind::Fanout);
    let mut running = start(url, &exchange, &[], lines(50, 20));
    running.wait_for_stderr("routes updates to no queue: run `lanekeeper run` once");
    exchange.queue("", &[]);
    assert_eq!(running.wait().code(), Some(0), "{}", running.stderr());
    assert_complete(&exchange.drain(), 50, 20);
    // The notice comes once, not once per update.
    assert_eq!(running.stderr().lines().count(), 1, "{}", running.stderr());
}

#[test]
fn routed_and_unroutable_updates_are_distinguished() {
    let broker = Broker::shared();
    let url = broker.url();
    let mut exchange = Exchange::declare(url, ExchangeKind::Direct);
    for record in (0..100).step_by(2) {
        exchange.queue(&format!("record-{record}"), &[]);
    }
    // All at once, so that returns and confirms of many records come mixed.
    let output = run(url, &exchange, &["--give-up-after", "0s"], lines(100, 3));
    let printed = ["50 not confirmed: no queue was bound", "100 not published: an earlier update"];
    check(&output, 1, "published 200 confirmed 150 bad lines 0 not confirmed 150", &printed);
    assert_complete(&exchange.drain(), 50, 3);
}

#[test]
fn an_interrupt_ends_it_with_a_report() {
    let broker = Broker::shared();
    let url = broker.url();
    let exchange = Exchange::with_queue(url);
    let mut child = command(url, &exchange.name, &[]).spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let mut running = Running::new(child);
    stdin.write_all(lines(10, 10).as_bytes()).unwrap();
    exchange.wait_for(100);
    running.interrupt();
    assert_eq!(running.wait().code(), Some(1), "the input did not end");
    assert_eq!(running.stdout(), "published 100 confirmed 100 bad lines 0 not confirmed 0\n");
    running.wait_for_stderr("nothing after line 100 was published");
    drop(stdin);
    assert_complete(&exchange.drain(), 10, 10);
}

#[test]
fn faults_at_the_start_have_their_exit_codes() {
    let broker = Broker::shared();
    let url = broker.url();
    let exchange = Exchange::with_queue(url);
    let check = |url: &str, name: &str, arguments: &[&str], code: i32, text: &str| {
        let output = command(url, name, arguments).stdin(Stdio::null()).output().unwrap();
        let printed = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(code), "{printed}");
        assert!(printed.contains(text), "{text:?} is not in: {printed}");
        assert!(!printed.contains("hunter2"), "a password: {printed}");
    };
    check(url, &exchange.name, &[], 0, "");
    check(url, "no-such-exchange", &[], 3, "exchange no-such-exchange does not exist");
    let (_, address) = url.split_once('@').expect("user and password in the URL");
    let (host, _) = address.split_once('/').expect("a virtual host in the URL");
    check(
        &format!("amqp://guest:hunter2@{address}"),
        &exchange.name,
        &[],
        3,
        "refuses the login of user guest",
    );
    check(&format!("{}/nope", url.rsplit_once('/').unwrap().0), &exchange.name, &[], 3, "virtual host nope");
    check("amqp://guest:hunter2@127.0.0.1:1", &exchange.name, &[], 3, "broker 127.0.0.1:1: cannot connect");
    check(&format!("http://guest:hunter2@{host}"), &exchange.name, &[], 2, "");
    check(url, &exchange.name, &["no-such-file"], 1, "cannot read no-such-file");
    check(url, &exchange.name, &["--window", "0"], 2, "--window");
}

#[test]
fn an_exchange_that_goes_away_ends_it() {
    let broker = Broker::shared();
    let url = broker.url();
    let exchange = Exchange::with_queue(url);
    let mut child = command(url, &exchange.name, &[]).spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let mut running = Running::new(child);
    stdin.write_all(lines(1, 1).as_bytes()).unwrap();
    exchange.wait_for(1);
    exchange.delete_exchange();
    stdin.write_all(lines(10, 1).as_bytes()).unwrap();
    assert_eq!(running.wait().code(), Some(3), "{}", running.stderr());
    running.wait_for_stderr("does not exist");
    let stdout = running.stdout();
    assert!(stdout.contains(" confirmed 1 bad lines 0 not confirmed "), "{stdout}");
}

#[test]
fn a_killed_broker_costs_neither_updates_nor_their_order() {
    let node = Broker::start();
    let exchange = Exchange::with_queue(node.url());
    // A node killed soon after a quorum queue was declared does not find the queue again (3.10.8: "could not be
    // restarted {error,enoent}"): an orderly restart makes it write down where the queue is.
    node.restart();
    let mut running = start(node.url(), &exchange, &["--window", "200"], lines(500, 80));
    exchange.wait_for(2_000);
    node.kill();
    running.wait_for_stderr("connection lost");
    node.restart();
    running.wait_for_stderr("connected again");
    let status = running.wait();
    assert_eq!(status.code(), Some(0), "{}", running.stderr());
    assert_eq!(running.stdout(), "published 40000 confirmed 40000 bad lines 0 not confirmed 0\n");
    let arrived: Vec<Arrived> = exchange.drain();
    assert!(arrived.len() < 40_000 + 200 + 1, "at most a window came twice: {}", arrived.len());
    assert_complete(&arrived, 500, 80);
}

#[test]
fn an_alarm_is_shown_and_waited_for() {
    let node = Broker::start();
    let exchange = Exchange::with_queue(node.url());
    node.ctl(&["set_vm_memory_high_watermark", "0.0000001"]);
    let mut running = start(node.url(), &exchange, &["--give-up-after", "0s"], lines(100, 20));
    running.wait_for_stderr("the broker blocks publishing: memory or disk alarm");
    node.ctl(&["set_vm_memory_high_watermark", "0.6"]);
    running.wait_for_stderr("the broker's alarm has ended");
    assert_eq!(running.wait().code(), Some(0), "{}", running.stderr());
    assert_eq!(running.stdout(), "published 2000 confirmed 2000 bad lines 0 not confirmed 0\n");
    assert_complete(&exchange.drain(), 100, 20);
}

//! `lanekeeper-lab demo`, as somebody sees it who has just installed it.

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};

use crate::harness::{Broker, lab_command, until};

/// The command, on this broker.
fn demo(broker_url: &str) -> Command {
    let mut demo = lab_command();
    demo.arg("demo").env("LANEKEEPER_BROKER__URL", broker_url).stdin(Stdio::null());
    demo
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// A line of the table: without, with Lanekeeper.
#[track_caller]
fn figures(table: &str, label: &str) -> (u64, u64) {
    let line = table.lines().find_map(|line| line.trim_start().strip_prefix(label));
    let line = line.unwrap_or_else(|| panic!("a row {label:?} in\n{table}"));
    let figures: Vec<u64> =
        line.split_whitespace().map(|figure| figure.replace(',', "").parse().expect("a number")).collect();
    assert_eq!(figures.len(), 2, "{line}");
    (figures[0], figures[1])
}

/// The exchange that the demo made for itself.
#[track_caller]
fn exchange(text: &str) -> String {
    let start = text.find("lanekeeper-demo-").unwrap_or_else(|| panic!("an exchange is named in\n{text}"));
    text[start..].chars().take_while(|c| c.is_ascii_alphanumeric() || *c == '-').collect()
}

#[track_caller]
fn assert_nothing_is_left(broker: &Broker, exchange: &str) {
    for list in ["list_queues", "list_exchanges"] {
        let names = broker.ctl(&["--quiet", list, "name"]);
        assert!(!names.contains(exchange), "{list}: {names}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_demo_proves_its_point_and_leaves_nothing_behind() {
    let broker = Broker::shared();
    let mut demo = demo(broker.url());
    demo.args(["--seed", "7"]);
    let output = tokio::task::spawn_blocking(move || demo.output()).await.expect("it does not panic");
    let output = output.expect("the binary starts");
    let (stdout, stderr) = (text(&output.stdout), text(&output.stderr));
    assert_eq!(output.status.code(), Some(0), "{stdout}{stderr}");
    assert!(!stdout.contains('\x1b') && stderr.is_empty(), "a pipe gets plain lines: {stdout:?} {stderr:?}");

    let (_, table) = stdout.split_once("The proof").expect("it ends with the proof");
    assert_eq!(figures(table, "updates sent"), (1_000, 1_000));
    let (requests_without, requests_with) = figures(table, "requests to the API");
    assert!(requests_without > 1_000 && requests_with > 1_000, "some requests fail: {table}");
    for label in [
        "records with a wrong final value",
        "updates applied out of order",
        "overlapping requests of one record",
        "updates applied twice",
    ] {
        let (without, with) = figures(table, label);
        assert!(without > 0, "{label}: {table}");
        assert_eq!(with, 0, "{label}: {table}");
    }
    assert_eq!(figures(table, "updates lost").1, 0, "{table}");
    assert!(stdout.contains("SIGKILL"), "{stdout}");
    assert_nothing_is_left(&broker, &exchange(&stdout));
}

/// Runs `demo --safeguard`, which must prove its point: rows where the remedy has to end what there is without it.
async fn check_remedy(remedy: &'static str, ended: &[&str]) {
    let broker = Broker::shared();
    let mut demo = demo(broker.url());
    demo.args(["--safeguard", remedy]);
    let output = tokio::task::spawn_blocking(move || demo.output()).await.expect("it does not panic");
    let output = output.expect("the binary starts");
    let (stdout, stderr) = (text(&output.stdout), text(&output.stderr));
    assert_eq!(output.status.code(), Some(0), "{stdout}{stderr}");
    assert!(stderr.is_empty() && stdout.contains("The proof holds."), "{stdout}{stderr}");
    let (_, table) = stdout.split_once("The proof").expect("it ends with the proof");
    for label in ended {
        let (without, with) = figures(table, label);
        assert!(without > 0, "{label}: {table}");
        assert_eq!(with, 0, "{label}: {table}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn idempotency_ends_what_repeats_do() {
    let ended = ["updates applied twice", "records with a wrong final value", "points too many"];
    check_remedy("idempotency", &ended).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn versions_end_what_two_writers_do_to_each_other() {
    check_remedy("versions", &["records with a wrong final value", "points lost"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn row_locks_end_what_happens_between_reading_and_writing() {
    check_remedy("row-locks", &["records with a wrong final value", "points lost"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn sequence_ends_what_overtaking_does() {
    let ended = ["records with a wrong final value", "updates applied out of order"];
    check_remedy("sequence", &ended).await;
}

/// A child that does not outlive its test.
struct Killed(Child);

impl Drop for Killed {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_interrupted_demo_cleans_up_after_itself() {
    let broker = Broker::shared();
    let mut demo = demo(broker.url());
    demo.args(["--updates", "10"]).stdout(Stdio::piped()).stderr(Stdio::null());
    let mut demo = Killed(demo.spawn().expect("the binary starts"));
    let mut lines = BufReader::new(demo.0.stdout.take().expect("it is piped")).lines().map_while(Result::ok);
    let mut output = String::new();
    // In the middle: everything is declared, a dispatcher works.
    while !output.contains("lanekeeper run") {
        output += &lines.next().unwrap_or_else(|| panic!("it ended early:\n{output}"));
        output.push('\n');
    }
    let id = demo.0.id().to_string();
    assert!(Command::new("kill").args(["-INT", &id]).status().expect("kill can be run").success());
    let code = until("the end of the demo", || {
        let ended = demo.0.try_wait().expect("it can be asked").map(|status| status.code());
        async move { ended.ok_or_else(|| "it runs".to_owned()) }
    })
    .await;
    assert_eq!(code, Some(1));
    let exchange = exchange(&output);
    assert_nothing_is_left(&broker, &exchange);
    assert!(!std::env::temp_dir().join(&exchange).exists(), "its directory is left");
    let (_, dispatcher) = output.split_once("(process ").expect("it names its dispatcher");
    let dispatcher: String = dispatcher.chars().take_while(char::is_ascii_digit).collect();
    let alive = Command::new("kill").args(["-0", &dispatcher]).stderr(Stdio::null()).status();
    assert!(!alive.expect("kill can be run").success(), "its dispatcher is left");
}

#[test]
fn a_demo_without_a_broker_says_so_at_once() {
    // Port 1 is nobody's.
    let output = demo("amqp://guest:secret@127.0.0.1:1/%2f").output().expect("the binary starts");
    let stderr = text(&output.stderr);
    assert_eq!(output.status.code(), Some(3), "{stderr}");
    assert!(stderr.contains("broker 127.0.0.1:1: cannot connect"), "{stderr}");
    assert!(!stderr.contains("secret"), "{stderr}");
}

//! `lanekeeper-lab bench`: that it measures, and that what breaks order gets no figure.

use std::path::Path;
use std::process::Stdio;
use std::sync::{Mutex, PoisonError};

use crate::harness::{Broker, lab_command};

/// A forwarder that lets the updates of ten deliveries change places; all of them arrive.
const REORDERS: &str = r#"
import http.client, os, pika
connection = pika.BlockingConnection(pika.URLParameters(os.environ["BENCH_BROKER_URL"]))
channel = connection.channel()
host, path = os.environ["BENCH_TARGET"].removeprefix("http://").split("/", 1)
http = http.client.HTTPConnection(host)
held = {}

def forward(deliveries):
    for method, properties, body in reversed(deliveries):
        headers = {"Idempotency-Key": properties.message_id}
        http.request("PUT", "/" + path + method.routing_key, body, headers)
        http.getresponse().read()
        channel.basic_ack(method.delivery_tag)

def received(_, method, properties, body):
    deliveries = held.setdefault(method.consumer_tag, [])
    deliveries.append((method, properties, body))
    if len(deliveries) == 10:
        forward(held.pop(method.consumer_tag))

def rest():
    for tag in list(held):
        forward(held.pop(tag))
    connection.call_later(0.2, rest)

channel.basic_qos(prefetch_count=100)
for queue in os.environ["BENCH_QUEUES"].split():
    channel.basic_consume(queue, received)
connection.call_later(0.2, rest)
channel.start_consuming()
"#;

fn bench(arguments: &[&str]) -> (Option<i32>, String) {
    run("bench", arguments)
}

/// Exit code and standard output; the rest goes where a failing test shows it.
fn run(command: &str, arguments: &[&str]) -> (Option<i32>, String) {
    // One at a time: what is left in the broker afterwards is looked at.
    static TURN: Mutex<()> = Mutex::new(());
    let _turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    let broker = Broker::shared();
    let mut bench = lab_command();
    bench.arg(command).args(arguments).args(["--broker", broker.url()]).stdin(Stdio::null());
    let output = bench.output().expect("the binary starts");
    eprintln!("{}", String::from_utf8_lossy(&output.stderr));
    let left = broker.ctl(&["--quiet", "list_queues", "name"]);
    assert!(!left.contains("lanekeeper-bench"), "{left}");
    (output.status.code(), String::from_utf8(output.stdout).expect("it prints text"))
}

#[test]
fn the_benchmark_measures_and_the_receiver_judges_the_order() {
    let (code, output) =
        bench(&["drain5", "trickle", "--repeats", "1", "--scale", "0.01", "--compare", "bare,strict"]);
    assert_eq!(code, Some(0), "{output}");
    for begins in ["drain5", "drain5 bare", "drain5 strict", "trickle p50", "trickle bare p50"] {
        let line = output.lines().find(|line| line.starts_with(begins));
        let line = line.unwrap_or_else(|| panic!("a line {begins:?} in\n{output}"));
        assert!(line.ends_with("order OK") && line.contains(" CPU ") && line.contains(" RSS "), "{output}");
    }
    assert!(output.contains("drain5 against bare: rate "), "{output}");
}

#[test]
fn what_breaks_order_has_no_figure() {
    let clients = Path::new(env!("CARGO_MANIFEST_DIR")).join(".lanekeeper/examples/python");
    assert!(clients.join("pika").is_dir(), "pika is missing: scripts/test installs it");
    let directory = tempfile::tempdir().expect("a directory can be made");
    let script = directory.path().join("reorders.py");
    std::fs::write(&script, REORDERS).expect("the script can be written");
    let peer = format!("reorders=PYTHONPATH={} exec python3 {}", clients.display(), script.display());
    let (code, output) = bench(&["drain0", "--repeats", "1", "--scale", "0.02", "--peer", &peer]);
    assert_eq!(code, Some(1), "{output}");
    let line = output.lines().find(|line| line.starts_with("drain0 reorders ")).expect("its line");
    assert!(line.starts_with("drain0 reorders FAIL: ") && line.contains(" reorders"), "{output}");
    assert!(!output.contains("reorders CPU") && !output.contains("against reorders"), "{output}");
    assert!(output.contains("order OK"), "Lanekeeper's own figure stands: {output}");
}

#[test]
fn what_loses_updates_has_no_figure() {
    let (code, output) = bench(&[
        "drain0",
        "--repeats",
        "1",
        "--scale",
        "0.001",
        "--patience",
        "2s",
        "--peer",
        "idle=exec tail -f /dev/null",
    ]);
    assert_eq!(code, Some(1), "{output}");
    assert!(output.contains("drain0 idle FAIL: 0 of 100 updates arrived"), "{output}");
}

#[test]
fn the_benchmark_of_a_door_measures_both_ways_to_publish() {
    let (code, output) = run(
        "bench-door",
        &["--repeats", "2", "--updates", "500", "--connections", "8", "--rate", "50", "--seconds", "2"],
    );
    assert_eq!(code, Some(0), "{output}");
    for begins in [
        "door ",
        "publish ",
        "door against publish: rate ",
        "latency door p50 ",
        "latency broker p50 ",
        "door adds p50 ",
    ] {
        let line = output.lines().find(|line| line.starts_with(begins));
        assert!(line.is_some_and(|line| !line.contains("NaN")), "a line {begins:?} in\n{output}");
    }
}

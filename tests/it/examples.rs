//! The example publishers, each run against a real broker and judged by what arrived.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, SystemTime};

use lapin::ExchangeKind;
use lapin::types::AMQPValue;

use crate::harness::{Broker, example};
use crate::queues::{Exchange, assert_complete};

fn project() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// pika and amqplib as `scripts/test` installs them.
fn clients() -> PathBuf {
    project().join(".lanekeeper/examples")
}

#[test]
fn the_python_example_publishes_in_order() {
    let clients = clients().join("python");
    assert!(clients.join("pika").is_dir(), "pika is missing: scripts/test installs it");
    let mut command = Command::new("python3");
    command.arg(project().join("examples/publisher.py")).env("PYTHONPATH", clients);
    check(command, "python");
}

#[test]
fn the_node_example_publishes_in_order() {
    let clients = clients().join("node/node_modules");
    assert!(clients.join("amqplib").is_dir(), "amqplib is missing: scripts/test installs it");
    let mut command = Command::new("node");
    command.arg(project().join("examples/publisher.js")).env("NODE_PATH", clients);
    check(command, "node");
}

#[test]
fn the_rust_example_publishes_in_order() {
    check(Command::new(example("publisher")), "rust");
}

fn check(mut command: Command, language: &str) {
    let broker = Broker::shared();
    let broker_url = broker.url();
    let mut exchange = Exchange::declare(broker_url, ExchangeKind::Fanout);
    command.env("LANEKEEPER_UPDATES__EXCHANGE", &exchange.name);

    // No queue is bound yet: the updates come back, and are published again until one is.
    let child = command
        .env("LANEKEEPER_BROKER__URL", broker_url)
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::piped())
        .spawn()
        .unwrap_or_else(|error| panic!("{language}: {error}"));
    let mut child = crate::publish::Running::new(child);
    child.wait_for_stderr("no queue is bound");
    exchange.queue("", &[]);
    let ended = child.wait();
    assert!(ended.success(), "{language}: {ended}\n{}", child.stderr());

    let arrived = exchange.drain();
    assert_complete(&arrived, 3, 20);
    let ids: BTreeSet<&str> = arrived.iter().map(crate::queues::Arrived::id).collect();
    assert_eq!(ids.len(), 60, "each update has an id of its own");
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap();
    for message in &arrived {
        let (properties, sequence) = (&message.properties, message.sequence());
        assert_eq!(message.id(), format!("{language}-{}-{sequence}", message.record_key));
        assert_eq!(properties.kind().as_ref().expect("a type").as_str(), "customer.updated");
        assert_eq!(properties.content_type().as_ref().expect("a content type").as_str(), "application/json");
        assert_eq!(*properties.delivery_mode(), Some(2));
        let published_at = Duration::from_secs(properties.timestamp().expect("a timestamp"));
        assert!(now.abs_diff(published_at) < Duration::from_secs(600), "seconds since 1970");
        let headers = properties.headers().as_ref().expect("headers").inner();
        assert_eq!(integer(&headers["record-version"]), i128::from(sequence) + 1);
    }
}

/// Every client writes an integer in the smallest AMQP type it likes.
fn integer(value: &AMQPValue) -> i128 {
    match value {
        AMQPValue::ShortShortInt(value) => i128::from(*value),
        AMQPValue::ShortShortUInt(value) => i128::from(*value),
        AMQPValue::ShortInt(value) => i128::from(*value),
        AMQPValue::ShortUInt(value) => i128::from(*value),
        AMQPValue::LongInt(value) => i128::from(*value),
        AMQPValue::LongUInt(value) => i128::from(*value),
        AMQPValue::LongLongInt(value) => i128::from(*value),
        other => panic!("{other:?} is no integer"),
    }
}

//! What every test needs: a broker, a receiver, a dispatcher, and waiting for a condition.

mod authority;
mod broker;
mod door;
mod forward;
mod lab;
mod pooler;
mod postgres;
mod process;
mod prometheus;
mod raw;
mod receiver;
mod stand_in;
mod tls;
mod wait;

use std::sync::Arc;

use lanekeeper_lab::receiver::{Receiver, ReceiverSettings, Report};
use lapin::options::QueueDeclareOptions;
use lapin::types::FieldTable;
use lapin::{Channel, Connection, ConnectionProperties};
use serde_json::Value;
use tempfile::TempDir;

pub use authority::{Authority, Issued};
pub use broker::Broker;
pub use door::Door;
pub use forward::forward;
pub use lab::{example, lab_command, program_directory};
pub use lanekeeper_lab::receiver::SilentAddress;
pub use lanekeeper_lab::testbed::http::client as http;
pub use lanekeeper_lab::testbed::{Proxy, ProxyMode, Signal};
pub use pooler::pool_transactions;
pub use postgres::Postgres;
pub use process::{Dispatcher, Output, command_knowing, lanekeeper, lanekeeper_command};
pub use prometheus::Prometheus;
pub use raw::publish_raw;
pub use receiver::BuiltReceiver;
pub use stand_in::{SeenRequest, StandIn};
pub use tls::HttpsTarget;
pub use wait::{pace, until};

/// A broker, an exchange of its own, and a receiver.
pub struct World {
    pub broker: Arc<Broker>,
    pub exchange: String,
    pub receiver: Receiver,
    pub target: String,
    pub dir: TempDir,
}

impl World {
    /// With a receiver that answers at once.
    pub async fn new(exchange: &str) -> Self {
        Self::with(exchange, ReceiverSettings::default()).await
    }

    pub async fn with(exchange: &str, settings: ReceiverSettings) -> Self {
        Self::on(Broker::shared(), exchange, settings).await
    }

    pub async fn on(broker: Arc<Broker>, exchange: &str, settings: ReceiverSettings) -> Self {
        let receiver = Receiver::new(settings);
        let target = format!("http://{}", receiver.spawn().await.expect("a port is free"));
        let dir = tempfile::tempdir().expect("a directory can be made");
        Self { broker, exchange: exchange.to_owned(), receiver, target, dir }
    }

    /// A config for this world, without a ledger. `extra` is TOML that goes before the target, and may set anything but
    /// its tables.
    pub fn config(&self, extra: &str) -> String {
        let without = if extra.contains("ledger.url") {
            String::new()
        } else {
            let keys = ["rejected", "exhausted", "conflict"].map(|key| format!("failure.{key}"));
            let policies = keys.iter().filter(|key| !extra.contains(*key));
            let policies: Vec<String> = policies.map(|key| format!("{key} = \"dead_letter\"\n")).collect();
            format!("ledger.url = \"none\"\n{}", policies.concat())
        };
        format!(
            "instance.name = \"{exchange}\"\nbroker.url = \"{url}\"\nupdates.exchange = \"{exchange}\"\n\
             admin.listen = \"127.0.0.1:0\"\n{without}{extra}\n\
             [[target]]\nname = \"receiver\"\ntypes = [\"*\"]\nmethod = \"PUT\"\n\
             url = \"{target}/records/{{record_key}}\"\ntimeout = \"1s\"\n",
            exchange = self.exchange,
            url = self.broker.url(),
            target = self.target,
        )
    }

    /// TOML that gives this world a ledger in a file of its own, with the policies that the product has by default.
    pub fn ledger(&self) -> String {
        format!("ledger.url = \"sqlite://{}\"\n", self.dir.path().join("ledger.db").display())
    }

    pub fn write_config(&self, text: &str) -> std::path::PathBuf {
        let path = self.dir.path().join("lanekeeper.toml");
        std::fs::write(&path, text).expect("the config can be written");
        path
    }

    /// A dispatcher that is attached to all of its partitions.
    pub async fn dispatcher(&self, extra: &str) -> Dispatcher {
        let dispatcher = self.start(&self.config(extra));
        dispatcher.ready().await;
        dispatcher
    }

    pub fn start(&self, config: &str) -> Dispatcher {
        Dispatcher::start(&self.write_config(config))
    }

    /// Publishes through `lanekeeper publish`, all confirmed.
    pub async fn publish(&self, lines: impl IntoIterator<Item = Value>) {
        let lines = lines.into_iter().fold(String::new(), |lines, line| lines + &line.to_string() + "\n");
        let (url, exchange) = (self.broker.url().to_owned(), self.exchange.clone());
        let publishing = move || {
            let environment = [("LANEKEEPER_BROKER__URL", url), ("LANEKEEPER_UPDATES__EXCHANGE", exchange)];
            lanekeeper(&["publish"], &environment, lines.as_bytes())
        };
        let output = tokio::task::spawn_blocking(publishing).await.expect("it does not panic");
        assert_eq!(output.code, Some(0), "{}", output.stderr);
    }

    /// A channel of the test's own.
    pub async fn channel(&self) -> Channel {
        let connecting = Connection::connect(self.broker.url(), ConnectionProperties::default());
        let connection = Box::leak(Box::new(connecting.await.expect("the broker takes connections")));
        connection.create_channel().await.expect("the broker gives a channel")
    }

    /// Updates that wait in a queue, those that somebody holds not counted.
    pub async fn waiting(&self, channel: &Channel, queue: &str) -> u32 {
        let options = QueueDeclareOptions { passive: true, ..QueueDeclareOptions::default() };
        let queue = format!("{}.{queue}", self.exchange);
        let declared = channel.queue_declare(queue.as_str().into(), options, FieldTable::default()).await;
        declared.unwrap_or_else(|error| panic!("queue {queue}: {error}")).message_count()
    }

    /// Waits until the receiver has applied so many different updates, and answers with its report.
    pub async fn applied(&self, updates: u64) -> Report {
        let report = || self.receiver.report(0);
        until(&format!("{updates} updates applied"), || async {
            let report = report();
            if report.counts.updates >= updates { Ok(report) } else { Err(report.counts.to_string()) }
        })
        .await
    }
}

/// Updates of `records` records in turn, each with its sequence within the record and an id.
pub fn updates(records: usize, each: usize) -> impl Iterator<Item = Value> {
    (1..=each).flat_map(move |sequence| {
        (0..records).map(move |record| {
            serde_json::json!({
                "key": format!("record-{record}"),
                "id": format!("{record}-{sequence}"),
                "type": "record.updated",
                "body": {"sequence": sequence},
            })
        })
    })
}

/// Order kept, nothing missing, nothing twice, nothing at the same time.
#[track_caller]
pub fn assert_flawless(report: &Report, updates: u64) {
    assert_in_order(report, updates);
    assert_eq!(report.counts.duplicates, 0, "{}", report.counts);
}

/// Order kept, nothing missing, nothing at the same time; the same update may have come twice.
#[track_caller]
pub fn assert_in_order(report: &Report, updates: u64) {
    let counts = &report.counts;
    assert_eq!(counts.updates, updates, "{counts}");
    assert_eq!(counts.reorders, 0, "{counts}");
    assert_eq!(counts.gaps, 0, "{counts}");
    assert_eq!(counts.overlaps, 0, "{counts}");
    assert_eq!(counts.outdated, 0, "{counts}");
    assert_eq!(counts.key_mismatches, 0, "{counts}");
}

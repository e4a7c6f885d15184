//! What all runs share: a directory, and a broker, which is a private one unless another is named.

use std::path::PathBuf;
use std::time::Duration;

use tempfile::TempDir;
use tokio::task::spawn_blocking;

use super::error::BenchError;
use super::scenario::Scenario;
use crate::testbed::{PrivateBroker, PrivatePostgres, Usage, listener_on};
use lanekeeper::config::{self, Environment, Purpose};
use lanekeeper_broker::ConnectionSettings;
use lanekeeper_broker::publisher::{BulkPublisher, OutboxLimits, PublisherSettings, ShortText};
use lanekeeper_broker::{Address, FirstLayout, Names, ensure_topology, remove_topology};
use lanekeeper_core::layout::{Layout, LayoutNumber};

/// Names the benchmark in RabbitMQ's UI.
pub(super) const INSTANCE: &str = "bench";
/// The product's default.
pub(super) const PREFETCH: u16 = 1000;

const AMQP_PORT: u16 = 5672;

/// The broker is quiet if it uses less of a processor than this share. It gets ten seconds to become quiet.
const QUIET_SHARE: f64 = 0.1;
const QUIET_POLL_INTERVAL: Duration = Duration::from_millis(250);
const QUIET_POLLS_MAX: usize = 40;

/// See the module. What it has started ends with it.
#[derive(Debug)]
pub(super) struct Stage {
    pub(super) broker: ConnectionSettings,
    /// The broker's process, if it is on this machine.
    process: Option<u32>,
    /// The node that was started, if none was named.
    _private: Option<PrivateBroker>,
    dir: TempDir,
    /// If nothing arrives for so long, the rest counts as lost.
    pub(super) patience: Duration,
}

impl Stage {
    pub(super) async fn new(url: Option<&str>, patience: Duration) -> Result<Self, BenchError> {
        let dir = tempfile::Builder::new().prefix("lanekeeper-bench-").tempdir();
        let dir = dir.map_err(BenchError::system("make a temporary directory"))?;
        let private = if url.is_none() {
            let broker_dir = dir.path().join("broker");
            let started = spawn_blocking(move || PrivateBroker::start(&broker_dir, None)).await;
            Some(started.expect("a script's call does not panic").map_err(BenchError::no_broker)?)
        } else {
            None
        };
        let url = url.or(private.as_ref().map(PrivateBroker::url)).expect("a broker was named or started");
        let broker = broker_config(url)?;
        let port = url::Url::parse(broker.urls[0].reveal()).ok().and_then(|url| url.port());
        let process = listener_on(port.unwrap_or(AMQP_PORT));
        Ok(Self { broker, process, _private: private, dir, patience })
    }

    /// Declares a new exchange with its queues.
    pub(super) async fn declare(&self, scenario: &Scenario) -> Result<Topology, BenchError> {
        let exchange = format!("lanekeeper-bench-{:08x}", fastrand::u32(..));
        let layout = Layout { number: LayoutNumber(1), partitions: scenario.partitions, prefetch: PREFETCH };
        let connection = Address::new(&self.broker)?.connect("lanekeeper bench").await?;
        let first = FirstLayout { shape: layout.shape(), look: None };
        ensure_topology(&connection, &Names::new(&exchange), &first, INSTANCE).await?;
        let _ = connection.close(200, "normal shutdown".into()).await; // it has done its work
        Ok(Topology { exchange, layout })
    }

    pub(super) async fn remove(&self, topology: &Topology) -> Result<(), BenchError> {
        let connection = Address::new(&self.broker)?.connect("lanekeeper bench").await?;
        remove_topology(&connection, &Names::new(&topology.exchange), topology.layout).await?;
        let _ = connection.close(200, "normal shutdown".into()).await; // it has done its work
        Ok(())
    }

    pub(super) async fn publisher(&self, topology: &Topology) -> Result<BulkPublisher, BenchError> {
        let settings = PublisherSettings {
            connection: self.broker.clone(),
            instance: INSTANCE.to_owned(),
            exchange: ShortText::new(topology.exchange.as_str()).expect("it is short"),
            limits: OutboxLimits {
                in_flight_max: 1,
                held_max: 1,
                held_bytes_max: 1,
                give_up_after: None,
                abandoned_max: 0,
            },
        };
        Ok(BulkPublisher::connect(&settings).await?)
    }

    /// Processor time that the broker has used; `None`: its process is not known.
    pub(super) fn broker_seconds(&self) -> Option<f64> {
        self.process.map(|process| Usage::of(process).cpu_seconds)
    }

    /// Waits until the broker is quiet, for a bounded time.
    pub(super) async fn quiet(&self) {
        let Some(mut before) = self.broker_seconds() else { return };
        for _ in 0..QUIET_POLLS_MAX {
            tokio::time::sleep(QUIET_POLL_INTERVAL).await;
            let now = self.broker_seconds().unwrap_or_default();
            if now - before < QUIET_SHARE * QUIET_POLL_INTERVAL.as_secs_f64() {
                return;
            }
            before = now;
        }
    }

    /// A private PostgreSQL with an empty database.
    pub(super) async fn postgres(&self) -> Result<PrivatePostgres, BenchError> {
        let dir = self.file("postgres");
        let started = spawn_blocking(move || PrivatePostgres::start(&dir)).await;
        Ok(started.expect("a script's call does not panic")?)
    }

    /// A file of this name that ends with the stage.
    pub(super) fn file(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }
}

/// An exchange and its queues.
#[derive(Debug)]
pub(super) struct Topology {
    pub(super) exchange: String,
    layout: Layout,
}

impl Topology {
    /// The partitions' queues, in order.
    pub(super) fn queues(&self) -> Vec<String> {
        let names = Names::new(&self.exchange);
        self.layout.partitions().map(|partition| names.partition(self.layout.number, partition)).collect()
    }
}

/// The settings of `[broker]`: the URL, and the defaults.
fn broker_config(url: &str) -> Result<ConnectionSettings, BenchError> {
    let environment = Environment::from_iter([("LANEKEEPER_BROKER__URL", url)]);
    let loaded = config::load(None, &environment, Purpose::Publish).map_err(BenchError::Config)?;
    Ok(loaded.config.broker.connection)
}

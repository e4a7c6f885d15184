//! What all runs share: a directory and a broker, which is a private one unless somebody names another.

use std::fs::DirBuilder;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::process::Command;
use uuid::Uuid;

use super::failure::Failure;
use super::process::{Usage, listener_on};
use super::scenario::Scenario;
use lanekeeper::config::{self, Environment, Purpose};
use lanekeeper_broker::ConnectionSettings;
use lanekeeper_broker::publisher::{BulkPublisher, OutboxLimits, PublisherSettings, ShortText};
use lanekeeper_broker::{Address, Names, ensure_topology, remove_topology};
use lanekeeper_core::layout::{Layout, LayoutNumber};

/// Whoever sees this in the RabbitMQ UI knows where it comes from.
pub(super) const INSTANCE: &str = "bench";
/// As the product's own default.
pub(super) const PREFETCH: u16 = 1000;

const BROKER_SCRIPT: &str = "scripts/broker";
const POSTGRES_SCRIPT: &str = "scripts/postgres";
const AMQP_PORT: u16 = 5672;

/// The broker counts as quiet when it uses less of a processor than this, and is given so long to become so.
const QUIET_SHARE: f64 = 0.1;
const QUIET_LOOK: Duration = Duration::from_millis(250);
const QUIET_LOOKS_MAX: usize = 40;

/// See the module. What it made goes with it.
#[derive(Debug)]
pub(super) struct Stage {
    pub(super) broker: ConnectionSettings,
    pub(super) dir: PathBuf,
    /// The broker's process, where it is on this machine.
    process: Option<u32>,
    /// A private node was started.
    private: bool,
    /// How long nothing may arrive before the rest counts as lost.
    pub(super) patience: Duration,
}

impl Stage {
    pub(super) async fn new(url: Option<&str>, patience: Duration) -> Result<Self, Failure> {
        let dir = std::env::temp_dir().join(format!("lanekeeper-bench-{:08x}", Uuid::new_v4().as_fields().0));
        let made = DirBuilder::new().mode(0o700).create(&dir);
        made.map_err(Failure::system("make a temporary directory"))?;
        let private = url.is_none();
        let started = match url {
            Some(url) => Ok(url.to_owned()),
            None => {
                start_server(BROKER_SCRIPT, &["--private"], &dir.join("broker"), "LANEKEEPER_BROKER__URL")
                    .await
            }
        };
        let broker = started
            .and_then(|url| broker_config(&url))
            .inspect_err(|_| drop(std::fs::remove_dir_all(&dir)))?;
        let port = url::Url::parse(broker.url.reveal()).ok().and_then(|url| url.port());
        let process = listener_on(port.unwrap_or(AMQP_PORT));
        Ok(Self { broker, dir, process, private, patience })
    }

    /// Makes an exchange with its queues that nobody else knows.
    pub(super) async fn declare(&self, scenario: &Scenario) -> Result<Topology, Failure> {
        let exchange = format!("lanekeeper-bench-{:08x}", Uuid::new_v4().as_fields().0);
        let layout = Layout { number: LayoutNumber(1), partitions: scenario.partitions, prefetch: PREFETCH };
        let connection = Address::new(&self.broker)?.connect("lanekeeper bench").await?;
        ensure_topology(&connection, &Names::new(&exchange), layout, INSTANCE).await?;
        let _ = connection.close(200, "normal shutdown".into()).await; // it has done its work
        Ok(Topology { exchange, layout })
    }

    pub(super) async fn remove(&self, topology: &Topology) -> Result<(), Failure> {
        let connection = Address::new(&self.broker)?.connect("lanekeeper bench").await?;
        remove_topology(&connection, &Names::new(&topology.exchange), topology.layout).await?;
        let _ = connection.close(200, "normal shutdown".into()).await; // it has done its work
        Ok(())
    }

    pub(super) async fn publisher(&self, topology: &Topology) -> Result<BulkPublisher, Failure> {
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

    /// Processor time that the broker has used; `None` where its process is not known.
    pub(super) fn broker_seconds(&self) -> Option<f64> {
        self.process.map(|process| Usage::of(process).cpu_seconds)
    }

    /// Waits until the broker has done with what it was given, for a bounded time.
    pub(super) async fn quiet(&self) {
        let Some(mut before) = self.broker_seconds() else { return };
        for _ in 0..QUIET_LOOKS_MAX {
            tokio::time::sleep(QUIET_LOOK).await;
            let now = self.broker_seconds().unwrap_or_default();
            if now - before < QUIET_SHARE * QUIET_LOOK.as_secs_f64() {
                return;
            }
            before = now;
        }
    }

    /// A private PostgreSQL with an empty database.
    pub(super) async fn postgres(&self) -> Result<Postgres, Failure> {
        let dir = self.dir.join("postgres");
        let url = start_server(POSTGRES_SCRIPT, &[], &dir, "LANEKEEPER_POSTGRES_URL").await?;
        Ok(Postgres { url, dir })
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        if self.private {
            stop_server(BROKER_SCRIPT, &self.dir.join("broker"));
        }
        // What is left of it is in a directory for what may go.
        let _ = std::fs::remove_dir_all(&self.dir);
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

/// A server that ends with this value, or with this process.
#[derive(Debug)]
pub(super) struct Postgres {
    pub(super) url: String,
    dir: PathBuf,
}

impl Drop for Postgres {
    fn drop(&mut self) {
        stop_server(POSTGRES_SCRIPT, &self.dir);
    }
}

/// Everything of `[broker]` but the URL as built in.
fn broker_config(url: &str) -> Result<ConnectionSettings, Failure> {
    let environment = Environment::from_iter([("LANEKEEPER_BROKER__URL", url)]);
    let loaded = config::load(None, &environment, Purpose::Publish).map_err(Failure::Config)?;
    Ok(loaded.config.broker.connection)
}

/// Starts a private server that ends with this process, however that ends; the URL that the script tells.
async fn start_server(
    script: &'static str,
    options: &[&str],
    dir: &Path,
    variable: &str,
) -> Result<String, Failure> {
    if !Path::new(script).is_file() {
        return Err(Failure::NoScript { path: script });
    }
    let owner = std::process::id().to_string();
    let mut command = Command::new(script);
    command.arg("start").args(options).args(["--owner", &owner, "--purge", "--dir"]).arg(dir);
    let output = command.output().await.map_err(Failure::system("run a script"))?;
    let failed =
        |output: &[u8]| Failure::Script { script, output: String::from_utf8_lossy(output).trim().to_owned() };
    if !output.status.success() {
        return Err(failed(&output.stderr));
    }
    let text = String::from_utf8_lossy(&output.stdout);
    let url = text.lines().find_map(|line| {
        let (name, value) = line.strip_prefix("export ")?.split_once('=')?;
        (name == variable).then(|| value.trim_matches('\'').to_owned())
    });
    url.ok_or_else(|| failed(&output.stdout))
}

fn stop_server(script: &str, dir: &Path) {
    let mut command = std::process::Command::new(script);
    command.args(["stop", "--purge", "--dir"]).arg(dir);
    // If this fails, its watcher ends it with this process.
    let _ = command.output();
}

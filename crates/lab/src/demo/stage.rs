//! What a demo needs and leaves behind: a directory, an exchange of its own, a dispatcher.

use std::path::{Path, PathBuf};
use std::time::Duration;

use tempfile::TempDir;
use tokio::time::timeout;

use super::dispatcher::{BROKER_VARIABLE, Dispatcher};
use super::error::DemoError;
use lanekeeper::config::{self, Config, Environment, Purpose};
use lanekeeper_broker::ConnectionSettings;
use lanekeeper_broker::{Address, FirstLayout, Names, SourceError, ensure_topology, remove_topology};
use lanekeeper_core::layout::{Layout, LayoutNumber};

/// Names the demo in RabbitMQ's UI.
const INSTANCE: &str = "demo";
const PARTITIONS: u16 = 4;
/// Time limit of deleting what is in RabbitMQ.
const CLEARING_TIMEOUT: Duration = Duration::from_secs(15);

const WITHOUT_LEDGER: &str = r#"ledger.url = "none"
failure = { rejected = "dead_letter", exhausted = "dead_letter", conflict = "dead_letter" }
"#;

/// See the module.
#[derive(Debug)]
pub(super) struct Stage {
    pub(super) broker: ConnectionSettings,
    /// `lanekeeper-demo-…`, as the directory: nothing of the user's has this name.
    pub(super) exchange: String,
    pub(super) dispatcher: Dispatcher,
    dir: TempDir,
    /// What was declared in RabbitMQ.
    declared: Option<Layout>,
}

impl Stage {
    /// Makes the directory, and connects once to see that RabbitMQ is there.
    pub(super) async fn new(broker: ConnectionSettings) -> Result<Self, DemoError> {
        let connection = Address::new(&broker)?.connect("lanekeeper demo").await?;
        let _ = connection.close(200, "normal shutdown".into()).await; // it has answered, which is all that was asked
        let dir = tempfile::Builder::new().prefix("lanekeeper-demo-").rand_bytes(8).tempdir();
        let dir = dir.map_err(DemoError::system("make a temporary directory"))?;
        let exchange = dir.path().file_name().unwrap_or_default().to_string_lossy().into_owned();
        let (config, log) = (dir.path().join("lanekeeper.toml"), dir.path().join("dispatcher.log"));
        let dispatcher = Dispatcher::new(config, log, broker.urls[0].clone());
        Ok(Self { broker, exchange, dispatcher, dir, declared: None })
    }

    /// A file of this name in the stage's directory.
    pub(super) fn file(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// The config of act 1: that of the dispatcher, without the idempotency key.
    pub(super) fn direct_config(&self, api_url: &str) -> Result<Config, DemoError> {
        let text = WITHOUT_LEDGER.to_owned() + &self.config_text(api_url) + "idempotency_key = \"off\"\n";
        self.write_and_load(&self.file("direct.toml"), &text)
    }

    /// The dispatcher's config, which is also written to its file.
    pub(super) fn dispatcher_config(&self, api_url: &str) -> Result<Config, DemoError> {
        let ledger = format!("ledger.url = \"sqlite://{}\"\n", self.file("ledger.db").display());
        let text = ledger + &self.config_text(api_url);
        self.write_and_load(&self.file("lanekeeper.toml"), &text)
    }

    /// The same without a ledger: a safeguard of the target is to be shown alone.
    pub(super) fn config_without_ledger(&self, api_url: &str) -> Result<Config, DemoError> {
        let text = WITHOUT_LEDGER.to_owned() + &self.config_text(api_url);
        self.write_and_load(&self.file("lanekeeper.toml"), &text)
    }

    /// The waits are short, so that nobody has to wait for the demo. Everything else has its default.
    fn config_text(&self, api_url: &str) -> String {
        let (exchange, heartbeat) = (&self.exchange, self.broker.heartbeat.as_secs());
        format!(
            r#"instance.name = "{INSTANCE}"
broker.url = "${{{BROKER_VARIABLE}}}"
broker.heartbeat = "{heartbeat}s"
updates.exchange = "{exchange}"
updates.partitions = {PARTITIONS}
retry.delay_initial = "100ms"
retry.delay_max = "1s"
admin.listen = "127.0.0.1:0"

[[target]]
name = "customers"
types = ["customer.*"]
method = "PUT"
url = "{api_url}/customers/{{record_key}}"
timeout = "2s"
"#
        )
    }

    fn write_and_load(&self, path: &Path, text: &str) -> Result<Config, DemoError> {
        std::fs::write(path, text).map_err(DemoError::system("write the demo's config"))?;
        let environment = Environment::from_iter([(BROKER_VARIABLE, self.broker.urls[0].reveal())]);
        let loaded = config::load(Some(path), &environment, Purpose::Dispatch).map_err(DemoError::Config)?;
        Ok(loaded.config)
    }

    /// Declares exchanges and queues as `lanekeeper run` does, so that updates can be published before it starts.
    pub(super) async fn declare(&mut self, config: &Config) -> Result<(), DemoError> {
        let layout = Layout {
            number: LayoutNumber(1),
            partitions: config.updates.partitions.get(),
            prefetch: config.dispatch.prefetch.get(),
        };
        self.declared = Some(layout); // also if only a part is declared then
        let connection = Address::new(&self.broker)?.connect("lanekeeper demo").await?;
        let first = FirstLayout { shape: layout.shape(), look: None };
        ensure_topology(&connection, &Names::new(&self.exchange), &first, INSTANCE).await?;
        let _ = connection.close(200, "normal shutdown".into()).await; // it has done its work
        Ok(())
    }

    /// Ends the dispatcher. Deletes what is in RabbitMQ unless `keep`, and the directory unless `keep_log`.
    pub(super) async fn clear_away(&mut self, keep: bool, keep_log: bool) -> Result<(), DemoError> {
        // If the log is kept, its directory has to stay, also if something fails now.
        self.dir.disable_cleanup(keep_log);
        self.dispatcher.kill()?;
        if let Some(layout) = self.declared.filter(|_| !keep) {
            let step = "deleting the demo's queues and exchanges";
            let silent = SourceError::Silent { step, seconds: CLEARING_TIMEOUT.as_secs() };
            timeout(CLEARING_TIMEOUT, self.delete(layout)).await.map_err(|_| silent)??;
            self.declared = None;
        }
        Ok(())
    }

    async fn delete(&self, layout: Layout) -> Result<(), SourceError> {
        let connection = Address::new(&self.broker)?.connect("lanekeeper demo").await?;
        remove_topology(&connection, &Names::new(&self.exchange), layout).await?;
        let _ = connection.close(200, "normal shutdown".into()).await; // it has done its work
        Ok(())
    }

    /// True if something of the demo may be left in RabbitMQ.
    pub(super) fn is_declared(&self) -> bool {
        self.declared.is_some()
    }
}

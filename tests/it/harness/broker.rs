//! Private RabbitMQ nodes, started and stopped by `scripts/broker`.

use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use lanekeeper_lab::testbed::{PrivateBroker, ServerError};
use tempfile::TempDir;

/// A private node. It ends with this value, and with this process.
pub struct Broker {
    node: PrivateBroker,
    dir: PathBuf,
    /// The node's own directory; the shared one lives in a static, which is never dropped, and is purged by its watcher.
    _keep: TempDir,
}

impl Broker {
    /// The node that all gentle tests share.
    pub fn shared() -> Arc<Self> {
        static SHARED: OnceLock<Arc<Broker>> = OnceLock::new();
        Arc::clone(SHARED.get_or_init(|| Arc::new(Self::start())))
    }

    /// A node for a test that hurts it.
    pub fn start() -> Self {
        Self::start_with("", &[])
    }

    /// A node with settings of its own (as in rabbitmq.conf). `files` are the names and contents of files in the node's
    /// directory, where relative paths in the settings begin. That takes an installed RabbitMQ: one in Docker does not see
    /// them.
    pub fn start_with(settings: &str, files: &[(&str, &str)]) -> Self {
        let keep = tempfile::tempdir().expect("a directory can be made");
        let dir = keep.path().join("node");
        let settings = ("conf.d/30-test.conf", settings);
        for (name, content) in files.iter().chain([&settings]).filter(|(_, content)| !content.is_empty()) {
            let path = dir.join(name);
            std::fs::create_dir_all(path.parent().expect("it is in the directory")).expect("it can be made");
            std::fs::write(path, content).expect("it can be written");
        }
        Self { node: done(PrivateBroker::start(&dir, None)), dir, _keep: keep }
    }

    /// The directory of [`Self::start_with`]'s files.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// True if it gives a partition to the consumer of the highest priority: RabbitMQ 4.0 and later.
    pub fn moves_partitions(&self) -> bool {
        let status = done(self.node.status());
        let major = status.split("RabbitMQ ").nth(1).and_then(|version| version.split('.').next());
        major.and_then(|major| major.parse::<u32>().ok()).expect("the script tells the version") >= 4
    }

    /// SIGKILL; the data stays.
    pub fn kill(&self) {
        done(self.node.kill());
    }

    /// Starts it again, on the same ports and data.
    pub fn restart(&self) {
        done(self.node.restart());
    }

    /// `rabbitmqctl` on this node.
    pub fn ctl(&self, arguments: &[&str]) -> String {
        done(self.node.ctl(arguments))
    }

    /// Of AMQP, with user and password.
    pub fn url(&self) -> &str {
        self.node.url()
    }

    /// `HOST:PORT` of the plugin `rabbitmq_prometheus`, from the settings of the node. One in Docker publishes no such port.
    pub fn prometheus_address(&self) -> String {
        let file = self.dir.join("rabbitmq.conf");
        let settings =
            std::fs::read_to_string(&file).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
        let port = settings.lines().find_map(|line| line.strip_prefix("prometheus.tcp.port = "));
        format!("127.0.0.1:{}", port.expect("scripts/broker sets it"))
    }

    /// Of the management API, with user and password.
    pub fn management_url(&self) -> &str {
        self.node.management_url()
    }
}

#[track_caller]
pub fn done<T>(called: Result<T, ServerError>) -> T {
    called.unwrap_or_else(|error| panic!("{}", lanekeeper_core::error::error_chain(&error)))
}

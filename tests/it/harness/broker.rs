//! Private RabbitMQ nodes, started and stopped by `scripts/broker`.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, OnceLock};

use tempfile::TempDir;

/// A private node. It ends with this value, and with this process.
pub struct Broker {
    environment: HashMap<String, String>,
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

    /// A node with settings of its own (as in rabbitmq.conf), which name files by the paths that they have here; the node's
    /// working directory is where these paths begin. That takes an installed RabbitMQ: one in Docker does not see them.
    pub fn start_with(settings: &str, files: &[(&str, &str)]) -> Self {
        let keep = tempfile::tempdir().expect("a directory can be made");
        let dir = keep.path().join("node");
        let settings = ("conf.d/30-test.conf", settings);
        for (name, content) in files.iter().chain([&settings]).filter(|(_, content)| !content.is_empty()) {
            let path = dir.join(name);
            std::fs::create_dir_all(path.parent().expect("it is in the directory")).expect("it can be made");
            std::fs::write(path, content).expect("it can be written");
        }
        let owner = std::process::id().to_string();
        let output = script(&["start", "--private", "--dir", text(&dir), "--owner", &owner, "--purge"]);
        let environment = output.lines().filter_map(exported).collect();
        Self { environment, dir, _keep: keep }
    }

    /// The directory of [`Self::start_with`]'s files.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    pub fn url(&self) -> &str {
        &self.environment["LANEKEEPER_BROKER__URL"]
    }

    /// Whether it gives a partition to the consumer of the highest priority: RabbitMQ 4.0 and later.
    pub fn moves_partitions(&self) -> bool {
        let status = script(&["status", "--dir", text(&self.dir)]);
        let major = status.split("RabbitMQ ").nth(1).and_then(|version| version.split('.').next());
        major.and_then(|major| major.parse::<u32>().ok()).expect("the script tells the version") >= 4
    }

    /// Of the management API, with user and password.
    pub fn management_url(&self) -> &str {
        &self.environment["LANEKEEPER_MANAGEMENT_URL"]
    }

    /// SIGKILL; the data stays.
    pub fn kill(&self) {
        script(&["kill", "--dir", text(&self.dir)]);
    }

    /// Starts it again, on the same ports and data.
    pub fn restart(&self) {
        script(&["restart", "--dir", text(&self.dir)]);
    }

    /// `rabbitmqctl` on this node.
    pub fn ctl(&self, arguments: &[&str]) -> String {
        let all: Vec<&str> =
            ["ctl", "--dir", text(&self.dir), "--"].iter().chain(arguments).copied().collect();
        script(&all)
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        script(&["stop", "--dir", text(&self.dir), "--purge"]);
    }
}

fn text(path: &Path) -> &str {
    path.to_str().expect("temporary directories have plain names")
}

fn script(arguments: &[&str]) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("scripts/broker");
    let output = Command::new(&path).args(arguments).output().expect("scripts/broker can be run");
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "scripts/broker {arguments:?}: {stderr}");
    String::from_utf8(output.stdout).expect("it prints text")
}

/// `export NAME='value'`.
fn exported(line: &str) -> Option<(String, String)> {
    let (name, value) = line.strip_prefix("export ")?.split_once('=')?;
    Some((name.to_owned(), value.trim_matches('\'').to_owned()))
}

//! A private Prometheus that scrapes what a test starts.

use std::path::Path;
use std::process::Command;

use lanekeeper_lab::testbed::Process;
use serde_json::Value;
use tempfile::TempDir;

use super::{http, until};

/// A `prometheus` with a data directory of its own, on a free port of 127.0.0.1. Killed when the test ends.
pub struct Prometheus {
    address: String,
    process: Process,
    /// Holds data and log.
    _dir: TempDir,
}

impl Prometheus {
    /// `scrape_configs`: YAML of the jobs; the alert rules of the project are loaded. It answers when this has returned.
    pub async fn start(scrape_configs: &str) -> Self {
        let dir = tempfile::tempdir().expect("a directory can be made");
        let rules = Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy/prometheus/lanekeeper.rules.yml");
        let config = format!(
            "global: {{scrape_interval: 1s, scrape_timeout: 1s, evaluation_interval: 1s}}\n\
             rule_files: [{}]\nscrape_configs:\n{scrape_configs}",
            rules.display()
        );
        let file = dir.path().join("prometheus.yml");
        std::fs::write(&file, config).expect("the config can be written");
        let option = |name: &str, path: &Path| format!("--{name}={}", path.display());
        let mut command = Command::new("prometheus");
        command
            .arg(option("config.file", &file))
            .arg(option("storage.tsdb.path", &dir.path().join("data")))
            .arg("--web.listen-address=127.0.0.1:0");
        let started = Process::start("prometheus", command, &dir.path().join("log"));
        let process = started.unwrap_or_else(|error| {
            panic!("{error}. scripts/test installs it (the package `prometheus` of Debian and Ubuntu)")
        });
        let mut prometheus = Self { address: String::new(), process, _dir: dir };
        prometheus.address = until("the address of Prometheus", || async {
            let log = prometheus.process.log();
            let line = log.lines().find(|line| line.contains("Listening on"));
            let address = line
                .and_then(|line| line.split_once("address="))
                .map(|(_, address)| address.trim().to_owned());
            address.ok_or(log)
        })
        .await;
        prometheus
    }

    /// The series that a query finds now, or why it is none that Prometheus understands.
    pub async fn query(&self, expression: &str) -> Result<Vec<Value>, String> {
        let found = self.get("query", &[("query", expression)]).await?;
        Ok(found["result"].as_array().cloned().unwrap_or_default())
    }

    /// All values of a label, of the series that `matching` selects.
    pub async fn label_values(&self, label: &str, matching: &str) -> Result<Vec<String>, String> {
        let found = self.get(&format!("label/{label}/values"), &[("match[]", matching)]).await?;
        serde_json::from_value(found).map_err(|error| error.to_string())
    }

    async fn get(&self, path: &str, query: &[(&str, &str)]) -> Result<Value, String> {
        let mut url =
            url::Url::parse(&format!("http://{}/api/v1/{path}", self.address)).expect("it is a URL");
        url.query_pairs_mut().extend_pairs(query);
        let answer = http().get(url.as_str()).send().await.map_err(|error| error.to_string())?;
        let body = answer.bytes().await.map_err(|error| error.to_string())?;
        let mut answer: Value = serde_json::from_slice(&body).map_err(|error| error.to_string())?;
        if answer["status"] == "success" {
            Ok(answer["data"].take())
        } else {
            Err(answer["error"].to_string())
        }
    }
}

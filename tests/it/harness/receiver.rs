//! The receiver as a process, with the options of its command line.

use std::io::{BufRead, BufReader};
use std::process::{ChildStdout, Stdio};

use lanekeeper_lab::receiver::Report;
use lanekeeper_lab::testbed::Process;
use tempfile::TempDir;

use super::{http, lab_command, until};

/// A `lanekeeper-lab receiver`. Killed when the test ends.
pub struct BuiltReceiver {
    /// `HOST:PORT`.
    pub address: String,
    _process: Process,
    /// Open as long as the process may write there.
    stdout: BufReader<ChildStdout>,
    /// Holds the log.
    _dir: TempDir,
}

impl BuiltReceiver {
    /// On a free port of 127.0.0.1 if the options do not say otherwise. It listens when this has returned.
    pub fn start(options: &[&str]) -> Self {
        let dir = tempfile::tempdir().expect("a directory can be made");
        let mut command = lab_command();
        command.arg("receiver").args(options).stdout(Stdio::piped());
        if !options.contains(&"--listen") {
            command.args(["--listen", "127.0.0.1:0"]);
        }
        let started = Process::start("receiver", command, &dir.path().join("log"));
        let mut process = started.expect("lanekeeper-lab can be run");
        let stdout = BufReader::new(process.take_stdout().expect("it is piped"));
        let mut receiver = Self { address: String::new(), _process: process, stdout, _dir: dir };
        let first = receiver.line();
        let (_, address) = first.split_once("://").unwrap_or_else(|| panic!("{first:?} has its address"));
        address.clone_into(&mut receiver.address);
        receiver
    }

    /// The next line that it prints.
    pub fn line(&mut self) -> String {
        let mut line = String::new();
        self.stdout.read_line(&mut line).expect("it prints text");
        line.trim_end().to_owned()
    }

    pub fn port(&self) -> &str {
        self.address.rsplit(':').next().expect("a split has a first part")
    }

    /// Waits until it has applied so many different updates, and answers with its report.
    pub async fn applied(&self, updates: u64) -> Report {
        until(&format!("{updates} updates applied"), || async {
            let answer = http().get(format!("http://{}/report", self.address)).send().await;
            let body = match answer {
                Ok(answer) => answer.bytes().await,
                Err(error) => Err(error),
            };
            let body = body.map_err(|error| error.to_string())?;
            let report: Report = serde_json::from_slice(&body).map_err(|error| error.to_string())?;
            if report.counts.updates >= updates { Ok(report) } else { Err(report.counts.to_string()) }
        })
        .await
    }
}

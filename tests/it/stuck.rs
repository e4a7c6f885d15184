//! A newcomer's test: five records wait, each for another reason, and one command tells each of them from the others.

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use lanekeeper_lab::testbed::Process;

use crate::harness::{Broker, lab_command, lanekeeper, until};

/// How long it may take to end, and to delete what it has declared.
const END_MAX: Duration = Duration::from_secs(30);

/// Starts it; the config that it names, and the code that it says of each record. Whatever becomes of the test, it ends with
/// it, and so does what it has started.
fn begin(url: &str, log: &Path) -> (Process, String, BTreeMap<String, String>) {
    let mut command = lab_command();
    command.args(["stuck", "--answers"]).env("LANEKEEPER_BROKER__URL", url).stdout(Stdio::piped());
    let mut stuck = Process::start_group("lanekeeper-lab stuck", command, log).expect("it starts");
    let output = BufReader::new(stuck.take_stdout().expect("it is piped"));
    let (mut config, mut answers, mut said) = (String::new(), BTreeMap::new(), String::new());
    for line in output.lines() {
        let line = line.expect("text");
        said.push_str(&line);
        said.push('\n');
        if let Some((_, path)) = line.split_once(" --config ") {
            path.clone_into(&mut config);
        }
        if let [record, code, _] = line.trim().splitn(3, ": ").collect::<Vec<_>>()[..] {
            answers.insert(record.to_owned(), code.to_owned());
        }
        if line.starts_with("Ctrl-C ends it") {
            break;
        }
    }
    assert_eq!(answers.len(), 5, "{said}");
    (stuck, config, answers)
}

#[tokio::test(flavor = "multi_thread")]
async fn one_command_tells_five_stuck_records_apart() {
    let broker = Broker::shared();
    let url = broker.url().to_owned();
    let beginning = url.clone();
    let dir = tempfile::tempdir().expect("a directory can be made");
    let log = dir.path().join("log");
    let started = tokio::task::spawn_blocking(move || begin(&beginning, &log)).await;
    let (mut stuck, config, answers) = started.expect("it does not panic");
    for (record, code) in answers {
        until(&format!("{record} waits for {code}"), || async {
            let (record, config, url) = (record.clone(), config.clone(), url.clone());
            let asking = move || {
                let environment = [("LANEKEEPER_STUCK_BROKER", url)];
                lanekeeper(&["why", &record, "--json", "--config", &config], &environment, b"")
            };
            let output = tokio::task::spawn_blocking(asking).await.expect("it does not panic");
            let report: serde_json::Value =
                serde_json::from_str(&output.stdout).map_err(|_| output.stderr.clone())?;
            if report["wait"]["cause"]["code"] == code.as_str() {
                Ok(())
            } else {
                Err(report["wait"].to_string())
            }
        })
        .await;
    }
    let status = stuck.terminate(END_MAX).await.expect("it ends");
    assert!(status.success(), "{status}: {}", stuck.log());
}

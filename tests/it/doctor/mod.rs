//! `lanekeeper doctor`: a test makes each danger, sees it by its code, removes it with the printed command, and sees it
//! no longer. Dangers that cannot be made on this RabbitMQ are in the tables of
//! `src/doctor/rules/tests`.

mod bindings;
mod broker;
mod config;
mod consumers;
mod door;
mod objects;
mod policies;

use std::process::Command;

use serde_json::Value as Json;

use crate::harness::{Output, World, lanekeeper, until};

/// A doctor for one world.
struct Doctor<'a> {
    world: &'a World,
    config: String,
    management: String,
}

impl<'a> Doctor<'a> {
    /// With the world's config of two partitions.
    fn of(world: &'a World) -> Self {
        Self { world, config: world.config(PARTITIONS), management: world.broker.management_url().to_owned() }
    }

    fn call(&self, arguments: &[&str]) -> Output {
        let config = self.world.dir.path().join("doctor.toml");
        std::fs::write(&config, &self.config).expect("the config can be written");
        let config = config.to_str().expect("temporary directories have plain names");
        let arguments = [&["doctor", "--config", config], arguments].concat();
        lanekeeper(&arguments, &[("LANEKEEPER_MANAGEMENT_URL", self.management.clone())], b"")
    }

    /// What it says as JSON. Its exit code agrees with it.
    fn examine(&self) -> Json {
        let Output { code, stdout, stderr } = self.call(&["--json"]);
        let report: Json = serde_json::from_str(&stdout).unwrap_or_else(|_| panic!("{stdout}{stderr}"));
        let expected = i32::from(report["errors"] != 0);
        assert_eq!(code, Some(expected), "{report:#}");
        assert!(!stdout.contains("guest:guest"), "the password is shown: {stdout}");
        report
    }

    /// Waits until it sees exactly these codes, in order, each as often as it is there; what it says then. The management API is some seconds behind.
    async fn sees(&self, codes: &[&str]) -> Json {
        until(&format!("doctor to see {codes:?}"), || async {
            let report = self.examine();
            let unseen = report["not_looked_at"].as_array().expect("a list");
            let mut unseen = unseen.iter().filter_map(|unseen| unseen["what"].as_str());
            let behind = unseen.any(|what| what.starts_with("policies of "));
            if codes_of(&report) == codes && !behind { Ok(report) } else { Err(format!("{report:#}")) }
        })
        .await
    }

    /// Runs the commands that `report` names against these codes.
    fn remove(&self, report: &Json, codes: &[&str]) {
        let findings = report["findings"].as_array().expect("a list");
        for finding in findings.iter().filter(|finding| codes.iter().any(|code| finding["code"] == *code)) {
            let steps = finding["remedy"].as_array().expect("a list");
            let commands = steps.iter().filter_map(|step| step["run"].as_str());
            commands.for_each(|command| self.run(command));
        }
    }

    fn run(&self, command: &str) {
        if command.starts_with("lanekeeper run") || command.starts_with("rabbitmq-") {
            return; // the test does it where it matters
        }
        if let Some(arguments) = command.strip_prefix("rabbitmqctl ") {
            let arguments = words(arguments);
            let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
            self.world.broker.ctl(&arguments);
            return;
        }
        let command = command.replace("curl --user guest ", "curl --silent --fail --user guest:guest ");
        let output = Command::new("sh").args(["-c", &command]).output().expect("sh can be run");
        assert!(output.status.success(), "{command}: {output:?}");
    }
}

const PARTITIONS: &str = "updates.partitions = 2";

/// A management API that nothing answers for.
const NOWHERE: &str = "http://guest:guest@127.0.0.1:9";

/// The codes of what it found, in order.
fn codes_of(report: &Json) -> Vec<&str> {
    let findings = report["findings"].as_array().expect("a list");
    let mut codes: Vec<&str> =
        findings.iter().map(|finding| finding["code"].as_str().expect("a code")).collect();
    codes.sort_unstable();
    codes
}

/// What it says about the first danger of this code.
fn what<'a>(report: &'a Json, code: &str) -> &'a str {
    let findings = report["findings"].as_array().expect("a list");
    let finding = findings.iter().find(|finding| finding["code"] == code);
    finding.and_then(|finding| finding["what"].as_str()).unwrap_or_else(|| panic!("no {code}: {report:#}"))
}

/// As a POSIX shell takes a line apart, as far as the remedies go.
fn words(line: &str) -> Vec<String> {
    let output =
        Command::new("sh").args(["-c", &format!("printf '%s\\n' {line}")]).output().expect("sh can be run");
    String::from_utf8(output.stdout).expect("text").lines().map(str::to_owned).collect()
}

/// A world whose layout was made by a dispatcher that has ended.
async fn made(exchange: &str) -> World {
    let world = World::new(exchange).await;
    let mut dispatcher = world.dispatcher(PARTITIONS).await;
    dispatcher.terminate();
    assert_eq!(dispatcher.ended().await, Some(0));
    world
}

//! Everything on README.md that can be run is run, in the order of the page.
//!
//! What follows the language of a fenced block says what it is: nothing after `sh` is run, `sh scripts` and `sh docker`
//! are looked at, and another language is written to the file of that name. Addresses are replaced by free ones.

use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use serde_json::Value;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};

use crate::harness::{Broker, http, program_directory, until};

/// A virtual host of its own: the page uses the default names.
const VIRTUAL_HOST: &str = "readme";
/// For one block; a loaded machine needs seconds.
const PATIENCE: Duration = Duration::from_secs(90);

/// Updates that the page publishes: three lines and one from Python.
const UPDATES: u64 = 4;

#[derive(Debug)]
struct Block {
    language: String,
    /// What follows the language.
    what: String,
    line: usize,
    text: String,
}

fn project() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn blocks() -> Vec<Block> {
    let page = std::fs::read_to_string(project().join("README.md")).expect("README.md can be read");
    let mut blocks: Vec<Block> = Vec::new();
    let mut open = false;
    for (text, line) in page.lines().zip(1..) {
        match text.strip_prefix("```") {
            Some(_) if open => open = false,
            Some(info) => {
                let (language, what) = info.split_once(' ').unwrap_or((info, ""));
                let (language, what) = (language.to_owned(), what.to_owned());
                blocks.push(Block { language, what, line, text: String::new() });
                open = true;
            }
            None if open => {
                let block = blocks.last_mut().expect("it is open");
                block.text.push_str(text);
                block.text.push('\n');
            }
            None => {}
        }
    }
    assert!(!open, "README.md: a block is not closed");
    blocks
}

#[test]
fn every_block_is_of_a_kind_that_is_checked() {
    for Block { language, what, line, text } in blocks() {
        match (language.as_str(), what.as_str()) {
            ("text" | "sh", "") => {}
            ("sh", "scripts") => text.lines().for_each(|script| {
                let script = project().join(script.split(' ').next().unwrap_or_default());
                let mode = script.metadata().map(|file| file.permissions().mode()).unwrap_or_default();
                assert!(mode & 0o111 != 0, "README.md:{line}: {} cannot be run", script.display());
            }),
            ("sh", "docker") => {
                for command in text.lines() {
                    assert!(command.starts_with("docker compose "), "README.md:{line}: {command}");
                }
                assert!(project().join("docker-compose.yml").is_file());
            }
            ("toml" | "json" | "python", file) if !file.is_empty() => {}
            _ => panic!("README.md:{line}: nothing checks ```{language} {what}"),
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_page_works_from_top_to_bottom() {
    let world = Page::new();
    let directory = tempfile::tempdir().expect("a directory can be made");
    let blocks = blocks();
    for block in blocks.iter().filter(|block| !matches!(block.language.as_str(), "sh" | "text")) {
        std::fs::write(directory.path().join(&block.what), world.moved(&block.text))
            .expect("it can be written");
    }
    let runs: Vec<&Block> =
        blocks.iter().filter(|block| block.language == "sh" && block.what.is_empty()).collect();
    let (drain, before) = runs.split_last().expect("README.md has commands");
    let mut shell = Shell::start(directory.path(), &world);
    for block in before {
        shell.run(block, &world).await;
    }

    let report = world.report().await;
    for none in ["duplicates", "reorders", "gaps", "overlaps", "outdated"] {
        assert_eq!(report[none], 0, "{none} in {report}");
    }
    assert!(drain.text.starts_with("kill"), "README.md:{}: the last commands end the dispatcher", drain.line);
    shell.run(drain, &world).await;
    for said in [
        "elapsed_max      = \"5m\"",
        "authorization = \"***\"",
        "ready",
        "No errors, no warnings.",
        "published 3 confirmed 3",
        "alive",
        "lanekeeper_updates_delivered_total{target=\"crm\"} 4",
        "stopped",
    ] {
        assert!(shell.said.contains(said), "no {said:?} in\n{}", shell.said);
    }
}

/// The addresses of the page, and those that stand for them.
struct Page {
    broker: String,
    receiver: String,
    admin: String,
    management: String,
}

impl Page {
    fn new() -> Self {
        let broker = Broker::shared();
        broker.ctl(&["add_vhost", VIRTUAL_HOST]);
        broker.ctl(&["set_permissions", "-p", VIRTUAL_HOST, "guest", ".*", ".*", ".*"]);
        let management = broker.management_url().to_owned();
        let (server, _) = broker.url().rsplit_once('/').expect("the URL names a virtual host");
        let broker = format!("{server}/{VIRTUAL_HOST}");
        // Both at once, so that they differ.
        let ports = [(); 2].map(|()| TcpListener::bind("127.0.0.1:0").expect("a port is free"));
        let [receiver, admin] = ports.map(|port| port.local_addr().expect("it is bound").to_string());
        Self { broker, receiver, admin, management }
    }

    fn moved(&self, text: &str) -> String {
        text.replace("amqp://guest:guest@127.0.0.1:5672/%2f", &self.broker)
            .replace("127.0.0.1:8099", &self.receiver)
            .replace("127.0.0.1:9419", &self.admin)
    }

    async fn report(&self) -> Value {
        let url = format!("http://{}/report", self.receiver);
        until("all updates of README.md at the receiver", || async {
            let answer = http().get(&url).send().await.map_err(|error| error.to_string())?;
            let text = answer.text().await.map_err(|error| error.to_string())?;
            let report: Value = serde_json::from_str(&text).map_err(|error| error.to_string())?;
            if report["updates"] == UPDATES { Ok(report) } else { Err(text) }
        })
        .await
    }
}

/// One shell for all blocks, so that what runs in the background goes on.
struct Shell {
    child: Child,
    input: ChildStdin,
    output: Lines<BufReader<ChildStdout>>,
    said: String,
}

impl Shell {
    fn start(directory: &Path, page: &Page) -> Self {
        let binary = program_directory();
        let path = std::env::var("PATH").unwrap_or_default();
        let clients: PathBuf = project().join(".lanekeeper/examples/python");
        let mut command = Command::new("bash");
        command
            .args(["-euo", "pipefail", "-s"])
            .current_dir(directory)
            .env("PATH", format!("{}:{path}", binary.display()))
            .env("PYTHONPATH", clients)
            .env("LANEKEEPER_ADMIN__LISTEN", &page.admin)
            .env("LANEKEEPER_MANAGEMENT_URL", &page.management)
            .env("NO_COLOR", "1")
            .process_group(0)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped());
        for name in ["LANEKEEPER_BROKER__URL", "LANEKEEPER_UPDATES__EXCHANGE", "LANEKEEPER_CONFIG"] {
            command.env_remove(name);
        }
        let mut child = command.spawn().expect("bash starts");
        let input = child.stdin.take().expect("it is piped");
        let output = BufReader::new(child.stdout.take().expect("it is piped")).lines();
        Self { child, input, output, said: String::new() }
    }

    /// Runs a block to its end.
    async fn run(&mut self, block: &Block, page: &Page) {
        let end = format!("-- end of line {} --", block.line);
        let text = format!("exec 2>&1\n{}\necho; echo '{end}'\n", page.moved(&block.text));
        self.input.write_all(text.as_bytes()).await.expect("bash reads");
        loop {
            let Ok(line) = tokio::time::timeout(PATIENCE, self.output.next_line()).await else {
                panic!("README.md:{}: not done within {PATIENCE:?}:\n{}", block.line, self.said);
            };
            match line.expect("it prints text") {
                Some(line) if line == end => return,
                Some(line) => {
                    self.said.push_str(&line);
                    self.said.push('\n');
                }
                None => panic!("README.md:{}: a command failed:\n{}", block.line, self.said),
            }
        }
    }
}

impl Drop for Shell {
    fn drop(&mut self) {
        // The group that we started: the shell and what it runs in the background.
        if let Some(id) = self.child.id() {
            let group = format!("-{id}");
            let _ = std::process::Command::new("kill").args(["-KILL", "--", &group]).status();
        }
    }
}

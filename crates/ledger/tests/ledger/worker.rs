//! Another process: this test binary again, which runs the one test `works` with an order in its environment.

use std::io::{BufRead as _, BufReader, Lines};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::Duration;

use lanekeeper_core::layout::PartitionNumber;
use lanekeeper_ledger::{AnyLedger, Entry, Ledger, LedgerError, Recorded};
use lanekeeper_ledger::{LedgerConfig, LedgerPlace};

use crate::world::{applied, by, key, park, write};

const FILE: &str = "LEDGER_WORKER_FILE";
const DISK: &str = "LEDGER_WORKER_DISK";
const NAME: &str = "LEDGER_WORKER_NAME";
const ENTRIES: &str = "LEDGER_WORKER_ENTRIES";
/// Each line of a worker that says what was committed.
const COMMITTED: &str = "committed ";

/// A process that records `NAME-0`, `NAME-1`, … and prints each when it is committed.
pub struct Worker {
    child: Child,
    lines: Lines<BufReader<ChildStdout>>,
}

impl Worker {
    pub fn start(file: &Path, name: &str, entries: usize) -> Self {
        let binary = std::env::current_exe().expect("we are a program");
        let mut child = Command::new(binary)
            .args(["--exact", "worker::works", "--nocapture"])
            .env(FILE, file)
            .env(NAME, name)
            .env(ENTRIES, entries.to_string())
            .stdout(Stdio::piped())
            .spawn()
            .expect("the test binary runs again");
        let lines = BufReader::new(child.stdout.take().expect("it is piped")).lines();
        Self { child, lines }
    }

    /// The committed ids as the process prints them, until it ends.
    pub fn committed(&mut self) -> impl Iterator<Item = String> + '_ {
        let lines = self.lines.by_ref().map_while(Result::ok);
        lines.filter_map(|line| line.strip_prefix(COMMITTED).map(str::to_owned))
    }

    /// SIGKILL.
    pub fn kill(&mut self) {
        self.child.kill().expect("it runs");
    }

    pub fn wait(mut self) {
        assert!(self.child.wait().expect("it is ours").success(), "the worker failed");
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// What a worker does; without an order, nothing.
#[tokio::test]
async fn works() {
    let (Ok(file), Ok(name), Ok(entries)) =
        (std::env::var(FILE), std::env::var(NAME), std::env::var(ENTRIES))
    else {
        return;
    };
    let ledger = open(file.into()).await;
    for number in 0..entries.parse().unwrap() {
        let id = format!("{name}-{number}");
        // A partition of its own, or the tenures would fence each other.
        let partition = PartitionNumber(name.len().try_into().unwrap());
        let entry = Entry { partition, ..by(number, applied(&name, &id, "body")) };
        assert_eq!(ledger.record(entry).await.unwrap(), Recorded::Done);
        println!("{COMMITTED}{id}");
    }
}

async fn open(file: PathBuf) -> AnyLedger {
    let settings = LedgerConfig {
        place: LedgerPlace::Sqlite(file),
        retention: Duration::from_secs(3600),
        parked_max: 1000,
        parked_record_max: 1000,
        connections_max: 1,
        row_lock: false,
    };
    AnyLedger::open(settings).await.expect("the ledger opens")
}

/// Runs the test `fills_its_disk` with 2 MiB mounted at `disk`.
///
/// # Panics
/// It fails; or the machine allows no mount in a namespace of one's own, not even to its root.
pub fn run_on_a_small_disk(disk: &Path) {
    let binary = std::env::current_exe().expect("we are a program");
    let mount = "mount -t tmpfs -o size=2m none \"$0\" && exec \"$@\"";
    let output = Command::new("unshare")
        .args(["--map-root-user", "--mount", "sh", "-c", mount])
        .arg(disk)
        .arg(binary)
        .args(["--exact", "worker::fills_its_disk", "--nocapture"])
        .env(DISK, disk)
        .output()
        .expect("unshare (util-linux) can be run");
    let text = [output.stdout, output.stderr].concat();
    let text = String::from_utf8_lossy(&text);
    assert!(output.status.success() && text.contains(SURVIVED), "{text}");
}

const SURVIVED: &str = "survived a full disk";

/// What the worker with the small disk does.
#[tokio::test]
async fn fills_its_disk() {
    let Ok(disk) = std::env::var(DISK) else { return };
    let disk = PathBuf::from(disk);
    let ballast = disk.join("ballast");
    std::fs::write(&ballast, vec![0; 1024 * 1024]).unwrap();
    let ledger = open(disk.join("ledger.db")).await;
    let mut parked = 0;
    let body = "x".repeat(10_000);
    let error = loop {
        match ledger.record(park("a", &format!("u{parked}"), &body)).await {
            Ok(recorded) => assert_eq!(recorded, Recorded::Done),
            Err(error) => break error,
        }
        parked += 1;
        assert!(parked < 200, "the disk is not small");
    };
    assert!(matches!(error, LedgerError::DiskFull(_)), "{error:?}");
    let again = ledger.record(park("a", &format!("u{parked}"), &body)).await;
    assert!(matches!(again, Err(LedgerError::DiskFull(_))), "{again:?}");
    let kept = ledger.parked_updates(&key("a"), None, 1000).await.unwrap();
    assert_eq!(kept.len(), parked, "what was answered is there, and nothing else");

    std::fs::remove_file(ballast).unwrap();
    write(&ledger, park("a", &format!("u{parked}"), &body)).await;
    let kept = ledger.parked_updates(&key("a"), None, 1000).await.unwrap();
    assert_eq!(kept.len(), parked + 1);
    println!("{SURVIVED} after {parked} updates");
}

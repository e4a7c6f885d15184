//! Whatever dies: replicas, the broker, connections, the target; publishers go on. Judged by what the receiver saw.
//!
//! A minute of it is part of the suite; `scripts/chaos` runs longer ones.

mod replica;
#[path = "../../../crates/core/tests/sim/rng.rs"]
mod rng;
mod schedule;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use lanekeeper_lab::receiver::{Receiver, ReceiverSettings, Report};
use tokio::io::AsyncWriteExt;
use tokio::process::{Child, Command};
use tokio::sync::Mutex;

use self::replica::Replica;
use self::rng::Rng;
use self::schedule::{Fault, Schedule};
use crate::harness::{Broker, Proxy, Way, World, pace};

const HEARTBEAT: Duration = Duration::from_secs(2);
const REPLICAS: usize = 3;
const RECORDS: u64 = 100;
/// Lines that are published together, and how long until the next ones.
const BATCH: u64 = 30;
const BATCH_EVERY: Duration = Duration::from_millis(100);
/// After the last fault, so long without an update applied means that what is missing is lost.
const STANDSTILL_MAX: Duration = Duration::from_secs(90);

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_lost_and_nothing_reordered_whatever_dies() {
    let number = |name: &str| std::env::var(name).ok().map(|text| text.parse().expect("a number"));
    let minutes = number("LANEKEEPER_CHAOS_MINUTES").unwrap_or(1);
    let seed = number("LANEKEEPER_CHAOS_SEED").unwrap_or(1);
    let ended = Chaos::begin(seed).await.run(Duration::from_secs(60 * minutes)).await;
    println!("{}", ended.summary);
    assert!(ended.kept, "{}\nlogs: {}", ended.summary, ended.logs.display());
}

struct Chaos {
    seed: u64,
    world: World,
    broker: Mutex<Arc<Broker>>,
    proxy: Proxy,
    replicas: Vec<Mutex<Replica>>,
    logs: PathBuf,
}

struct ChaosResult {
    summary: String,
    kept: bool,
    logs: PathBuf,
}

impl Chaos {
    async fn begin(seed: u64) -> Self {
        let logs = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(format!("chaos-{seed}"));
        let _ = std::fs::remove_dir_all(&logs);
        std::fs::create_dir_all(&logs).expect("a directory for logs");
        let broker = Arc::new(Broker::start());
        let latency = Duration::from_millis(8);
        let settings = ReceiverSettings { latency, latency_jitter: 0.5, seed, ..ReceiverSettings::default() };
        let world = World::on(Arc::clone(&broker), "chaos", settings).await;
        let proxy = Proxy::before(world.target.trim_start_matches("http://").to_owned()).await;
        let replica = |number: usize| {
            let extra = "updates.partitions = 8\ndispatch.in_flight_max = 8\ndispatch.prefetch = 200\n\
                         dispatch.drain_timeout = \"5s\"\nretry.delay_initial = \"100ms\"\nretry.delay_max = \"1s\"";
            let config = world
                .config(&format!("broker.heartbeat = \"{}s\"\n{extra}", HEARTBEAT.as_secs()))
                .replace("instance.name = \"chaos\"", &format!("instance.name = \"replica-{number}\""))
                .replace(&world.target, &format!("http://{}", proxy.address));
            let path = world.dir.path().join(format!("replica-{number}.toml"));
            std::fs::write(&path, config).expect("the config can be written");
            Replica::start(path, logs.join(format!("replica-{number}.log")))
        };
        let replicas: Vec<_> = (0..REPLICAS).map(|number| Mutex::new(replica(number))).collect();
        for replica in &replicas {
            replica.lock().await.ready().await;
        }
        // A quorum queue on a node that is killed soon after it was declared may not come back (RabbitMQ 3.10.8).
        restart(&broker).await;
        Self { seed, world, broker: Mutex::new(broker), proxy, replicas, logs }
    }

    async fn run(self, lasts: Duration) -> ChaosResult {
        let begun = Instant::now();
        let stop = Arc::new(AtomicBool::new(false));
        let publishing = tokio::spawn(publish(self.publisher(), self.seed, Arc::clone(&stop)));
        let longest = Arc::new(AtomicU64::new(0));
        let watching = tokio::spawn(standstills(self.world.receiver.clone(), Arc::clone(&longest)));
        let mut schedule = Schedule::new(self.seed, REPLICAS, HEARTBEAT);
        let mut faults = BTreeMap::<&str, u32>::new();
        while begun.elapsed() < lasts {
            let (calm, first, second) = schedule.next();
            pace(calm).await;
            for fault in [Some(first), second].into_iter().flatten() {
                *faults.entry(fault.kind()).or_default() += 1;
                println!("{:>5} s  {fault}", begun.elapsed().as_secs());
            }
            match second {
                Some(second) => drop(tokio::join!(self.apply(first), self.apply(second))),
                None => self.apply(first).await,
            }
        }
        stop.store(true, Ordering::Relaxed);
        let published = publishing.await.expect("it does not panic");
        let report = self.rest(published).await;
        watching.abort();
        if report.counts.updates < published {
            self.print_what_is_stuck().await;
        }
        for replica in &self.replicas {
            replica.lock().await.keep_log("the end");
        }
        self.judge(begun.elapsed(), &faults, published, &report, longest.load(Ordering::Relaxed))
    }

    async fn apply(&self, fault: Fault) {
        match fault {
            Fault::Kill { replica, down } => self.replicas[replica].lock().await.kill(down).await,
            Fault::Terminate { replica, down } => self.replicas[replica].lock().await.terminate(down).await,
            Fault::Freeze { replica, lasts } => self.replicas[replica].lock().await.freeze(lasts).await,
            Fault::KillBroker => {
                let broker = self.broker.lock().await;
                on(&broker, Broker::kill).await;
                on(&broker, Broker::restart).await;
            }
            Fault::RestartBroker => restart(&*self.broker.lock().await).await,
            Fault::DropConnections => {
                let broker = self.broker.lock().await;
                on(&broker, |broker| drop(broker.ctl(&["close_all_connections", "chaos"]))).await;
            }
            Fault::Outage { way, lasts } => {
                self.proxy.set(way);
                pace(lasts).await;
                self.proxy.set(Way::Open);
            }
            Fault::CutTarget => self.proxy.cut(),
        }
    }

    fn publisher(&self) -> Child {
        Command::new(env!("CARGO_BIN_EXE_lanekeeper"))
            .args(["publish", "--give-up-after", "10m"])
            .env("LANEKEEPER_BROKER__URL", self.world.broker.url())
            .env("LANEKEEPER_UPDATES__EXCHANGE", &self.world.exchange)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(std::fs::File::create(self.logs.join("publish.log")).expect("a log"))
            .kill_on_drop(true)
            .spawn()
            .expect("the binary starts")
    }

    /// Waits until everything published is applied, or nothing more happens.
    async fn rest(&self, published: u64) -> Report {
        let (mut last, mut since) = (0, Instant::now());
        loop {
            let report = self.world.receiver.report(0);
            if report.counts.updates != last {
                (last, since) = (report.counts.updates, Instant::now());
            }
            if (last >= published && report.in_progress == 0) || since.elapsed() > STANDSTILL_MAX {
                return report;
            }
            pace(Duration::from_millis(50)).await;
        }
    }

    /// What the broker and each replica say of updates that do not arrive.
    async fn print_what_is_stuck(&self) {
        let broker = Arc::clone(&*self.broker.lock().await);
        on(&broker, |broker| {
            let queues = ["name", "messages_ready", "messages_unacknowledged", "consumers"];
            println!("{}", broker.ctl(&[&["list_queues"], &queues[..]].concat()));
            println!("{}", broker.ctl(&["list_consumers"]));
        })
        .await;
        for (number, replica) in self.replicas.iter().enumerate() {
            println!("replica {number}: {}", replica.lock().await.state().await);
        }
    }

    fn judge(
        &self,
        took: Duration,
        faults: &BTreeMap<&str, u32>,
        published: u64,
        report: &Report,
        longest_ms: u64,
    ) -> ChaosResult {
        let counts = &report.counts;
        let lost = published.saturating_sub(counts.updates);
        let kinds: Vec<String> = faults.iter().map(|(kind, count)| format!("{kind} {count}")).collect();
        let summary = format!(
            "seed {}, {} s: {} faults ({})\n{published} updates: lost {lost}, reordered {}, overlapped {}, outdated {}, \
             duplicates {}, of older tenures {}; longest time without an update applied {longest_ms} ms",
            self.seed,
            took.as_secs(),
            faults.values().sum::<u32>(),
            kinds.join(", "),
            counts.reorders,
            counts.overlaps,
            counts.outdated,
            counts.duplicates,
            counts.older_tenures,
        );
        let kept = (lost, counts.reorders, counts.overlaps, counts.outdated) == (0, 0, 0, 0);
        ChaosResult { summary, kept, logs: self.logs.clone() }
    }
}

/// Calls that wait for a script.
async fn on(broker: &Arc<Broker>, call: impl FnOnce(&Broker) + Send + 'static) {
    let broker = Arc::clone(broker);
    tokio::task::spawn_blocking(move || call(&broker)).await.expect("the script does what it is asked to");
}

async fn restart(broker: &Arc<Broker>) {
    on(broker, |broker| {
        broker.ctl(&["stop_app"]);
        broker.ctl(&["start_app"]);
    })
    .await;
}

/// Publishes until it is stopped. How many lines there were: all are confirmed.
async fn publish(mut child: Child, seed: u64, stop: Arc<AtomicBool>) -> u64 {
    let mut rng = Rng::new(seed ^ 0x7075_626c);
    let mut sequences = vec![0_u64; usize::try_from(RECORDS).expect("a small number")];
    let mut stdin = child.stdin.take().expect("it is piped");
    let mut published = 0;
    while !stop.load(Ordering::Relaxed) {
        let mut lines = String::new();
        for _ in 0..BATCH {
            let record = rng.index(sequences.len());
            sequences[record] += 1;
            let sequence = sequences[record];
            let line = serde_json::json!({
                "key": format!("record-{record}"),
                "id": format!("{record}-{sequence}"),
                "type": "record.updated",
                "body": {"sequence": sequence},
            });
            lines += &line.to_string();
            lines.push('\n');
        }
        stdin.write_all(lines.as_bytes()).await.expect("it reads on");
        published += BATCH;
        pace(BATCH_EVERY).await;
    }
    drop(stdin);
    let status = child.wait().await.expect("it ends");
    assert_eq!(status.code(), Some(0), "every line is confirmed");
    published
}

/// Keeps the longest time in which nothing was applied, in milliseconds.
async fn standstills(receiver: Receiver, longest_ms: Arc<AtomicU64>) {
    let (mut last, mut since) = (0, Instant::now());
    loop {
        let updates = receiver.report(0).counts.updates;
        if updates != last {
            (last, since) = (updates, Instant::now());
        }
        let standstill = u64::try_from(since.elapsed().as_millis()).expect("no age of the world");
        longest_ms.fetch_max(standstill, Ordering::Relaxed);
        pace(Duration::from_millis(20)).await;
    }
}

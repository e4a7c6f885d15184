//! The cluster, the dispatchers, the targets and the publisher, and one crash test from its beginning to its end.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use clap::ValueEnum as _;
use tempfile::TempDir;
use tokio::sync::Mutex;
use tokio::time::{Instant, sleep};

use super::fault::{FaultKind, Schedule};
use super::result::{ClusterResult, Harm};
use super::{ClusterChaosSettings, Extent, LedgerKind};
use crate::chaos::error::ChaosError;
use crate::chaos::publisher::{Load, Publisher, RecordKind};
use crate::chaos::replica::{Replica, ReplicaSettings};
use crate::chaos::run::wait_for_script;
use crate::receiver::{Counts, Receiver, ReceiverSettings};
use crate::testbed::{ClusterSettings, NodeNumber, PrivateCluster, PrivatePostgres, Proxy, program};

pub(super) const EXCHANGE: &str = "chaos";
pub(super) const HEARTBEAT: Duration = Duration::from_secs(2);
/// Most records get short requests, some get long ones: each target has a timeout of its own, well above what a request
/// takes, so that no client gives a request up that it could have waited for.
const FAST: RecordKind = RecordKind { name: "fast", records: 100, batch: 20, every: 1 };
const FAST_LATENCY: Duration = Duration::from_millis(200);
const FAST_TIMEOUT: Duration = Duration::from_secs(1);
const SLOW: RecordKind = RecordKind { name: "slow", records: 12, batch: 1, every: 20 };
const SLOW_LATENCY: Duration = Duration::from_secs(8);
const SLOW_TIMEOUT: Duration = Duration::from_secs(30);
/// Updates that are published at once before each fault, so that the owner holds many.
const EXTRA_UPDATES: u64 = 3_000;
/// Share by which these times vary.
const LATENCY_JITTER: f64 = 0.9;
/// After the last fault: if no update is applied for so long, those that are missing are lost.
const STANDSTILL_MAX: Duration = Duration::from_secs(120);
const POLL_INTERVAL: Duration = Duration::from_millis(20);

/// Everything that faults are injected into. What it has started ends with it.
pub(super) struct ClusterChaos {
    pub(super) settings: ClusterChaosSettings,
    pub(super) program: PathBuf,
    pub(super) replicas: Vec<Mutex<Replica>>,
    /// A config, for commands.
    pub(super) config: PathBuf,
    /// What the publisher is connected to.
    pub(super) publishers_way: Proxy,
    pub(super) cluster: Arc<PrivateCluster>,
    pub(super) ended_dispatchers: AtomicU32,
    /// How many partitions the next layout has.
    pub(super) next_partitions: AtomicU32,
    /// How often the leader of the stream of members was lost.
    pub(super) lost_leaders: AtomicU32,
    fast: Receiver,
    slow: Receiver,
    _postgres: Option<PrivatePostgres>,
    /// The configs, and the data of the servers.
    _dir: TempDir,
}

impl ClusterChaos {
    /// When it has returned, all dispatchers are ready.
    pub(super) async fn start(settings: ClusterChaosSettings) -> Result<Self, ChaosError> {
        let program = program::executable().map_err(ChaosError::system("find the program lanekeeper"))?;
        let dir = tempfile::Builder::new().prefix("lanekeeper-chaos-").tempdir();
        let dir = dir.map_err(ChaosError::system("make a temporary directory"))?;
        let cluster_dir = dir.path().join("cluster");
        let cluster_settings = ClusterSettings {
            rabbitmq: settings.rabbitmq.clone(),
            net_ticktime_seconds: settings.net_ticktime_seconds,
        };
        let cluster = wait_for_script(move || PrivateCluster::start(&cluster_dir, &cluster_settings)).await?;
        let cluster = Arc::new(cluster);
        let (ledger, postgres) = ledger(settings.ledger, dir.path()).await?;
        let (fast, fast_address) = target(FAST_LATENCY, FAST_TIMEOUT, settings.seed).await?;
        let (slow, slow_address) = target(SLOW_LATENCY, SLOW_TIMEOUT, settings.seed).await?;
        let publishers_way = Proxy::start(host_port(cluster.url(NodeNumber::One))).await;
        let publishers_way = publishers_way.map_err(ChaosError::system("listen on 127.0.0.1"))?;
        let mut replicas = Vec::new();
        let mut config = PathBuf::new();
        for node in NodeNumber::ALL {
            config = dir.path().join(format!("replica-{node}.toml"));
            let text = config_text(node, &ledger, &fast_address, &slow_address);
            fs::write(&config, text).map_err(ChaosError::system("write a config"))?;
            let log = settings.logs.join(format!("replica-{node}.log"));
            File::create(&log).map_err(ChaosError::system("write a log"))?;
            let broker_url = cluster.url(node).to_owned();
            let (program, config) = (program.clone(), config.clone());
            let replica = Replica::start(ReplicaSettings { program, config, broker_url, log })?;
            replica.ready().await?;
            replicas.push(Mutex::new(replica));
        }
        Ok(Self {
            settings,
            program,
            replicas,
            config,
            publishers_way,
            cluster,
            ended_dispatchers: AtomicU32::new(0),
            next_partitions: AtomicU32::new(6),
            lost_leaders: AtomicU32::new(0),
            fast,
            slow,
            _postgres: postgres,
            _dir: dir,
        })
    }

    /// Injects faults, then waits until everything published has arrived, or nothing more does.
    pub(super) async fn run(&self, extent: Extent) -> Result<ClusterResult, ChaosError> {
        let begun = Instant::now();
        let stop = AtomicBool::new(false);
        let longest_ms = AtomicU64::new(0);
        let load = Load::new(self.settings.seed, &[FAST, SLOW]);
        let extra_updates = load.extra_updates();
        let publishing = async { self.publisher()?.publish_until(&stop, load).await };
        let injecting = async {
            let injected = self.inject_faults(begun, extent, &longest_ms, &extra_updates).await;
            stop.store(true, Ordering::Relaxed);
            // An error ends the test, and what is published does not matter any more.
            injected
        };
        let judging = async {
            let (published, by_fault) = tokio::try_join!(publishing, injecting)?;
            self.wait_for_rest(published).await;
            Ok::<_, ChaosError>((published, by_fault))
        };
        let (published, by_fault) = tokio::select! {
            judged = judging => judged?,
            never = self.watch_standstills(&longest_ms) => match never {},
        };
        let result = ClusterResult {
            seed: self.settings.seed,
            lasted: begun.elapsed(),
            has_ledger: self.settings.ledger != LedgerKind::None,
            by_fault,
            published,
            counts: self.counts(),
            ended_dispatchers: self.ended_dispatchers.load(Ordering::Relaxed),
        };
        if !result.is_flawless() {
            self.print_violations();
        }
        if result.lost() > 0 {
            self.print_what_is_stuck().await;
        }
        Ok(result)
    }

    async fn inject_faults(
        &self,
        begun: Instant,
        extent: Extent,
        longest_ms: &AtomicU64,
        extra_updates: &AtomicU64,
    ) -> Result<BTreeMap<String, Harm>, ChaosError> {
        let kinds = self.kinds();
        let count = kinds.len();
        let mut schedule = Schedule::new(self.settings.seed, kinds);
        let mut by_fault: BTreeMap<String, Harm> = BTreeMap::new();
        for number in 0.. {
            let over = match extent {
                Extent::Once => number >= count,
                Extent::Lasts(lasts) => begun.elapsed() >= lasts,
            };
            if over || count == 0 {
                break;
            }
            let (pause, kind) = schedule.next();
            sleep(pause).await;
            extra_updates.store(EXTRA_UPDATES, Ordering::Relaxed);
            let before = self.counts();
            longest_ms.store(0, Ordering::Relaxed);
            println!("{:>5} s  {}", begun.elapsed().as_secs(), kind.name());
            self.inject(kind, &mut schedule).await?;
            self.recover().await?;
            let standstill = Duration::from_millis(longest_ms.load(Ordering::Relaxed));
            let harm = Harm::between(&before, &self.counts(), standstill);
            println!("{:>5} s    {harm}", begun.elapsed().as_secs());
            by_fault.entry(kind.name()).or_default().add(&harm);
        }
        Ok(by_fault)
    }

    /// Those that were asked for and can be injected here.
    fn kinds(&self) -> Vec<FaultKind> {
        let mut kinds = self.settings.faults.clone();
        if kinds.is_empty() {
            kinds = FaultKind::value_variants().to_vec();
        }
        if !self.cluster.can_split() {
            println!("this cluster cannot be split, since that needs root and the program ip: no splits");
            kinds.retain(|kind| !kind.splits());
        }
        kinds
    }

    /// What both targets saw.
    fn counts(&self) -> Counts {
        let mut counts = self.fast.report(0).counts;
        counts += &self.slow.report(0).counts;
        counts
    }

    fn publisher(&self) -> Result<Publisher, ChaosError> {
        let log = File::create(self.settings.logs.join("publish.log"));
        let mut command = program::command(&self.program);
        command.args(["publish", "--give-up-after", "10m"]);
        command.env("LANEKEEPER_BROKER__URL", self.publishers_url());
        command.env("LANEKEEPER_UPDATES__EXCHANGE", EXCHANGE);
        command.stderr(log.map_err(ChaosError::system("write a log"))?);
        Publisher::start(command)
    }

    fn publishers_url(&self) -> String {
        let url = self.cluster.url(NodeNumber::One);
        url.replace(&host_port(url), &self.publishers_way.address.to_string())
    }

    async fn wait_for_rest(&self, published: u64) {
        let (mut last, mut since) = (0, Instant::now());
        loop {
            let applied = self.counts().updates;
            let in_progress = self.fast.report(0).in_progress + self.slow.report(0).in_progress;
            if applied != last {
                (last, since) = (applied, Instant::now());
            }
            if (last >= published && in_progress == 0) || since.elapsed() > STANDSTILL_MAX {
                return;
            }
            sleep(POLL_INTERVAL).await;
        }
    }

    /// Keeps the longest time in which the faster target applied no update, in milliseconds.
    async fn watch_standstills(&self, longest_ms: &AtomicU64) -> std::convert::Infallible {
        let (mut last, mut since) = (0, Instant::now());
        loop {
            let updates = self.fast.report(0).counts.updates;
            if updates != last {
                (last, since) = (updates, Instant::now());
            }
            let standstill_ms = u64::try_from(since.elapsed().as_millis()).unwrap_or(u64::MAX);
            longest_ms.fetch_max(standstill_ms, Ordering::Relaxed);
            sleep(POLL_INTERVAL).await;
        }
    }

    /// Some records whose order was broken, and how.
    fn print_violations(&self) {
        const RECORDS_SHOWN: usize = 5;
        for receiver in [&self.fast, &self.slow] {
            for (key, record) in receiver.report(RECORDS_SHOWN).by_record {
                if let Some(violation) = record.first_violation {
                    println!("{key}: {violation}; {}", record.counts);
                }
            }
        }
    }

    /// What the broker and each dispatcher say about updates that do not arrive.
    async fn print_what_is_stuck(&self) {
        const QUEUES: &[&str] =
            &["list_queues", "name", "state", "messages_ready", "messages_unacknowledged", "consumers"];
        let listed = self.tool(NodeNumber::One, "rabbitmqctl", QUEUES).await;
        println!("{}", listed.unwrap_or_else(|error| error.to_string()));
        for replica in &self.replicas {
            println!("{}", replica.lock().await.state().await);
        }
    }
}

async fn target(latency: Duration, timeout: Duration, seed: u64) -> Result<(Receiver, String), ChaosError> {
    let receiver = Receiver::new(ReceiverSettings {
        latency,
        latency_jitter: LATENCY_JITTER,
        finish_abandoned: Some(timeout),
        seed,
        ..ReceiverSettings::default()
    });
    let address = receiver.spawn().await.map_err(ChaosError::system("listen on 127.0.0.1"))?;
    Ok((receiver, address.to_string()))
}

/// The ledger's lines of a config, and its server.
async fn ledger(kind: LedgerKind, dir: &Path) -> Result<(String, Option<PrivatePostgres>), ChaosError> {
    let postgres = match kind {
        LedgerKind::Postgres => {
            let dir = dir.join("postgres");
            Some(wait_for_script(move || PrivatePostgres::start(&dir)).await?)
        }
        LedgerKind::None | LedgerKind::Sqlite => None,
    };
    let lines = match (kind, &postgres) {
        (LedgerKind::Postgres, Some(server)) => format!("ledger.url = \"{}\"", server.url()),
        (LedgerKind::Sqlite, _) => format!("ledger.url = \"sqlite://{}\"", dir.join("ledger.db").display()),
        _ => "ledger.url = \"none\"\n\
              failure = { rejected = \"dead_letter\", exhausted = \"dead_letter\", conflict = \"dead_letter\" }"
            .to_owned(),
    };
    Ok((lines, postgres))
}

/// `HOST:PORT` of `amqp://USER:PASSWORD@HOST:PORT/…`.
pub(super) fn host_port(url: &str) -> String {
    let after = url.split_once('@').map_or(url, |(_, after)| after);
    after.split('/').next().unwrap_or_default().to_owned()
}

fn config_text(node: NodeNumber, ledger: &str, fast: &str, slow: &str) -> String {
    let heartbeat = HEARTBEAT.as_secs();
    let (fast_name, slow_name) = (FAST.name, SLOW.name);
    let (fast_timeout, slow_timeout) = (FAST_TIMEOUT.as_secs(), SLOW_TIMEOUT.as_secs());
    format!(
        r#"instance.name = "replica-{node}"
broker.heartbeat = "{heartbeat}s"
updates.exchange = "{EXCHANGE}"
updates.partitions = 8
dispatch.in_flight_max = 64
dispatch.prefetch = 500
dispatch.drain_timeout = "5s"
retry.delay_initial = "100ms"
retry.delay_max = "1s"
admin.listen = "127.0.0.1:0"
{ledger}

[[target]]
name = "fast"
types = ["{fast_name}.*"]
method = "PUT"
url = "http://{fast}/records/{{record_key}}"
timeout = "{fast_timeout}s"

[[target]]
name = "slow"
types = ["{slow_name}.*"]
method = "PUT"
url = "http://{slow}/records/{{record_key}}"
timeout = "{slow_timeout}s"
"#
    )
}

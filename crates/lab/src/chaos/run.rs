//! One crash test: three replicas, a broker, a target behind a proxy, a publisher, and faults by schedule.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use tempfile::TempDir;
use tokio::sync::Mutex;
use tokio::time::{Instant, sleep};

use super::error::ChaosError;
use super::publisher::{Load, Publisher, RecordKind};
use super::replica::{Replica, ReplicaSettings};
use super::result::ChaosResult;
use super::schedule::{Fault, Schedule};
use crate::receiver::{Receiver, ReceiverSettings, Report};
use crate::testbed::{PrivateBroker, Proxy, ProxyMode, ServerError, program};

const REPLICAS: usize = 3;
const EXCHANGE: &str = "chaos";
const HEARTBEAT: Duration = Duration::from_secs(2);
/// Time that a request takes, and the share by which it varies.
const LATENCY: Duration = Duration::from_millis(8);
const LATENCY_JITTER: f64 = 0.5;
const RECORDS: RecordKind = RecordKind { name: "record", records: 100, batch: 30, every: 1 };
/// After the last fault: if no update is applied for so long, those that are missing are lost.
const STANDSTILL_MAX: Duration = Duration::from_secs(90);
const POLL_INTERVAL: Duration = Duration::from_millis(20);

/// Everything that faults are injected into. What it has started ends with it.
pub(super) struct Chaos {
    seed: u64,
    program: PathBuf,
    logs: PathBuf,
    receiver: Receiver,
    proxy: Proxy,
    replicas: Vec<Mutex<Replica>>,
    /// One fault of the broker at a time.
    broker: Mutex<Arc<PrivateBroker>>,
    broker_url: String,
    /// The configs, and the broker's data.
    _dir: TempDir,
}

impl Chaos {
    /// When it has returned, all replicas are ready. `logs` is a directory that exists.
    pub(super) async fn start(
        seed: u64,
        rabbitmq: Option<String>,
        logs: PathBuf,
    ) -> Result<Self, ChaosError> {
        let program = program::executable().map_err(ChaosError::system("find the program lanekeeper"))?;
        let dir = tempfile::Builder::new().prefix("lanekeeper-chaos-").tempdir();
        let dir = dir.map_err(ChaosError::system("make a temporary directory"))?;
        let broker_dir = dir.path().join("broker");
        let broker = wait_for_script(move || PrivateBroker::start(&broker_dir, rabbitmq.as_deref())).await?;
        let broker_url = broker.url().to_owned();
        let receiver = Receiver::new(ReceiverSettings {
            latency: LATENCY,
            latency_jitter: LATENCY_JITTER,
            seed,
            ..ReceiverSettings::default()
        });
        let listening = receiver.spawn().await.map_err(ChaosError::system("listen on 127.0.0.1"))?;
        let proxy = Proxy::start(listening.to_string()).await;
        let proxy = proxy.map_err(ChaosError::system("listen on 127.0.0.1"))?;
        let mut replicas = Vec::new();
        for number in 0..REPLICAS {
            let config = dir.path().join(format!("replica-{number}.toml"));
            let text = config_text(number, &proxy);
            fs::write(&config, text).map_err(ChaosError::system("write a config"))?;
            let log = logs.join(format!("replica-{number}.log"));
            File::create(&log).map_err(ChaosError::system("write a log"))?;
            let (program, broker_url) = (program.clone(), broker_url.clone());
            let settings = ReplicaSettings { program, config, broker_url, log };
            replicas.push(Replica::start(settings)?);
        }
        for replica in &replicas {
            replica.ready().await?;
        }
        let replicas = replicas.into_iter().map(Mutex::new).collect();
        let broker = Arc::new(broker);
        // A quorum queue on a node that is killed soon after it was declared may not come back (RabbitMQ 3.10.8).
        restart(&broker).await?;
        let broker = Mutex::new(broker);
        Ok(Self { seed, program, logs, receiver, proxy, replicas, broker, broker_url, _dir: dir })
    }

    /// Injects faults for `lasts`, then waits until everything published has arrived, or nothing more does.
    pub(super) async fn run(&self, lasts: Duration) -> Result<ChaosResult, ChaosError> {
        let begun = Instant::now();
        let stop = AtomicBool::new(false);
        let publishing = self.publisher()?.publish_until(&stop, Load::new(self.seed, &[RECORDS]));
        let longest_ms = AtomicU64::new(0);
        let injecting = async {
            let injected = self.inject_faults(begun, lasts).await;
            stop.store(true, Ordering::Relaxed);
            injected
        };
        let judging = async {
            let (published, faults) = tokio::try_join!(publishing, injecting)?;
            let report = self.wait_for_rest(published).await;
            Ok::<_, ChaosError>((published, faults, report))
        };
        let (published, faults, report) = tokio::select! {
            judged = judging => judged?,
            never = watch_standstills(&self.receiver, &longest_ms) => match never {},
        };
        let result = ChaosResult {
            seed: self.seed,
            lasted: begun.elapsed(),
            faults,
            published,
            counts: report.counts,
            longest_standstill: Duration::from_millis(longest_ms.load(Ordering::Relaxed)),
        };
        if result.lost() > 0 {
            self.print_what_is_stuck().await;
        }
        Ok(result)
    }

    /// How often each kind was injected.
    async fn inject_faults(
        &self,
        begun: Instant,
        lasts: Duration,
    ) -> Result<BTreeMap<&'static str, u32>, ChaosError> {
        let mut schedule = Schedule::new(self.seed, REPLICAS, HEARTBEAT);
        let mut faults = BTreeMap::new();
        while begun.elapsed() < lasts {
            let (pause, first, second) = schedule.next();
            sleep(pause).await;
            for fault in [Some(first), second].into_iter().flatten() {
                *faults.entry(fault.kind()).or_default() += 1;
                println!("{:>5} s  {fault}", begun.elapsed().as_secs());
            }
            match second {
                Some(second) => drop(tokio::try_join!(self.inject(first), self.inject(second))?),
                None => self.inject(first).await?,
            }
        }
        Ok(faults)
    }

    async fn inject(&self, fault: Fault) -> Result<(), ChaosError> {
        match fault {
            Fault::Kill { replica, down } => self.replicas[replica].lock().await.kill(down).await,
            Fault::Terminate { replica, down } => self.replicas[replica].lock().await.terminate(down).await,
            Fault::Freeze { replica, lasts } => self.replicas[replica].lock().await.freeze(lasts).await,
            Fault::KillBroker => {
                let broker = self.broker.lock().await;
                call(&broker, |broker| broker.kill().and_then(|()| broker.restart())).await
            }
            Fault::RestartBroker => restart(&*self.broker.lock().await).await,
            Fault::DropConnections => {
                let broker = self.broker.lock().await;
                call(&broker, |broker| broker.ctl(&["close_all_connections", "chaos"])).await.map(drop)
            }
            Fault::Outage { mode, lasts } => {
                self.proxy.set(mode);
                sleep(lasts).await;
                self.proxy.set(ProxyMode::Forward);
                Ok(())
            }
            Fault::CutTarget => {
                self.proxy.close_connections();
                Ok(())
            }
        }
    }

    fn publisher(&self) -> Result<Publisher, ChaosError> {
        let log = File::create(self.logs.join("publish.log")).map_err(ChaosError::system("write a log"))?;
        let mut command = program::command(&self.program);
        command.args(["publish", "--give-up-after", "10m"]);
        command.env("LANEKEEPER_BROKER__URL", &self.broker_url);
        command.env("LANEKEEPER_UPDATES__EXCHANGE", EXCHANGE);
        command.stderr(log);
        Publisher::start(command)
    }

    async fn wait_for_rest(&self, published: u64) -> Report {
        let (mut last, mut since) = (0, Instant::now());
        loop {
            let report = self.receiver.report(0);
            if report.counts.updates != last {
                (last, since) = (report.counts.updates, Instant::now());
            }
            if (last >= published && report.in_progress == 0) || since.elapsed() > STANDSTILL_MAX {
                return report;
            }
            sleep(POLL_INTERVAL).await;
        }
    }

    /// What the broker and each replica say about updates that do not arrive.
    async fn print_what_is_stuck(&self) {
        const QUEUES: &[&str] =
            &["list_queues", "name", "messages_ready", "messages_unacknowledged", "consumers"];
        let broker = self.broker.lock().await;
        for arguments in [QUEUES, &["list_consumers"]] {
            let listed = call(&broker, move |broker| broker.ctl(arguments)).await;
            println!("{}", listed.unwrap_or_else(|error| error.to_string()));
        }
        for (number, replica) in self.replicas.iter().enumerate() {
            println!("replica {number}: {}", replica.lock().await.state().await);
        }
    }
}

fn config_text(replica: usize, proxy: &Proxy) -> String {
    let (heartbeat, target) = (HEARTBEAT.as_secs(), proxy.address);
    format!(
        r#"instance.name = "replica-{replica}"
broker.heartbeat = "{heartbeat}s"
updates.exchange = "{EXCHANGE}"
updates.partitions = 8
dispatch.in_flight_max = 8
dispatch.prefetch = 200
dispatch.drain_timeout = "5s"
retry.delay_initial = "100ms"
retry.delay_max = "1s"
admin.listen = "127.0.0.1:0"
ledger.url = "none"
failure = {{ rejected = "dead_letter", exhausted = "dead_letter", conflict = "dead_letter" }}

[[target]]
name = "receiver"
types = ["*"]
method = "PUT"
url = "http://{target}/records/{{record_key}}"
timeout = "1s"
"#
    )
}

/// Stops and starts the broker's application in an orderly way.
async fn restart(broker: &Arc<PrivateBroker>) -> Result<(), ChaosError> {
    let restarting =
        |broker: &PrivateBroker| broker.ctl(&["stop_app"]).and_then(|_| broker.ctl(&["start_app"]));
    call(broker, restarting).await.map(drop)
}

async fn call<T: Send + 'static>(
    broker: &Arc<PrivateBroker>,
    call: impl FnOnce(&PrivateBroker) -> Result<T, ServerError> + Send + 'static,
) -> Result<T, ChaosError> {
    let broker = Arc::clone(broker);
    wait_for_script(move || call(&broker)).await
}

/// Scripts take seconds, and no thread of the runtime may wait for them.
pub(super) async fn wait_for_script<T: Send + 'static>(
    call: impl FnOnce() -> Result<T, ServerError> + Send + 'static,
) -> Result<T, ChaosError> {
    Ok(tokio::task::spawn_blocking(call).await.expect("a script's call does not panic")?)
}

/// Keeps the longest time in which no update was applied, in milliseconds.
async fn watch_standstills(receiver: &Receiver, longest_ms: &AtomicU64) -> std::convert::Infallible {
    let (mut last, mut since) = (0, Instant::now());
    loop {
        let updates = receiver.report(0).counts.updates;
        if updates != last {
            (last, since) = (updates, Instant::now());
        }
        let standstill_ms = u64::try_from(since.elapsed().as_millis()).unwrap_or(u64::MAX);
        longest_ms.fetch_max(standstill_ms, Ordering::Relaxed);
        sleep(POLL_INTERVAL).await;
    }
}

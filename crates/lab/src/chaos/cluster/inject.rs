//! How each kind of fault is injected, and how the cluster is put right afterwards.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::process::Command;
use tokio::time::{Instant, sleep};

use super::fault::{FaultKind, Schedule};
use super::stage::{ClusterChaos, EXCHANGE, HEARTBEAT, host_port};
use crate::chaos::error::ChaosError;
use crate::chaos::run::wait_for_script;
use crate::testbed::{NodeNumber, PrivateCluster, ServerError, program};

/// How long a split lasts, unless `net_ticktime` asks for more: nodes notice it after 0.75 to 1.25 times that.
const SPLIT_LASTS: Duration = Duration::from_secs(30);
const SPLIT_TICKTIMES: u32 = 2;
/// How long the cut-off node of a healed split goes on before it is restarted.
const HEALED_LASTS: Duration = Duration::from_secs(8);
const FREEZE_LASTS: Duration = Duration::from_secs(25);
/// How long a killed node stays down.
const DOWN_LASTS: Duration = Duration::from_secs(4);
/// From the end of one restart to the next one.
const BETWEEN_NODES: Duration = Duration::from_secs(3);
/// How long a layout may take to change, with its retries.
const CHANGE_TIMEOUT: Duration = Duration::from_secs(180);
const TRY_AGAIN_INTERVAL: Duration = Duration::from_secs(1);
/// Moves leaders of quorum queues to other nodes: with `true` all, with `false` those on the node that evaluates it.
const MOVE_LEADERS: &str = "lists:foreach(fun(Q) -> case amqqueue:get_type(Q) of rabbit_quorum_queue -> \
    {_, L} = amqqueue:get_pid(Q), [D | _] = [N || N <- [node() | nodes()], N =/= L], \
    if ALL orelse L =:= node() -> rabbit_quorum_queue:transfer_leadership(Q, D); true -> ok end; \
    _ -> ok end end, rabbit_amqqueue:list()).";

impl ClusterChaos {
    pub(super) async fn inject(&self, kind: FaultKind, schedule: &mut Schedule) -> Result<(), ChaosError> {
        match kind {
            FaultKind::Split => self.split(false).await,
            FaultKind::SplitAlone => self.split(true).await,
            FaultKind::SplitPausing => self.split_pausing().await,
            FaultKind::Kill => {
                for node in schedule.nodes() {
                    self.script(move |cluster| cluster.kill(node)).await?;
                    sleep(DOWN_LASTS).await;
                    self.script(move |cluster| cluster.boot(node)).await?;
                    sleep(BETWEEN_NODES).await;
                }
                Ok(())
            }
            FaultKind::Freeze => {
                let [node, ..] = schedule.nodes();
                self.script(move |cluster| cluster.freeze(node)).await?;
                sleep(FREEZE_LASTS).await;
                self.script(move |cluster| cluster.thaw(node)).await?;
                sleep(HEALED_LASTS).await;
                self.restart_if_partitioned(node).await
            }
            FaultKind::RollingRestart => {
                for node in schedule.nodes() {
                    self.tool(node, "rabbitmq-upgrade", &["await_online_quorum_plus_one"]).await?;
                    self.restart(node).await?;
                    sleep(BETWEEN_NODES).await;
                }
                Ok(())
            }
            FaultKind::KillAll => {
                self.all_nodes(PrivateCluster::kill).await?;
                sleep(DOWN_LASTS).await;
                // Each waits for another one.
                self.all_nodes(PrivateCluster::boot).await
            }
            FaultKind::LayoutChange => self.change_layout(schedule).await,
            FaultKind::MoveLeaders => self.move_leaders().await,
            FaultKind::LoseMembersLeader => self.lose_members_leader().await,
            FaultKind::KillOwner => {
                self.replicas[self.owner().await.index()].lock().await.kill(HEARTBEAT).await
            }
            FaultKind::FreezeOwner => {
                let owner = self.owner().await.index();
                self.replicas[owner].lock().await.freeze(HEARTBEAT * 7 / 2).await
            }
        }
    }

    /// Waits until the cluster is whole and every dispatcher is ready, and starts those that ended.
    pub(super) async fn recover(&self) -> Result<(), ChaosError> {
        for node in NodeNumber::ALL {
            self.tool(node, "rabbitmqctl", &["--timeout", "120", "await_online_nodes", "3"]).await?;
        }
        for replica in &self.replicas {
            let mut replica = replica.lock().await;
            if replica.revive()? {
                self.ended_dispatchers.fetch_add(1, Ordering::Relaxed);
            }
            replica.ready().await?;
        }
        Ok(())
    }

    /// Queues whose leaders stay with the larger side make a standby active there, while the cut-off owner goes on.
    async fn move_leaders_away(&self, node: NodeNumber) -> Result<(), ChaosError> {
        self.tool(node, "rabbitmqctl", &["eval", &MOVE_LEADERS.replace("ALL", "false")]).await.map(drop)
    }

    /// A split with its healing under `ignore`. With `alone` all other dispatchers are stopped before.
    async fn split(&self, alone: bool) -> Result<(), ChaosError> {
        self.handle_partitions("ignore").await?;
        let node = self.owner().await;
        self.publish_through(another(node));
        self.move_leaders_away(node).await?;
        if alone {
            for other in NodeNumber::ALL.into_iter().filter(|other| *other != node) {
                self.replicas[other.index()].lock().await.stop().await?;
            }
            sleep(BETWEEN_NODES).await;
        }
        self.cut_for_a_while(node).await?;
        sleep(HEALED_LASTS).await;
        self.restart(node).await?;
        if alone {
            for other in NodeNumber::ALL.into_iter().filter(|other| *other != node) {
                self.replicas[other.index()].lock().await.revive()?;
            }
        }
        Ok(())
    }

    async fn split_pausing(&self) -> Result<(), ChaosError> {
        self.handle_partitions("pause_minority").await?;
        let node = self.owner().await;
        self.publish_through(another(node));
        self.cut_for_a_while(node).await?;
        // It starts again by itself.
        self.tool(node, "rabbitmqctl", &["--timeout", "120", "await_startup"]).await?;
        sleep(HEALED_LASTS).await;
        self.restart_if_partitioned(node).await
    }

    async fn cut_for_a_while(&self, node: NodeNumber) -> Result<(), ChaosError> {
        println!("         node {node} is cut off");
        self.script(move |cluster| cluster.cut(node)).await?;
        sleep(self.out_of_reach()).await;
        self.script(PrivateCluster::heal).await?;
        println!("         healed");
        Ok(())
    }

    /// How long a node is out of reach: until the others have noticed it, and have gone on for a while.
    fn out_of_reach(&self) -> Duration {
        let ticktime = Duration::from_secs(self.settings.net_ticktime_seconds.into());
        SPLIT_LASTS.max(ticktime * SPLIT_TICKTIMES)
    }

    async fn change_layout(&self, schedule: &mut Schedule) -> Result<(), ChaosError> {
        let [through, dies, _] = schedule.nodes();
        let partitions = self.next_partitions.fetch_xor(6 ^ 8, Ordering::Relaxed).to_string();
        let change = async {
            let deadline = Instant::now() + CHANGE_TIMEOUT;
            loop {
                let mut command = Command::from(program::command(&self.program));
                command
                    .args(["topology", "apply", "--without-management", "--timeout", "60s", "--config"])
                    .arg(&self.config);
                command.env("LANEKEEPER_BROKER__URL", self.cluster.url(through));
                command.env("LANEKEEPER_UPDATES__EXCHANGE", EXCHANGE);
                command.env("LANEKEEPER_UPDATES__PARTITIONS", &partitions);
                command.kill_on_drop(true);
                let output = command.output().await.map_err(ChaosError::system("run `topology apply`"))?;
                if output.status.success() {
                    return Ok(());
                }
                let said = String::from_utf8_lossy(&output.stderr);
                println!("         topology apply: {}", said.trim().lines().last().unwrap_or_default());
                if Instant::now() > deadline {
                    return Err(ChaosError::Change(output.status));
                }
                sleep(TRY_AGAIN_INTERVAL).await;
            }
        };
        let death = async {
            sleep(Duration::from_millis(300)).await;
            self.script(move |cluster| cluster.kill(dies)).await?;
            sleep(DOWN_LASTS).await;
            self.script(move |cluster| cluster.boot(dies)).await
        };
        tokio::try_join!(change, death).map(drop)
    }

    /// Leaders of streams move where RabbitMQ has a command for that.
    async fn move_leaders(&self) -> Result<(), ChaosError> {
        self.tool(NodeNumber::One, "rabbitmqctl", &["eval", &MOVE_LEADERS.replace("ALL", "true")]).await?;
        for stream in ["members", "topology"] {
            let stream = format!("{EXCHANGE}.{stream}");
            if self.tool(NodeNumber::One, "rabbitmq-streams", &["restart_stream", &stream]).await.is_err() {
                println!("         this version cannot move the leader of a stream");
            }
        }
        sleep(BETWEEN_NODES).await;
        Ok(())
    }

    async fn lose_members_leader(&self) -> Result<(), ChaosError> {
        self.handle_partitions("ignore").await?;
        let node = self.members_leader().await?;
        let replica = &self.replicas[node.index()];
        self.publish_through(another(node));
        self.move_leaders_away(node).await?;
        replica.lock().await.stop().await?;
        sleep(BETWEEN_NODES).await;
        match self.lost_leaders.fetch_add(1, Ordering::Relaxed) % 3 {
            0 => {
                println!("         SIGKILL of node {node}");
                self.script(move |cluster| cluster.kill(node)).await?;
                sleep(self.out_of_reach()).await;
                self.script(move |cluster| cluster.boot(node)).await?;
            }
            1 => {
                println!("         SIGSTOP of node {node}");
                self.script(move |cluster| cluster.freeze(node)).await?;
                sleep(self.out_of_reach()).await;
                self.script(move |cluster| cluster.thaw(node)).await?;
                sleep(HEALED_LASTS).await;
                self.restart(node).await?;
            }
            _ => {
                self.cut_for_a_while(node).await?;
                sleep(HEALED_LASTS).await;
                self.restart(node).await?;
            }
        }
        replica.lock().await.revive().map(drop)
    }

    /// The node with the leader of the stream of members.
    async fn members_leader(&self) -> Result<NodeNumber, ChaosError> {
        let look = format!(
            "{{ok, Q}} = rabbit_amqqueue:lookup({{resource, <<\"/\">>, queue, <<\"{EXCHANGE}.members\">>}}), \
             maps:get(leader_node, amqqueue:get_type_state(Q))."
        );
        let leader = self.tool(NodeNumber::One, "rabbitmqctl", &["eval", &look]).await?;
        let is_leader = |node: &NodeNumber| {
            let host_port = host_port(self.cluster.url(*node));
            let host = host_port.split(':').next().unwrap_or_default();
            leader.contains(&format!("@{host}'"))
        };
        Ok(NodeNumber::ALL.into_iter().find(is_leader).unwrap_or(NodeNumber::One))
    }

    /// The node whose dispatcher owns most partitions.
    async fn owner(&self) -> NodeNumber {
        let mut most = (0, NodeNumber::One);
        for node in NodeNumber::ALL {
            let owned = self.replicas[node.index()].lock().await.owned().await;
            if owned > most.0 {
                most = (owned, node);
            }
        }
        println!("         replica {} owns {} partitions", most.1, most.0);
        most.1
    }

    fn publish_through(&self, node: NodeNumber) {
        self.publishers_way.retarget(host_port(self.cluster.url(node)));
    }

    async fn handle_partitions(&self, handling: &str) -> Result<(), ChaosError> {
        let set = format!("application:set_env(rabbit, cluster_partition_handling, {handling}).");
        for node in NodeNumber::ALL {
            self.tool(node, "rabbitmqctl", &["eval", &set]).await?;
        }
        Ok(())
    }

    async fn restart(&self, node: NodeNumber) -> Result<(), ChaosError> {
        self.script(move |cluster| cluster.terminate(node).and_then(|()| cluster.boot(node))).await
    }

    /// What an operator does after a split that RabbitMQ does not heal by itself.
    async fn restart_if_partitioned(&self, node: NodeNumber) -> Result<(), ChaosError> {
        const STATUS: [&str; 3] = ["cluster_status", "--formatter", "json"];
        let mut partitioned = false;
        for node in NodeNumber::ALL {
            let status = self.tool(node, "rabbitmqctl", &STATUS).await?;
            let status: serde_json::Value = serde_json::from_str(status.trim()).unwrap_or_default();
            partitioned |= status["partitions"].as_object().is_some_and(|partitions| !partitions.is_empty());
        }
        if partitioned {
            println!("         partitioned: node {node} is restarted");
            self.restart(node).await?;
        }
        Ok(())
    }

    async fn all_nodes(
        &self,
        call: fn(&PrivateCluster, NodeNumber) -> Result<(), ServerError>,
    ) -> Result<(), ChaosError> {
        let [one, two, three] = NodeNumber::ALL.map(|node| self.script(move |cluster| call(cluster, node)));
        tokio::try_join!(one, two, three).map(drop)
    }

    pub(super) async fn tool(
        &self,
        node: NodeNumber,
        tool: &'static str,
        arguments: &[&str],
    ) -> Result<String, ChaosError> {
        let arguments: Vec<String> = arguments.iter().map(|&argument| argument.to_owned()).collect();
        self.script(move |cluster| {
            let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
            cluster.tool(node, tool, &arguments)
        })
        .await
    }

    async fn script<T: Send + 'static>(
        &self,
        call: impl FnOnce(&PrivateCluster) -> Result<T, ServerError> + Send + 'static,
    ) -> Result<T, ChaosError> {
        let cluster = Arc::clone(&self.cluster);
        wait_for_script(move || call(&cluster)).await
    }
}

fn another(node: NodeNumber) -> NodeNumber {
    let mut others = NodeNumber::ALL.into_iter().filter(|other| *other != node);
    others.next().expect("there are three")
}

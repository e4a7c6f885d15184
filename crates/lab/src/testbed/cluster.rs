//! A private cluster of three RabbitMQ nodes, started and stopped by `scripts/cluster`.

use std::fmt;
use std::path::Path;

use super::servers::{Server, ServerError};

const SCRIPT: &str = "scripts/cluster";

/// A node of a cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum NodeNumber {
    /// The one that was started first.
    One,
    /// The second.
    Two,
    /// The third.
    Three,
}

impl NodeNumber {
    /// All nodes.
    pub const ALL: [Self; 3] = [Self::One, Self::Two, Self::Three];

    /// From 0.
    pub const fn index(self) -> usize {
        self as usize
    }

    const fn argument(self) -> &'static str {
        ["1", "2", "3"][self.index()]
    }
}

impl fmt::Display for NodeNumber {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.argument())
    }
}

/// What a cluster is started with.
#[derive(Clone, Debug)]
pub struct ClusterSettings {
    /// RabbitMQ's version, as for `scripts/cluster --rabbitmq`; `None`: the one that is installed, or that
    /// `LANEKEEPER_RABBITMQ` names.
    pub rabbitmq: Option<String>,
    /// Erlang's `net_ticktime`. A node that does not answer counts as down after 0.75 to 1.25 times this.
    pub net_ticktime_seconds: u16,
}

/// Three nodes. As root, each has a network namespace of its own, and can be cut off from the others; else all are on
/// 127.0.0.1. Everything is taken down when this value is dropped, and with this process, however it ends.
///
/// Every call waits for the script: up to seconds.
#[derive(Debug)]
pub struct PrivateCluster {
    server: Server,
    urls: [String; 3],
    management_urls: [String; 3],
    can_split: bool,
}

impl PrivateCluster {
    /// Starts a cluster with its data in `dir`, which is deleted when this value is dropped. Takes some 20 s.
    ///
    /// # Errors
    /// The script fails; it says why.
    pub fn start(dir: &Path, settings: &ClusterSettings) -> Result<Self, ServerError> {
        let ticktime = settings.net_ticktime_seconds.to_string();
        let mut options = vec!["--net-ticktime", &ticktime];
        options.extend(settings.rabbitmq.iter().flat_map(|version| ["--rabbitmq", version]));
        let (server, mut exported) = Server::start(SCRIPT, &options, dir)?;
        let mut of_each = |name: &str| -> Result<[String; 3], ServerError> {
            let [one, two, three] =
                NodeNumber::ALL.map(|node| server.exported(&format!("{name}_{node}"), &mut exported));
            Ok([one?, two?, three?])
        };
        let urls = of_each("LANEKEEPER_CLUSTER_URL")?;
        let management_urls = of_each("LANEKEEPER_CLUSTER_MANAGEMENT_URL")?;
        let can_split = !server.exported("LANEKEEPER_CLUSTER_SPLITS", &mut exported)?.is_empty();
        Ok(Self { server, urls, management_urls, can_split })
    }

    /// Of AMQP on this node, with user and password.
    pub fn url(&self, node: NodeNumber) -> &str {
        &self.urls[node.index()]
    }

    /// Of the management API on this node, with user and password.
    pub fn management_url(&self, node: NodeNumber) -> &str {
        &self.management_urls[node.index()]
    }

    /// False if this process may not cut links: it is not root, or there is no `ip`.
    pub fn can_split(&self) -> bool {
        self.can_split
    }

    /// Sends SIGKILL to a node; its data stays.
    ///
    /// # Errors
    /// The script fails.
    pub fn kill(&self, node: NodeNumber) -> Result<(), ServerError> {
        self.on("kill", node)
    }

    /// Ends a node in an orderly way; its data stays.
    ///
    /// # Errors
    /// The script fails.
    pub fn terminate(&self, node: NodeNumber) -> Result<(), ServerError> {
        self.on("terminate", node)
    }

    /// Starts a node again with its data, and waits until it takes connections.
    ///
    /// # Errors
    /// The script fails.
    pub fn boot(&self, node: NodeNumber) -> Result<(), ServerError> {
        self.on("boot", node)
    }

    /// Sends SIGSTOP to a node.
    ///
    /// # Errors
    /// The script fails.
    pub fn freeze(&self, node: NodeNumber) -> Result<(), ServerError> {
        self.on("freeze", node)
    }

    /// Sends SIGCONT to a node.
    ///
    /// # Errors
    /// The script fails.
    pub fn thaw(&self, node: NodeNumber) -> Result<(), ServerError> {
        self.on("thaw", node)
    }

    /// Cuts a node off from the other two. Clients go on reaching all three.
    ///
    /// # Errors
    /// The cluster cannot be split, or the script fails.
    pub fn cut(&self, node: NodeNumber) -> Result<(), ServerError> {
        self.on("cut", node)
    }

    /// Undoes every cut.
    ///
    /// # Errors
    /// The script fails.
    pub fn heal(&self) -> Result<(), ServerError> {
        self.server.call("heal", &[]).map(drop)
    }

    /// Runs one of RabbitMQ's tools, such as `rabbitmq-queues`, for this node and returns what it prints.
    ///
    /// # Errors
    /// It fails.
    pub fn tool(&self, node: NodeNumber, tool: &str, arguments: &[&str]) -> Result<String, ServerError> {
        self.server.call("tool", &[&[node.argument(), "--", tool], arguments].concat())
    }

    fn on(&self, command: &str, node: NodeNumber) -> Result<(), ServerError> {
        self.server.call(command, &[node.argument()]).map(drop)
    }
}

//! What was seen at the broker, before any rule judges it.

use std::collections::BTreeMap;
use std::fmt;

use serde_json::{Map, Value as Json};

use lanekeeper_broker::{Inspection, MessageSize, Object, ObjectState, Role};
use lanekeeper_core::layout::Layout;

/// All facts.
#[derive(Clone, Debug)]
pub struct Observed {
    /// Seen over AMQP.
    pub broker: Inspection,
    /// Seen over the management API, or why nothing was seen there.
    pub management: Result<Management, ManagementFault>,
    /// The virtual host of `broker.url`.
    pub vhost: String,
    /// If it takes a message as large as `updates.body_bytes_max`.
    pub message_size: MessageSize,
}

impl Observed {
    /// The current layout, if there is one that can be read.
    pub fn layout(&self) -> Option<Layout> {
        self.broker.layout.as_ref().ok().copied().flatten()
    }

    /// What the management API shows about a queue.
    pub fn queue(&self, name: &str) -> Option<&Queue> {
        self.management.as_ref().ok()?.queues.get(name)
    }

    /// Partition queues, as AMQP saw them.
    pub fn partitions(&self) -> impl Iterator<Item = &Object> {
        self.broker.objects.iter().filter(|object| matches!(object.role, Role::Partition(_)))
    }

    /// Messages in a queue. Only the management API's number includes those that consumers hold; it is some seconds old.
    pub fn messages(&self, object: &Object) -> u64 {
        let ready = match &object.state {
            ObjectState::AsDeclared(depth) | ObjectState::Differs { depth, .. } => depth.ready,
            ObjectState::Missing | ObjectState::Unavailable(_) | ObjectState::NotPermitted(_) => 0,
        };
        let all = self.queue(&object.name).map_or(0, |queue| queue.messages);
        all.max(ready.into())
    }

    /// The broker's version, as numbers.
    pub fn version(&self) -> Option<Version> {
        Version::parse(self.broker.version.as_deref()?)
    }
}

/// A version of RabbitMQ.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Version(pub u32, pub u32, pub u32);

impl Version {
    /// `4.3.0-rc.1` is 4.3.0.
    pub fn parse(text: &str) -> Option<Self> {
        let numbers = text.split(|c: char| !c.is_ascii_digit() && c != '.').next()?;
        let mut numbers = numbers.split('.').map(|number| number.parse().ok());
        let mut next = || numbers.next().unwrap_or(Some(0));
        Some(Self(next()?, next()?, next()?))
    }
}

/// What the management API showed.
#[derive(Clone, Debug)]
pub struct Management {
    /// Where it is, without `/api`.
    pub url: String,
    /// The user that asked.
    pub user: String,
    /// Queues of the topology, by name.
    pub queues: BTreeMap<String, Queue>,
    /// Bindings from or to any object of the topology.
    pub bindings: Vec<Binding>,
    /// Definitions of the virtual host's policies.
    pub policies: BTreeMap<PolicyName, Map<String, Json>>,
    /// Alarms in effect, or why they are not known.
    pub alarms: Result<Vec<Alarm>, String>,
    /// Nodes of the cluster; or why they are not known (the user needs the tag "monitoring").
    pub nodes: Result<Vec<Node>, String>,
    /// How many copies of quorum queues each node has, of all virtual hosts that the user may see; or why that is not known.
    pub quorum_copies: Result<BTreeMap<String, u64>, String>,
    /// Whether Khepri is the metadata store; or why that is not known (the user needs the tag "administrator").
    pub khepri: Result<bool, String>,
}

impl Management {
    /// Nodes of the cluster, as far as they are known.
    pub fn known_nodes(&self) -> &[Node] {
        self.nodes.as_deref().unwrap_or_default()
    }
}

/// What the management API showed of the exchange that publishers use. Each `Err` has the API's words for a refusal, or for
/// what is not there.
#[derive(Clone, Debug)]
pub struct ExchangeManagement {
    /// Where it is, without `/api`.
    pub url: String,
    /// The user that asked.
    pub user: String,
    /// The exchange.
    pub exchange: Result<SeenExchange, String>,
    /// What it is bound to.
    pub bindings: Result<Vec<Binding>, String>,
    /// Alarms in effect.
    pub alarms: Result<Vec<Alarm>, String>,
}

/// An exchange.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SeenExchange {
    /// Such as `fanout`.
    pub kind: String,
    /// It outlives the broker's restart.
    pub durable: bool,
    /// It goes with its last binding.
    pub auto_delete: bool,
    /// Only exchanges publish to it.
    pub internal: bool,
}

/// A node of the cluster.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Node {
    /// Its name.
    pub name: String,
    /// It runs, and the node that was asked reaches it.
    pub running: bool,
    /// Nodes that it has a view of its own of, since they were cut off from each other and no side was restarted.
    pub partitions: Vec<String>,
    /// How many files its process may have open.
    pub files_max: Option<u64>,
}

/// Why the management API showed nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ManagementFault {
    /// Where it was expected.
    pub url: String,
    /// The user that asked.
    pub user: String,
    /// What happened.
    pub cause: ManagementCause,
}

/// Why the management API showed nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ManagementCause {
    /// Nothing answers, or not as an HTTP server does.
    Unreachable(String),
    /// The API refuses this user, in these words.
    Refused(String),
    /// The API belongs to another cluster, with this name.
    OtherCluster(String),
    /// An answer that is not the management API's.
    NotUnderstood(String),
}

impl fmt::Display for ManagementCause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unreachable(why) | Self::NotUnderstood(why) => f.write_str(why),
            Self::Refused(words) => write!(f, "it refuses this user: {words}"),
            Self::OtherCluster(theirs) => write!(f, "it belongs to another cluster, {theirs:?}"),
        }
    }
}

/// A queue of the topology.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Queue {
    /// `quorum`, `classic` or `stream`; `None`: not known.
    pub kind: Option<String>,
    /// Messages, including those that consumers hold.
    pub messages: u64,
    /// Its consumers.
    pub consumers: Vec<Consumer>,
    /// The policy that applies.
    pub policy: Option<String>,
    /// The operator policy that applies.
    pub operator_policy: Option<String>,
    /// Both policies merged; `None`: not known yet, as in the first seconds of a queue.
    pub effective_policy: Option<Map<String, Json>>,
    /// `x-consumer-timeout`, in milliseconds.
    pub consumer_timeout_ms: Option<u64>,
    /// Nodes with a copy.
    pub members: Vec<String>,
    /// Those of them that are online.
    pub online: Vec<String>,
    /// The node with the leader of the copies.
    pub leader: Option<String>,
}

/// A consumer of a queue.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Consumer {
    /// Its consumer tag.
    pub tag: String,
    /// How many deliveries it may hold; 0: no limit.
    pub prefetch: u64,
    /// How long it may hold a delivery, in milliseconds. RabbitMQ 4.0 shows it, 3.10 does not.
    pub timeout_ms: Option<u64>,
    /// Name of its connection in the management API, if known.
    pub connection: Option<String>,
    /// Its user, if known.
    pub user: Option<String>,
}

/// A binding.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Binding {
    /// The exchange that routes; empty is the default exchange.
    pub source: String,
    /// A queue's or an exchange's name.
    pub destination: String,
    /// Which of both.
    pub to: DestinationKind,
    /// Its name in the management API.
    pub properties_key: String,
}

/// What a binding leads to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum DestinationKind {
    /// A queue.
    Queue,
    /// An exchange.
    Exchange,
}

/// A policy of the virtual host.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct PolicyName {
    /// Policy or operator policy.
    pub kind: PolicyKind,
    /// Its name.
    pub name: String,
}

/// The two kinds of policies.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum PolicyKind {
    /// Set by users.
    Policy,
    /// Set by operators of the broker; takes precedence.
    OperatorPolicy,
}

/// An alarm of the broker.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Alarm {
    /// The node that raised it.
    pub node: String,
    /// Such as `memory` or `disk space` (3.10.8).
    pub resource: String,
}

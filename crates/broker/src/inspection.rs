//! Reads a topology over AMQP alone, without changing it: what is there, if it is as it must be, and what the broker refuses.

use std::time::Duration;

use lapin::types::FieldTable;
use lapin::{BasicProperties, ExchangeKind};
use tokio::time::timeout;
use uuid::Uuid;

use super::channel::confirm_channel::{ConfirmChannel, Message};
use super::connection::{Address, Connection};
use super::error::SourceError;
use super::names::{HASH_EXCHANGE_TYPE, Names};
use super::topology::arguments::{
    ingress_arguments, partition_arguments, quorum_arguments, stream_arguments,
};
use super::topology::declare::declare_public_exchange;
use super::topology::document_stream::read_if_there;
use super::topology::leftover::{refuse_later_layouts, refuse_newer_layouts};
use super::topology::session::{Depth, TopologySession};
use lanekeeper_core::change::Layouts;
use lanekeeper_core::error::error_chain;
use lanekeeper_core::layout::{Layout, PartitionNumber};

/// How long the confirm of a publish may take. Without an alarm it takes milliseconds.
const CONFIRM_PATIENCE: Duration = Duration::from_secs(5);
/// How long all of it may take. A layout of 1,024 partitions takes some 2,000 requests.
const INSPECTION_TIMEOUT: Duration = Duration::from_secs(120);
const CLOSE_TIMEOUT: Duration = Duration::from_secs(1);

/// What the broker has answered over AMQP.
#[derive(Clone, Debug)]
pub struct Inspection {
    /// Host and port.
    pub address: String,
    /// As the broker says it, such as `3.10.8`.
    pub version: Option<String>,
    /// Name of its cluster.
    pub cluster: Option<String>,
    /// True if it knows the exchange type `x-modulus-hash`.
    pub hash_exchange: bool,
    /// The current layout; `None`: there is none yet.
    pub layout: Result<Option<Layout>, String>,
    /// What is there that the document does not name, since it is gone or older, and what to do: `lanekeeper run` refuses it.
    pub misfit: Option<String>,
    /// The layout that the current one is being changed to, once it may be bound to the ingress.
    pub changing_to: Option<Layout>,
    /// A layout before it still holds updates: its own partitions wait for that.
    pub draining: bool,
    /// Every object that `lanekeeper run` declares for it.
    pub objects: Vec<Object>,
    /// If it takes publishes, or why not.
    pub publishing: Publishing,
}

/// An exchange or a queue of the topology.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Object {
    /// Its name.
    pub name: String,
    /// What it is for.
    pub role: Role,
    /// How it is.
    pub state: ObjectState,
}

/// What an object of the topology is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// The exchange that publishers know.
    Public,
    /// The exchange with exactly one binding.
    Ingress,
    /// The exchange that is used while the layout changes.
    Handoff,
    /// The exchange before the dead-letter queue.
    DeadExchange,
    /// The dead-letter queue.
    DeadQueue,
    /// The stream with the layout document.
    Document,
    /// The hash exchange of the layout.
    Layout,
    /// A partition's queue.
    Partition(PartitionNumber),
}

impl Role {
    /// Returns true if it is a queue (a stream is one).
    #[must_use]
    pub fn is_queue(self) -> bool {
        matches!(self, Self::DeadQueue | Self::Document | Self::Partition(_))
    }
}

/// How an object is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ObjectState {
    /// It is not there.
    Missing,
    /// It is as `lanekeeper run` declares it.
    AsDeclared(Depth),
    /// It is there, and no node that could answer for it is: the broker's words.
    Unavailable(String),
    /// It is there, with other properties.
    Differs {
        /// The property.
        argument: String,
        /// As it must be.
        expected: String,
        /// As it is.
        found: String,
        /// What is in it.
        depth: Depth,
    },
    /// The broker's words: the user may not declare it, as `lanekeeper run` does at each start.
    NotPermitted(String),
}

/// If the broker takes publishes, or why not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Publishing {
    /// It confirms them.
    Taken,
    /// An alarm blocks them.
    Blocked,
    /// It neither confirms nor says that it does not take them.
    Unconfirmed,
    /// The broker's words: the user may not publish to the default exchange.
    NotPermitted(String),
}

/// Looks at the topology of `names`. Declares only what exists, with the properties that it must have, which the broker
/// answers by comparing; and publishes two empty messages that no queue takes.
///
/// # Errors
/// The broker cannot be reached, refuses us, or does not answer.
pub async fn inspect(address: &Address, names: &Names, name: &str) -> Result<Inspection, SourceError> {
    match timeout(INSPECTION_TIMEOUT, inspect_patiently(address, names, name)).await {
        Ok(inspection) => inspection,
        Err(_) => Err(SourceError::Silent {
            step: "looking at the topology",
            seconds: INSPECTION_TIMEOUT.as_secs(),
        }),
    }
}

async fn inspect_patiently(address: &Address, names: &Names, name: &str) -> Result<Inspection, SourceError> {
    // Each probe that the broker answers by ending the connection, or by reading it no more, has one of its own.
    let hash_exchange = {
        let connection = address.connect(name).await?;
        let known = knows_hash_exchange(&mut TopologySession::new(&connection, names, name)).await;
        leave(connection).await;
        known?
    };
    let publishing = {
        let connection = address.connect(name).await?;
        let publishing = try_publishing(&connection).await;
        leave(connection).await;
        publishing?
    };
    let (layouts, misfit) = {
        let connection = address.connect(name).await?;
        let mut session = TopologySession::new(&connection, names, name);
        let layouts = read_layouts(&mut session).await;
        leave(connection).await;
        layouts?
    };
    let connection = address.connect(name).await?;
    let inspection = async {
        let mut session = TopologySession::new(&connection, names, name);
        let known = layouts.as_ref().ok().and_then(Option::as_ref);
        let changing = known.and_then(|layouts| layouts.changing.as_ref());
        let changing_to =
            changing.filter(|changing| changing.witnesses.is_some()).map(|changing| changing.to);
        let draining = known.is_some_and(Layouts::drains);
        let layout = layouts.map(|layouts| layouts.map(|layouts| layouts.in_force));
        let mut objects = Vec::new();
        for (role, name) in expected(names, layout.as_ref().ok().copied().flatten()) {
            // The broker would end the connection if it does not know the type, which has a finding of its own.
            let comparable = hash_exchange || role != Role::Layout;
            let state = look_at(&mut session, role, &name, comparable).await?;
            objects.push(Object { name, role, state });
        }
        Ok(Inspection {
            address: connection.host_port().to_owned(),
            version: connection.server_property("version"),
            cluster: connection.server_property("cluster_name"),
            hash_exchange,
            layout,
            misfit,
            changing_to,
            draining,
            objects,
            publishing,
        })
    }
    .await;
    leave(connection).await;
    inspection
}

/// Every object, fixed ones first.
fn expected(names: &Names, layout: Option<Layout>) -> Vec<(Role, String)> {
    let mut expected = vec![
        (Role::Public, names.public().to_owned()),
        (Role::Ingress, names.ingress()),
        (Role::Handoff, names.handoff()),
        (Role::DeadExchange, names.dead()),
        (Role::DeadQueue, names.dead()),
        (Role::Document, names.topology()),
    ];
    if let Some(layout) = layout {
        expected.push((Role::Layout, names.layout(layout.number)));
        let queue = |partition| (Role::Partition(partition), names.partition(layout.number, partition));
        expected.extend(layout.partitions().map(queue));
    }
    expected
}

/// The broker looks at the type before it refuses to declare the default exchange, which nobody may (measured on
/// 3.10.8): so nothing can come into being.
async fn knows_hash_exchange(session: &mut TopologySession<'_>) -> Result<bool, SourceError> {
    let kind = ExchangeKind::Custom(HASH_EXCHANGE_TYPE.to_owned());
    match session.declare_exchange("", kind, false, FieldTable::default()).await {
        Err(SourceError::HashExchangeMissing) => Ok(false),
        Ok(()) | Err(SourceError::NotPermitted { .. }) => Ok(true),
        Err(other) => Err(other),
    }
}

/// Under an alarm the broker confirms the first publish of a connection, and reads nothing after it (3.10.8, measured).
/// The messages go to the default exchange with the name of no queue, so that they are confirmed and dropped.
async fn try_publishing(connection: &Connection) -> Result<Publishing, SourceError> {
    let nobody = format!("lanekeeper.doctor.{}", Uuid::new_v4());
    let publishing = async {
        let channel = ConfirmChannel::select(connection.create_channel().await?).await?;
        for _ in 0..2 {
            let message = Message::to_queue(&nobody, BasicProperties::default(), b"");
            channel.send(message).await?.answer().await?;
        }
        Ok(())
    };
    match timeout(CONFIRM_PATIENCE, publishing).await {
        Ok(Ok(())) => Ok(Publishing::Taken),
        Ok(Err(source)) => match SourceError::from_amqp("trying to publish", "", "", source) {
            SourceError::NotPermitted { text, .. } => Ok(Publishing::NotPermitted(text)),
            other => Err(other),
        },
        Err(_) if connection.status().blocked() => Ok(Publishing::Blocked),
        Err(_) => Ok(Publishing::Unconfirmed),
    }
}

type ReadLayouts = (Result<Option<Layouts>, String>, Option<String>);

/// The layouts, or why the document cannot be read; and what is there that it does not name.
async fn read_layouts(session: &mut TopologySession<'_>) -> Result<ReadLayouts, SourceError> {
    match read_if_there(session).await {
        Ok(document) => {
            let fits = match &document {
                None => refuse_later_layouts(session).await,
                Some(document) => refuse_newer_layouts(session, document).await,
            };
            let misfit = match fits {
                Ok(()) => None,
                Err(fault @ (SourceError::DocumentGone { .. } | SourceError::DocumentOlder { .. })) => {
                    Some(error_chain(&fault))
                }
                Err(fault) => return Err(fault),
            };
            Ok((Ok(document.map(|document| document.layouts)), misfit))
        }
        Err(
            fault @ (SourceError::NotPermitted { .. }
            | SourceError::Document { .. }
            | SourceError::NoQuorum { .. }
            | SourceError::NoReplica { .. }),
        ) => Ok((Err(error_chain(&fault)), None)),
        Err(fault) => Err(fault),
    }
}

/// Looks whether it is there before it compares: a declaration makes what is missing.
async fn look_at(
    session: &mut TopologySession<'_>,
    role: Role,
    name: &str,
    comparable: bool,
) -> Result<ObjectState, SourceError> {
    let looked = if role.is_queue() {
        session.queue_depth(name).await
    } else {
        session.find_exchange(name).await.map(|()| Depth::default())
    };
    let depth = match looked {
        Ok(depth) => depth,
        Err(fault @ SourceError::NodeDown { .. }) => {
            return Ok(ObjectState::Unavailable(error_chain(&fault)));
        }
        Err(SourceError::Missing { .. }) => return Ok(ObjectState::Missing),
        Err(SourceError::NotPermitted { text, .. }) => return Ok(ObjectState::NotPermitted(text)),
        Err(error) => return Err(error),
    };
    if !comparable {
        return Ok(ObjectState::AsDeclared(depth));
    }
    match compare(session, role, name).await {
        Ok(()) => Ok(ObjectState::AsDeclared(depth)),
        Err(SourceError::Differs { argument, expected, found, .. }) => {
            Ok(ObjectState::Differs { argument, expected, found, depth })
        }
        Err(SourceError::NotPermitted { text, .. }) => Ok(ObjectState::NotPermitted(text)),
        Err(error) => Err(error),
    }
}

/// Declares it as `lanekeeper run` does.
async fn compare(session: &mut TopologySession<'_>, role: Role, name: &str) -> Result<(), SourceError> {
    let (names, none) = (session.names(), FieldTable::default);
    let hash = || ExchangeKind::Custom(HASH_EXCHANGE_TYPE.to_owned());
    match role {
        Role::Public => declare_public_exchange(session).await,
        Role::DeadExchange => session.declare_exchange(name, ExchangeKind::Fanout, false, none()).await,
        Role::Handoff => session.declare_exchange(name, ExchangeKind::Fanout, true, none()).await,
        Role::Ingress => {
            session.declare_exchange(name, ExchangeKind::Fanout, true, ingress_arguments(names)).await
        }
        Role::Layout => session.declare_exchange(name, hash(), false, none()).await,
        Role::DeadQueue => session.declare_queue(name, quorum_arguments()).await,
        Role::Document => session.declare_queue(name, stream_arguments()).await,
        Role::Partition(_) => session.declare_queue(name, partition_arguments(names)).await,
    }
}

/// A broker that does not read the connection does not answer, either.
async fn leave(connection: Connection) {
    let _ = timeout(CLOSE_TIMEOUT, connection.close(200, "normal shutdown".into())).await;
}

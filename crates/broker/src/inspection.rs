//! Looks at a topology over AMQP alone, without changing it: what is there, as it must be or not, and what is refused.

use std::time::Duration;

use lapin::options::{
    BasicPublishOptions, ConfirmSelectOptions, ExchangeDeclareOptions, QueueDeclareOptions,
};
use lapin::types::FieldTable;
use lapin::{BasicProperties, Channel, ExchangeKind};
use uuid::Uuid;

use super::connection::{Address, Connection};
use super::document;
use super::error::{HASH_EXCHANGE_TYPE, SourceError};
use super::names::Names;
use super::topology::{
    declare_exchange, declare_queue, ingress_arguments, on_own_channel, open, partition_arguments,
    quorum_arguments, stream_arguments,
};
use lanekeeper_core::change::Layouts;
use lanekeeper_core::error::error_chain;
use lanekeeper_core::layout::{Layout, PartitionNumber};

/// How long the confirm of a publish may take. Without an alarm it takes milliseconds.
const CONFIRM_PATIENCE: Duration = Duration::from_secs(5);
/// An empty answer about the layout document is no proof that there is none; how often it is asked for.
const DOCUMENT_READS_MAX: usize = 3;
/// Everything. A layout of 1,024 partitions takes some 2,000 questions.
const INSPECTION_TIMEOUT: Duration = Duration::from_secs(120);
/// How the broker says that a queue's node is down (`rabbit_amqqueue` of RabbitMQ 3.10); it has the code of "not there".
const INACCESSIBLE: &str = "down or inaccessible";
const CLOSE_TIMEOUT: Duration = Duration::from_secs(1);

/// What the broker told over AMQP.
#[derive(Clone, Debug)]
pub struct Inspection {
    /// Host and port.
    pub address: String,
    /// As the broker says it, such as `3.10.8`.
    pub version: Option<String>,
    /// Name of its cluster.
    pub cluster: Option<String>,
    /// Whether it knows the exchange type `x-modulus-hash`.
    pub hash_exchange: bool,
    /// The layout in force; `None`: there is none yet.
    pub layout: Result<Option<Layout>, String>,
    /// The layout that one is being changed to, from when the way into it may be open.
    pub changing_to: Option<Layout>,
    /// A layout before it still holds updates: its own partitions wait for that.
    pub draining: bool,
    /// Every object that `lanekeeper run` declares for it.
    pub objects: Vec<Object>,
    /// Whether it takes publishes.
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
    /// Whether it is a queue (a stream is one).
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
    /// It is there, in another way.
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

/// What is in a queue, as a passive declaration tells it. Zero for an exchange.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Depth {
    /// Messages that nobody holds.
    pub ready: u32,
    /// Consumers.
    pub consumers: u32,
}

/// Whether the broker takes publishes.
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
    match tokio::time::timeout(INSPECTION_TIMEOUT, inspect_patiently(address, names, name)).await {
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
        let known = knows_hash_exchange(&connection).await;
        leave(connection).await;
        known?
    };
    let publishing = {
        let connection = address.connect(name).await?;
        let publishing = try_publishing(&connection).await;
        leave(connection).await;
        publishing?
    };
    let connection = address.connect(name).await?;
    let inspection = async {
        let layouts = read_layouts(&connection, names).await?;
        let known = layouts.as_ref().ok().and_then(Option::as_ref);
        let changing = known.and_then(|layouts| layouts.changing.as_ref());
        let changing_to =
            changing.filter(|changing| changing.witnesses.is_some()).map(|changing| changing.to);
        let draining = known.is_some_and(Layouts::drains);
        let layout = layouts.map(|layouts| layouts.map(|layouts| layouts.in_force));
        let mut objects = Vec::new();
        for (role, name) in expected(names, layout.as_ref().ok().copied().flatten()) {
            // With a type that it does not know, the broker would end the connection; that is told by itself.
            let comparable = hash_exchange || role != Role::Layout;
            let state = look_at(&connection, names, role, &name, comparable).await?;
            objects.push(Object { name, role, state });
        }
        Ok(Inspection {
            address: address.host_port().to_owned(),
            version: connection.server_property("version"),
            cluster: connection.server_property("cluster_name"),
            hash_exchange,
            layout,
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
async fn knows_hash_exchange(connection: &Connection) -> Result<bool, SourceError> {
    let channel = open(connection).await?;
    let kind = ExchangeKind::Custom(HASH_EXCHANGE_TYPE.to_owned());
    let declaring =
        channel.exchange_declare("".into(), kind, ExchangeDeclareOptions::default(), FieldTable::default());
    match declaring.await.map_err(|source| SourceError::from_amqp("looking", "", "", source)) {
        Err(SourceError::HashExchangeMissing) => Ok(false),
        Ok(()) | Err(SourceError::NotPermitted { .. }) => Ok(true),
        Err(other) => Err(other),
    }
}

/// Under an alarm the broker confirms the first publish of a connection, and reads nothing after it (3.10.8, measured).
/// The messages go to the default exchange with the name of no queue, so that they are confirmed and dropped.
async fn try_publishing(connection: &Connection) -> Result<Publishing, SourceError> {
    let channel = open(connection).await?;
    let nobody = format!("lanekeeper.doctor.{}", Uuid::new_v4());
    let publishing = async {
        channel.confirm_select(ConfirmSelectOptions::default()).await?;
        for _ in 0..2 {
            let (options, properties) = (BasicPublishOptions::default(), BasicProperties::default());
            channel.basic_publish("".into(), nobody.as_str().into(), options, b"", properties).await?.await?;
        }
        Ok(())
    };
    match tokio::time::timeout(CONFIRM_PATIENCE, publishing).await {
        Ok(Ok(())) => Ok(Publishing::Taken),
        Ok(Err(source)) => match SourceError::from_amqp("trying to publish", "", "", source) {
            SourceError::NotPermitted { text, .. } => Ok(Publishing::NotPermitted(text)),
            other => Err(other),
        },
        Err(_) if connection.status().blocked() => Ok(Publishing::Blocked),
        Err(_) => Ok(Publishing::Unconfirmed),
    }
}

/// The layouts, or why the document cannot be read.
async fn read_layouts(
    connection: &Connection,
    names: &Names,
) -> Result<Result<Option<Layouts>, String>, SourceError> {
    for _ in 0..DOCUMENT_READS_MAX {
        let read =
            on_own_channel(connection, async |reader| document::read_last(reader, &names.topology()).await);
        match read.await {
            Ok(Some(document)) => return Ok(Ok(Some(document.layouts))),
            Ok(None) => {}
            Err(SourceError::Amqp { source, .. }) => {
                match SourceError::from_amqp("reading the layout document", "", names.public(), *source) {
                    SourceError::Missing { .. } => return Ok(Ok(None)),
                    error @ SourceError::NotPermitted { .. } => return Ok(Err(error_chain(&error))),
                    error => return Err(error),
                }
            }
            Err(error @ SourceError::Document { .. }) => return Ok(Err(error_chain(&error))),
            Err(error) => return Err(error),
        }
    }
    Ok(Ok(None))
}

/// Looks whether it is there before it compares: a declaration makes what is missing.
async fn look_at(
    connection: &Connection,
    names: &Names,
    role: Role,
    name: &str,
    comparable: bool,
) -> Result<ObjectState, SourceError> {
    let looked = on_own_channel(connection, async |channel| depth(channel, names, role, name).await).await;
    let depth = match looked {
        Ok(depth) => depth,
        Err(SourceError::Missing { text }) if text.contains(INACCESSIBLE) => {
            return Ok(ObjectState::Unavailable(text));
        }
        Err(SourceError::Missing { .. }) => return Ok(ObjectState::Missing),
        Err(SourceError::NotPermitted { text, .. }) => return Ok(ObjectState::NotPermitted(text)),
        Err(error) => return Err(error),
    };
    if !comparable {
        return Ok(ObjectState::AsDeclared(depth));
    }
    let compared =
        on_own_channel(connection, async |channel| compare(channel, names, role, name).await).await;
    match compared {
        Ok(()) => Ok(ObjectState::AsDeclared(depth)),
        Err(SourceError::Differs { argument, expected, found, .. }) => {
            Ok(ObjectState::Differs { argument, expected, found, depth })
        }
        Err(SourceError::NotPermitted { text, .. }) => Ok(ObjectState::NotPermitted(text)),
        Err(error) => Err(error),
    }
}

async fn depth(channel: &Channel, names: &Names, role: Role, name: &str) -> Result<Depth, SourceError> {
    let step = "looking at the topology";
    let fault = |source| SourceError::from_amqp(step, name, names.public(), source);
    let none = FieldTable::default();
    if role.is_queue() {
        let options = QueueDeclareOptions { passive: true, ..QueueDeclareOptions::default() };
        let queue = channel.queue_declare(name.into(), options, none).await.map_err(fault)?;
        return Ok(Depth { ready: queue.message_count(), consumers: queue.consumer_count() });
    }
    let options = ExchangeDeclareOptions { passive: true, ..ExchangeDeclareOptions::default() };
    let kind = ExchangeKind::Fanout; // a passive declaration does not compare it
    channel.exchange_declare(name.into(), kind, options, none).await.map_err(fault)?;
    Ok(Depth::default())
}

/// Declares it as `lanekeeper run` does.
async fn compare(channel: &Channel, names: &Names, role: Role, name: &str) -> Result<(), SourceError> {
    let none = FieldTable::default;
    let queue = |arguments| declare_queue(channel, name, names.public(), arguments);
    match role {
        Role::Public | Role::DeadExchange => {
            declare_exchange(channel, name, names, ExchangeKind::Fanout, false, none()).await
        }
        Role::Handoff => declare_exchange(channel, name, names, ExchangeKind::Fanout, true, none()).await,
        Role::Ingress => {
            let arguments = ingress_arguments(names);
            declare_exchange(channel, name, names, ExchangeKind::Fanout, true, arguments).await
        }
        Role::Layout => {
            let kind = ExchangeKind::Custom(HASH_EXCHANGE_TYPE.to_owned());
            declare_exchange(channel, name, names, kind, false, none()).await
        }
        Role::DeadQueue => queue(quorum_arguments()).await.map(drop),
        Role::Document => queue(stream_arguments()).await.map(drop),
        Role::Partition(_) => queue(partition_arguments(names)).await.map(drop),
    }
}

/// A broker that does not read the connection does not answer, either.
async fn leave(connection: Connection) {
    let _ = tokio::time::timeout(CLOSE_TIMEOUT, connection.close(200, "normal shutdown".into())).await;
}

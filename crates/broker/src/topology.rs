//! Declares what is missing in the broker and refuses what differs. docs/wire.md shows the picture.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use lapin::options::{
    ExchangeBindOptions, ExchangeDeclareOptions, QueueBindOptions, QueueDeclareOptions, QueueDeleteOptions,
};
use lapin::types::{AMQPValue, FieldTable};
use lapin::{Channel, Connection, ExchangeKind, Queue};
use tracing::{error, info, warn};

use super::change::reconcile_locked;
use super::document::{self, DOCUMENT_VERSION, LayoutDocument};
use super::error::{HASH_EXCHANGE_TYPE, SourceError};
use super::names::Names;
use super::placement;
use lanekeeper_core::change::{Desired, Layouts};
use lanekeeper_core::layout::{Layout, LayoutNumber};
use lanekeeper_core::witness::witnesses;

/// Far above what any order of restarts brings about. −1 loses every unsettled update on RabbitMQ 3.10 and the default
/// of 4.0, 20, drops updates after 21 deliveries; both measured.
pub const DELIVERY_LIMIT: i32 = 1_000_000;
const CLOSE_TIMEOUT: Duration = Duration::from_secs(1);
/// How often we look whether an alarm has ended.
const BLOCKED_POLL: Duration = Duration::from_millis(500);

/// Makes the topology complete and answers with the document of the layout in force.
///
/// The first caller on a fresh broker makes layout 1 with `wanted`'s numbers; everybody else takes what is in force.
///
/// # Errors
/// Something exists with other properties, may not be declared, or the broker has no hash exchange.
pub async fn ensure(
    connection: &Connection,
    names: &Names,
    wanted: Layout,
    instance: &str,
) -> Result<LayoutDocument, SourceError> {
    loop {
        match complete(connection, names, wanted, instance).await {
            Err(SourceError::Silent { .. }) if connection.status().blocked() => {
                warn!(
                    "the broker takes no publishes, since it has a memory or disk alarm: the layout is made when that is over"
                );
                // On this connection, which holds the lock: a blocked one is not even closed before the alarm is over.
                while connection.status().blocked() && connection.status().connected() {
                    tokio::time::sleep(BLOCKED_POLL).await;
                }
            }
            completed => return completed,
        }
    }
}

async fn complete(
    connection: &Connection,
    names: &Names,
    wanted: Layout,
    instance: &str,
) -> Result<LayoutDocument, SourceError> {
    let channel = open(connection).await?;
    declare_fixed(&channel, names).await?;
    document::declare(&channel, &names.topology(), names.public()).await?;
    let known =
        on_own_channel(connection, async |reader| document::read_last(reader, &names.topology()).await);
    let known = known.await?.filter(|document| !document.layouts.witnesses.is_empty());
    if let Some(document) = &known {
        log_missing(connection, names, document.layouts.in_force).await?;
    }
    match (lock(&channel, names).await, known) {
        (Ok(()), _) => {}
        // Whoever holds it sees to what is missing. To open a way now could open a second one.
        (Err(SourceError::Locked { .. }), Some(document)) => return Ok(document),
        (Err(fault), _) => return Err(fault),
    }
    // Another process may have been faster: the lock was its too.
    let document = match document::read_surely(connection, names).await? {
        Some(document) if document.layouts.witnesses.is_empty() => {
            add_witnesses(&channel, names, document, instance).await?
        }
        Some(document) if document.layouts.changing.is_some() => {
            reconcile_locked(connection, names, instance, Desired::default(), &mut |_, _| {}).await?.document
        }
        Some(document) => document,
        None => make_first(connection, &channel, names, wanted, instance).await?,
    };
    declare_layout(&channel, names, document.layouts.in_force).await?;
    unlock(&channel, names).await?;
    close(channel).await;
    Ok(document)
}

/// A reader's channel is closed after it: its consumer ends with it.
pub(super) async fn on_own_channel<T>(
    connection: &Connection,
    read: impl AsyncFnOnce(&Channel) -> Result<T, SourceError>,
) -> Result<T, SourceError> {
    let channel = open(connection).await?;
    let result = read(&channel).await;
    close(channel).await;
    result
}

/// The way in is bound after the document is written: until then the queues hold nothing but what publishers sent to a
/// topology that was imported. A crash on the way leaves objects that the next start declares again, all alike.
async fn make_first(
    connection: &Connection,
    channel: &Channel,
    names: &Names,
    wanted: Layout,
    instance: &str,
) -> Result<LayoutDocument, SourceError> {
    let layout = Layout { number: LayoutNumber(1), ..wanted };
    declare_queues(channel, names, layout).await?;
    let witnesses = placement::observe(connection, names, layout).await?;
    let document = LayoutDocument {
        version: DOCUMENT_VERSION,
        serial: 0,
        layouts: Layouts::first(layout, witnesses),
        ledger: None,
        changed_by: String::new(),
        changed_at: 0,
    };
    let document = write(channel, names, document, instance).await?;
    info!(
        layout = layout.number.0,
        partitions = layout.partitions,
        prefetch = layout.prefetch,
        "layout made"
    );
    Ok(document)
}

/// A layout made by a program that knew no witnesses has them where the hash says: what its queues hold is in the way of
/// finding out. Its consumers compare.
async fn add_witnesses(
    channel: &Channel,
    names: &Names,
    document: LayoutDocument,
    instance: &str,
) -> Result<LayoutDocument, SourceError> {
    let layout = document.layouts.in_force;
    let layouts = Layouts { witnesses: witnesses(layout.partitions), ..document.layouts };
    let document = LayoutDocument { layouts, ..document };
    let document = write(channel, names, document, instance).await?;
    info!(layout = layout.number.0, "witnesses added to the layout");
    Ok(document)
}

/// Writes the document, as changed now by this instance.
pub(super) async fn write(
    channel: &Channel,
    names: &Names,
    document: LayoutDocument,
    instance: &str,
) -> Result<LayoutDocument, SourceError> {
    let changed_at = seconds_since_1970();
    let (version, changed_by) = (DOCUMENT_VERSION, instance.to_owned());
    let serial = document.serial + 1;
    let document = LayoutDocument { version, serial, changed_by, changed_at, ..document };
    document::write(channel, &names.topology(), names.public(), &document).await?;
    Ok(document)
}

/// By this host's clock; for people alone.
pub(super) fn seconds_since_1970() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

async fn declare_fixed(channel: &Channel, names: &Names) -> Result<(), SourceError> {
    let none = FieldTable::default;
    declare_exchange(channel, names.public(), names, ExchangeKind::Fanout, false, none()).await?;
    declare_exchange(channel, &names.handoff(), names, ExchangeKind::Fanout, true, none()).await?;
    let arguments = ingress_arguments(names);
    declare_exchange(channel, &names.ingress(), names, ExchangeKind::Fanout, true, arguments).await?;
    bind_exchange(channel, &names.ingress(), names.public(), names).await?;
    declare_exchange(channel, &names.dead(), names, ExchangeKind::Fanout, false, none()).await?;
    declare_queue(channel, &names.dead(), names.public(), quorum_arguments()).await?;
    bind_queue(channel, &names.dead(), &names.dead(), names).await
}

/// The layout with the way into it.
async fn declare_layout(channel: &Channel, names: &Names, layout: Layout) -> Result<(), SourceError> {
    declare_queues(channel, names, layout).await?;
    bind_exchange(channel, &names.layout(layout.number), &names.ingress(), names).await
}

/// A queue of a layout in force that is not there was deleted by hand: that is said before it is declared again.
pub(super) async fn log_missing(
    connection: &Connection,
    names: &Names,
    layout: Layout,
) -> Result<(), SourceError> {
    let mut channel = open(connection).await?;
    for partition in layout.partitions() {
        let queue = names.partition(layout.number, partition);
        let options = QueueDeclareOptions { passive: true, ..QueueDeclareOptions::default() };
        let looking = channel.queue_declare(queue.as_str().into(), options, FieldTable::default()).await;
        let Err(source) = looking else { continue };
        let fault =
            SourceError::from_amqp("looking at a queue", &format!("queue {queue}"), names.public(), source);
        if !fault.is_deleted_queue() {
            return Err(fault);
        }
        error!(
            queue,
            "a queue of the layout was deleted and is declared again: what it held is lost, and what was published meanwhile is in other partitions"
        );
        // The broker has closed the other one with its answer.
        channel = open(connection).await?;
    }
    close(channel).await;
    Ok(())
}

/// Queues are bound once, in the order of their names; binding again what is bound changes nothing.
pub(super) async fn declare_queues(
    channel: &Channel,
    names: &Names,
    layout: Layout,
) -> Result<(), SourceError> {
    let exchange = names.layout(layout.number);
    let kind = ExchangeKind::Custom(HASH_EXCHANGE_TYPE.to_owned());
    declare_exchange(channel, &exchange, names, kind, false, FieldTable::default()).await?;
    for partition in layout.partitions() {
        let queue = names.partition(layout.number, partition);
        declare_queue(channel, &queue, names.public(), partition_arguments(names)).await?;
        bind_queue(channel, &queue, &exchange, names).await?;
    }
    Ok(())
}

pub(super) fn ingress_arguments(names: &Names) -> FieldTable {
    let mut arguments = FieldTable::default();
    argument(&mut arguments, "alternate-exchange", &names.handoff());
    arguments
}

pub(super) fn stream_arguments() -> FieldTable {
    let mut arguments = FieldTable::default();
    argument(&mut arguments, "x-queue-type", "stream");
    arguments
}

pub(super) fn quorum_arguments() -> FieldTable {
    let mut arguments = FieldTable::default();
    argument(&mut arguments, "x-queue-type", "quorum");
    arguments.insert("x-delivery-limit".into(), AMQPValue::LongInt(DELIVERY_LIMIT));
    argument(&mut arguments, "x-overflow", "reject-publish");
    arguments
}

/// The dead-letter exchange is the last net, at least once; Lanekeeper publishes its dead letters itself.
pub(super) fn partition_arguments(names: &Names) -> FieldTable {
    let mut arguments = quorum_arguments();
    arguments.insert("x-single-active-consumer".into(), AMQPValue::Boolean(true));
    argument(&mut arguments, "x-dead-letter-exchange", &names.dead());
    argument(&mut arguments, "x-dead-letter-strategy", "at-least-once");
    arguments
}

/// Adds a text argument.
pub(super) fn argument(arguments: &mut FieldTable, name: &str, value: &str) {
    arguments.insert(name.into(), AMQPValue::LongString(value.into()));
}

pub(super) async fn declare_exchange(
    channel: &Channel,
    exchange: &str,
    names: &Names,
    kind: ExchangeKind,
    internal: bool,
    arguments: FieldTable,
) -> Result<(), SourceError> {
    let options = ExchangeDeclareOptions { durable: true, internal, ..ExchangeDeclareOptions::default() };
    let declaring = channel.exchange_declare(exchange.into(), kind, options, arguments);
    let object = format!("exchange {exchange}");
    declaring
        .await
        .map_err(|source| SourceError::from_amqp("declaring an exchange", &object, names.public(), source))
}

/// Declares a durable queue, or finds it as it must be.
pub(super) async fn declare_queue(
    channel: &Channel,
    queue: &str,
    exchange: &str,
    arguments: FieldTable,
) -> Result<Queue, SourceError> {
    let options = QueueDeclareOptions { durable: true, ..QueueDeclareOptions::default() };
    let object = format!("queue {queue}");
    channel
        .queue_declare(queue.into(), options, arguments)
        .await
        .map_err(|source| SourceError::from_amqp("declaring a queue", &object, exchange, source))
}

async fn bind_queue(
    channel: &Channel,
    queue: &str,
    exchange: &str,
    names: &Names,
) -> Result<(), SourceError> {
    let options = QueueBindOptions::default();
    let binding =
        channel.queue_bind(queue.into(), exchange.into(), "".into(), options, FieldTable::default());
    let object = format!("binding of {queue} to {exchange}");
    binding.await.map_err(|source| SourceError::from_amqp("binding a queue", &object, names.public(), source))
}

pub(super) async fn bind_exchange(
    channel: &Channel,
    destination: &str,
    from: &str,
    names: &Names,
) -> Result<(), SourceError> {
    let options = ExchangeBindOptions::default();
    let binding =
        channel.exchange_bind(destination.into(), from.into(), "".into(), options, FieldTable::default());
    let object = format!("binding of {destination} to {from}");
    binding
        .await
        .map_err(|source| SourceError::from_amqp("binding an exchange", &object, names.public(), source))
}

/// An exclusive queue: a second connection is refused, and it goes with its connection.
pub(super) async fn lock(channel: &Channel, names: &Names) -> Result<(), SourceError> {
    let options = QueueDeclareOptions { exclusive: true, ..QueueDeclareOptions::default() };
    let lock = names.topology_lock();
    match channel.queue_declare(lock.as_str().into(), options, FieldTable::default()).await {
        Ok(_) => Ok(()),
        Err(source) => Err(SourceError::from_amqp(
            "locking the layout",
            &format!("queue {lock}"),
            names.public(),
            source,
        )),
    }
}

pub(super) async fn unlock(channel: &Channel, names: &Names) -> Result<(), SourceError> {
    let deleting = channel.queue_delete(names.topology_lock().into(), QueueDeleteOptions::default());
    deleting.await.map(drop).map_err(SourceError::amqp("unlocking the layout"))
}

pub(super) async fn open(connection: &Connection) -> Result<Channel, SourceError> {
    connection.create_channel().await.map_err(SourceError::amqp("opening a channel"))
}

/// Of no consequence if it fails: the channel goes with its connection. An alarm keeps the broker from reading it.
pub(super) async fn close(channel: Channel) {
    let closing = channel.close(200, "normal shutdown".into());
    let _ = tokio::time::timeout(CLOSE_TIMEOUT, closing).await;
}

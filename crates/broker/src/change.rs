//! Changes layouts, step by step, under the lock. [`lanekeeper_core::change`] says which step is next; each of them may be
//! done again, so that whoever comes after a crash goes on where it was.

use lapin::options::{ExchangeDeleteOptions, ExchangeUnbindOptions, QueueDeclareOptions};
use lapin::types::FieldTable;
use lapin::{Channel, Connection};
use tracing::{info, warn};

use super::delete::{delete_exchange, delete_queue};
use super::document::{self, LayoutDocument};
use super::error::SourceError;
use super::names::Names;
use super::placement;
use super::purge_markers::{PurgeOutcome, purge_markers};
use super::topology::{
    bind_exchange, close, declare_queues, lock, log_missing, open, seconds_since_1970, unlock, write,
};
use lanekeeper_core::change::{Desired, Draining, ROUTE, RouteStep, Step};
use lanekeeper_core::layout::Layout;

/// How things are once a wish was followed as far as could be.
#[derive(Clone, Debug)]
pub struct Reconciled {
    /// As it is now.
    pub document: LayoutDocument,
    /// Why a drained layout could not be removed.
    pub stuck: Option<Stuck>,
}

/// Why a drained layout is still there.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Stuck {
    /// Somebody consumes a queue of it. Dispatchers let go of it when they hear that it is drained.
    #[error("the queue {queue} is still consumed")]
    InUse {
        /// Which.
        queue: String,
    },
    /// Updates are in a queue of it that came after it was drained.
    #[error(
        "the queue {queue} of a layout that is drained holds {updates} messages that came after its end; they are not \
         dispatched, since newer updates of their records may have been. Whoever published them did so past the \
         exchange, or the broker was slower than ever measured. Look at them, deal with them, delete the queue"
    )]
    Late {
        /// Which.
        queue: String,
        /// How many messages are in it.
        updates: u32,
    },
    /// Something else is bound to its exchange.
    #[error(
        "something that is not Lanekeeper's is bound to the exchange {exchange} of a layout that is drained; see \
         `rabbitmqctl list_bindings`, remove the binding"
    )]
    Bound {
        /// Which.
        exchange: String,
    },
}

impl Stuck {
    /// Whether waiting does not help.
    #[must_use]
    pub fn needs_a_person(&self) -> bool {
        match self {
            Self::InUse { .. } => false,
            Self::Late { .. } | Self::Bound { .. } => true,
        }
    }
}

/// Follows the wish as far as can be now, and brings to its end what others began. `on_step` is told of each step before it
/// is taken.
///
/// The lock is taken once and released at the end; with an error it goes with the connection, which is to be closed then.
///
/// # Errors
/// [`SourceError::Locked`]: somebody else is changing layouts. [`SourceError::NoLayout`]: nobody has made the first one.
/// Everything else: what was begun is finished or undone by the next caller.
pub async fn reconcile(
    connection: &Connection,
    names: &Names,
    instance: &str,
    desired: Desired,
    on_step: &mut (impl FnMut(&Step, &LayoutDocument) + Send),
) -> Result<Reconciled, SourceError> {
    let channel = open(connection).await?;
    lock(&channel, names).await?;
    let reconciled = reconcile_locked(connection, names, instance, desired, on_step).await?;
    unlock(&channel, names).await?;
    close(channel).await;
    Ok(reconciled)
}

/// The caller holds the lock.
pub(super) async fn reconcile_locked(
    connection: &Connection,
    names: &Names,
    instance: &str,
    mut desired: Desired,
    on_step: &mut (impl FnMut(&Step, &LayoutDocument) + Send),
) -> Result<Reconciled, SourceError> {
    let Some(mut document) = document::read_surely(connection, names).await? else {
        return Err(SourceError::NoLayout { exchange: names.public().to_owned() });
    };
    let channel = open(connection).await?;
    let mut stuck = None;
    while let Some(step) = document.layouts.next_step(&desired) {
        on_step(&step, &document);
        let before = &document.layouts;
        let layouts = match step {
            Step::Begin(shape) => before.begun(shape, instance, seconds_since_1970()),
            Step::Prepare(layout) => {
                declare_queues(&channel, names, layout).await?;
                before.prepared(placement::observe(connection, names, layout).await?)
            }
            Step::Switch { from, to } => {
                log_missing(connection, names, to).await?;
                declare_queues(&channel, names, to).await?;
                for step in ROUTE {
                    route(&channel, names, step, from, to).await?;
                }
                info!(
                    from = from.number.0,
                    to = to.number.0,
                    partitions = to.partitions,
                    "publishes go to the new layout"
                );
                before.switched(seconds_since_1970())
            }
            Step::Undo(layout) => {
                delete(&channel, names, layout).await?;
                warn!(layout = layout.number.0, "a change that was begun and never finished is undone");
                before.undone()
            }
            Step::Record => before.with_drained(&desired.drained).expect("it is the next step"),
            Step::Remove(draining) => {
                stuck = remove(connection, names, &draining).await?;
                if stuck.is_some() {
                    break;
                }
                info!(layout = draining.layout.number.0, "the layout is drained and removed");
                before.removed(draining.layout.number)
            }
        };
        desired.begun = desired.begun.or(layouts.changing.as_ref().map(|changing| changing.to.number));
        document = write(&channel, names, LayoutDocument { layouts, ..document }, instance).await?;
    }
    close(channel).await;
    Ok(Reconciled { document, stuck })
}

async fn route(
    channel: &Channel,
    names: &Names,
    step: RouteStep,
    from: Layout,
    to: Layout,
) -> Result<(), SourceError> {
    let (old, new) = (names.layout(from.number), names.layout(to.number));
    match step {
        RouteStep::BindHandoff => bind_exchange(channel, &new, &names.handoff(), names).await,
        RouteStep::UnbindOld => unbind_exchange(channel, &old, &names.ingress(), names).await,
        RouteStep::BindNew => bind_exchange(channel, &new, &names.ingress(), names).await,
        RouteStep::UnbindHandoff => unbind_exchange(channel, &new, &names.handoff(), names).await,
    }
}

/// What is not bound is no error (RabbitMQ 3.10.8 and 4.0.5).
async fn unbind_exchange(
    channel: &Channel,
    destination: &str,
    from: &str,
    names: &Names,
) -> Result<(), SourceError> {
    let options = ExchangeUnbindOptions::default();
    let unbinding =
        channel.exchange_unbind(destination.into(), from.into(), "".into(), options, FieldTable::default());
    let object = format!("binding of {destination} to {from}");
    unbinding
        .await
        .map_err(|source| SourceError::from_amqp("removing a binding", &object, names.public(), source))
}

/// Messages of a queue that nobody holds, and its consumers.
pub(super) async fn look(
    connection: &Connection,
    names: &Names,
    queue: &str,
) -> Result<(u32, u32), SourceError> {
    let channel = open(connection).await?;
    let options = QueueDeclareOptions { passive: true, ..QueueDeclareOptions::default() };
    let looked = channel.queue_declare(queue.into(), options, FieldTable::default()).await;
    close(channel).await;
    let declared = looked.map_err(|source| {
        SourceError::from_amqp("looking at a queue", &format!("queue {queue}"), names.public(), source)
    })?;
    Ok((declared.message_count(), declared.consumer_count()))
}

/// Nothing was ever bound to it but its own queues.
async fn delete(channel: &Channel, names: &Names, layout: Layout) -> Result<(), SourceError> {
    for partition in layout.partitions() {
        let queue = names.partition(layout.number, partition);
        delete_queue(channel, &queue, names).await?;
    }
    delete_exchange(channel, &names.layout(layout.number), names).await
}

/// Deletes a drained layout, queue by queue, only what is empty and unused; or says what is in the way. Quorum queues
/// know no deletion with these conditions (RabbitMQ 3.10.8 and 4.0.5: `NOT_IMPLEMENTED`), so they are looked at before. Nothing is
/// published to them any more, and nobody but Lanekeeper knows them.
async fn remove(
    connection: &Connection,
    names: &Names,
    draining: &Draining,
) -> Result<Option<Stuck>, SourceError> {
    let layout = draining.layout;
    let mut there = Vec::new();
    for partition in layout.partitions() {
        let queue = names.partition(layout.number, partition);
        match look(connection, names, &queue).await {
            Ok((_, consumers)) if consumers > 0 => return Ok(Some(Stuck::InUse { queue })),
            Ok((messages, _)) => there.push((queue, messages)),
            Err(SourceError::Missing { .. }) => {} // by whoever began this and died
            Err(fault) => return Err(fault),
        }
    }
    // Markers, and witnesses that came late.
    let PurgeOutcome { late } = purge_markers(connection, names, layout, &there).await?;
    if let Some((queue, updates)) = late {
        return Ok(Some(Stuck::Late { queue, updates }));
    }
    for (queue, _) in there {
        match look(connection, names, &queue).await? {
            (_, consumers) if consumers > 0 => return Ok(Some(Stuck::InUse { queue })),
            (updates, _) if updates > 0 => return Ok(Some(Stuck::Late { queue, updates })),
            _ => {}
        }
        let channel = open(connection).await?;
        delete_queue(&channel, &queue, names).await?;
        close(channel).await;
    }
    let (channel, exchange) = (open(connection).await?, names.layout(layout.number));
    let options = ExchangeDeleteOptions { if_unused: true, ..ExchangeDeleteOptions::default() };
    let deleted = channel.exchange_delete(exchange.as_str().into(), options).await;
    close(channel).await;
    match deleted.map_err(SourceError::amqp("deleting an exchange")) {
        Ok(()) => Ok(None),
        Err(fault) if fault.is_in_use() => Ok(Some(Stuck::Bound { exchange })),
        Err(fault) => Err(fault),
    }
}

//! Changes layouts, step by step, under the lock. [`lanekeeper_core::change`] says which step is next; each of them may be
//! done again, so that whoever comes after a crash goes on where it was.

use tracing::{info, warn};

use super::declare::declare_queues;
use super::document::LayoutDocument;
use super::document_stream;
use super::placement;
use super::purge_markers::purge_markers;
use super::session::{Depth, TopologySession};
use super::unknown::{log_deleted_queues, unknown_objects};
use crate::clock::seconds_since_1970;
use crate::connection::Connection;
use crate::error::SourceError;
use crate::names::Names;
use lanekeeper_core::change::{Desired, Draining, ROUTE, RouteStep, Step};
use lanekeeper_core::layout::Layout;

/// How the layouts are once they were brought as near to what is desired as can be.
#[derive(Clone, Debug)]
pub struct Reconciled {
    /// The newest layout document.
    pub document: LayoutDocument,
    /// Why a drained layout could not be removed.
    pub stuck: Option<Stuck>,
}

/// Why a drained layout is still there.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Stuck {
    /// Somebody consumes a queue of it. Dispatchers stop that when they read that it is drained.
    #[error("the queue {queue} is still consumed")]
    InUse {
        /// Which.
        queue: String,
    },
    /// Updates are in a queue of it that came after it was drained.
    #[error(
        "the queue {queue} of a drained layout holds {updates} messages that came after its end; they are not dispatched, since \
         newer updates of their records may have been dispatched already. Somebody published them directly to the queue, or \
         the broker was slower than ever measured. Look at them, decide what to do with them, and delete the queue"
    )]
    Late {
        /// Which.
        queue: String,
        /// How many messages are in it.
        updates: u32,
    },
    /// Something else is bound to its exchange.
    #[error(
        "the exchange {exchange} of a drained layout has a binding that is not Lanekeeper's; find it with `rabbitmqctl \
         list_bindings`, and remove it"
    )]
    Bound {
        /// Which.
        exchange: String,
    },
}

impl Stuck {
    /// Returns true if waiting does not help.
    #[must_use]
    pub fn needs_a_person(&self) -> bool {
        match self {
            Self::InUse { .. } => false,
            Self::Late { .. } | Self::Bound { .. } => true,
        }
    }
}

/// Brings the layouts as near to what is desired as can be now, and finishes what others began. Calls `on_step` before each
/// step.
///
/// The lock is taken once and released at the end; with an error it goes with the connection, which is to be closed then.
///
/// # Errors
/// [`SourceError::Locked`]: somebody else is changing layouts. [`SourceError::NoLayout`]: nobody has made the first one.
/// Everything else: what was begun is finished or undone by the next caller.
pub(crate) async fn reconcile(
    connection: &Connection,
    names: &Names,
    instance: &str,
    desired: Desired,
    on_step: &mut (impl FnMut(&Step, &LayoutDocument) + Send),
) -> Result<Reconciled, SourceError> {
    let mut session = TopologySession::new(connection, names, instance);
    session.lock().await?;
    let reconciled = change_locked(&mut session, desired, on_step).await?;
    session.unlock().await?;
    session.close().await;
    Ok(reconciled)
}

/// The caller holds the lock.
pub(crate) async fn change_locked(
    session: &mut TopologySession<'_>,
    mut desired: Desired,
    on_step: &mut (impl FnMut(&Step, &LayoutDocument) + Send),
) -> Result<Reconciled, SourceError> {
    let Some(mut document) = document_stream::read_surely(session).await? else {
        return Err(SourceError::NoLayout { exchange: session.names().public().to_owned() });
    };
    let (mut stuck, mut proven) = (None, false);
    while let Some(step) = document.layouts.next_step(&desired) {
        // A document that was written is such a proof, too.
        if touches_broker(&step) && !proven {
            prove(session, &document).await?;
        }
        on_step(&step, &document);
        let before = &document.layouts;
        let layouts = match step {
            Step::Begin(shape) => before.begun(shape, session.instance(), seconds_since_1970()),
            Step::Prepare(layout) => {
                declare_queues(session, layout).await?;
                before.prepared(placement::find_witnesses(session, layout).await?)
            }
            Step::Switch { from, to } => {
                switch(session, from, to).await?;
                before.switched(seconds_since_1970())
            }
            Step::Undo(layout) => {
                delete(session, layout).await?;
                warn!(
                    layout = layout.number.0,
                    "undid a change of the layout that was begun and not finished"
                );
                before.undone()
            }
            Step::Record => before.with_drained(&desired.drained).expect("it is the next step"),
            Step::Remove(draining) => {
                stuck = remove(session, &document, &draining).await?;
                if stuck.is_some() {
                    break;
                }
                info!(layout = draining.layout.number.0, "removed the drained layout");
                before.removed(draining.layout.number)
            }
        };
        desired.begun = desired.begun.or(layouts.changing.as_ref().map(|changing| changing.to.number));
        document = document_stream::write(session, LayoutDocument { layouts, ..document }).await?;
        proven = true;
    }
    Ok(Reconciled { document, stuck })
}

/// Returns true if the step declares, binds or deletes something. A removal proves its own, and only when it deletes: it is
/// tried again and again while something is in its way.
fn touches_broker(step: &Step) -> bool {
    match step {
        Step::Prepare(_) | Step::Switch { .. } | Step::Undo(_) => true,
        Step::Begin(_) | Step::Record | Step::Remove(_) => false,
    }
}

/// Proves that a majority is reached, and that this document is the newest: on the smaller side of a split the lock is
/// granted, too, and what was changed on the other side is not seen.
///
/// # Errors
/// [`SourceError::NoQuorum`]; [`SourceError::Outrun`].
async fn prove(session: &mut TopologySession<'_>, document: &LayoutDocument) -> Result<(), SourceError> {
    match document_stream::read_proven(session).await? {
        Some(newest) if newest != *document => Err(SourceError::Outrun { changed_by: newest.changed_by }),
        Some(_) | None => Ok(()),
    }
}

/// When it has returned, publishes go to the new layout.
async fn switch(session: &mut TopologySession<'_>, from: Layout, to: Layout) -> Result<(), SourceError> {
    log_deleted_queues(&unknown_objects(session, to).await?.queues);
    declare_queues(session, to).await?;
    let names = session.names();
    let (old, new) = (names.layout(from.number), names.layout(to.number));
    let (ingress, handoff) = (names.ingress(), names.handoff());
    for step in ROUTE {
        match step {
            RouteStep::BindHandoff => session.bind_exchange(&new, &handoff).await?,
            RouteStep::UnbindOld => session.unbind_exchange(&old, &ingress).await?,
            RouteStep::BindNew => session.bind_exchange(&new, &ingress).await?,
            RouteStep::UnbindHandoff => session.unbind_exchange(&new, &handoff).await?,
        }
    }
    let (from, partitions, to) = (from.number.0, to.partitions, to.number.0);
    info!(from, to, partitions, "publishes go to the new layout");
    Ok(())
}

/// Deletes a layout that was never published to. Nothing was ever bound to it but its own queues.
async fn delete(session: &mut TopologySession<'_>, layout: Layout) -> Result<(), SourceError> {
    let names = session.names();
    for partition in layout.partitions() {
        session.delete_queue(&names.partition(layout.number, partition)).await?;
    }
    session.delete_exchange(&names.layout(layout.number)).await
}

/// Deletes a drained layout, queue by queue, only what is empty and unused; or returns why it cannot. Quorum queues have
/// no deletion with these conditions (RabbitMQ 3.10.8 and 4.0.5: `NOT_IMPLEMENTED`), so they are looked at before. Nothing is
/// published to them any more, and nobody but Lanekeeper knows them.
async fn remove(
    session: &mut TopologySession<'_>,
    document: &LayoutDocument,
    draining: &Draining,
) -> Result<Option<Stuck>, SourceError> {
    let (names, layout) = (session.names(), draining.layout);
    let mut there = Vec::new();
    for partition in layout.partitions() {
        let queue = names.partition(layout.number, partition);
        match session.queue_depth(&queue).await {
            Ok(Depth { consumers: 1.., .. }) => return Ok(Some(Stuck::InUse { queue })),
            Ok(Depth { ready, .. }) => there.push((queue, ready)),
            Err(SourceError::Missing { .. }) => {} // a process that began this and died has deleted it
            Err(fault) => return Err(fault),
        }
    }
    // Markers, and witnesses that came late.
    if let Some((queue, updates)) = purge_markers(session, layout, &there).await? {
        return Ok(Some(Stuck::Late { queue, updates }));
    }
    for (queue, _) in &there {
        let queue = || queue.clone();
        match session.queue_depth(&queue()).await? {
            Depth { consumers: 1.., .. } => return Ok(Some(Stuck::InUse { queue: queue() })),
            Depth { ready: updates @ 1.., .. } => return Ok(Some(Stuck::Late { queue: queue(), updates })),
            Depth { ready: 0, consumers: 0 } => {}
        }
    }
    // On the smaller side of a split every queue looks empty, and is deleted when it is asked for.
    prove(session, document).await?;
    for (queue, _) in there {
        session.delete_queue(&queue).await?;
    }
    let exchange = names.layout(layout.number);
    match session.delete_unused_exchange(&exchange).await {
        Ok(()) => Ok(None),
        Err(fault) if fault.is_in_use() => Ok(Some(Stuck::Bound { exchange })),
        Err(fault) => Err(fault),
    }
}

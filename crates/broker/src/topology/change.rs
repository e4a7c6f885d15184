//! Changes layouts, step by step, under the lock. [`lanekeeper_core::change`] says which step is next; each of them may be
//! done again, so that whoever comes after a crash goes on where it was.

use tracing::{info, warn};

use super::declare::declare_queues;
use super::document::LayoutDocument;
use super::document_stream;
use super::leftover::{caught_up, refuse_newer_layouts};
use super::placement;
use super::probe::probe;
use super::purge::purge;
use super::session::TopologySession;
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
    document = caught_up(session, document).await?;
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
                delete_unused(session, &document, layout).await?;
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
/// granted, too, and what was changed on the other side is not seen. And that it is not older than the objects.
///
/// # Errors
/// [`SourceError::NoQuorum`]; [`SourceError::Outrun`]; [`SourceError::DocumentOlder`].
async fn prove(session: &mut TopologySession<'_>, document: &LayoutDocument) -> Result<(), SourceError> {
    match document_stream::read_proven(session).await? {
        Some(newest) if newest != *document => Err(SourceError::Outrun { changed_by: newest.changed_by }),
        Some(_) | None => refuse_newer_layouts(session, document).await,
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

/// Deletes a layout that was never published to, as the document says. If it holds updates, is consumed, or the way into it
/// is open, then the document is older than the bindings, and nothing is deleted.
async fn delete_unused(
    session: &mut TopologySession<'_>,
    document: &LayoutDocument,
    layout: Layout,
) -> Result<(), SourceError> {
    let names = session.names();
    let queues = existing_queues(session, layout).await?;
    let probed = probe(session).await?;
    if let Some(stuck) = purge(session, layout, &queues, Some(&probed.id)).await? {
        let what = match stuck {
            Stuck::InUse { queue } => format!("the queue {queue} is consumed"),
            Stuck::Late { queue, updates } => format!("the queue {queue} holds {updates} messages"),
            Stuck::Bound { exchange } => format!("publishes go to the exchange {exchange}"),
        };
        let what = format!("it says that layout {} was never published to, but {what}", layout.number.0);
        return Err(SourceError::DocumentOlder { stream: names.topology(), what });
    }
    prove(session, document).await?;
    for queue in queues {
        session.delete_queue(&queue).await?;
    }
    session.delete_exchange(&names.layout(layout.number)).await
}

/// Those queues of a layout that are there. A process that began to delete it and died has deleted the others.
async fn existing_queues(
    session: &mut TopologySession<'_>,
    layout: Layout,
) -> Result<Vec<String>, SourceError> {
    let (names, mut queues) = (session.names(), Vec::new());
    for partition in layout.partitions() {
        let queue = names.partition(layout.number, partition);
        match session.queue_depth(&queue).await {
            Ok(_) => queues.push(queue),
            Err(SourceError::Missing { .. }) => {}
            Err(fault) => return Err(fault),
        }
    }
    Ok(queues)
}

/// Deletes a drained layout, queue by queue, only what is empty and unused; or returns why it cannot. Nothing is published
/// to them any more, and nobody but Lanekeeper knows them.
async fn remove(
    session: &mut TopologySession<'_>,
    document: &LayoutDocument,
    draining: &Draining,
) -> Result<Option<Stuck>, SourceError> {
    let (names, layout) = (session.names(), draining.layout);
    let queues = existing_queues(session, layout).await?;
    if let Some(stuck) = purge(session, layout, &queues, None).await? {
        return Ok(Some(stuck));
    }
    // On the smaller side of a split the deletion of a queue is granted, too.
    prove(session, document).await?;
    for queue in queues {
        session.delete_queue(&queue).await?;
    }
    let exchange = names.layout(layout.number);
    match session.delete_unused_exchange(&exchange).await {
        Ok(()) => Ok(None),
        Err(fault) if fault.is_in_use() => Ok(Some(Stuck::Bound { exchange })),
        Err(fault) => Err(fault),
    }
}

//! Makes the topology complete at the start of a dispatcher.

use std::fmt;
use std::time::Duration;

use tracing::{info, warn};

use super::arguments::{partition_arguments, quorum_arguments};
use super::auto_apply::{Looking, Obstacle, Obstacles};
use super::change::change_locked;
use super::declare::{declare_inner, declare_layout, declare_public, declare_queues};
use super::document::LayoutDocument;
use super::document_stream;
use super::leftover::{FIRST, caught_up, gone, refuse_later_layouts};
use super::placement;
use super::probe::probe;
use super::session::TopologySession;
use super::unknown::{Unknown, log_deleted_queues, unknown_objects};
use crate::connection::Connection;
use crate::error::SourceError;
use crate::names::Names;
use lanekeeper_core::change::{Desired, Layouts};
use lanekeeper_core::layout::{Layout, PARTITIONS_MAX, PartitionNumber, Shape};
use lanekeeper_core::witness::witnesses;

/// How often we look whether an alarm has ended.
const BLOCKED_POLL: Duration = Duration::from_millis(500);

/// The layout that the first start makes.
pub struct FirstLayout {
    /// Partitions and prefetch, as the config of this process says.
    pub shape: Shape,
    /// Checks if the broker has room for it; `None`: nothing is checked. The lock is held while it runs.
    pub look: Option<LookForRoom>,
}

/// Starts one check, of the broker with this version and this name of its cluster.
pub type LookForRoom = Box<dyn Fn(Option<String>, Option<String>) -> Looking + Send + Sync>;

impl fmt::Debug for FirstLayout {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FirstLayout").field("shape", &self.shape).finish_non_exhaustive()
    }
}

/// Makes the topology complete and returns the layout document.
///
/// The first caller on a fresh broker makes layout 1; every other caller takes the current layout.
///
/// # Errors
/// Something exists with other properties, may not be declared, or the broker has no hash exchange.
pub async fn ensure(
    connection: &Connection,
    names: &Names,
    first: &FirstLayout,
    instance: &str,
) -> Result<LayoutDocument, SourceError> {
    loop {
        let mut session = TopologySession::new(connection, names, instance);
        match complete(&mut session, first).await {
            Err(SourceError::Silent { .. }) if connection.status().blocked() => {
                warn!(
                    "the broker takes no publishes, since it has a memory or disk alarm; making the layout once the alarm is over"
                );
                // On this connection, which holds the lock: a blocked one is not even closed before the alarm is over.
                while connection.status().blocked() && connection.status().connected() {
                    tokio::time::sleep(BLOCKED_POLL).await;
                }
            }
            completed => {
                session.close().await;
                return completed;
            }
        }
    }
}

/// From the inside out: the public exchange comes last, so that it takes no update before there is a way into a queue.
///
/// Nothing is declared that this node does not know before a majority of the nodes is reached: a node that is cut off, or
/// that starts, does not know all, and would make a second layout. Where all is there, nothing is published, so that an
/// alarm does not keep a dispatcher from its updates.
async fn complete(
    session: &mut TopologySession<'_>,
    first: &FirstLayout,
) -> Result<LayoutDocument, SourceError> {
    if !document_stream::is_known(session).await? {
        refuse_later_layouts(session).await?;
        prove_first(session).await?;
    }
    document_stream::declare(session).await?;
    let mut known = document_stream::read_last(session).await?;
    let unknown = match &known {
        Some(document) => unknown_objects(session, document.layouts.in_force).await?,
        None => Unknown::default(),
    };
    if known.is_none() || !unknown.is_empty() {
        known = document_stream::read_proven(session).await?;
    }
    let known = known.filter(|document| !document.layouts.witnesses.is_empty());
    if let Some(document) = known.as_ref().filter(|_| !unknown.is_empty()) {
        // Looked at again: the first answer can be that of a node which was cut off then.
        let unknown = unknown_objects(session, document.layouts.in_force).await?;
        log_deleted_queues(&unknown.queues);
    }
    declare_inner(session).await?;
    match (session.lock().await, known) {
        (Ok(()), _) => {}
        // Its holder declares what is missing. A binding to the ingress that is made now could be the second one.
        (Err(SourceError::Locked { .. }), Some(document)) => return Ok(document),
        (Err(fault), _) => return Err(fault),
    }
    let document = complete_layouts(session, first).await?;
    declare_layout(session, document.layouts.in_force).await?;
    declare_public(session).await?;
    session.unlock().await?;
    Ok(document)
}

/// The caller holds the lock. Another process may have been faster: the lock was its too.
async fn complete_layouts(
    session: &mut TopologySession<'_>,
    first: &FirstLayout,
) -> Result<LayoutDocument, SourceError> {
    let document = match document_stream::read_surely(session).await? {
        // An older one, bound beside the newer, would have every update go two ways.
        Some(document) => Some(caught_up(session, document).await?),
        None => None,
    };
    match document {
        None => make_first(session, first).await,
        Some(document) if document.layouts.witnesses.is_empty() => add_witnesses(session, document).await,
        Some(document) if document.layouts.changing.is_some() => {
            let changed = change_locked(session, Desired::default(), &mut |_, _| {}).await?;
            Ok(changed.document)
        }
        Some(document) => Ok(document),
    }
}

/// The layout is bound to the ingress after the document is written: until then the queues hold nothing but what publishers
/// sent to a topology that was imported. A crash in between leaves objects that the next start declares again, unchanged.
async fn make_first(
    session: &mut TopologySession<'_>,
    first: &FirstLayout,
) -> Result<LayoutDocument, SourceError> {
    let layout = first.shape.numbered(FIRST);
    refuse_later_layouts(session).await?;
    if let Some(look) = &first.look {
        let (version, cluster) = session.broker();
        refuse_obstacles(look(version, cluster).await?)?;
    }
    refuse_other_ways(session, layout).await?;
    declare_queues(session, layout).await?;
    for partition in layout.partitions() {
        refuse_consumed(session, partition).await?;
    }
    let witnesses = placement::find_witnesses(session, layout).await?;
    let document = LayoutDocument::first(Layouts::first(layout, witnesses));
    let document = document_stream::write(session, document).await?;
    info!(
        layout = layout.number.0,
        partitions = layout.partitions,
        prefetch = layout.prefetch,
        "made the layout"
    );
    Ok(document)
}

fn refuse_obstacles(found: Obstacles) -> Result<(), SourceError> {
    let Obstacles { blockers, warnings } = found;
    for Obstacle { what, fix } in warnings {
        warn!(what, remedy = fix, "making the layout, though this could go wrong");
    }
    match blockers.into_iter().next() {
        Some(Obstacle { what, fix }) => Err(SourceError::NoRoom { what, fix }),
        None => Ok(()),
    }
}

/// If a probe shows that something is bound to the ingress, it can only be the first layout as `topology export` prints it, with
/// all its queues and no other. A queue that is added to them would move keys whose updates wait.
async fn refuse_other_ways(session: &mut TopologySession<'_>, layout: Layout) -> Result<(), SourceError> {
    let names = session.names();
    let is_there = session.knows_exchange(&names.layout(FIRST)).await?;
    if !probe(session).await?.is_routed {
        return Ok(());
    }
    if !is_there {
        let what = format!("something is bound to {} or to {}", names.ingress(), names.handoff());
        return Err(gone(session, what));
    }
    let partitions = count_queues(session, layout.partitions).await?;
    if partitions == Some(layout.partitions) {
        return Ok(());
    }
    let (wanted, has) =
        (layout.partitions, partitions.map_or_else(|| "gaps".to_owned(), |has| has.to_string()));
    let what = format!(
        "the queues of layout {} are bound ({has}), and updates.partitions is {wanted}: set it to as many as there are",
        FIRST.0
    );
    Err(gone(session, what))
}

/// How many queues the first layout has; `None`: they have gaps. `wanted`: so many are expected.
async fn count_queues(session: &mut TopologySession<'_>, wanted: u16) -> Result<Option<u16>, SourceError> {
    let mut found = 0;
    for partition in 0..=PARTITIONS_MAX {
        let queue = session.names().partition(FIRST, PartitionNumber(partition));
        match session.queue_depth(&queue).await {
            Ok(_) if found == partition => found += 1,
            Ok(_) => return Ok(None),
            Err(SourceError::Missing { .. }) if partition > wanted => break,
            Err(SourceError::Missing { .. }) => {}
            Err(fault) => return Err(fault),
        }
    }
    Ok(Some(found))
}

/// Proves, before the stream with the layout document is declared, that a majority is reached and nobody has a layout.
///
/// Two sides of a split can each declare a stream of one name before the nodes have noticed the split, and then have two of
/// them; so can a node that still has its own view after a split, and then finds neither (3.10.8, measured). A quorum queue of
/// one name is the same queue on all nodes. So the dead-letter queue comes first, and has to take a consumer, which its
/// replicas agree on; and a first partition, which shows its consumers.
async fn prove_first(session: &mut TopologySession<'_>) -> Result<(), SourceError> {
    let (names, partition) = (session.names(), PartitionNumber(0));
    session.declare_queue(&names.dead(), quorum_arguments()).await?;
    session.try_consuming(&names.dead(), "declaring the stream with the layout document").await?;
    session.declare_queue(&names.partition(FIRST, partition), partition_arguments(names)).await?;
    refuse_consumed(session, partition).await
}

/// Before there is a layout, nobody consumes its queues. If somebody does, a split is over, and this node still does not know
/// what the others have made.
async fn refuse_consumed(
    session: &mut TopologySession<'_>,
    partition: PartitionNumber,
) -> Result<(), SourceError> {
    let queue = session.names().partition(FIRST, partition);
    match session.queue_depth(&queue).await?.consumers {
        0 => Ok(()),
        _ => Err(SourceError::OutOfStep { queue }),
    }
}

/// A layout made by a program that knew no witnesses gets them as the hash says: its queues are not empty, so they cannot
/// be found in them. Its consumers compare.
async fn add_witnesses(
    session: &mut TopologySession<'_>,
    document: LayoutDocument,
) -> Result<LayoutDocument, SourceError> {
    let layout = document.layouts.in_force;
    let layouts = Layouts { witnesses: witnesses(layout.partitions), ..document.layouts };
    let document = document_stream::write(session, LayoutDocument { layouts, ..document }).await?;
    info!(layout = layout.number.0, "added witnesses to the layout");
    Ok(document)
}

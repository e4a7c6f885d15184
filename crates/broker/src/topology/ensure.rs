//! Makes the topology complete at the start of a dispatcher.

use std::time::Duration;

use tracing::{info, warn};

use super::change::change_locked;
use super::declare::{declare_inner, declare_layout, declare_public, declare_queues, log_deleted_queues};
use super::document::LayoutDocument;
use super::document_stream;
use super::placement;
use super::session::TopologySession;
use crate::connection::Connection;
use crate::error::SourceError;
use crate::names::Names;
use lanekeeper_core::change::{Desired, Layouts};
use lanekeeper_core::layout::{Layout, LayoutNumber};
use lanekeeper_core::witness::witnesses;

/// How often we look whether an alarm has ended.
const BLOCKED_POLL: Duration = Duration::from_millis(500);

/// Makes the topology complete and returns the layout document.
///
/// The first caller on a fresh broker makes layout 1 with `wanted`'s numbers; every other caller takes the current layout.
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
        let mut session = TopologySession::new(connection, names, instance);
        match complete(&mut session, wanted).await {
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
async fn complete(session: &mut TopologySession<'_>, wanted: Layout) -> Result<LayoutDocument, SourceError> {
    declare_inner(session).await?;
    document_stream::declare(session).await?;
    let known = document_stream::read_last(session).await?;
    let known = known.filter(|document| !document.layouts.witnesses.is_empty());
    if let Some(document) = &known {
        log_deleted_queues(session, document.layouts.in_force).await?;
    }
    match (session.lock().await, known) {
        (Ok(()), _) => {}
        // Its holder declares what is missing. A binding to the ingress that is made now could be the second one.
        (Err(SourceError::Locked { .. }), Some(document)) => return Ok(document),
        (Err(fault), _) => return Err(fault),
    }
    let document = complete_layouts(session, wanted).await?;
    declare_layout(session, document.layouts.in_force).await?;
    declare_public(session).await?;
    session.unlock().await?;
    Ok(document)
}

/// The caller holds the lock. Another process may have been faster: the lock was its too.
async fn complete_layouts(
    session: &mut TopologySession<'_>,
    wanted: Layout,
) -> Result<LayoutDocument, SourceError> {
    match document_stream::read_surely(session).await? {
        None => make_first(session, wanted).await,
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
    wanted: Layout,
) -> Result<LayoutDocument, SourceError> {
    let layout = Layout { number: LayoutNumber(1), ..wanted };
    declare_queues(session, layout).await?;
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

//! Writes a layout document for the layout that the broker has: if the document was lost, or is older than the objects.

use super::document::LayoutDocument;
use super::document_stream;
use super::leftover::{FIRST, all_layouts};
use super::probe::probe;
use super::session::TopologySession;
use crate::connection::Connection;
use crate::error::SourceError;
use crate::names::Names;
use lanekeeper_core::change::Layouts;
use lanekeeper_core::layout::{Layout, LayoutNumber, PARTITIONS_MAX, PartitionNumber};
use lanekeeper_core::witness::witnesses;

/// What came of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Adopted {
    /// The document names this layout now.
    Written(Layout),
    /// Nothing was written, for this reason.
    Refused(String),
}

/// Writes a document with the one layout that there is, and nothing that drains. Nobody may consume it: a dispatcher that
/// remembers a later document would not follow this one. `prefetch`: no lower than its consumers had.
///
/// The lock is taken once and released at the end; with an error it goes with the connection, which is to be closed then.
///
/// # Errors
/// [`SourceError::Locked`]; the broker refuses or does not answer.
pub(crate) async fn adopt(
    connection: &Connection,
    names: &Names,
    instance: &str,
    prefetch: u16,
) -> Result<Adopted, SourceError> {
    let mut session = TopologySession::new(connection, names, instance);
    session.lock().await?;
    document_stream::declare(&mut session).await?;
    let adopted = adopt_locked(&mut session, prefetch).await?;
    session.unlock().await?;
    session.close().await;
    Ok(adopted)
}

async fn adopt_locked(session: &mut TopologySession<'_>, prefetch: u16) -> Result<Adopted, SourceError> {
    let refused = |why: String| Ok(Adopted::Refused(why));
    let known = document_stream::read_proven(session).await?;
    let found = all_layouts(session, known.as_ref()).await?;
    let number = match found.as_slice() {
        [] => {
            return refused(format!(
                "there is no exchange of a layout; start `lanekeeper run`, which makes layout {}",
                FIRST.0
            ));
        }
        [number] => *number,
        many => {
            let many: Vec<String> = many.iter().map(|number| session.names().layout(*number)).collect();
            return refused(format!(
                "there are several layouts ({}), and no document says which came first: empty and delete all but the one that the \
                 ingress is bound to",
                many.join(", ")
            ));
        }
    };
    if let Some(document) = &known
        && document.layouts.in_force.number == number
    {
        return refused(format!("the document names layout {} already", number.0));
    }
    let partitions = match count_unused(session, number).await? {
        Ok(partitions) => partitions,
        Err(why) => return refused(why),
    };
    if !probe(session).await?.is_routed {
        let exchange = session.names().layout(number);
        return refused(format!("nothing is bound to the ingress; bind {exchange} to it, and nothing else"));
    }
    let layout = Layout { number, partitions, prefetch };
    let layouts = Layouts::first(layout, witnesses(partitions));
    let document = match known {
        Some(known) => LayoutDocument { layouts, ..known },
        None => LayoutDocument::first(layouts),
    };
    document_stream::write(session, document).await?;
    Ok(Adopted::Written(layout))
}

/// How many queues the layout has, in a row and consumed by nobody; or what is wrong with them.
async fn count_unused(
    session: &mut TopologySession<'_>,
    number: LayoutNumber,
) -> Result<Result<u16, String>, SourceError> {
    let mut partitions = 0;
    for partition in 0..PARTITIONS_MAX {
        let queue = session.names().partition(number, PartitionNumber(partition));
        match session.queue_depth(&queue).await {
            Ok(depth) if depth.consumers > 0 => {
                return Ok(Err(format!("the queue {queue} is consumed: stop all dispatchers first")));
            }
            Ok(_) => partitions += 1,
            Err(SourceError::Missing { .. }) => break,
            Err(fault) => return Err(fault),
        }
    }
    let queue = session.names().partition(number, PartitionNumber(partitions));
    Ok(if partitions == 0 { Err(format!("the queue {queue} does not exist")) } else { Ok(partitions) })
}

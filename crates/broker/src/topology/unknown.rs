//! Which objects of a layout a node does not know. Only once a majority of the nodes is reached does this mean that they are
//! not there.

use tracing::error;

use super::session::TopologySession;
use crate::error::SourceError;
use lanekeeper_core::layout::Layout;

/// What the node of a connection does not know.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Unknown {
    /// Which objects that are no partition's queue.
    pub(super) others: Vec<String>,
    /// Which queues of partitions.
    pub(super) queues: Vec<String>,
}

impl Unknown {
    pub(super) fn is_empty(&self) -> bool {
        self.others.is_empty() && self.queues.is_empty()
    }
}

/// Looks at every object of a layout, and at those that are the same for all layouts. Declares nothing.
pub(super) async fn unknown_objects(
    session: &mut TopologySession<'_>,
    layout: Layout,
) -> Result<Unknown, SourceError> {
    let names = session.names();
    let mut unknown = Unknown::default();
    let exchanges = [
        names.dead(),
        names.handoff(),
        names.ingress(),
        names.layout(layout.number),
        names.public().to_owned(),
    ];
    for exchange in exchanges {
        if !session.knows_exchange(&exchange).await? {
            unknown.others.push(format!("exchange {exchange}"));
        }
    }
    for queue in layout.partitions().map(|partition| names.partition(layout.number, partition)) {
        match session.queue_depth(&queue).await {
            Ok(_) => {}
            Err(fault) if fault.is_deleted_queue() => unknown.queues.push(queue),
            Err(fault) => return Err(fault),
        }
    }
    match session.queue_depth(&names.dead()).await {
        Ok(_) => {}
        Err(fault) if fault.is_deleted_queue() => unknown.others.push(format!("queue {}", names.dead())),
        Err(fault) => return Err(fault),
    }
    Ok(unknown)
}

/// Logs which queues of the current layout were deleted, before they are declared again. Only once a majority is reached.
pub(super) fn log_deleted_queues(queues: &[String]) {
    for queue in queues {
        error!(
            queue,
            "a queue of the layout was deleted, declaring it again: the updates in it are lost, and updates published since then are in other partitions"
        );
    }
}

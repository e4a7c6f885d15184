//! Takes a topology out of the broker again: for those that are made to be thrown away.

use super::session::TopologySession;
use crate::connection::Connection;
use crate::error::SourceError;
use crate::names::Names;
use lanekeeper_core::layout::Layout;

/// Deletes every object of a topology, *with the updates in its queues*: only for an exchange of one's own, that no
/// publisher but oneself knows. Dispatchers of it should have ended.
///
/// When it has returned, nothing of these names is in the broker. What was not there is no error: RabbitMQ answers
/// deletions of missing objects with success (since 3.2). Bindings go with what they bind.
///
/// # Errors
/// The connection is lost, or the user may not delete. Some objects may then be gone.
pub async fn remove(connection: &Connection, names: &Names, layout: Layout) -> Result<(), SourceError> {
    let mut session = TopologySession::new(connection, names, "");
    // The public exchange first: from then on nothing new comes in.
    let exchanges =
        [names.public().to_owned(), names.ingress(), names.handoff(), names.layout(layout.number)];
    for exchange in exchanges {
        session.delete_exchange(&exchange).await?;
    }
    for partition in layout.partitions() {
        session.delete_queue(&names.partition(layout.number, partition)).await?;
    }
    // The dead-letter queue last: until now a partition's queue could still put something there.
    session.delete_exchange(&names.dead()).await?;
    session.delete_exchange(&names.doors()).await?;
    for queue in [names.dead(), names.members(), names.topology()] {
        session.delete_queue(&queue).await?;
    }
    session.close().await;
    Ok(())
}

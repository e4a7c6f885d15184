//! Declares what is missing in a topology, and refuses what differs. docs/wire.md shows the picture.

use lapin::ExchangeKind;
use lapin::types::FieldTable;
use tracing::error;

use super::arguments::{ingress_arguments, partition_arguments, quorum_arguments};
use super::session::TopologySession;
use crate::error::SourceError;
use crate::names::HASH_EXCHANGE_TYPE;
use lanekeeper_core::layout::Layout;

/// Declares everything that is the same for all layouts, except the stream with the layout document.
pub(crate) async fn declare_fixed(session: &mut TopologySession<'_>) -> Result<(), SourceError> {
    let names = session.names();
    let (public, ingress, handoff, dead) = (names.public(), names.ingress(), names.handoff(), names.dead());
    let none = FieldTable::default;
    session.declare_exchange(public, ExchangeKind::Fanout, false, none()).await?;
    session.declare_exchange(&handoff, ExchangeKind::Fanout, true, none()).await?;
    session.declare_exchange(&ingress, ExchangeKind::Fanout, true, ingress_arguments(names)).await?;
    session.bind_exchange(&ingress, public).await?;
    session.declare_exchange(&dead, ExchangeKind::Fanout, false, none()).await?;
    session.declare_queue(&dead, quorum_arguments()).await?;
    session.bind_queue(&dead, &dead).await
}

/// Declares the layout, and binds it to the ingress.
pub(crate) async fn declare_layout(
    session: &mut TopologySession<'_>,
    layout: Layout,
) -> Result<(), SourceError> {
    declare_queues(session, layout).await?;
    let names = session.names();
    session.bind_exchange(&names.layout(layout.number), &names.ingress()).await
}

/// Declares the layout without binding it to the ingress. Queues are bound once, in the order of their names; binding again
/// what is bound changes nothing.
pub(crate) async fn declare_queues(
    session: &mut TopologySession<'_>,
    layout: Layout,
) -> Result<(), SourceError> {
    let names = session.names();
    let exchange = names.layout(layout.number);
    let kind = ExchangeKind::Custom(HASH_EXCHANGE_TYPE.to_owned());
    session.declare_exchange(&exchange, kind, false, FieldTable::default()).await?;
    for partition in layout.partitions() {
        let queue = names.partition(layout.number, partition);
        session.declare_queue(&queue, partition_arguments(names)).await?;
        session.bind_queue(&queue, &exchange).await?;
    }
    Ok(())
}

/// A queue of the current layout that is not there was deleted by hand: this is logged before it is declared again.
pub(crate) async fn log_deleted_queues(
    session: &mut TopologySession<'_>,
    layout: Layout,
) -> Result<(), SourceError> {
    for partition in layout.partitions() {
        let queue = session.names().partition(layout.number, partition);
        match session.queue_depth(&queue).await {
            Ok(_) => {}
            Err(fault) if fault.is_deleted_queue() => error!(
                queue,
                "a queue of the layout was deleted, declaring it again: the updates in it are lost, and updates published since then are in other partitions"
            ),
            Err(fault) => return Err(fault),
        }
    }
    Ok(())
}

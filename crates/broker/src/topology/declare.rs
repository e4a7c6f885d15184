//! Declares what is missing in a topology, and refuses what differs. docs/wire.md shows the picture.

use lapin::ExchangeKind;
use lapin::types::FieldTable;

use super::arguments::{
    ALTERNATE_EXCHANGE, ingress_arguments, partition_arguments, public_arguments, quorum_arguments,
};
use super::session::TopologySession;
use crate::error::{NO_ARGUMENT, SourceError};
use crate::names::HASH_EXCHANGE_TYPE;
use lanekeeper_core::layout::Layout;

/// Declares what lies behind the public exchange and is the same for all layouts, except the stream with the layout document.
pub(crate) async fn declare_inner(session: &mut TopologySession<'_>) -> Result<(), SourceError> {
    let names = session.names();
    let (ingress, handoff, dead) = (names.ingress(), names.handoff(), names.dead());
    let none = FieldTable::default;
    session.declare_exchange(&dead, ExchangeKind::Fanout, false, none()).await?;
    session.declare_queue(&dead, quorum_arguments()).await?;
    session.bind_queue(&dead, &dead).await?;
    session.declare_exchange(&handoff, ExchangeKind::Fanout, true, none()).await?;
    session.declare_exchange(&ingress, ExchangeKind::Fanout, true, ingress_arguments(names)).await
}

/// Declares the public exchange and its binding. Only once a layout is bound to the ingress: from here on the broker confirms
/// what publishers send, and it confirms what it routes nowhere, too.
pub(crate) async fn declare_public(session: &mut TopologySession<'_>) -> Result<(), SourceError> {
    declare_public_again(session, &mut true).await
}

/// As [`declare_public`]. `with_alternate`: if the exchange had an alternate exchange when this was called last; a wrong guess
/// costs a line in the broker's log.
pub(super) async fn declare_public_again(
    session: &mut TopologySession<'_>,
    with_alternate: &mut bool,
) -> Result<(), SourceError> {
    declare_as_it_was(session, with_alternate).await?;
    let names = session.names();
    session.bind_exchange(&names.ingress(), names.public()).await?;
    session.declare_watch().await
}

/// Between its declaration and its binding, updates go to its alternate exchange, the ingress. An earlier version made it
/// without one, and publishers may have: then it stays so.
pub(crate) async fn declare_public_exchange(session: &mut TopologySession<'_>) -> Result<(), SourceError> {
    declare_as_it_was(session, &mut true).await
}

async fn declare_as_it_was(
    session: &mut TopologySession<'_>,
    with_alternate: &mut bool,
) -> Result<(), SourceError> {
    let names = session.names();
    let arguments = |with| if with { public_arguments(names) } else { FieldTable::default() };
    let public = names.public();
    let declared =
        session.declare_exchange(public, ExchangeKind::Fanout, false, arguments(*with_alternate)).await;
    match declared {
        Err(SourceError::Differs { argument, found, .. })
            if argument == ALTERNATE_EXCHANGE && (found == NO_ARGUMENT || !*with_alternate) =>
        {
            *with_alternate = !*with_alternate;
            session.declare_exchange(public, ExchangeKind::Fanout, false, arguments(*with_alternate)).await
        }
        declared => declared,
    }
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

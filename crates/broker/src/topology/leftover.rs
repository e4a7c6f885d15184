//! Layouts that the layout document does not know: it was deleted, or it is older than the broker's objects.

use super::document::LayoutDocument;
use super::document_stream;
use super::session::TopologySession;
use crate::error::SourceError;
use lanekeeper_core::layout::LayoutNumber;

/// How many changes of the layout back an exchange without a document is looked for. Each look takes less than a
/// millisecond on a node nearby (256 of them 0.2 s, RabbitMQ 3.10.8, measured).
const CHANGES_MAX: u32 = 256;
/// How many changes a document can be behind the objects: those of which a power loss has taken the documents.
const CHANGES_LOST_MAX: u32 = 8;

/// The layout that the first start makes.
pub(super) const FIRST: LayoutNumber = LayoutNumber(1);

/// Refuses if there is an exchange of a layout after the first, while there is no layout document: a first layout would be
/// a second way from the ingress, or would leave alone what waits in the queues of the other.
///
/// # Errors
/// [`SourceError::DocumentGone`].
pub(super) async fn refuse_later_layouts(session: &mut TopologySession<'_>) -> Result<(), SourceError> {
    let found = exchanges(session, FIRST.0 + 1, CHANGES_MAX).await?;
    if found.is_empty() {
        return Ok(());
    }
    let what = format!("there are exchanges of later layouts ({})", found.join(", "));
    Err(gone(session, what))
}

/// Refuses if there is an exchange of a layout that the document has never given a number to: whoever made it wrote that
/// down first, so that the document is older than the bindings.
///
/// # Errors
/// [`SourceError::DocumentOlder`].
pub(super) async fn refuse_newer_layouts(
    session: &mut TopologySession<'_>,
    document: &LayoutDocument,
) -> Result<(), SourceError> {
    let layouts = &document.layouts;
    let known = layouts.number_max.max(layouts.in_force.number.0);
    let found = exchanges(session, known.saturating_add(1), CHANGES_LOST_MAX).await?;
    match found.first() {
        None => Ok(()),
        Some(layout) => Err(SourceError::DocumentOlder {
            stream: session.names().topology(),
            what: format!("it knows no layout after {known}, but the exchange {layout} exists"),
        }),
    }
}

/// Returns the document, or the newest one if it lags behind the objects: a stream is read from the replica of the connected
/// node, which can be behind, while exchanges are known to all nodes at once. So no barrier has to be published where all is
/// as it was, and an alarm does not hold up a start.
///
/// # Errors
/// [`SourceError::DocumentOlder`]: not even the newest document knows them.
pub(super) async fn caught_up(
    session: &mut TopologySession<'_>,
    document: LayoutDocument,
) -> Result<LayoutDocument, SourceError> {
    match refuse_newer_layouts(session, &document).await {
        Ok(()) => return Ok(document),
        Err(SourceError::DocumentOlder { .. }) => {}
        Err(fault) => return Err(fault),
    }
    let newest = document_stream::read_proven(session).await?.unwrap_or(document);
    refuse_newer_layouts(session, &newest).await?;
    Ok(newest)
}

/// There is no document, and something is there that it would have to name.
pub(super) fn gone(session: &TopologySession<'_>, what: String) -> SourceError {
    let names = session.names();
    SourceError::DocumentGone { stream: names.topology(), exchange: names.public().to_owned(), what }
}

/// Which exchanges of so many layouts there are, beginning with this one.
async fn exchanges(
    session: &mut TopologySession<'_>,
    first: u32,
    many: u32,
) -> Result<Vec<String>, SourceError> {
    let mut found = Vec::new();
    for number in first..first.saturating_add(many) {
        let exchange = session.names().layout(LayoutNumber(number));
        if session.knows_exchange(&exchange).await? {
            found.push(exchange);
        }
    }
    Ok(found)
}

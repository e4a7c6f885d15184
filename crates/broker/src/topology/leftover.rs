//! Layouts that the layout document does not know: it was deleted, or it is older than the broker's objects.

use super::document::LayoutDocument;
use super::document_stream;
use super::session::TopologySession;
use crate::error::SourceError;
use lanekeeper_core::layout::LayoutNumber;

/// How many layouts are looked for where there is no document. Each look at one that is not there takes less than a
/// millisecond on a node nearby (256 of them 0.2 s, RabbitMQ 3.10.8, measured), and costs a line in the broker's log.
const CHANGES_MAX: u32 = 64;
/// How many changes a document can be behind the objects: those of which a power loss has taken the documents.
const CHANGES_LOST_MAX: u32 = 4;

/// The layout that the first start makes.
pub(super) const FIRST: LayoutNumber = LayoutNumber(1);

/// Refuses if there is an exchange of a layout after the first, while there is no layout document: a first layout would be
/// a second way from the ingress, or would leave alone what waits in the queues of the other.
///
/// # Errors
/// [`SourceError::DocumentGone`].
pub(crate) async fn refuse_later_layouts(session: &mut TopologySession<'_>) -> Result<(), SourceError> {
    let found = layouts(session, FIRST.0 + 1, CHANGES_MAX).await?;
    if found.is_empty() {
        return Ok(());
    }
    let found: Vec<String> = found.into_iter().map(|number| session.names().layout(number)).collect();
    let what = format!("there are exchanges of later layouts ({})", found.join(", "));
    Err(gone(session, what))
}

/// Refuses if there is an exchange of a layout that the document has never given a number to: whoever made it wrote that
/// down first, so that the document is older than the bindings.
///
/// # Errors
/// [`SourceError::DocumentOlder`].
pub(crate) async fn refuse_newer_layouts(
    session: &mut TopologySession<'_>,
    document: &LayoutDocument,
) -> Result<(), SourceError> {
    let known = number_max(document);
    let found = layouts(session, known.saturating_add(1), CHANGES_LOST_MAX).await?;
    match found.first() {
        None => Ok(()),
        Some(number) => Err(SourceError::DocumentOlder {
            stream: session.names().topology(),
            what: format!(
                "it knows no layout after {known}, but the exchange {} exists",
                session.names().layout(*number)
            ),
        }),
    }
}

/// The highest number that the document has given to a layout.
fn number_max(document: &LayoutDocument) -> u32 {
    document.layouts.number_max.max(document.layouts.in_force.number.0)
}

/// All layouts that there are an exchange of, as far as they are looked for.
pub(super) async fn all_layouts(
    session: &mut TopologySession<'_>,
    document: Option<&LayoutDocument>,
) -> Result<Vec<LayoutNumber>, SourceError> {
    let many = document.map_or(0, number_max).max(CHANGES_MAX).saturating_add(CHANGES_LOST_MAX);
    layouts(session, FIRST.0, many).await
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

/// Of which of so many layouts there are exchanges, beginning with this one.
async fn layouts(
    session: &mut TopologySession<'_>,
    first: u32,
    many: u32,
) -> Result<Vec<LayoutNumber>, SourceError> {
    let mut found = Vec::new();
    for number in (first..first.saturating_add(many)).map(LayoutNumber) {
        let exchange = session.names().layout(number);
        if session.knows_exchange(&exchange).await? {
            found.push(number);
        }
    }
    Ok(found)
}

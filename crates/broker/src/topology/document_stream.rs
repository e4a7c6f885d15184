//! The stream with the layout documents, of which the newest one counts.

use std::time::Duration;

use lapin::BasicProperties;
use lapin::message::Delivery;
use lapin::types::ShortString;
use tokio::time::timeout;
use uuid::Uuid;

use super::arguments::stream_arguments;
use super::document::{LayoutDocument, parse};
use super::majority::unproven;
use super::session::TopologySession;
use crate::channel::confirm_channel::{Message, PublishAnswer, PublishOutcome};
use crate::channel::stream_reader::{StreamOffset, offset_of};
use crate::error::SourceError;
use crate::link::ANSWER_TIMEOUT;

/// How long the first message may take if there is one. If it takes longer, [`read_proven`] decides.
const FIRST_PATIENCE: Duration = Duration::from_secs(1);
/// After the last document read, how long a further one of the same chunk may take.
const CHUNK_GRACE: Duration = Duration::from_millis(200);
/// An empty answer is no proof that there is no document; how often readers without the lock ask.
const READS_MAX: usize = 3;

/// What a message of the stream is: its AMQP `type`.
const LAYOUT: &str = "layout";
/// Written to find the end of the stream; carries no document.
const BARRIER: &str = "barrier";

pub(crate) const READING: &str = "reading the layout document";
const WRITING: &str = "writing to the stream with the layout document";

/// Declares the stream if it is missing.
///
/// # Errors
/// It exists with other arguments, or may not be declared.
pub(crate) async fn declare(session: &mut TopologySession<'_>) -> Result<(), SourceError> {
    session.declare_queue(&session.names().topology(), stream_arguments()).await
}

/// Returns true if the node of this connection knows the stream.
pub(crate) async fn is_known(session: &mut TopologySession<'_>) -> Result<bool, SourceError> {
    match session.queue_depth(&session.names().topology()).await {
        Ok(_) => Ok(true),
        Err(SourceError::Missing { .. }) => Ok(false),
        Err(fault) => Err(fault),
    }
}

/// Reads the document that counts. `None` is no proof that there is none: a slow broker looks like an empty stream (and the
/// message count of a stream is seconds behind; 3.10.8, measured). [`read_proven`] is proof.
///
/// # Errors
/// This version cannot read the document.
pub(crate) async fn read_last(session: &TopologySession<'_>) -> Result<Option<LayoutDocument>, SourceError> {
    let stream = session.names().topology();
    let Some(end) = last_offset(session, &stream).await? else { return Ok(None) };
    let is_end = |delivery: &Delivery| offset_of(delivery).is_some_and(|offset| offset >= end);
    read_until(session, is_end).await
}

/// The offset of the last message of a stream that this node has; `None`: nothing came.
///
/// # Errors
/// The stream cannot be read.
pub(crate) async fn last_offset(
    session: &TopologySession<'_>,
    stream: &str,
) -> Result<Option<u64>, SourceError> {
    let mut reader = session.read_stream(stream, StreamOffset::Last, READING).await?;
    let mut last = None;
    let read = loop {
        // The last chunk can hold several messages; they come together.
        let within = if last.is_none() { FIRST_PATIENCE } else { CHUNK_GRACE };
        match timeout(within, reader.next()).await {
            Ok(Ok(delivery)) => last = offset_of(&delivery).or(last),
            Ok(Err(fault)) => break Err(fault),
            Err(_) => break Ok(last),
        }
    };
    reader.close().await;
    read
}

/// Reads the stream from its beginning up to this message, and returns the document that counts by then.
async fn read_until(
    session: &TopologySession<'_>,
    mut is_end: impl FnMut(&Delivery) -> bool,
) -> Result<Option<LayoutDocument>, SourceError> {
    let stream = session.names().topology();
    let mut reader = session.read_stream(&stream, StreamOffset::First, READING).await?;
    let mut current = Current::default();
    let read = loop {
        let delivery = match timeout(ANSWER_TIMEOUT, reader.next()).await {
            Ok(Ok(delivery)) => delivery,
            Ok(Err(fault)) => break Err(fault),
            Err(_) => {
                break Err(SourceError::Silent { step: READING, seconds: ANSWER_TIMEOUT.as_secs() });
            }
        };
        current.take(document_of(&delivery, &stream));
        if is_end(&delivery) {
            break current.into_document();
        }
    };
    reader.close().await;
    read
}

/// Finds out, message by message from the beginning of the stream, which document counts.
///
/// Each document names its place: its serial is one above that of the document which it was made from. The first one of a
/// place counts. A later one comes from a process that did not know of it: the lock, an exclusive queue, is granted on both
/// sides of a split, and what was published on the smaller side can arrive once the split is over (3.10.8 and 4.0.5,
/// measured).
#[derive(Debug)]
struct Current(Result<Option<LayoutDocument>, SourceError>);

impl Default for Current {
    fn default() -> Self {
        Self(Ok(None))
    }
}

impl Current {
    fn take(&mut self, read: Result<Option<LayoutDocument>, SourceError>) {
        match read {
            Ok(None) => {}
            Ok(Some(document)) => {
                let counts = match &self.0 {
                    Ok(Some(current)) => succeeds(&document, current),
                    Ok(None) | Err(_) => true,
                };
                if counts {
                    self.0 = Ok(Some(document));
                }
            }
            Err(fault) => self.0 = Err(fault),
        }
    }

    fn into_document(self) -> Result<Option<LayoutDocument>, SourceError> {
        self.0
    }
}

/// Returns true if the document takes the place of `current`. Before version 3 there were no serials, and the last counts.
pub(crate) fn succeeds(document: &LayoutDocument, current: &LayoutDocument) -> bool {
    document.serial > current.serial || (document.serial == 0 && current.serial == 0)
}

/// Returns the last document to a reader without the lock; does not publish. `None`: there is none, or no stream.
///
/// # Errors
/// It cannot be read.
pub(crate) async fn read_if_there(
    session: &TopologySession<'_>,
) -> Result<Option<LayoutDocument>, SourceError> {
    for _ in 0..READS_MAX {
        match read_last(session).await {
            Ok(None) => {}
            Err(SourceError::Missing { .. }) => return Ok(None),
            read => return read,
        }
    }
    Ok(None)
}

/// Returns the last document to the holder of the lock: on one side of a split nobody else writes. `None`: there is none.
///
/// # Errors
/// As [`read_last`] and [`read_proven`].
pub(crate) async fn read_surely(
    session: &mut TopologySession<'_>,
) -> Result<Option<LayoutDocument>, SourceError> {
    // Without a publish, which an alarm would hold up.
    match read_last(session).await? {
        Some(document) => Ok(Some(document)),
        None => read_proven(session).await,
    }
}

/// Reads the whole stream, up to a barrier written for this purpose, and returns the document that counts. This proves, too,
/// that the node of this connection reached a majority after this call had begun.
///
/// # Errors
/// [`SourceError::NoQuorum`]: the broker did not confirm the barrier, or did not give it back. A document cannot be read.
pub(crate) async fn read_proven(
    session: &mut TopologySession<'_>,
) -> Result<Option<LayoutDocument>, SourceError> {
    let (properties, barrier) = stream_barrier();
    append(session, properties, barrier.as_bytes()).await?;
    let is_barrier = |delivery: &Delivery| delivery.data == barrier.as_bytes();
    let read = read_until(session, is_barrier).await;
    read.map_err(|fault| unproven(fault, READING, session.is_blocked()))
}

/// A message that carries no document: that it is confirmed or comes back is all that it is for.
pub(super) fn stream_barrier() -> (BasicProperties, String) {
    (properties_of(BARRIER), Uuid::new_v4().to_string())
}

fn properties_of(kind: &str) -> BasicProperties {
    BasicProperties::default().with_content_type("application/json".into()).with_type(kind.into())
}

/// The document, if the message is one.
///
/// # Errors
/// This version cannot read it.
pub(crate) fn document_of(delivery: &Delivery, stream: &str) -> Result<Option<LayoutDocument>, SourceError> {
    let kind = delivery.properties.kind().as_ref().map(ShortString::as_str);
    (kind != Some(BARRIER)).then(|| parse(&delivery.data, stream)).transpose()
}

/// Appends the document, as changed now by the instance of the session, and reads it back. Once this has returned, it counts.
///
/// # Errors
/// [`SourceError::NoQuorum`]: the broker did not confirm it; it can count or not. [`SourceError::Outrun`]: it does not
/// count.
pub(crate) async fn write(
    session: &mut TopologySession<'_>,
    document: LayoutDocument,
) -> Result<LayoutDocument, SourceError> {
    let document = document.succeeding(session.instance());
    let body = serde_json::to_vec(&document).expect("a document is plain data");
    append(session, properties_of(LAYOUT), &body).await?;
    let counts = read_until(session, |delivery| delivery.data == body).await;
    match counts.map_err(|fault| unproven(fault, READING, session.is_blocked()))? {
        Some(current) if current != document => Err(SourceError::Outrun { changed_by: current.changed_by }),
        Some(_) | None => Ok(document),
    }
}

/// Appends a message; every reader can have it once this has returned.
async fn append(
    session: &mut TopologySession<'_>,
    properties: BasicProperties,
    body: &[u8],
) -> Result<(), SourceError> {
    let stream = session.names().topology();
    let message = Message::to_queue(&stream, properties, body);
    let published = session.publish_all(WRITING, &format!("stream {stream}"), vec![message]).await;
    let taken = published.and_then(|answers| check_taken(&answers, &stream, WRITING));
    taken.map_err(|fault| unproven(fault, WRITING, session.is_blocked()))
}

/// # Errors
/// The broker refused a message to the stream, which it does without a majority; or the stream is not there.
pub(super) fn check_taken(
    answers: &[PublishAnswer],
    stream: &str,
    step: &'static str,
) -> Result<(), SourceError> {
    let fault = answers.iter().find_map(|answer| match answer.outcome() {
        PublishOutcome::Taken => None,
        PublishOutcome::Refused => Some(SourceError::NoQuorum { step }),
        PublishOutcome::Unroutable => {
            Some(SourceError::Missing { text: format!("the stream {stream} is gone") })
        }
    });
    fault.map_or(Ok(()), Err)
}

#[cfg(test)]
mod tests {
    use super::*;
    use lanekeeper_core::change::Layouts;
    use lanekeeper_core::layout::{Layout, LayoutNumber, PartitionNumber};
    use lanekeeper_core::witness::Witness;

    /// Messages of the stream, as `SERIAL NAME`, `!` for one that cannot be read, `.` for a barrier; whose counts.
    #[track_caller]
    fn check(messages: &str, expected: Option<&str>) {
        let layout = Layout { number: LayoutNumber(1), partitions: 1, prefetch: 1 };
        let witness = Witness { key: "w".to_owned(), partition: PartitionNumber(0) };
        let document = LayoutDocument::first(Layouts::first(layout, vec![witness]));
        let mut current = Current::default();
        for message in messages.split(", ").filter(|message| !message.is_empty()) {
            current.take(match message.split_once(' ') {
                Some((serial, changed_by)) => Ok(Some(LayoutDocument {
                    serial: serial.parse().expect("a number"),
                    changed_by: changed_by.to_owned(),
                    ..document.clone()
                })),
                None if message == "." => Ok(None),
                None => Err(SourceError::Document { stream: "s".to_owned(), fault: "!".to_owned() }),
            });
        }
        let counts = current.into_document().map(|document| document.map(|document| document.changed_by));
        let counts = counts.unwrap_or_else(|_| Some("!".to_owned()));
        assert_eq!(counts.as_deref(), expected, "{messages}");
    }

    #[test]
    fn the_first_document_of_a_place_counts_and_one_that_arrives_late_does_not() {
        check("", None);
        check("., .", None);
        check("1 a", Some("a"));
        check("1 a, ., 2 b, .", Some("b"));
        // Written on the smaller side of a split, and arrived when it was over.
        check("1 a, 2 b, 2 c", Some("b"));
        check("1 a, 2 b, 3 b, 2 c", Some("b"));
        check("1 a, 2 b, 2 c, 3 b", Some("b"));
        check("1 a, 2 c, 2 b", Some("c"));
        // Of programs that knew no serials.
        check("0 a, 0 b", Some("b"));
        check("0 a, 0 b, 1 c, 0 d", Some("c"));
        check("1 a, !", Some("!"));
        check("1 a, !, 2 b", Some("b"));
    }
}

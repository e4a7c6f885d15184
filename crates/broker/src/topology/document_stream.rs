//! The stream with the layout documents, of which the last one counts.

use std::time::Duration;

use lapin::BasicProperties;
use lapin::message::Delivery;
use lapin::types::ShortString;
use tokio::time::timeout;
use uuid::Uuid;

use super::arguments::stream_arguments;
use super::document::{LayoutDocument, parse};
use super::session::TopologySession;
use crate::channel::confirm_channel::{Message, PublishOutcome};
use crate::channel::stream_reader::{StreamOffset, StreamReader};
use crate::error::SourceError;
use crate::link::ANSWER_TIMEOUT;

/// How long the first message may take if there is one. If it takes longer, [`read_to_end`] decides.
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

/// Reads the last document. `None` is no proof that there is none: a slow broker looks like an empty stream (and the
/// message count of a stream is seconds behind; 3.10.8, measured). [`read_to_end`] is proof.
///
/// # Errors
/// The last message is no document of this version.
pub(crate) async fn read_last(session: &TopologySession<'_>) -> Result<Option<LayoutDocument>, SourceError> {
    let stream = session.names().topology();
    let mut reader = session.read_stream(&stream, StreamOffset::Last, READING).await?;
    let mut last = None;
    let read = loop {
        // The last chunk can hold several messages; they come together.
        let within = if last.is_none() { FIRST_PATIENCE } else { CHUNK_GRACE };
        match timeout(within, next_document(&mut reader, &stream)).await {
            Ok(Ok(document)) => last = document.or(last),
            Ok(Err(fault)) => break Err(fault),
            Err(_) => break Ok(last),
        }
    };
    reader.close().await;
    read
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

/// Returns the last document to the holder of the lock: nobody else writes. `None`: there is none.
///
/// # Errors
/// As [`read_last`] and [`read_to_end`].
pub(crate) async fn read_surely(
    session: &mut TopologySession<'_>,
) -> Result<Option<LayoutDocument>, SourceError> {
    // Without a publish, which an alarm would hold up.
    match read_last(session).await? {
        Some(document) => Ok(Some(document)),
        None => read_to_end(session).await,
    }
}

/// Reads the whole stream, up to a barrier written for this purpose, and returns the last document.
///
/// # Errors
/// The broker did not take the barrier or did not give it back; a document cannot be read.
async fn read_to_end(session: &mut TopologySession<'_>) -> Result<Option<LayoutDocument>, SourceError> {
    let (stream, barrier) = (session.names().topology(), Uuid::new_v4().to_string());
    append(session, BARRIER, barrier.as_bytes()).await?;
    let mut reader = session.read_stream(&stream, StreamOffset::First, READING).await?;
    let mut last = None;
    let read = loop {
        let delivery = match timeout(ANSWER_TIMEOUT, reader.next()).await {
            Ok(Ok(delivery)) => delivery,
            Ok(Err(fault)) => break Err(fault),
            Err(_) => {
                break Err(SourceError::Silent { step: READING, seconds: ANSWER_TIMEOUT.as_secs() });
            }
        };
        if delivery.data == barrier.as_bytes() {
            break Ok(last);
        }
        match document_of(&delivery, &stream) {
            Ok(document) => last = document.or(last),
            Err(fault) => break Err(fault),
        }
    };
    reader.close().await;
    read
}

async fn next_document(
    reader: &mut StreamReader,
    stream: &str,
) -> Result<Option<LayoutDocument>, SourceError> {
    document_of(&reader.next().await?, stream)
}

/// The document, if the message is one.
///
/// # Errors
/// This version cannot read it.
pub(crate) fn document_of(delivery: &Delivery, stream: &str) -> Result<Option<LayoutDocument>, SourceError> {
    let kind = delivery.properties.kind().as_ref().map(ShortString::as_str);
    (kind != Some(BARRIER)).then(|| parse(&delivery.data, stream)).transpose()
}

/// Appends the document, as changed now by the instance of the session. Once this has returned, it counts.
///
/// # Errors
/// The broker did not confirm it.
pub(crate) async fn write(
    session: &mut TopologySession<'_>,
    document: LayoutDocument,
) -> Result<LayoutDocument, SourceError> {
    let document = document.succeeding(session.instance());
    let body = serde_json::to_vec(&document).expect("a document is plain data");
    append(session, LAYOUT, &body).await?;
    Ok(document)
}

/// Appends a message; every reader can have it once this has returned.
async fn append(session: &mut TopologySession<'_>, kind: &str, body: &[u8]) -> Result<(), SourceError> {
    let stream = session.names().topology();
    let properties =
        BasicProperties::default().with_content_type("application/json".into()).with_type(kind.into());
    let message = Message::to_queue(&stream, properties, body);
    let answers = session.publish_all(WRITING, &format!("stream {stream}"), vec![message]).await?;
    if answers.iter().all(|answer| answer.outcome() == PublishOutcome::Taken) {
        return Ok(());
    }
    Err(SourceError::Document { stream, fault: "the broker did not accept a message to it".to_owned() })
}

//! Stays with the stream of layout documents, so that a change reaches this process without a restart.

use std::time::Duration;

use lapin::message::Delivery;
use lapin::types::AMQPValue;
use lapin::{Channel, Connection};
use tokio::sync::watch;
use tracing::{info, warn};

use super::document::{self, LayoutDocument, StreamOffset};
use super::error::SourceError;
use super::halt::Halt;
use super::link::Link;
use super::names::Names;
use super::task::Task;
use super::topology::on_own_channel;
use lanekeeper_core::error::error_chain;

const RETRY_DELAY: Duration = Duration::from_secs(1);

/// The layout document, as it changes. Stops when it is dropped.
#[derive(Debug)]
pub struct Follower {
    documents: watch::Receiver<LayoutDocument>,
    _task: Task,
}

impl Follower {
    /// Begins with a document that was read. `halt` is set by one that this program cannot read: it would not know any
    /// more what is in force.
    #[must_use]
    pub fn begin(link: Link, names: &Names, known: LayoutDocument, halt: Halt) -> Self {
        let (sender, documents) = watch::channel(known);
        let stream = names.topology();
        let task = Task::begin(follow_for_ever(link, stream, sender, halt));
        Self { documents, _task: task }
    }

    /// The newest document.
    #[must_use]
    pub fn document(&self) -> LayoutDocument {
        self.documents.borrow().clone()
    }

    /// The next document. Nothing is lost when the future is dropped, but for those that a newer one has replaced.
    pub async fn changed(&mut self) -> LayoutDocument {
        if self.documents.changed().await.is_err() {
            return std::future::pending().await; // the process ends
        }
        self.documents.borrow_and_update().clone()
    }

    /// For others who want to know of changes.
    pub(super) fn watch(&self) -> watch::Receiver<LayoutDocument> {
        self.documents.clone()
    }
}

async fn follow_for_ever(link: Link, stream: String, documents: watch::Sender<LayoutDocument>, halt: Halt) {
    let (mut from, mut last_logged) = (StreamOffset::Last, String::new());
    loop {
        let following = async {
            let (channel, connection) = link.channel_of().await?;
            link.while_up(connection, follow(&channel, &stream, &mut from, &documents, &mut last_logged))
                .await
        };
        let fault = match following.await {
            Ok(never) => match never {},
            Err(fault @ SourceError::Document { .. }) => return halt.set(fault),
            Err(fault) => error_chain(&fault),
        };
        if fault != last_logged {
            warn!(stream, error = fault, "the layout document is not followed, trying again");
            last_logged = fault;
        }
        tokio::time::sleep(RETRY_DELAY).await;
    }
}

async fn follow(
    channel: &Channel,
    stream: &str,
    from: &mut StreamOffset,
    documents: &watch::Sender<LayoutDocument>,
    last_logged: &mut String,
) -> Result<std::convert::Infallible, SourceError> {
    let mut consumer = document::consume(channel, stream, *from).await?;
    if !std::mem::take(last_logged).is_empty() {
        info!(stream, "the layout document is followed again");
    }
    loop {
        let delivery = document::next(&mut consumer).await?;
        let read = document::layout(&delivery, stream)?;
        if read.is_none() && *from == StreamOffset::Last {
            // The end of the stream tells nothing: whatever was written shortly before it is in an earlier chunk.
            *from = StreamOffset::First;
            return Err(SourceError::Missing {
                text: format!("the last message of {stream} is no document"),
            });
        }
        if let Some(offset) = offset_of(&delivery) {
            *from = StreamOffset::Offset(offset + 1);
        }
        if let Some(document) = read {
            documents.send_if_modified(|known| {
                // The last chunk can begin with older ones.
                let is_new = document.serial > known.serial;
                if is_new {
                    *known = document;
                }
                is_new
            });
        }
    }
}

fn offset_of(delivery: &Delivery) -> Option<i64> {
    let headers = delivery.properties.headers().as_ref()?;
    match headers.inner().get("x-stream-offset")? {
        AMQPValue::LongLongInt(offset) => Some(*offset),
        _ => None,
    }
}

/// The last document, for whoever only looks: without the lock and without publishing where it can be had so. `None`:
/// there is none, or no stream.
///
/// # Errors
/// It cannot be read.
pub async fn read_document(
    connection: &Connection,
    names: &Names,
) -> Result<Option<LayoutDocument>, SourceError> {
    let stream = names.topology();
    for _ in 0..READS_MAX {
        let read = on_own_channel(connection, async |reader| document::read_last(reader, &stream).await);
        match read.await {
            Ok(None) => {}
            Err(SourceError::Amqp { step, source }) => {
                return match SourceError::from_amqp(step, "", names.public(), *source) {
                    SourceError::Missing { .. } => Ok(None),
                    fault => Err(fault),
                };
            }
            read => return read,
        }
    }
    Ok(None)
}

/// An empty answer is no proof that there is none.
const READS_MAX: usize = 3;

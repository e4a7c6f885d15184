//! Follows the stream of layout documents, so that a change reaches this process without a restart.

use std::convert::Infallible;
use std::time::Duration;

use tokio::sync::watch;
use tokio_util::task::AbortOnDropHandle;
use tracing::{info, warn};

use super::document::LayoutDocument;
use super::document_stream::{READING, document_of};
use crate::channel::stream_reader::{StreamOffset, StreamReader, offset_of};
use crate::error::SourceError;
use crate::halt::Halt;
use crate::link::Link;
use crate::log_on_change::LogOnChange;
use crate::names::Names;
use lanekeeper_core::error::error_chain;

const RETRY_DELAY: Duration = Duration::from_secs(1);

/// The layout document, as it changes. Stops when it is dropped.
#[derive(Debug)]
pub struct Follower {
    documents: watch::Receiver<LayoutDocument>,
    _task: AbortOnDropHandle<()>,
}

impl Follower {
    /// Begins with a document that was read. A later one that this program cannot read sets `halt`: the current layout would
    /// be unknown.
    #[must_use]
    pub fn begin(link: Link, names: &Names, known: LayoutDocument, halt: Halt) -> Self {
        let (sender, documents) = watch::channel(known);
        let following = follow_for_ever(link, names.clone(), sender, halt);
        Self { documents, _task: AbortOnDropHandle::new(tokio::spawn(following)) }
    }

    /// The newest document.
    #[must_use]
    pub fn document(&self) -> LayoutDocument {
        self.documents.borrow().clone()
    }

    /// The next document. If the future is dropped, nothing is lost except documents that a newer one has replaced.
    pub async fn changed(&mut self) -> LayoutDocument {
        if self.documents.changed().await.is_err() {
            return std::future::pending().await; // the process ends
        }
        self.documents.borrow_and_update().clone()
    }

    /// For others who want to know of changes.
    #[must_use]
    pub fn watch(&self) -> watch::Receiver<LayoutDocument> {
        self.documents.clone()
    }
}

async fn follow_for_ever(link: Link, names: Names, documents: watch::Sender<LayoutDocument>, halt: Halt) {
    let mut following = Following {
        stream: names.topology(),
        names,
        link,
        documents,
        from: StreamOffset::First,
        log: LogOnChange::default(),
    };
    loop {
        let fault = match following.follow().await {
            Ok(never) => match never {},
            Err(fault @ SourceError::Document { .. }) => return halt.set(fault),
            Err(fault) => fault,
        };
        let (stream, error) = (&following.stream, error_chain(&fault));
        if following.log.is_new(error.clone()) {
            warn!(stream, error, "cannot follow the layout document, trying again");
        }
        tokio::time::sleep(RETRY_DELAY).await;
    }
}

struct Following {
    link: Link,
    names: Names,
    stream: String,
    documents: watch::Sender<LayoutDocument>,
    from: StreamOffset,
    log: LogOnChange,
}

impl Following {
    /// On one connection.
    async fn follow(&mut self) -> Result<Infallible, SourceError> {
        let (channel, connection) = self.link.channel_of().await?;
        let link = self.link.clone();
        let reading = async {
            let of = (self.stream.as_str(), self.names.public());
            let mut reader = StreamReader::open(channel, of, self.from, READING).await?;
            let read = self.read(&mut reader).await;
            reader.close().await;
            read
        };
        link.while_up(connection, reading).await
    }

    async fn read(&mut self, reader: &mut StreamReader) -> Result<Infallible, SourceError> {
        if self.log.cleared() {
            info!(stream = self.stream, "following the layout document works again");
        }
        loop {
            let delivery = reader.next().await?;
            let read = document_of(&delivery, &self.stream)?;
            if let Some(offset) = offset_of(&delivery) {
                self.from = StreamOffset::At(offset + 1);
            }
            if let Some(document) = read {
                self.documents.send_if_modified(|known| {
                    // The stream is read from its beginning, and a late one does not count.
                    let is_newer = document.serial > known.serial;
                    if is_newer {
                        *known = document;
                    }
                    is_newer
                });
            }
        }
    }
}

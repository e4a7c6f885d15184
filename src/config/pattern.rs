//! Regular expressions in the config.

use regex::{Regex, RegexBuilder};

use super::fault::Problem;

/// Bytes that a pattern may take in memory once it is compiled.
const PATTERN_BYTES_MAX: usize = 1 << 20;

/// A regular expression. Two are equal if they are written equally.
#[derive(Clone, Debug)]
pub struct Pattern(Regex);

impl Pattern {
    /// Compiles a regular expression.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn new(text: &str) -> Result<Self, Problem> {
        let compiled = RegexBuilder::new(text).size_limit(PATTERN_BYTES_MAX).build();
        compiled.map(Self).map_err(|fault| {
            let fault = fault.to_string().split_whitespace().collect::<Vec<_>>().join(" ");
            Problem::new(
                format!("{text:?} is not a regular expression: {fault}"),
                "write one of the crate regex, such as \"^(ok|done)$\"; in TOML, '…' needs no escapes",
            )
        })
    }

    /// As `new`; it matches whole texts only.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn whole(text: &str) -> Result<Self, Problem> {
        // Alone first: "a)(b" is no pattern, but would be one in brackets.
        Self::new(text)?;
        Self::new(&format!("\\A(?:{text})\\z"))
    }

    /// Returns true if it matches a text, or a part of it.
    #[must_use]
    pub fn matches(&self, text: &str) -> bool {
        self.0.is_match(text)
    }

    /// The first part of the text that it matches.
    #[must_use]
    pub fn find<'t>(&self, text: &'t str) -> Option<&'t str> {
        self.0.find(text).map(|found| found.as_str())
    }
}

impl PartialEq for Pattern {
    fn eq(&self, other: &Self) -> bool {
        self.0.as_str() == other.0.as_str()
    }
}

//! What a person reads: a danger, and what could not be looked at.

use serde::Serialize;

use super::codes::{Code, Severity};
use super::fix::Fix;

/// A danger that is there.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// Which kind.
    pub code: Code,
    /// How bad.
    pub severity: Severity,
    /// What was seen, with the names of what it was seen at.
    pub what: String,
    /// What it can cost.
    pub cost: &'static str,
    /// What removes it, in this order.
    pub fix: Vec<Fix>,
}

impl Finding {
    /// Severity and cost are the code's.
    pub(super) fn new(code: Code, what: impl Into<String>, fix: Vec<Fix>) -> Self {
        Self { code, severity: code.severity(), what: what.into(), cost: code.cost(), fix }
    }
}

/// Something that could not be looked at.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Unseen {
    /// What.
    pub what: String,
    /// What follows from that, and what is assumed.
    pub means: String,
    /// How a person can look.
    pub look: Option<Fix>,
}

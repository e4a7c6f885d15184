//! The results of an examination: dangers, and what could not be checked.

use serde::Serialize;

use super::codes::{Code, Severity};
use super::fix::Fix;
use crate::printable::printable;

/// A danger that was found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// Its kind.
    pub code: Code,
    /// How bad it is.
    pub severity: Severity,
    /// What was seen, with the names of the objects concerned.
    pub what: String,
    /// What it can cost.
    pub cost: &'static str,
    /// The steps that remove it, in order.
    #[serde(rename = "remedy")]
    pub fix: Vec<Fix>,
}

impl Finding {
    /// A finding with the severity and the cost of its code. Names come from outside: they cannot steer a terminal.
    pub(super) fn new(code: Code, what: impl Into<String>, fix: Vec<Fix>) -> Self {
        let what = printable(&what.into());
        let fix = fix.into_iter().map(|step| match step {
            Fix::Do(what) => Fix::Do(printable(&what)),
            Fix::Config(line) => Fix::Config(printable(&line)),
            // Its arguments are quoted.
            Fix::Run(command) => Fix::Run(command),
        });
        Self { code, severity: code.severity(), what, cost: code.cost(), fix: fix.collect() }
    }
}

/// Something that could not be checked.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Unseen {
    /// What could not be checked.
    pub what: String,
    /// What follows from that, and what is assumed.
    pub means: String,
    /// How a person can check it.
    pub look: Option<Fix>,
}

impl Unseen {
    /// `look`: a command; empty: there is none.
    pub(super) fn new(what: &str, means: &str, look: &str) -> Self {
        let look = (!look.is_empty()).then(|| Fix::Run(look.to_owned()));
        Self { what: printable(what), means: printable(means), look }
    }
}

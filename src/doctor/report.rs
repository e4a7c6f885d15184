//! Formats an examination: as text for a person, or as one JSON object.

use std::fmt::Write as _;

use serde_json::{Value as Json, json};

use super::codes::Severity;
use super::{Examination, Finding, Fix, Subject};
use crate::admin::command_of;
use crate::config::{DOOR_ALONE, Purpose};
use lanekeeper_broker::{ExchangeProbe, Inspection};

/// Prose is wrapped at this column; commands are not wrapped.
const COLUMNS: usize = 100;

impl Examination {
    /// Whether `doctor` ends with exit code 1.
    #[must_use]
    pub fn has_errors(&self) -> bool {
        self.count(Severity::Error) > 0
    }

    fn count(&self, severity: Severity) -> usize {
        self.findings.iter().filter(|finding| finding.severity == severity).count()
    }

    /// For a person.
    #[must_use]
    pub fn text(&self, exchange: &str) -> String {
        let mut text = String::new();
        if matches!(self.subject, Subject::Door(_)) {
            prose(&mut text, "", DOOR_ALONE);
            text += "\n";
        }
        text += &self.head(exchange);
        text += "\n";
        for finding in &self.findings {
            text += "\n";
            text += &format_finding(finding);
        }
        text += "\nNot looked at\n";
        for unseen in &self.unseen {
            prose(&mut text, "- ", &format!("{}: {}.", unseen.what, unseen.means));
            if let Some(look) = &unseen.look {
                let _ = writeln!(text, "  {look}");
            }
        }
        text + "\n" + &self.verdict() + "\n"
    }

    /// The line that says what was examined.
    fn head(&self, exchange: &str) -> String {
        let (version, address, vhost, last) = match &self.subject {
            Subject::Run(observed) => {
                let last = match observed.layout() {
                    Some(layout) => {
                        format!("layout {} with {} partitions", layout.number.0, layout.partitions)
                    }
                    None => "no layout".to_owned(),
                };
                (&observed.broker.version, &observed.broker.address, &observed.vhost, last)
            }
            Subject::Door(observed) => {
                let address = observed.address.map(|address| address.to_string()).unwrap_or_default();
                let runs = if observed.runs() { ", which runs" } else { "" };
                let last = format!("door at {address}{runs}");
                (&observed.broker.version, &observed.broker.address, &observed.vhost, last)
            }
        };
        let version = version.as_deref().unwrap_or("of unknown version");
        format!("RabbitMQ {version} at {address}, virtual host {vhost}, exchange {exchange}, {last}")
    }

    fn verdict(&self) -> String {
        let counted = [(Severity::Error, "error"), (Severity::Warning, "warning")].map(|(severity, name)| {
            match self.count(severity) {
                0 => format!("no {name}s"),
                1 => format!("1 {name}"),
                many => format!("{many} {name}s"),
            }
        });
        let [errors, warnings] = counted;
        let codes = if self.findings.is_empty() { "" } else { " See docs/doctor.md for the codes." };
        let mut verdict = format!("{errors}, {warnings}.{codes}");
        if let Some(first) = verdict.get_mut(..1) {
            first.make_ascii_uppercase();
        }
        verdict
    }

    /// For a program.
    #[must_use]
    pub fn json(&self, exchange: &str) -> Json {
        let (command, broker) = match &self.subject {
            Subject::Run(observed) => {
                let Inspection { address, version, .. } = &observed.broker;
                let broker = json!({
                    "address": address,
                    "version": version,
                    "vhost": observed.vhost,
                    "exchange": exchange,
                    "layout": observed.layout(),
                });
                (command_of(Purpose::Dispatch), broker)
            }
            Subject::Door(observed) => {
                let ExchangeProbe { address, version, .. } = &observed.broker;
                let broker = json!({ "address": address, "version": version, "vhost": observed.vhost, "exchange": exchange });
                (command_of(Purpose::Ingest), broker)
            }
        };
        json!({
            "for": command,
            "broker": broker,
            "findings": self.findings,
            "not_looked_at": self.unseen,
            "errors": self.count(Severity::Error),
            "warnings": self.count(Severity::Warning),
        })
    }
}

fn format_finding(finding: &Finding) -> String {
    let mut text = String::new();
    prose(&mut text, &format!("{} {}  ", finding.severity, finding.code), &finding.what);
    prose(&mut text, "    cost:  ", finding.cost);
    let mut before = "    fix:   ";
    for fix in &finding.fix {
        match fix {
            Fix::Do(what) => prose(&mut text, before, what),
            Fix::Run(_) | Fix::Config(_) => {
                let _ = writeln!(text, "{before}{fix}");
            }
        }
        before = "           ";
    }
    text
}

/// Wrapped prose after a prefix; further lines are indented by the width of the prefix.
fn prose(text: &mut String, prefix: &str, words: &str) {
    let indent = prefix.chars().count();
    let mut column = indent;
    text.push_str(prefix);
    for (index, word) in words.split(' ').enumerate() {
        let width = word.chars().count();
        if index > 0 && column + 1 + width > COLUMNS {
            text.push('\n');
            text.extend(std::iter::repeat_n(' ', indent));
            column = indent;
        } else if index > 0 {
            text.push(' ');
            column += 1;
        }
        text.push_str(word);
        column += width;
    }
    text.push('\n');
}

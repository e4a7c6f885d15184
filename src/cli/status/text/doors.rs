//! The section of the doors.

use crate::inspect::doors::{DoorReport, DoorSenderReport, ReportedDoor, refused_words};
use crate::inspect::words::{ago, time};
use crate::printable::printable;

/// Its lines; none if there is no door.
pub(super) fn lines(doors: &[ReportedDoor], now_ms: i64) -> Vec<String> {
    if doors.is_empty() {
        return Vec::new();
    }
    let mut lines = vec![
        String::new(),
        format!(
            "{:<24} {:<9} {:<20} {:>15} {:>8} {:>6} {:>7} {:>7}  BROKER",
            "DOOR", "VERSION", "SINCE", "PENDING", "ACCEPTED", "KNOWN", "PER MIN", "REFUSED"
        ),
    ];
    for door in doors {
        lines.push(door_line(door));
        lines.extend(door.report.senders.iter().map(|sender| sender_line(sender, now_ms)));
        lines.extend(rest_lines(&door.report, now_ms));
    }
    lines
}

fn door_line(door: &ReportedDoor) -> String {
    let report = &door.report;
    let pending = format!("{} of {}", report.pending, report.pending_max);
    format!(
        "{:<24} {:<9} {:<20} {pending:>15} {:>8} {:>6} {:>7} {:>7}  {}",
        printable(&report.instance),
        printable(&report.version),
        time(report.started_at_ms),
        report.accepted,
        report.known,
        report.per_minute(),
        report.refused_in_all(),
        printable(&door.state_words()),
    )
}

fn sender_line(sender: &DoorSenderReport, now_ms: i64) -> String {
    let name = format!("  {} {}", sender.kind(), printable(&sender.name));
    let line = format!(
        "{name:<55} {:>15} {:>8} {:>6} {:>7} {:>7}  {}",
        sender.pending,
        sender.accepted,
        sender.known,
        sender.per_minute,
        sender.refused_in_all(),
        failure_words(sender.last_failure.as_deref(), sender.last_failure_ms, now_ms),
    );
    line.trim_end().to_owned()
}

/// What is of no client and no hook, and how many of them are not listed.
fn rest_lines(report: &DoorReport, now_ms: i64) -> Vec<String> {
    let mut lines = Vec::new();
    if report.last_failure.is_some() {
        let failure = failure_words(report.last_failure.as_deref(), report.last_failure_ms, now_ms);
        lines.push(format!("  of nobody known, last refused {failure}"));
    }
    if !report.refused.is_empty() {
        lines.push(format!("  refused in all: {}", printable(&refused_words(&report.refused))));
    }
    if report.senders_left_out > 0 {
        lines.push(format!("  and {} more clients and hooks", report.senders_left_out));
    }
    lines
}

fn failure_words(failure: Option<&str>, at_ms: Option<i64>, now_ms: i64) -> String {
    match (failure, at_ms) {
        (Some(failure), Some(at_ms)) => format!("{}: {}", ago(now_ms, at_ms), printable(failure)),
        (Some(failure), None) => printable(failure),
        (None, _) => String::new(),
    }
}

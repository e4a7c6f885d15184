//! The answer of `lanekeeper why`, for a person.

use std::fmt::Write as _;

use crate::inspect::report::{AttemptReport, LaneReport, PartitionRow, RecordReport, WaitReport};
use crate::inspect::words::{ago, ahead, place_name, time};
use crate::printable::printable;

/// The answer. Its first line is the cause.
pub fn text(report: &RecordReport) -> String {
    let (key, code) = (printable(&report.record_key), report.wait.cause.code());
    let mut text = format!("{key} [{code}]: {}\n", printable(&report.wait.sentence));
    text += &wait_lines(&report.wait, report.at_ms);
    for lane in &report.lanes {
        text += &lane_lines(lane, report.at_ms);
    }
    if !report.holders.is_empty() {
        text += "\nThe room that it waits for is taken by, among others:\n";
        for holder in &report.holders {
            let _ = writeln!(
                text,
                "  {}, {}: {}",
                printable(&holder.record_key),
                updates(holder.behind + 1),
                printable(&holder.wait.sentence)
            );
        }
    }
    text += "\n";
    for row in &report.partitions {
        let _ = writeln!(text, "{}", partition_line(row));
    }
    text += &ledger_lines(report);
    if !report.silent.is_empty() {
        let _ = writeln!(text, "No answer within two seconds from: {}", printable(&report.silent.join(", ")));
    }
    if let Some(fault) = &report.fault {
        let _ = writeln!(text, "Not all is known: {}", printable(fault));
    }
    text
}

fn wait_lines(wait: &WaitReport, now_ms: i64) -> String {
    let mut text = String::new();
    if let Some(since) = wait.since_ms {
        let _ = writeln!(text, "  since       {} ({})", time(since), ago(now_ms, since));
    }
    if !wait.ends.is_empty() {
        let _ = writeln!(text, "  ends with   {}", wait.ends);
    }
    if let Some(at) = wait.ends_at_ms {
        let _ = writeln!(text, "  at          {} ({})", time(at), ahead(now_ms, at));
    }
    text
}

fn lane_lines(lane: &LaneReport, now_ms: i64) -> String {
    let mut text = format!(
        "\n{}: update {} of type {} to target {}\n",
        place_name(lane.layout, lane.partition),
        printable(&lane.update_id),
        printable(lane.update_type.as_deref().unwrap_or("(none)")),
        lane.target
    );
    if let Some(received) = lane.received_at_ms {
        let how = match (lane.released, lane.redelivered) {
            (true, _) => "released",
            (false, true) => "handed over, not for the first time",
            (false, false) => "handed over",
        };
        let _ = writeln!(text, "  {how} {} ({})", time(received), ago(now_ms, received));
    }
    let _ = writeln!(text, "  behind it in its lane: {}", updates(lane.behind));
    for AttemptReport { number, began_ms, took_ms, failure, outcome, .. } in &lane.past_attempts {
        let _ = writeln!(
            text,
            "  attempt {number} at {} took {took_ms} ms: {outcome}, {}",
            time(*began_ms),
            printable(failure)
        );
    }
    text
}

fn partition_line(row: &PartitionRow) -> String {
    let name = place_name(row.layout, row.partition);
    let ready = row
        .ready
        .map_or_else(|| "its queue does not exist".to_owned(), |ready| format!("{ready} ready in its queue"));
    let state = match (&row.owner, &row.state) {
        _ if row.drained => "drained".to_owned(),
        (None, _) if row.owner_silent.is_some() => format!(
            "owned by {}, which did not answer",
            printable(row.owner_silent.as_deref().unwrap_or_default())
        ),
        (Some(owner), Some(state)) => {
            format!("owned by {owner}, which holds {} of {}", state.held, state.window)
        }
        (None, Some(_)) => "consumed by a process that has been handed nothing".to_owned(),
        (_, None) if row.consumers > 0 => "consumed by a process that did not answer".to_owned(),
        (_, None) => "consumed by nobody".to_owned(),
    };
    format!("Partition {name}: {ready}, {state}")
}

fn ledger_lines(report: &RecordReport) -> String {
    if let Some(fault) = &report.ledger_fault {
        return format!("Ledger: not asked: {fault}\n");
    }
    let Some(ledger) = &report.ledger else { return "Ledger: none\n".to_owned() };
    let mut facts = Vec::new();
    facts.extend(ledger.version.map(|version| format!("version {version} was applied")));
    facts.extend(ledger.etag.as_ref().map(|etag| format!("last ETag {}", printable(etag))));
    facts.extend(ledger.last_id.as_ref().map(|id| format!("{} was applied last", printable(id))));
    if ledger.parked_updates > 0 {
        let head = printable(ledger.head_id.as_deref().unwrap_or_default());
        facts.push(format!(
            "{} parked, the oldest is {head}",
            updates(usize::try_from(ledger.parked_updates).unwrap_or(usize::MAX))
        ));
    }
    if facts.is_empty() {
        facts.push("nothing is known of the record".to_owned());
    }
    format!("Ledger: {}\n", facts.join(", "))
}

fn updates(count: usize) -> String {
    if count == 1 { "1 update".to_owned() } else { format!("{count} updates") }
}

#[cfg(test)]
mod tests;

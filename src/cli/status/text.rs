//! The answer of `lanekeeper status`, for a person.

mod doors;

use std::cmp::Reverse;
use std::fmt::Write as _;

use crate::inspect::asker::FoundPartition;
use crate::inspect::report::{
    ClusterReport, LayoutReport, PartitionRow, TargetAnswer, TargetRow, TargetState,
};
use crate::inspect::words::{length, place_name, time};
use crate::printable::printable;

/// The order of the partitions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sort {
    Name,
    Oldest,
    Ready,
    HeldMost,
}

/// A terminal with less columns has what the oldest waits for in a line of its own.
const WIDE: usize = 120;

/// The answer; lines are cut at `width` characters if there is one.
pub fn text(report: &ClusterReport, sort: Sort, width: Option<usize>) -> String {
    let mut text = String::new();
    for line in verdict_lines(report) {
        let _ = writeln!(text, "{line}");
    }
    text += "\n";
    let _ = writeln!(text, "{}", summary(report));
    let mut lines = process_lines(report);
    lines.extend(doors::lines(&report.doors, report.at_ms));
    lines.extend(partition_lines(report, sort, width.is_some_and(|width| width < WIDE)));
    lines.extend(target_lines(report));
    for line in lines {
        let _ = writeln!(text, "{}", cut(&line, width));
    }
    text
}

/// The records of one partition.
pub fn of_partition(found: &FoundPartition) -> String {
    let FoundPartition { row, lanes, .. } = found;
    let ready =
        row.ready.map_or_else(|| "its queue does not exist".to_owned(), |ready| format!("{ready} ready"));
    let held = match (&row.owner, row.known_state()) {
        (Some(owner), Some(state)) => format!("{} held by {owner}", state.held),
        (None, Some(_)) => "nothing handed over".to_owned(),
        (_, None) => "its owner did not answer".to_owned(),
    };
    let mut text = format!(
        "{}: {ready}, {held}\n\n{:<32} {:>7}  {:<20}  WAITS FOR\n",
        place_name(row.layout, row.partition),
        "RECORD",
        "UPDATES",
        "SINCE"
    );
    for lane in lanes {
        let since = lane.wait.since_ms.map(time).unwrap_or_default();
        let (key, updates) = (printable(&lane.record_key), lane.behind + 1);
        let _ = writeln!(text, "{key:<32} {updates:>7}  {since:<20}  {}", printable(&lane.wait.sentence));
    }
    if lanes.is_empty() {
        match found.unknown() {
            None => text += "No record waits here.\n",
            Some(why) => {
                let _ = writeln!(text, "What waits here is not known: {}.", printable(&why));
            }
        }
    }
    text
}

/// What each process knows of a target, and what the target did in the last ten minutes.
pub fn of_target(answers: &[TargetAnswer]) -> String {
    const STEPS_SHOWN: usize = 60;
    let mut text = String::new();
    for TargetAnswer { instance, target, steps, .. } in answers {
        let Some(target) = target else { continue };
        let state = state_name(target.state);
        let limit = target.limit.as_ref().map(|limit| format!(", limited by {limit}")).unwrap_or_default();
        let _ = writeln!(text, "{} at {instance}: {state}{limit}", target.name);
        let _ = writeln!(
            text,
            "{:<20} {:>8} {:>8} {:>8} {:>17}",
            "10 S FROM", "ENDED", "APPLIED", "REFUSED", "MEDIAN/P99 MS"
        );
        for step in steps.iter().skip(steps.len().saturating_sub(STEPS_SHOWN)) {
            let (at, latency) = (time(step.at_ms), latency_words(step.latency_ms));
            let _ = writeln!(
                text,
                "{at:<20} {:>8} {:>8} {:>8} {latency:>17}",
                step.attempts, step.applied, step.refused
            );
        }
        text += "\n";
    }
    text
}

fn latency_words(latency_ms: Option<(f64, f64)>) -> String {
    latency_ms.map_or_else(|| "-".to_owned(), |(median, p99)| format!("{median:.0}/{p99:.0}"))
}

const fn state_name(state: TargetState) -> &'static str {
    match state {
        TargetState::Open => "open",
        TargetState::Shut => "shut",
        TargetState::Paused => "paused",
    }
}

fn cut(line: &str, width: Option<usize>) -> String {
    match width {
        Some(width) if line.chars().count() > width => {
            let kept: String = line.chars().take(width.saturating_sub(1)).collect();
            format!("{kept}…")
        }
        _ => line.to_owned(),
    }
}

fn verdict_lines(report: &ClusterReport) -> Vec<String> {
    let reasons: Vec<String> = report.verdict.reasons.iter().map(|reason| printable(reason)).collect();
    if !report.verdict.must_act {
        return vec![format!("No person must act. {}", waits(report))];
    }
    let mut lines = vec![match reasons.as_slice() {
        [one] => format!("A person must act: {one}"),
        [first, more @ ..] => format!("A person must act ({} reasons): {first}", more.len() + 1),
        [] => "A person must act.".to_owned(),
    }];
    lines.extend(reasons.iter().skip(1).map(|reason| format!("  also: {reason}")));
    lines
}

/// How much waits, and how old the oldest is.
fn waits(report: &ClusterReport) -> String {
    let live = || report.partitions.iter().filter(|row| !row.drained);
    let ready: u64 = live().filter_map(|row| row.ready).map(u64::from).sum();
    let held: usize = live().filter_map(|row| row.state.as_ref()).map(|state| state.held).sum();
    let oldest = live().filter_map(|row| row.state.as_ref()?.oldest_received_at_ms).min();
    if ready == 0 && held == 0 {
        return "Nothing waits.".to_owned();
    }
    let oldest = oldest
        .map(|came| format!(", the oldest held for {}", length(age(report.at_ms, came))))
        .unwrap_or_default();
    format!("{ready} updates are ready and {held} held{oldest}.")
}

fn age(now_ms: i64, received_at_ms: i64) -> u64 {
    u64::try_from(now_ms.saturating_sub(received_at_ms)).unwrap_or_default()
}

fn summary(report: &ClusterReport) -> String {
    let layouts: Vec<String> = report.layouts.iter().map(layout_words).collect();
    let ledger = match &report.ledger {
        None => "no ledger".to_owned(),
        Some(ledger) => {
            let parked = match ledger.parked.as_ref().map(|parked| parked.records) {
                None => "? parked records".to_owned(),
                Some(1) => "1 parked record".to_owned(),
                Some(records) => format!("{records} parked records"),
            };
            format!("ledger {} with {parked}", ledger.kind)
        }
    };
    format!(
        "exchange {} at {}: {}, {ledger}",
        report.exchange,
        time(report.at_ms),
        if layouts.is_empty() { "no layout".to_owned() } else { layouts.join(", ") },
    )
}

fn layout_words(layout: &LayoutReport) -> String {
    let LayoutReport { layout: number, partitions, prefetch, draining_since, drained, being_made_by } =
        layout;
    let state = match (draining_since, being_made_by) {
        (Some(_), _) => format!(", draining, {drained} drained"),
        (None, Some(by)) => format!(", being made by {by}"),
        (None, None) => String::new(),
    };
    format!("layout {number} ({partitions} partitions, prefetch {prefetch}{state})")
}

fn process_lines(report: &ClusterReport) -> Vec<String> {
    let mut lines = vec![String::new(), format!("{:<24} {:<9} {:>5}  STATE", "PROCESS", "VERSION", "OWNS")];
    for process in &report.processes {
        let owns = process.partitions.iter().filter(|partition| partition.owns).count();
        let state = process.unready.as_deref().unwrap_or("ready");
        lines.push(format!("{:<24} {:<9} {owns:>5}  {state}", process.instance, process.version));
    }
    for silent in &report.silent {
        lines.push(format!("{silent:<24} {:<9} {:>5}  did not answer", "?", "?"));
    }
    lines
}

fn partition_lines(report: &ClusterReport, sort: Sort, is_narrow: bool) -> Vec<String> {
    let mut rows: Vec<&PartitionRow> = report.partitions.iter().filter(|row| !row.drained).collect();
    let state = |row: &PartitionRow| row.known_state().cloned();
    match sort {
        Sort::Name => {}
        Sort::Oldest => {
            rows.sort_by_key(|row| {
                state(row).and_then(|state| state.oldest_received_at_ms).unwrap_or(i64::MAX)
            });
        }
        Sort::Ready => rows.sort_by_key(|row| Reverse(row.ready)),
        Sort::HeldMost => rows.sort_by_key(|row| Reverse(state(row).map(|state| state.held))),
    }
    let heading = format!(
        "{:<9} {:<14} {:>7} {:>5} {:>4} {:>5} {:>6} {:>9}",
        "PARTITION", "OWNER", "READY", "HELD", "OUT", "WAIT", "PARKED", "OLDEST"
    );
    let mut lines =
        vec![String::new(), if is_narrow { heading } else { format!("{heading}  THE OLDEST WAITS FOR") }];
    for row in rows {
        let line = partition_line(row, report.at_ms);
        let wait = row.known_state().and_then(|state| state.oldest_wait.as_ref());
        match wait.map(|wait| printable(&wait.sentence)) {
            None => lines.push(line),
            Some(wait) if is_narrow => lines.extend([line, format!("  {wait}")]),
            Some(wait) => lines.push(format!("{line}  {wait}")),
        }
    }
    lines
}

fn partition_line(row: &PartitionRow, now_ms: i64) -> String {
    let name = place_name(row.layout, row.partition);
    let ready = row.ready.map_or_else(|| "missing".to_owned(), |ready| ready.to_string());
    let owner = match (&row.owner, &row.owner_silent, &row.state) {
        (Some(owner), ..) => owner.clone(),
        (None, Some(silent), _) => format!("{silent}?"),
        (None, None, Some(_)) => "(idle)".to_owned(),
        (None, None, None) if row.consumers > 0 => "?".to_owned(),
        (None, None, None) => "(nobody)".to_owned(),
    };
    let parked = row.parked.map_or_else(|| "?".to_owned(), |parked| parked.to_string());
    let Some(state) = row.known_state() else {
        return format!(
            "{name:<9} {owner:<14} {ready:>7} {:>5} {:>4} {:>5} {parked:>6} {:>9}",
            "-", "-", "-", "-"
        );
    };
    let waiting = state.ready
        + state.waiting
        + state.target_shut
        + state.limited
        + state.take_over_wait
        + state.previous_layout;
    let oldest = state.oldest_received_at_ms.map_or_else(|| "-".to_owned(), |at| length(age(now_ms, at)));
    format!(
        "{name:<9} {owner:<14} {ready:>7} {:>5} {:>4} {waiting:>5} {parked:>6} {oldest:>9}",
        state.held, state.in_flight
    )
}

fn target_lines(report: &ClusterReport) -> Vec<String> {
    let mut lines = vec![
        String::new(),
        format!(
            "{:<16} {:<7} {:>8} {:>8} {:>17}  LAST FAILURE",
            "TARGET", "STATE", "PER MIN", "APPLIED", "MEDIAN/P99 MS"
        ),
    ];
    lines.extend(report.targets.iter().map(|row| target_line(row, report.at_ms)));
    lines
}

fn target_line(row: &TargetRow, now_ms: i64) -> String {
    let (attempts, applied) = row.per_minute();
    let state = state_name(row.state);
    let targets = || row.by_process.iter().map(|(_, target)| target);
    // Percentiles of processes cannot be added: the worst is shown.
    let slowest =
        targets().filter_map(|target| target.latency_ms).max_by(|one, other| one.1.total_cmp(&other.1));
    let latency = latency_words(slowest);
    let limit = targets().find_map(|target| target.limit.as_ref().filter(|_| target.waiting_for_permit > 0));
    let limit = limit.map(|limit| format!("waits for a limit: {limit}; ")).unwrap_or_default();
    let failed =
        targets().filter(|target| target.last_failure.is_some()).max_by_key(|target| target.last_failure_ms);
    let failure = failed.and_then(|target| {
        let ago = target.last_failure_ms.map(|at| length(age(now_ms, at)))?;
        Some(format!("{ago} ago: {}", printable(target.last_failure.as_ref()?)))
    });
    let failure = failure.unwrap_or_default();
    let line =
        format!("{:<16} {state:<7} {attempts:>8} {applied:>8} {latency:>17}  {limit}{failure}", row.name);
    line.trim_end().trim_end_matches(';').to_owned()
}

#[cfg(test)]
mod tests;

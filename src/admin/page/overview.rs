//! `/`: how everything is. The same as `lanekeeper status`.

use axum::Extension;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use maud::{Markup, html};
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};

use super::super::Parts;
use super::super::guard::Visitor;
use super::super::problem::AdminProblem;
use super::parked::{sentence, time};
use super::{Place, page_with_head};
use crate::inspect::report::{
    ClusterReport, LayoutReport, ParkedReport, PartitionReport, PartitionRow, ProcessReport, TargetReport,
    TargetRow, TargetState, WaitReport,
};
use crate::inspect::words::{ago, ahead, length, place_name};
use crate::printable::printable;

/// `GET /`.
pub(in super::super) async fn overview(
    State(parts): State<Parts>,
    Extension(visitor): Extension<Visitor>,
) -> Response {
    let fragment = match parts.live.status().await {
        Ok(report) => fragment(&report),
        Err(problem) => not_known(&problem),
    };
    let content = html! {
        h1 { "Overview" }
        div class="beside" {
            (super::record::find(""))
            p class="quiet" id="live-state" role="status" { "As of the last load." }
        }
        div id="live" { (fragment) }
    };
    // Without scripts the page loads itself again.
    let head = html! {
        noscript { meta http-equiv="refresh" content="10"; }
        script src="/assets/live.js" defer {}
    };
    page_with_head(&visitor, Place::Overview, "Overview", &head, &content).into_response()
}

/// What is shown if nobody can be asked.
pub(in super::super) fn not_known(problem: &AdminProblem) -> Markup {
    html! {
        p class="state bad" { strong { (problem.title()) ". " } (printable(problem.detail())) "." }
        p { "This process says of itself whether it is ready, and why not, at " a href="/readyz" { "/readyz" } "." }
    }
}

/// What changes while the page is open.
pub(in super::super) fn fragment(report: &ClusterReport) -> Markup {
    html! {
        (verdict(report))
        h2 { "Partitions" }
        (partitions(report))
        h2 { "Targets" }
        (targets(report))
        h2 { "Processes" }
        (processes(report))
        (super::door::section(&report.doors, report.at_ms))
        div class="columns" {
            section {
                h2 { "Layouts" }
                ul class="plain" { @for layout in &report.layouts { li { (layout_words(layout)) } } }
                @if report.layouts.is_empty() { p { "There is none: no process has run." } }
            }
            section {
                h2 { "Ledger" }
                @match &report.ledger {
                    None => p { "None" },
                    Some(ledger) => p {
                        (ledger.kind) ": "
                        @match &ledger.parked {
                            None => span class="bad-text" { "what is parked could not be counted" },
                            Some(ParkedReport { records: 0, releasing: 0, .. }) => "nothing is parked",
                            Some(ParkedReport { records, releasing, updates, .. }) => {
                                a href="/parked" { (records) @if *records == 1 { " parked record" } @else { " parked records" } }
                                @if *releasing > 0 { ", " (releasing) " released" }
                                ", with " (updates) @if *updates == 1 { " update" } @else { " updates" }
                            }
                        }
                    },
                }
            }
        }
        p class="quiet" { "Exchange " (printable(&report.exchange)) ", " (time(report.at_ms)) " UTC" }
    }
}

fn verdict(report: &ClusterReport) -> Markup {
    html! {
        @if report.verdict.must_act {
            div class="state bad" {
                p { strong { "A person must act." } }
                ul { @for reason in &report.verdict.reasons { li { (sentence(reason)) } } }
            }
        } @else {
            p class="state good" { strong { "No person must act." } }
        }
    }
}

/// A cause, in one sentence.
pub(super) fn wait(wait: &WaitReport, now_ms: i64) -> Markup {
    html! {
        span class=[wait.needs_person.then_some("bad-text")] { (printable(&wait.sentence)) }
        @if let Some(since) = wait.since_ms { span class="quiet" { " " (ago(now_ms, since)) } }
        @if let Some(at) = wait.ends_at_ms { span class="quiet" { ", ends " (ahead(now_ms, at)) } }
    }
}

pub(super) fn partition_link(layout: u32, partition: u16) -> Markup {
    html! { a href={ "/partition?layout=" (layout) "&partition=" (partition) } { (place_name(layout, partition)) } }
}

fn partitions(report: &ClusterReport) -> Markup {
    let row = |row: &PartitionRow| {
        let state = row.known_state();
        let count = |of: fn(&PartitionReport) -> usize| {
            state.map_or_else(|| "?".to_owned(), |state| of(state).to_string())
        };
        html! {
            tr {
                th scope="row" { (partition_link(row.layout, row.partition)) }
                td data-label="Owner" { (owner(row)) }
                td class="number" data-label="Ready" { (row.ready.map_or_else(|| "none".to_owned(), |ready| ready.to_string())) }
                td class="number" data-label="Held" { (count(|state| state.held)) }
                td class="number" data-label="In flight" { (count(|state| state.in_flight)) }
                td class="number" data-label="Waiting" { (count(|state| state.waiting + state.target_shut + state.limited)) }
                td class="number" data-label="Parked" { (row.parked.map_or_else(|| "?".to_owned(), |parked| parked.to_string())) }
                td class="number" data-label="Oldest" {
                    @if let Some(came) = state.and_then(|state| state.oldest_received_at_ms) { (age(report.at_ms, came)) } @else { "–" }
                }
                td class="words" data-label="Oldest waits for" {
                    @if let Some(oldest) = state.and_then(|state| state.oldest_wait.as_ref()) { (wait(oldest, report.at_ms)) }
                    @else { "–" }
                }
            }
        }
    };
    let rows: Vec<&PartitionRow> = report.partitions.iter().filter(|row| !row.drained).collect();
    html! {
        div class="scroll" tabindex="0" role="region" aria-label="Partitions" {
            table {
                thead {
                    tr {
                        th scope="col" { "Partition" }
                        th scope="col" { "Owner" }
                        th scope="col" class="number" { abbr title="Updates that are ready in its queue" { "Ready" } }
                        th scope="col" class="number" { abbr title="Updates that the owner holds" { "Held" } }
                        th scope="col" class="number" { abbr title="Attempts that are out" { "In flight" } }
                        th scope="col" class="number" { abbr title="Records that wait" { "Waiting" } }
                        th scope="col" class="number" { abbr title="Records that are parked" { "Parked" } }
                        th scope="col" class="number" { "Oldest" }
                        th scope="col" { "What the oldest waits for" }
                    }
                }
                tbody { @for each in &rows { (row(each)) } }
            }
        }
    }
}

fn owner(row: &PartitionRow) -> Markup {
    match (&row.owner, row.ready, row.consumers) {
        (_, None, _) => html! { span class="bad-text" { "the queue does not exist" } },
        (Some(owner), ..) => html! { (printable(owner)) },
        (None, _, 1..) if row.owner_silent.is_some() || row.state.is_none() => html! {
            span class="bad-text" { (printable(row.owner_silent.as_deref().unwrap_or("its owner"))) " did not answer" }
        },
        (None, _, 0) => html! { span class="bad-text" { "nobody consumes it" } },
        (None, ..) => html! { span class="quiet" { "has been handed nothing" } },
    }
}

/// How long ago, in a few letters.
pub(super) fn age(now_ms: i64, then_ms: i64) -> String {
    length(u64::try_from(now_ms.saturating_sub(then_ms)).unwrap_or_default())
}

/// The state of a target.
pub(super) fn target_state(state: TargetState) -> Markup {
    match state {
        TargetState::Open => html! { span class="good-text" { "open" } },
        TargetState::Shut => html! { span class="bad-text" { "shut" } },
        TargetState::Paused => html! { span class="warn-text" { "paused" } },
    }
}

/// The page of a target.
pub(super) fn target_path(name: &str) -> String {
    format!("/target?name={}", utf8_percent_encode(name, NON_ALPHANUMERIC))
}

pub(super) fn target_link(name: &str) -> Markup {
    html! { a href=(target_path(name)) { (printable(name)) } }
}

/// Median and 99th percentile.
pub(super) fn latency(latency_ms: Option<(f64, f64)>) -> String {
    latency_ms.map_or_else(|| "–".to_owned(), |(median, p99)| format!("{median:.0} / {p99:.0}"))
}

fn targets(report: &ClusterReport) -> Markup {
    let row = |row: &TargetRow| {
        let (attempts, applied) = row.per_minute();
        let worst: Option<&TargetReport> = row.worst();
        // The slowest process: what it sees is what its records wait for.
        let slowest = row.by_process.iter().filter_map(|(_, target)| target.latency_ms);
        let slowest = slowest.max_by(|one, other| one.1.total_cmp(&other.1));
        html! {
            tr {
                th scope="row" { (target_link(&row.name)) }
                td class=[worst.is_some_and(|worst| worst.paused.is_some()).then_some("words")] data-label="State" {
                    (target_state(row.state))
                    @if let Some(since) = worst.and_then(|worst| worst.since_ms) { " since " (time(since)) }
                    @if let Some(by) = worst.and_then(|worst| worst.paused.as_deref()) { " by " (printable(by)) }
                }
                td class="number" data-label="Attempts" { (attempts) }
                td class="number" data-label="Applied" { (applied) }
                td class="number" data-label="Milliseconds" { (latency(slowest)) }
                td data-label="Limit" { (worst.and_then(|worst| worst.limit.as_deref()).map_or_else(|| "–".to_owned(), printable)) }
                td class="words" data-label="Last failure" { (worst.and_then(|worst| worst.last_failure.as_deref()).map_or_else(|| "–".to_owned(), printable)) }
            }
        }
    };
    html! {
        div class="scroll" tabindex="0" role="region" aria-label="Targets" {
            table {
                thead {
                    tr {
                        th scope="col" { "Target" }
                        th scope="col" { "State" }
                        th scope="col" class="number" { abbr title="Attempts that ended in the last minute" { "Attempts" } }
                        th scope="col" class="number" { "Applied" }
                        th scope="col" class="number" { abbr title="Median and 99th percentile, in milliseconds" { "ms 50 / 99 %" } }
                        th scope="col" { "Limit" }
                        th scope="col" { "Last failure" }
                    }
                }
                tbody { @for each in &report.targets { (row(each)) } }
            }
        }
    }
}

fn processes(report: &ClusterReport) -> Markup {
    let row = |process: &ProcessReport| {
        let owned = process.partitions.iter().filter(|partition| partition.owns).count();
        html! {
            tr {
                th scope="row" { (printable(&process.instance)) }
                td data-label="State" {
                    @match &process.unready {
                        None => span class="good-text" { "ready" },
                        Some(why) => span class="bad-text" { (printable(why)) },
                    }
                }
                td class="number" data-label="Owns" { (owned) " of " (process.partitions.len()) }
                td data-label="Version" { (process.version) }
                td class="when" data-label="Started (UTC)" { (time(process.started_at_ms)) }
            }
        }
    };
    html! {
        div class="scroll" tabindex="0" role="region" aria-label="Processes" {
            table {
                thead {
                    tr {
                        th scope="col" { "Process" }
                        th scope="col" { "State" }
                        th scope="col" class="number" { "Owns" }
                        th scope="col" { "Version" }
                        th scope="col" { "Started (UTC)" }
                    }
                }
                tbody {
                    @for each in &report.processes { (row(each)) }
                    @for instance in &report.silent {
                        tr { th scope="row" { (printable(instance)) } td colspan="4" { span class="bad-text" { "did not answer" } } }
                    }
                }
            }
        }
    }
}

fn layout_words(layout: &LayoutReport) -> Markup {
    let LayoutReport { layout: number, partitions, prefetch, draining_since, drained, being_made_by } =
        layout;
    html! {
        "Layout " (number) ": " (partitions) " partitions, prefetch " (prefetch)
        @if let Some(by) = being_made_by {
            ", " strong { "being made by " (printable(by)) }
        } @else if let Some(since) = draining_since {
            ", " strong { "draining" } " since " (time(i64::try_from(*since).unwrap_or(i64::MAX).saturating_mul(1000)))
            ": " (drained) " of " (partitions) " partitions are drained"
            progress max=(partitions) value=(drained) { (drained) " of " (partitions) }
        } @else {
            ", current"
        }
    }
}

//! The doors: their part of the overview, and a page for one.

use axum::Extension;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use maud::{Markup, html};
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};

use super::super::Parts;
use super::super::fields::QueryFields;
use super::super::guard::Visitor;
use super::super::problem::{AdminProblem, ProblemCode};
use super::parked::time;
use super::{Place, page_with_head};
use crate::inspect::doors::{DoorReport, DoorSenderReport, ReportedDoor, refused_words};
use crate::inspect::words::{ago, length};
use crate::printable::printable;

/// The part of the overview; nothing if no door has reported.
pub(super) fn section(doors: &[ReportedDoor], now_ms: i64) -> Markup {
    let row = |door: &ReportedDoor| {
        let report = &door.report;
        html! {
            tr {
                th scope="row" { a href=(path(report)) { (printable(&report.instance)) } }
                td data-label="Broker" { (state(door)) }
                td class="number" data-label="Pending" { (report.pending) " of " (report.pending_max) }
                td class="number" data-label="Accepted" { (report.accepted) }
                td class="number" data-label="Per minute" { (report.per_minute()) }
                td class="number" data-label="Refused" { (report.refused_in_all()) }
                td class="words" data-label="Last failure" {
                    @match report.newest_failure() {
                        None => "–",
                        Some((sender, failure, at)) => {
                            @if let Some(sender) = sender { (printable(sender)) ": " }
                            (printable(failure)) span class="quiet" { " " (ago(now_ms, at)) }
                        }
                    }
                }
            }
        }
    };
    html! {
        @if !doors.is_empty() {
            h2 { "Doors" }
            div class="scroll" tabindex="0" role="region" aria-label="Doors" {
                table {
                    thead {
                        tr {
                            th scope="col" { abbr title="Processes of lanekeeper ingest, which take updates by HTTP" { "Door" } }
                            th scope="col" { "Broker" }
                            th scope="col" class="number" { abbr title="Updates that wait for the broker's confirm" { "Pending" } }
                            th scope="col" class="number" { abbr title="Updates since the start of the door" { "Accepted" } }
                            th scope="col" class="number" { abbr title="Updates that were accepted or known in the last minute" { "Per minute" } }
                            th scope="col" class="number" { abbr title="Requests since the start of the door" { "Refused" } }
                            th scope="col" { "Last failure" }
                        }
                    }
                    tbody { @for each in doors { (row(each)) } }
                }
            }
        }
    }
}

fn path(report: &DoorReport) -> String {
    format!("/door?process={}", utf8_percent_encode(&report.process, NON_ALPHANUMERIC))
}

fn state(door: &ReportedDoor) -> Markup {
    let class = if door.is_well() { "good-text" } else { "bad-text" };
    html! { span class=(class) { (printable(&door.state_words())) } }
}

/// `GET /door`.
pub(in super::super) async fn door(
    State(parts): State<Parts>,
    Extension(visitor): Extension<Visitor>,
    QueryFields(fields): QueryFields,
) -> Result<Response, AdminProblem> {
    let process = fields.require("process")?;
    let report = parts.live.status().await?;
    let Some(door) = report.doors.iter().find(|door| door.report.process == process) else {
        let detail = "no door of this id has reported in the last minute: it has ended, or was started again under another id. The \
                      overview has those that are there";
        return Err(AdminProblem::new(ProblemCode::NotFound, detail));
    };
    let title = format!("Door {}", printable(&door.report.instance));
    let content = html! {
        h1 { (title) }
        (facts(door, report.at_ms))
        h2 { "Clients and hooks" }
        (senders(&door.report, report.at_ms))
        p class="quiet" { "Counts are since the start of the door, " (time(door.report.started_at_ms)) " UTC. This page loads itself again every 10 s." }
    };
    let head = html! { meta http-equiv="refresh" content="10"; };
    Ok(page_with_head(&visitor, Place::Elsewhere, &title, &head, &content).into_response())
}

fn facts(door: &ReportedDoor, now_ms: i64) -> Markup {
    let report = &door.report;
    html! {
        dl {
            dt { "Broker" }
            dd {
                (state(door))
                @if let Some(since) = report.unready_since_ms { " since " (time(since)) " UTC" }
                @if report.reconnects > 0 { ", connected again " (report.reconnects) @if report.reconnects == 1 { " time" } @else { " times" } }
                @if report.negative_confirms > 0 { ", refused an update " (report.negative_confirms) @if report.negative_confirms == 1 { " time" } @else { " times" } }
            }
            dt { "Pending" }
            dd {
                (report.pending) " of " (report.pending_max) " updates, " (report.pending_bytes) " of " (report.pending_bytes_max) " bytes"
                @if let Some(since) = report.no_confirm_since_ms { ", no confirm for " (length(u64::try_from(report.reported_at_ms.saturating_sub(since)).unwrap_or_default())) }
            }
            dt { "Accepted" }
            dd { (report.accepted) " updates, and " (report.known) " known" }
            dt { "Refused" }
            dd { (report.refused_in_all()) " requests" @if !report.refused.is_empty() { ": " (printable(&refused_words(&report.refused))) } }
            @if let (Some(failure), Some(at)) = (&report.last_failure, report.last_failure_ms) {
                dt { "Last refused of nobody known" }
                dd { (printable(failure)) span class="quiet" { " " (ago(now_ms, at)) } }
            }
            dt { "Version" }
            dd { (printable(&report.version)) }
        }
    }
}

fn senders(report: &DoorReport, now_ms: i64) -> Markup {
    let row = |sender: &DoorSenderReport| {
        html! {
            tr {
                th scope="row" { (printable(&sender.name)) }
                td data-label="Kind" { (sender.kind()) }
                td class="number" data-label="Pending" { (sender.pending) }
                td class="number" data-label="Accepted" { (sender.accepted) }
                td class="number" data-label="Known" { (sender.known) }
                td class="number" data-label="Per minute" { (sender.per_minute) }
                td data-label="Last accepted" { @match sender.last_accepted_ms { None => "never", Some(at) => (ago(now_ms, at)) } }
                td data-label="Refused" { @if sender.refused.is_empty() { "0" } @else { (printable(&refused_words(&sender.refused))) } }
                td class="words" data-label="Last failure" {
                    @match (&sender.last_failure, sender.last_failure_ms) {
                        (Some(failure), Some(at)) => { (printable(failure)) span class="quiet" { " " (ago(now_ms, at)) } }
                        _ => "–",
                    }
                }
            }
        }
    };
    html! {
        div class="scroll" tabindex="0" role="region" aria-label="Clients and hooks" {
            table {
                thead {
                    tr {
                        th scope="col" { "Name" }
                        th scope="col" { "Kind" }
                        th scope="col" class="number" { abbr title="Updates that wait for the broker's confirm" { "Pending" } }
                        th scope="col" class="number" { "Accepted" }
                        th scope="col" class="number" { abbr title="Updates that the broker had before" { "Known" } }
                        th scope="col" class="number" { abbr title="Updates that were accepted or known in the last minute" { "Per minute" } }
                        th scope="col" { "Last accepted" }
                        th scope="col" { abbr title="Requests, by the code of the problem" { "Refused" } }
                        th scope="col" { "Last failure" }
                    }
                }
                tbody { @for each in &report.senders { (row(each)) } }
            }
        }
        @if report.senders_left_out > 0 { p { "And " (report.senders_left_out) " more, which have sent nothing or find no room here." } }
    }
}

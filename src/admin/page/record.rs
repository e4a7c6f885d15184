//! One record, which is the same as `lanekeeper why`, and one partition with its records in order of age.

use axum::Extension;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use maud::{Markup, html};

use super::super::Parts;
use super::super::fields::QueryFields;
use super::super::guard::Visitor;
use super::super::live;
use super::super::live::api::place;
use super::super::parked::record_key;
use super::super::problem::AdminProblem;
use super::overview::{age, partition_link, target_link, wait};
use super::parked::{sentence, time, with_key};
use super::pause::{self, RecordPage};
use super::{Place, page};
use crate::inspect::report::{AttemptReport, LaneReport, PartitionRow, RecordLedgerReport, RecordReport};
use crate::inspect::words::{ago, ahead, length, place_name};
use crate::printable::printable;
use lanekeeper_core::why::WaitCause;

/// The form that leads to a record.
pub(super) fn find(key: &str) -> Markup {
    html! {
        form class="find" method="get" action="/record" role="search" {
            label for="find" { "Record key" }
            input id="find" name="key" value=(key) required maxlength="255" autocomplete="off";
            button { "Why does it wait?" }
        }
    }
}

/// `GET /record`.
pub(in super::super) async fn record(
    State(parts): State<Parts>,
    Extension(visitor): Extension<Visitor>,
    QueryFields(fields): QueryFields,
) -> Result<Response, AdminProblem> {
    let key = record_key(fields.require("key")?)?;
    let report = live::record(&parts, &key).await?;
    let paused = report.ledger.as_ref();
    let paused = paused.and_then(|ledger| Some((ledger.paused_since_ms?, ledger.paused.as_deref()?)));
    let is_cause = matches!(report.wait.cause, WaitCause::RecordPaused { .. });
    let content = html! {
        h1 { "Record " span class="key" { (printable(key.as_str())) } }
        (pause::record_done(fields.get("done"), paused.is_some()))
        @if let Some((since_ms, by)) = paused.filter(|_| !is_cause) { (pause::record_state(since_ms, by)) }
        (cause(&report))
        @if let Some(ledger) = &report.ledger {
            (pause::record_forms(&visitor, key.as_str(), ledger.paused.is_some(), RecordPage::Record))
        }
        @for lane in &report.lanes { (of_lane(lane, report.at_ms)) }
        @if !report.holders.is_empty() {
            h2 { "Who takes the room that it waits for" }
            (lanes(&report.holders, report.at_ms))
        }
        h2 { "Its partition" }
        ul class="plain" { @for row in &report.partitions { li { (of_partition(row)) } } }
        h2 { "What the ledger knows of it" }
        (of_ledger(&report))
        div class="actions" {
            a href=(with_key("/parked/record", key.as_str())) { "Its parked updates" }
            a href=(with_key("/changes", key.as_str())) { "Changes that people made to it" }
        }
    };
    Ok(page(&visitor, Place::Elsewhere, "Record", &content).into_response())
}

fn cause(report: &RecordReport) -> Markup {
    let wait = &report.wait;
    let class = if wait.needs_person { "state bad" } else { "state" };
    html! {
        div class=(class) {
            p { strong { (printable(&wait.sentence)) } }
            dl {
                @if let Some(since) = wait.since_ms {
                    dt { "Since" } dd { (time(since)) " UTC, " (ago(report.at_ms, since)) }
                }
                @if !wait.ends.is_empty() {
                    dt { "Ends with" } dd { (sentence(&wait.ends)) }
                }
                @if let Some(at) = wait.ends_at_ms {
                    dt { "Ends at" } dd { (time(at)) " UTC, " (ahead(report.at_ms, at)) }
                }
                @if let Some(owner) = &report.owner {
                    dt { "Owner" } dd { (printable(owner)) }
                }
            }
        }
        @if !report.silent.is_empty() {
            p class="state warn" { "No answer in time from " (printable(&report.silent.join(", "))) "." }
        }
        @if let Some(fault) = &report.fault {
            p class="state warn" { "Not all is known: " (printable(fault)) "." }
        }
    }
}

fn of_lane(lane: &LaneReport, now_ms: i64) -> Markup {
    let how = match (lane.released, lane.redelivered) {
        (true, _) => "released",
        (false, true) => "handed over, not for the first time",
        (false, false) => "handed over",
    };
    html! {
        h2 { "Its oldest update in " (place_name(lane.layout, lane.partition)) }
        dl {
            dt { "Update" } dd { code { (printable(&lane.update_id)) } }
            dt { "Type" } dd { (lane.update_type.as_deref().map_or_else(|| "none".to_owned(), printable)) }
            dt { "Target" } dd { (target_link(&lane.target)) }
            @if let Some(came) = lane.received_at_ms {
                dt { "Received" } dd { (time(came)) " UTC, " (ago(now_ms, came)) ", " (how) }
            }
            dt { "Attempts begun" } dd { (lane.attempts) }
            dt { "Behind it in its lane" } dd { (lane.behind) @if lane.behind == 1 { " update" } @else { " updates" } }
        }
        @if !lane.past_attempts.is_empty() {
            (attempts(&lane.past_attempts))
        }
    }
}

fn attempts(attempts: &[AttemptReport]) -> Markup {
    html! {
        h3 { "Attempts that failed" }
        div class="scroll" tabindex="0" role="region" aria-label="Attempts that failed" {
            table {
                thead {
                    tr {
                        th scope="col" class="number" { "No." }
                        th scope="col" { "Began (UTC)" }
                        th scope="col" class="number" { "Took" }
                        th scope="col" { "Outcome" }
                        th scope="col" { "Failure" }
                    }
                }
                tbody {
                    @for attempt in attempts {
                        tr {
                            th scope="row" class="number" { (attempt.number) }
                            td class="when" data-label="Began (UTC)" { (time(attempt.began_ms)) }
                            td class="number" data-label="Took" { (attempt.took_ms) " ms" }
                            td data-label="Outcome" { (printable(&attempt.outcome)) }
                            td class="words" data-label="Failure" { (printable(&attempt.failure)) }
                        }
                    }
                }
            }
        }
    }
}

fn of_partition(row: &PartitionRow) -> Markup {
    html! {
        (partition_link(row.layout, row.partition)) ": "
        @match row.ready {
            None => span class="bad-text" { "its queue does not exist" },
            Some(ready) => { (ready) " ready in its queue" },
        }
        ", "
        @match (&row.owner, &row.state) {
            _ if row.drained => "drained",
            (None, _) if row.owner_silent.is_some() => {
                "owned by " (printable(row.owner_silent.as_deref().unwrap_or_default())) ", which did not answer"
            },
            (Some(owner), Some(state)) => { "owned by " (printable(owner)) ", which holds " (state.held) " of " (state.window) },
            (None, Some(_)) => "consumed by a process that has been handed nothing",
            (_, None) if row.consumers > 0 => "consumed by a process that did not answer",
            (_, None) => span class="bad-text" { "consumed by nobody" },
        }
    }
}

fn of_ledger(report: &RecordReport) -> Markup {
    if let Some(fault) = &report.ledger_fault {
        return html! { p class="state bad" { "It was not asked: " (printable(fault)) } };
    }
    let Some(ledger) = &report.ledger else {
        return html! { p { "There is no ledger." } };
    };
    let RecordLedgerReport { version, etag, last_id, parked_updates, head_id, .. } = ledger;
    let text = |text: &Option<String>| text.as_deref().map_or_else(|| "none".to_owned(), printable);
    html! {
        dl {
            dt { "Applied last" } dd { (text(last_id)) }
            dt { "Version" } dd { (version.map_or_else(|| "none".to_owned(), |version| version.to_string())) }
            dt { "ETag" } dd { (text(etag)) }
            dt { "Parked updates" }
            dd { (parked_updates) @if let Some(head) = head_id { ", the oldest is " code { (printable(head)) } } }
        }
    }
}

/// Records, in the order that they have.
fn lanes(lanes: &[LaneReport], now_ms: i64) -> Markup {
    html! {
        div class="scroll" tabindex="0" role="region" aria-label="Records" {
            table {
                thead {
                    tr {
                        th scope="col" { "Record" }
                        th scope="col" class="number" { "Here for" }
                        th scope="col" class="number" { "Updates" }
                        th scope="col" class="number" { "Attempts" }
                        th scope="col" { "Target" }
                        th scope="col" { "What it waits for" }
                    }
                }
                tbody {
                    @for lane in lanes {
                        tr {
                            th scope="row" {
                                a class="key" href=(with_key("/record", &lane.record_key)) { (printable(&lane.record_key)) }
                            }
                            td class="number" data-label="Here for" { (lane.received_at_ms.map_or_else(|| "–".to_owned(), |came| age(now_ms, came))) }
                            td class="number" data-label="Updates" { (lane.behind + 1) }
                            td class="number" data-label="Attempts" { (lane.attempts) }
                            td data-label="Target" { (target_link(&lane.target)) }
                            td class="words" data-label="Waits for" { (wait(&lane.wait, now_ms)) }
                        }
                    }
                }
            }
        }
    }
}

/// `GET /partition`.
pub(in super::super) async fn partition(
    State(parts): State<Parts>,
    Extension(visitor): Extension<Visitor>,
    QueryFields(fields): QueryFields,
) -> Result<Response, AdminProblem> {
    let found = parts.live.partition(place(&fields)?).await?;
    let (row, held) = (&found.row, &found.lanes);
    let now_ms = crate::wall_time::unix_millis(std::time::SystemTime::now());
    let state = row.known_state();
    let title = format!("Partition {}", place_name(row.layout, row.partition));
    let content = html! {
        h1 { (title) }
        p { (of_partition(row)) }
        @if let Some(state) = state {
            dl {
                dt { "Claim" } dd { (printable(&state.ownership)) @if let Some(tenure) = state.tenure { ", tenure " (tenure) } }
                dt { "Attempts out" } dd { (state.in_flight) " of " (state.in_flight_max) }
                dt { "Records here" }
                dd {
                    (state.records) ": " (state.ready) " wait for room, " (state.waiting) " for their next attempt, "
                    (state.target_shut) " for a target that is shut or paused, " (state.limited) " for a limit of their target"
                    @if state.take_over_wait > 0 { ", " (state.take_over_wait) " for the end of an earlier owner's requests" }
                    @if state.previous_layout > 0 { ", " (state.previous_layout) " for their previous partition" }
                }
                @if let Some(came) = state.oldest_received_at_ms {
                    dt { "Oldest update" } dd { "here for " (length(u64::try_from(now_ms.saturating_sub(came)).unwrap_or_default())) }
                }
            }
        }
        h2 { "Records, the one whose oldest update came first on top" }
        @if let Some(why) = found.unknown() {
            p class="state warn" { "What waits here is not known: " (printable(&why)) "." }
        } @else if held.is_empty() {
            p class="state good" { "No record waits here." }
        } @else {
            (lanes(held, now_ms))
            @if held.len() >= live::LANES_MAX { p class="quiet" { "The first " (live::LANES_MAX) " are shown." } }
        }
    };
    Ok(page(&visitor, Place::Elsewhere, &title, &content).into_response())
}

#[cfg(test)]
mod tests;

//! What the ledger keeps: what became of an update id, and the changes that people made.

use axum::Extension;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use maud::{Markup, html};

use super::super::Parts;
use super::super::fields::QueryFields;
use super::super::guard::Visitor;
use super::super::parked::api::{CHANGES_SHOWN_MAX, changes_of, history};
use super::super::problem::AdminProblem;
use super::overview::target_link;
use super::parked::{key_link, reason, time, with_key};
use super::{Place, page};
use crate::printable::printable;
use lanekeeper_ledger::{ChangeKind, ChangeSubject, IdEnd, IdHistory, ParkedState, ResolvedAs};

/// `GET /updates`: what became of an update.
pub(in super::super) async fn update_ids(
    State(parts): State<Parts>,
    Extension(visitor): Extension<Visitor>,
    QueryFields(fields): QueryFields,
) -> Result<Response, AdminProblem> {
    let ledger = parts.ledger.open()?;
    let history = match fields.get("id") {
        None => None,
        Some(_) => Some(history(&ledger, &fields).await?),
    };
    let content = html! {
        h1 { "What became of an update" }
        form class="filters" method="get" action="/updates" {
            div {
                label for="id" { "Update id" }
                input id="id" name="id" required value=(fields.get("id").unwrap_or_default()) autocomplete="off";
            }
            div {
                label for="key" { "Record key, if it is known" }
                input id="key" name="key" value=(fields.get("key").unwrap_or_default()) maxlength="255" autocomplete="off";
            }
            div { button { "Look" } }
        }
        @if let Some(history) = &history {
            (of_id(history))
        }
    };
    Ok(page(&visitor, Place::Updates, "What became of an update", &content).into_response())
}

fn of_id(history: &IdHistory) -> Markup {
    html! {
        @if history.updates.is_empty() {
            p class="state" {
                "The ledger does not know this id. The update was not resolved and is not parked: it waits in its partition or \
                 in a lane, was never published, or was resolved longer ago than ledger.retention."
            }
        } @else {
            div class="scroll" tabindex="0" role="region" aria-label="Updates with this id" {
                table {
                    thead { tr { th scope="col" { "Record" } th scope="col" { "What became of it" } th scope="col" { "When (UTC)" } } }
                    tbody {
                        @for found in &history.updates {
                            tr {
                                th scope="row" { (key_link("/parked/record", &found.record_key)) }
                                (end(&found.end))
                            }
                        }
                    }
                }
            }
            @if !history.is_all {
                p class="hint" { "There are more records with an update of this id: give the record key, too." }
            }
        }
    }
}

fn end(end: &IdEnd) -> Markup {
    let (what, at_ms) = match end {
        IdEnd::Applied { at_ms, status } => (
            html! { "applied by the target" @if let Some(status) = status { ", which answered " (status) } },
            *at_ms,
        ),
        IdEnd::Resolved { resolution, at_ms } => {
            let words = match resolution {
                ResolvedAs::Superseded => "superseded: the target had this version or a later one",
                ResolvedAs::DeadLettered => "in the dead-letter queue",
                ResolvedAs::Discarded => "discarded by a person",
            };
            (html! { (words) }, *at_ms)
        }
        IdEnd::Parked { parked_ms, reason: why, state } => {
            let words = match state {
                ParkedState::Parked => "parked, waits for a person",
                ParkedState::Releasing => "released, being sent",
            };
            (html! { (words) "; " (reason(why)) }, *parked_ms)
        }
        IdEnd::Discarded { at_ms, operator_reason, reason: why, .. } => (
            html! {
                "discarded by " (printable(&operator_reason.who)) ": " (printable(&operator_reason.why))
                "; it was parked for " (reason(why))
            },
            *at_ms,
        ),
    };
    html! { td class="words" data-label="What became of it" { (what) } td class="when" data-label="When (UTC)" { (time(at_ms)) } }
}

fn is_of_target(kind: &ChangeKind) -> bool {
    matches!(kind, ChangeKind::PauseTarget | ChangeKind::ResumeTarget)
}

/// `GET /changes`.
pub(in super::super) async fn changes(
    State(parts): State<Parts>,
    Extension(visitor): Extension<Visitor>,
    QueryFields(fields): QueryFields,
) -> Result<Response, AdminProblem> {
    let changes = changes_of(&*parts.ledger.open()?, &fields).await?;
    let next = changes.last().filter(|_| changes.len() == CHANGES_SHOWN_MAX as usize);
    let content = html! {
        h1 { "Changes that people made" }
        @if let Some(key) = fields.get("key") {
            p { "Of the record " span class="key" { (printable(key)) } ". " a href="/changes" { "All changes" } }
        }
        @if changes.is_empty() {
            p class="state" { "There is none." }
        } @else {
            div class="scroll" tabindex="0" role="region" aria-label="Changes" {
                table {
                    thead {
                        tr {
                            th scope="col" { "When (UTC)" }
                            th scope="col" { "What" }
                            th scope="col" { "Of" }
                            th scope="col" class="number" { "Updates" }
                            th scope="col" { "Who" }
                            th scope="col" { "Why" }
                        }
                    }
                    tbody {
                        @for change in &changes {
                            tr {
                                td class="when" data-label="When (UTC)" { (time(change.at_ms)) }
                                td data-label="What" { (change.kind.name().replace('_', " ")) }
                                td data-label="Of" {
                                    @match &change.subject {
                                        ChangeSubject::Record(key) => (key_link("/parked/record", key)),
                                        ChangeSubject::Named(name) if is_of_target(&change.kind) => (target_link(name)),
                                        ChangeSubject::Named(name) => { (printable(name)) " (" (change.records) " records)" }
                                    }
                                }
                                td class="number" data-label="Updates" { (change.updates) }
                                td data-label="Who" { (printable(&change.operator_reason.who)) }
                                td class="words" data-label="Why" { (printable(&change.operator_reason.why)) }
                            }
                        }
                    }
                }
            }
        }
        @if let Some(last) = next {
            @let path = fields.get("key").map_or("/changes?".to_owned(), |key| with_key("/changes", key) + "&");
            p { a href={ (path) "before=" (last.seq.0) } { "Earlier changes" } }
        }
    };
    Ok(page(&visitor, Place::Changes, "Changes", &content).into_response())
}

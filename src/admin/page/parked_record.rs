//! One parked record with its updates.

use axum::Extension;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use maud::{Markup, html};

use super::super::Parts;
use super::super::fields::QueryFields;
use super::super::guard::Visitor;
use super::super::parked::api::record_and_updates;
use super::super::parked::body::{BodyShown, shown};
use super::super::parked::view::target_of;
use super::super::parked::{failed, record_key};
use super::super::problem::{AdminProblem, ProblemCode};
use super::parked::{reason, state, time, who_and_why, with_key};
use super::pause::{self, RecordPage};
use super::{Place, form_token, page};
use crate::config::Config;
use crate::pausing::by;
use crate::printable::printable;
use lanekeeper_ledger::{Operations as _, ParkKind, ParkedRecord, ParkedState, ParkedUpdate, RecordState};

/// `GET /parked/record`.
pub(in super::super) async fn record(
    State(parts): State<Parts>,
    Extension(visitor): Extension<Visitor>,
    QueryFields(fields): QueryFields,
) -> Result<Response, AdminProblem> {
    let (ledger, config) = (parts.ledger.open()?, parts.config.borrow().clone());
    let key = record_key(fields.require("key")?)?;
    let known = ledger.record_state(&key).await.map_err(|fault| failed(&fault))?;
    let parked = match record_and_updates(&ledger, &fields).await {
        Ok(parked) => Some(parked),
        Err(problem) if problem.code() == ProblemCode::NotParked => None,
        Err(problem) => return Err(problem),
    };
    let content = html! {
        h1 { "Record " span class="key" { (printable(key.as_str())) } }
        @match fields.get("done") {
            Some("release") => p class="state good" role="status" { "Released. Its updates are sent in order; this page shows what is left." },
            Some("discard") => p class="state good" role="status" { "Discarded." },
            done => (pause::record_done(done, known.paused.is_some())),
        }
        @if let Some(pause) = &known.paused { (pause::record_state(pause.since_ms, &by(&pause.operator_reason))) }
        @match &parked {
            None => {
                p class=(if known.paused.is_some() { "state" } else { "state good" }) { "It has no parked updates." }
                (pause::record_forms(&visitor, key.as_str(), known.paused.is_some(), RecordPage::Parked))
            },
            Some((record, updates, more)) => (of_record(&visitor, record, updates, *more, &config)),
        }
        (known_of(&known))
        div class="actions" {
            a href=(with_key("/record", key.as_str())) { "What it waits for" }
            a href=(with_key("/changes", key.as_str())) { "Changes that people made to this record" }
        }
    };
    Ok(page(&visitor, Place::Parked, "Parked record", &content).into_response())
}

fn known_of(known: &RecordState) -> Markup {
    html! {
        h2 { "What the ledger knows of it" }
        dl {
            dt { "Applied last" }
            dd {
                @match &known.last_applied {
                    None => "nothing, or longer ago than ledger.retention",
                    Some(last) => { "update " code { (printable(&last.update_id)) } " at " (time(last.at_ms)) }
                }
            }
            dt { "Version" }
            dd { @match known.version { None => "none", Some(version) => (version) } }
            dt { "ETag" }
            dd { @match &known.etag { None => "none", Some(etag) => code { (printable(etag)) } } }
        }
    }
}

fn of_record(
    visitor: &Visitor,
    record: &ParkedRecord,
    updates: &[ParkedUpdate],
    more: bool,
    config: &Config,
) -> Markup {
    let key = record.record_key.as_str();
    // What ends the wait comes first.
    let pause_form = pause::record_forms(visitor, key, record.paused, RecordPage::Parked);
    html! {
        dl {
            dt { "State" }
            dd { (state(record)) }
            dt { "Why" }
            dd { (reason(&record.reason)) }
            dt { "Since" }
            dd { (time(record.since_ms)) " UTC" }
            dt { "Attempts" }
            dd { (record.reason.attempts) }
            dt { "Parked updates" }
            dd { (record.updates) }
            dt { "Oldest update" }
            dd { code { (printable(&record.head_id)) } }
            dt { "Target" }
            dd { (target_of(record.head_type.as_deref(), config).unwrap_or_else(|| "none takes its type now".to_owned())) }
            dt { "Partition" }
            dd { (record.partition) " of layout " (record.layout.0) }
        }
        div class="actions" {
            a href={ "/api/parked/export" (&with_key("", key)) } { "Export its parked updates" }
        }
        @if record.paused { (pause_form) }
        @if record.state == ParkedState::Parked {
            @if visitor.may_change() {
                (change_forms(visitor, record))
            } @else if visitor.access.can_change() {
                p class="hint" { "To release or discard its updates, " a href="/login" { "log in" } " with admin.write_token." }
            } @else {
                p class="hint" {
                    "To release or discard its updates here, set admin.write_token; or use "
                    code { "lanekeeper parked release" } " and " code { "lanekeeper parked discard" } "."
                }
            }
        }
        @if !record.paused { (pause_form) }
        h2 { "Its parked updates, oldest first" }
        @for update in updates {
            (of_update(update, key))
        }
        @if more {
            @if let Some(last) = updates.last() {
                p { a href={ (with_key("/parked/record", key)) "&after=" (last.seq.0) } { "Later updates" } }
            }
        }
    }
}

fn change_forms(visitor: &Visitor, record: &ParkedRecord) -> Markup {
    let hidden = html! {
        (form_token(visitor))
        input type="hidden" name="key" value=(record.record_key.as_str());
        input type="hidden" name="head_id" value=(record.head_id);
    };
    html! {
        @if !record.paused {
            details {
                summary { "Release it: its updates are sent again, in order" }
                form class="stacked" method="post" action="/parked/release" {
                    (hidden)
                    (who_and_why("release"))
                    div { button { "Release…" } }
                }
            }
        }
        details {
            summary { "Discard updates: they are dropped and never sent" }
            form class="stacked" method="post" action="/parked/discard" {
                (hidden)
                label for="discard-head" { "Which" }
                select id="discard-head" name="head" {
                    option value="1" {
                        "the oldest update" @if record.reason.kind != ParkKind::Paused { ", which failed" }
                    }
                    @if record.updates > 1 {
                        option value="all" { "all " (record.updates) " parked updates" }
                    }
                }
                (who_and_why("discard"))
                div { button { "Discard…" } }
            }
        }
    }
}

fn of_update(parked: &ParkedUpdate, key: &str) -> Markup {
    let update = &parked.update;
    let (body, is_all) = shown(&update.body);
    html! {
        h3 { "Update " code { (printable(update.id.as_str())) } }
        dl {
            dt { "Parked" }
            dd { (time(parked.parked_ms)) " UTC, " (reason(&parked.reason)) }
            @if let Some(update_type) = &update.update_type {
                dt { "Type" } dd { (printable(update_type)) }
            }
            @if let Some(version) = update.version {
                dt { "Version" } dd { (version) }
            }
            @if let Some(content_type) = &update.content_type {
                dt { "Content type" } dd { (printable(content_type)) }
            }
            dt { "Body" }
            dd {
                (update.body.len()) " bytes"
                @if !is_all { ", of which the first are shown" }
                @if !update.body.is_empty() {
                    " · " a href={ "/api/parked/body" (&with_key("", key)) "&seq=" (parked.seq.0) } { "Download" }
                }
            }
        }
        @match body {
            BodyShown::Empty => {},
            BodyShown::Text(text) | BodyShown::Dump(text) => pre tabindex="0" { (text) },
        }
    }
}

//! Parked records, searched for.

use axum::Extension;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use maud::{Markup, html};
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};

use super::super::Parts;
use super::super::fields::QueryFields;
use super::super::guard::Visitor;
use super::super::parked::failed;
use super::super::parked::found::RATE_MAX;
use super::super::parked::search::{ParkedSearch, format_ms, reasons};
use super::super::parked::view::target_of;
use super::super::problem::AdminProblem;
use super::{Place, form_token, page};
use crate::config::Config;
use crate::printable::printable;
use lanekeeper_core::update::RecordKey;
use lanekeeper_ledger::{ParkedRecord, ParkedState, StoredParkReason};

/// A path with a record key in its query: a key can have any character, and be `..`.
pub(in super::super) fn with_key(path: &str, key: &str) -> String {
    format!("{path}?key={}", utf8_percent_encode(key, NON_ALPHANUMERIC))
}

/// A record key, as a link to the page of its parked updates.
pub(super) fn key_link(path: &str, key: &RecordKey) -> Markup {
    html! { a class="key" href=(with_key(path, key.as_str())) { (printable(key.as_str())) } }
}

/// A sentence of ours, with what stands between backquotes as code.
pub(super) fn sentence(text: &str) -> Markup {
    html! {
        @for (index, part) in text.split('`').enumerate() {
            @if index % 2 == 1 { code { (printable(part)) } } @else { (printable(part)) }
        }
    }
}

/// A time, for people and programs.
pub(super) fn time(ms: i64) -> Markup {
    let text = format_ms(ms);
    html! { time datetime=(text) { (text.replace('T', " ").trim_end_matches('Z')) } }
}

/// Why something is parked, in a few words.
pub(super) fn reason(reason: &StoredParkReason) -> Markup {
    html! {
        strong { (reason.kind.name()) }
        // The detail begins with the status, if there was one.
        @if !reason.detail.is_empty() { ": " (printable(&reason.detail)) }
        @else if let Some(status) = reason.status { " " (status) }
    }
}

/// `GET /parked`.
pub(in super::super) async fn search(
    State(parts): State<Parts>,
    Extension(visitor): Extension<Visitor>,
    QueryFields(fields): QueryFields,
) -> Result<Response, AdminProblem> {
    let (ledger, config) = (parts.ledger.open()?, parts.config.borrow().clone());
    let search = ParkedSearch::parse(&fields, &config)?;
    let found = search.find(&ledger, &config).await.map_err(|fault| failed(&fault))?;
    let content = html! {
        h1 { "Parked records" }
        p class="quiet" {
            "A record is parked when an update of it failed permanently, or when a person has paused it: its updates wait here, in \
             order, until a person releases, resumes or discards them. Times are UTC."
        }
        (filters(&search, &config))
        @if found.records.is_empty() {
            p class="state" {
                @if found.next.is_some() { "None of the records that were looked at is meant. There are more." }
                @else if search.fields().is_empty() { "Nothing is parked." }
                @else { "The search finds no parked record." }
            }
        } @else {
            (table(&found.records, &config))
        }
        div class="actions" {
            @if let Some(next) = &found.next {
                a href={ "/parked" (search.query(Some(next))) } { "Next records" }
            }
            @if !found.records.is_empty() {
                a href={ "/api/parked/export" (search.query(None)) } { "Export all that the search finds" }
            }
            a href="/parked/releasing" { "The release by a search" }
            a href="/paused" { "Paused targets and records" }
        }
        @if !found.records.is_empty() && visitor.may_change() {
            (release_found(&visitor, &search))
        }
    };
    Ok(page(&visitor, Place::Parked, "Parked records", &content).into_response())
}

fn filters(search: &ParkedSearch, config: &Config) -> Markup {
    let value = |name: &str| {
        let fields = search.fields();
        fields.into_iter().find(|(known, _)| *known == name).map(|(_, value)| value).unwrap_or_default()
    };
    // As a browser's field wants it.
    let time = |name: &str| value(name).trim_end_matches('Z').to_owned();
    let select = |id: &str, label: &str, options: &[&str]| {
        let chosen = value(id);
        html! {
            div {
                label for=(id) { (label) }
                select id=(id) name=(id) {
                    option value="" { "any" }
                    @for option in options {
                        option value=(option) selected[chosen == **option] { (option) }
                    }
                }
            }
        }
    };
    let targets: Vec<&str> = config.targets.iter().map(|target| target.name.as_str()).collect();
    html! {
        form class="filters" method="get" action="/parked" {
            div {
                label for="contains" { "Key contains" }
                input id="contains" name="contains" value=(value("contains")) maxlength="255" autocomplete="off";
            }
            (select("reason", "Reason", &reasons()))
            (select("target", "Target", &targets))
            (select("state", "State", &["parked", "releasing"]))
            div {
                label for="from" { "Parked from (UTC)" }
                input id="from" name="from" type="datetime-local" step="1" value=(time("from"));
            }
            div {
                label for="before" { "Parked before (UTC)" }
                input id="before" name="before" type="datetime-local" step="1" value=(time("before"));
            }
            div { button { "Search" } }
        }
    }
}

fn table(records: &[ParkedRecord], config: &Config) -> Markup {
    html! {
        div class="scroll" tabindex="0" role="region" aria-label="Parked records" {
            table {
                thead {
                    tr {
                        th scope="col" { "Record" }
                        th scope="col" { "Since" }
                        th scope="col" { "Why" }
                        th scope="col" class="number" { "Updates" }
                        th scope="col" { "Target" }
                        th scope="col" { "State" }
                    }
                }
                tbody {
                    @for record in records {
                        tr {
                            th scope="row" { (key_link("/parked/record", &record.record_key)) }
                            td class="when" data-label="Since" { (time(record.since_ms)) }
                            td class="words" data-label="Why" { (reason(&record.reason)) }
                            td class="number" data-label="Updates" { (record.updates) }
                            td data-label="Target" { (target_of(record.head_type.as_deref(), config).unwrap_or_else(|| "none".to_owned())) }
                            td data-label="State" { (state(record)) }
                        }
                    }
                }
            }
        }
    }
}

/// Whether it waits for a person.
pub(super) fn state(record: &ParkedRecord) -> Markup {
    match record.state {
        // A release passes it over; what is on its way comes back here.
        _ if record.paused => html! { span class="warn-text" { "paused by a person" } },
        ParkedState::Parked => html! { span class="bad-text" { "a person must act" } },
        ParkedState::Releasing => html! { span class="warn-text" { "released, being sent" } },
    }
}

/// The fields for who and why, which are kept with each change. `prefix` keeps ids of several forms apart.
pub(super) fn who_and_why(prefix: &str) -> Markup {
    html! {
        label for={ (prefix) "-who" } { "Who are you?" }
        input id={ (prefix) "-who" } name="who" required maxlength="200" autocomplete="name";
        label for={ (prefix) "-why" } { "Why?" }
        textarea id={ (prefix) "-why" } name="why" required maxlength="2000" {}
    }
}

fn release_found(visitor: &Visitor, search: &ParkedSearch) -> Markup {
    html! {
        h2 { "Release all that the search finds" }
        form class="stacked" method="post" action="/parked/release-found" {
            (form_token(visitor))
            @for (name, value) in search.fields() {
                input type="hidden" name=(name) value=(value);
            }
            p class="hint" { "These are " (search.in_words()) ". You are asked once more before anything is sent." }
            label for="rate" { "Records in a second" }
            input id="rate" name="rate_per_second" type="number" min="1" max=(RATE_MAX) value="10" required;
            (who_and_why("found"))
            div { button { "Release them…" } }
        }
    }
}

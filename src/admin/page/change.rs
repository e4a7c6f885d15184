//! Forms that change something: each is asked for again before anything is done.

use std::num::NonZeroU32;

use axum::Extension;
use axum::extract::State;
use axum::http::HeaderValue;
use axum::response::{IntoResponse, Response};
use maud::{Markup, html};

use super::super::Parts;
use super::super::fields::Fields;
use super::super::guard::Visitor;
use super::super::parked::change::{self, operator_reason, parked_as_seen};
use super::super::parked::found::FoundReleaseState;
use super::super::parked::record_key;
use super::super::parked::search::ParkedSearch;
use super::super::problem::{AdminProblem, ProblemCode};
use super::login::see_other;
use super::parked::{reason, with_key};
use super::{Place, form_token, page};
use crate::printable::printable;
use lanekeeper_ledger::Selection;

/// The field that says that a person has been asked again.
pub(super) const CONFIRMED: &str = "confirmed";

type Answer = Result<Response, AdminProblem>;

/// What is asked again.
pub(super) struct Confirmation<'a> {
    /// Where the page stands among the others.
    pub(super) place: Place,
    pub(super) title: &'a str,
    pub(super) what: Markup,
    pub(super) action: &'a str,
    /// What the button says.
    pub(super) button: &'a str,
    pub(super) is_danger: bool,
    pub(super) back: String,
}

/// A page with all fields of the form once more.
pub(super) fn confirm(visitor: &Visitor, fields: &[(&str, String)], asked: &Confirmation<'_>) -> Response {
    let content = html! {
        h1 { (asked.title) }
        (asked.what)
        form method="post" action=(asked.action) {
            (form_token(visitor))
            @for (name, value) in fields {
                input type="hidden" name=(name) value=(value);
            }
            input type="hidden" name=(CONFIRMED) value="yes";
            div class="actions" {
                button class=(if asked.is_danger { "danger" } else { "main" }) autofocus { (asked.button) }
                a href=(asked.back) { "Do nothing and go back" }
            }
        }
    };
    page(visitor, asked.place, asked.title, &content).into_response()
}

/// The fields of a form that are in it, as they were.
pub(super) fn as_sent<'a>(fields: &Fields, names: &[&'a str]) -> Vec<(&'a str, String)> {
    names.iter().filter_map(|name| Some((*name, fields.get(name)?.to_owned()))).collect()
}

/// Who and why, as they were typed.
pub(super) fn by_whom(who: &str, why: &str) -> Markup {
    html! {
        dl {
            dt { "Who" } dd { (printable(who)) }
            dt { "Why" } dd { (printable(why)) }
        }
        p class="quiet" { "Both are kept in the ledger, with the time." }
    }
}

/// `POST /parked/release`.
pub(in super::super) async fn release(
    State(parts): State<Parts>,
    Extension(visitor): Extension<Visitor>,
    Extension(fields): Extension<Fields>,
) -> Answer {
    let key = record_key(fields.require("key")?)?;
    let operator_reason = operator_reason(fields.require("who")?, fields.require("why")?)?;
    let ledger = parts.ledger.open()?;
    let record = parked_as_seen(&ledger, &key, fields.get("head_id")).await?;
    if record.paused {
        return Err(record_paused());
    }
    let shown = with_key("/parked/record", key.as_str());
    if fields.get(CONFIRMED).is_some() {
        let released = change::release(ledger, Selection::Keys(vec![key]), operator_reason).await?;
        if released.paused > 0 {
            return Err(record_paused());
        }
        return Ok(see_other(&format!("{shown}&done=release")));
    }
    let asked = Confirmation {
        place: Place::Parked,
        title: "Release this record?",
        what: html! {
            p {
                "The " strong { (record.updates) } " parked updates of the record "
                span class="key" { (printable(key.as_str())) }
                " are sent to their target again, in order, the update " code { (printable(&record.head_id)) }
                " first. It failed with " (reason(&record.reason)) ". If it fails again, the record is parked again."
            }
            (by_whom(&operator_reason.who, &operator_reason.why))
        },
        action: "/parked/release",
        button: "Release",
        is_danger: false,
        back: shown,
    };
    Ok(confirm(&visitor, &as_sent(&fields, &["key", "head_id", "who", "why"]), &asked))
}

fn record_paused() -> AdminProblem {
    AdminProblem::new(
        ProblemCode::RecordPaused,
        "a release passes it over: resume the record, which releases what was parked for the pause",
    )
}

/// `POST /parked/discard`.
pub(in super::super) async fn discard(
    State(parts): State<Parts>,
    Extension(visitor): Extension<Visitor>,
    Extension(fields): Extension<Fields>,
) -> Answer {
    let key = record_key(fields.require("key")?)?;
    let operator_reason = operator_reason(fields.require("who")?, fields.require("why")?)?;
    let head = match fields.require("head")? {
        "all" => None,
        head => Some(head.parse::<NonZeroU32>().map_err(|_| {
            AdminProblem::new(
                ProblemCode::InvalidRequest,
                "`head` is not understood: a number of updates, or all",
            )
        })?),
    };
    let ledger = parts.ledger.open()?;
    let record = parked_as_seen(&ledger, &key, fields.get("head_id")).await?;
    let shown = with_key("/parked/record", key.as_str());
    if fields.get(CONFIRMED).is_some() {
        change::discard(ledger, key, head.map(NonZeroU32::get), operator_reason).await?;
        return Ok(see_other(&format!("{shown}&done=discard")));
    }
    let count = head.map_or(record.updates, |head| u64::from(head.get()).min(record.updates));
    let asked = Confirmation {
        place: Place::Parked,
        title: "Discard updates of this record?",
        what: html! {
            p {
                @if count == record.updates { "All " strong { (count) } " parked updates" }
                @else { "The oldest " strong { (count) } " of " (record.updates) " parked updates" }
                " of the record " span class="key" { (printable(key.as_str())) }
                ", the update " code { (printable(&record.head_id)) } " first, are dropped and never sent. "
                "Their bodies are deleted: "
                a href={ "/api/parked/export" (&with_key("", key.as_str())) } { "export them" }
                " first if you may need them."
            }
            (by_whom(&operator_reason.who, &operator_reason.why))
        },
        action: "/parked/discard",
        button: "Discard",
        is_danger: true,
        back: shown,
    };
    Ok(confirm(&visitor, &as_sent(&fields, &["key", "head_id", "head", "who", "why"]), &asked))
}

/// `POST /parked/release-found`.
pub(in super::super) async fn release_found(
    State(parts): State<Parts>,
    Extension(visitor): Extension<Visitor>,
    Extension(fields): Extension<Fields>,
) -> Answer {
    let config = parts.config.borrow().clone();
    let search = ParkedSearch::parse(&fields, &config)?;
    let operator_reason = operator_reason(fields.require("who")?, fields.require("why")?)?;
    let rate_per_second = fields.require("rate_per_second")?.parse().unwrap_or(0);
    let ledger = parts.ledger.open()?;
    if fields.get(CONFIRMED).is_some() {
        parts.found_release.begin(ledger, &search, &config, rate_per_second, operator_reason)?;
        return Ok(see_other("/parked/releasing"));
    }
    let asked = Confirmation {
        place: Place::Parked,
        title: "Release all of these records?",
        what: html! {
            p {
                "All " (search.in_words()) " that wait for a person at this moment are released, "
                strong { (rate_per_second) } " in a second. You can stop it while it runs."
            }
            (by_whom(&operator_reason.who, &operator_reason.why))
        },
        action: "/parked/release-found",
        button: "Release them",
        is_danger: false,
        back: format!("/parked{}", search.query(None)),
    };
    let mut sent = as_sent(&fields, &["rate_per_second", "who", "why"]);
    sent.extend(search.fields());
    Ok(confirm(&visitor, &sent, &asked))
}

/// `POST /parked/releasing/stop`.
pub(in super::super) async fn stop(State(parts): State<Parts>) -> Response {
    parts.found_release.stop();
    see_other("/parked/releasing")
}

/// `GET /parked/releasing`: the release by a search that runs or ran last.
pub(in super::super) async fn releasing(
    State(parts): State<Parts>,
    Extension(visitor): Extension<Visitor>,
) -> Response {
    let last = parts.found_release.shown();
    let runs = last.as_ref().is_some_and(|last| last.state == FoundReleaseState::Running);
    let content = html! {
        h1 { "Release by a search" }
        @match &last {
            None => p { "None has run since this process started. " a href="/parked" { "Search for parked records" } " to begin one." },
            Some(last) => {
                dl {
                    dt { "State" }
                    dd {
                        strong { (last.state.name()) }
                        @if let Some(fault) = &last.fault { ": " (fault) }
                    }
                    dt { "Of" } dd { (last.of) }
                    dt { "Released" } dd { (last.records) " records with " (last.updates) " updates" }
                    @if last.paused > 0 {
                        dt { "Passed over" }
                        dd { (last.paused) ", since " a href="/paused" { "they are paused" } }
                    }
                    dt { "Rate" } dd { (last.rate_per_second) " records in a second" }
                    dt { "Begun" } dd { (last.begun) }
                    dt { "Who" } dd { (printable(&last.who)) }
                    dt { "Why" } dd { (printable(&last.why)) }
                }
                @if runs && visitor.may_change() {
                    form class="actions" method="post" action="/parked/releasing/stop" {
                        (form_token(&visitor))
                        button class="danger" { "Stop it" }
                    }
                }
            }
        }
    };
    let mut answer = page(&visitor, Place::Parked, "Release by a search", &content).into_response();
    if runs {
        answer.headers_mut().insert("refresh", HeaderValue::from_static("2"));
    }
    answer
}

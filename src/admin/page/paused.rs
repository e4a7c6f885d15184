//! What is paused.

use axum::Extension;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use maud::{Markup, html};
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};

use super::super::Parts;
use super::super::fields::QueryFields;
use super::super::guard::Visitor;
use super::super::paused::{self, Listed};
use super::super::problem::AdminProblem;
use super::overview::target_link;
use super::parked::{key_link, time};
use super::pause::done_words;
use super::{Place, page};
use crate::config::Config;
use crate::pausing::is_known;
use crate::printable::printable;
use lanekeeper_ledger::{OperatorReason, Pause, PausedRecord, PausedTarget};

/// `GET /paused`.
pub(in super::super) async fn paused(
    State(parts): State<Parts>,
    Extension(visitor): Extension<Visitor>,
    QueryFields(fields): QueryFields,
) -> Result<Response, AdminProblem> {
    let (ledger, config) = (parts.ledger.open()?, parts.config.borrow().clone());
    let (after_target, after, limit) =
        (fields.get("after_target"), fields.get("after"), paused::limit(&fields)?);
    let targets = paused::targets(&ledger, after_target, limit).await?;
    let records = paused::records(&ledger, after, limit).await?;
    let next = |name: &str, next: &Option<String>, words: &str| {
        html! {
            @if let Some(next) = next {
                p { a href={ "/paused?" (name) "=" (utf8_percent_encode(next, NON_ALPHANUMERIC)) "&limit=" (limit) } { (words) } }
            }
        }
    };
    let content = html! {
        h1 { "Paused" }
        @if fields.get("done") == Some("resume") { (done_words("Resumed.")) }
        p class="quiet" {
            "Nothing is sent to a paused target, and nothing of a paused record, until a person resumes it. Times are UTC."
        }
        h2 { "Targets" }
        (targets_table(&targets, &config))
        (next("after_target", &targets.next, "Next targets"))
        h2 { "Records" }
        (records_table(&records))
        (next("after", &records.next, "Next records"))
        h2 { "Pause something" }
        p { "A target is paused on its page, which the " a href="/" { "overview" } " leads to; a record on its page:" }
        form class="find" method="get" action="/parked/record" {
            label for="pause-key" { "Record key" }
            input id="pause-key" name="key" required maxlength="255" autocomplete="off";
            button { "Open its page" }
        }
    };
    Ok(page(&visitor, Place::Paused, "Paused", &content).into_response())
}

fn targets_table(targets: &Listed<PausedTarget>, config: &Config) -> Markup {
    html! {
        @if targets.some.is_empty() {
            p class="state good" { "No target is paused." }
        } @else {
            div class="scroll" tabindex="0" role="region" aria-label="Paused targets" {
                table {
                    thead {
                        tr {
                            th scope="col" { "Target" }
                            th scope="col" { "Since" }
                            th scope="col" { "Who" }
                            th scope="col" { "Why" }
                        }
                    }
                    tbody {
                        @for PausedTarget { name, pause } in &targets.some {
                            tr {
                                th scope="row" {
                                    (target_link(name))
                                    @if !is_known(config, name) { " " span class="quiet" { "not in this process's config" } }
                                }
                                (pause_cells(pause))
                            }
                        }
                    }
                }
            }
        }
    }
}

fn records_table(records: &Listed<PausedRecord>) -> Markup {
    html! {
        @if records.some.is_empty() {
            p class="state good" { "No record is paused." }
        } @else {
            div class="scroll" tabindex="0" role="region" aria-label="Paused records" {
                table {
                    thead {
                        tr {
                            th scope="col" { "Record" }
                            th scope="col" { "Since" }
                            th scope="col" { "Who" }
                            th scope="col" { "Why" }
                            th scope="col" class="number" { "Parked updates" }
                        }
                    }
                    tbody {
                        @for PausedRecord { record_key, pause, updates } in &records.some {
                            tr {
                                th scope="row" { (key_link("/parked/record", record_key)) }
                                (pause_cells(pause))
                                td class="number" data-label="Parked updates" { (updates) }
                            }
                        }
                    }
                }
            }
        }
    }
}

fn pause_cells(Pause { since_ms, operator_reason: OperatorReason { who, why } }: &Pause) -> Markup {
    html! {
        td class="when" data-label="Since" { (time(*since_ms)) }
        td data-label="Who" { (printable(who)) }
        td class="words" data-label="Why" { @if why.is_empty() { "–" } @else { (printable(why)) } }
    }
}

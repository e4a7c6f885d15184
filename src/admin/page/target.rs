//! One target: how each process sees it, and the last hour as charts.

use axum::Extension;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use maud::{Markup, html};

use super::super::Parts;
use super::super::fields::QueryFields;
use super::super::guard::Visitor;
use super::super::paused;
use super::super::problem::{AdminProblem, ProblemCode};
use super::chart::{Chart, STEPS, Series};
use super::overview::{latency, not_known, target_state};
use super::parked::time;
use super::{Place, page, pause};
use crate::inspect::report::{StepReport, TargetAnswer, TargetReport};
use crate::inspect::words::ahead;
use crate::pausing::is_known;
use crate::printable::printable;

/// Seconds of a step.
const STEP_S: f64 = 10.0;
const STEP_MS: i64 = 10_000;

/// `GET /target`.
pub(in super::super) async fn target(
    State(parts): State<Parts>,
    Extension(visitor): Extension<Visitor>,
    QueryFields(fields): QueryFields,
) -> Result<Response, AdminProblem> {
    let name = fields.require("name")?;
    let is_known = is_known(&parts.config.borrow(), name);
    let (answers, pause) = tokio::join!(parts.live.target(name), paused::pause_of_target(&parts, name));
    let is_paused = matches!(pause, Ok(Some(_)));
    let answers = match answers {
        // One that no config has any more can be paused still.
        Err(problem) if problem.code() == ProblemCode::NotFound && !is_known && !is_paused => {
            return Err(problem);
        }
        answers => answers,
    };
    let now_ms = crate::wall_time::unix_millis(std::time::SystemTime::now());
    let title = format!("Target {}", printable(name));
    let content = html! {
        h1 { (title) }
        (pause::target_done(fields.get("done"), is_paused))
        @if let Ok(Some(pause)) = &pause { (pause::target_state(pause)) }
        @match &answers {
            Ok(answers) => (by_process(answers, now_ms)),
            Err(problem) if problem.code() == ProblemCode::NotFound => p class="state" { "No process that answered has it." },
            Err(problem) => (not_known(problem)),
        }
        @match &pause {
            Ok(_) if is_known || is_paused => (pause::target_forms(&visitor, name, is_paused)),
            Ok(_) => p class="hint" { "To pause it, use a process whose config has it: this one's has no such target." },
            Err(problem) if problem.code() == ProblemCode::NoLedger => {
                p class="hint" { "It cannot be paused: a pause is kept in the ledger, and ledger.url is " code { "none" } "." }
            }
            Err(problem) => {
                p class="state warn" { "If it is paused is not known. " strong { (problem.title()) ": " } (printable(problem.detail())) "." }
            }
        }
        @if let Ok(answers) = &answers {
            h2 { "The last hour" }
            (charts(answers, now_ms))
        }
    };
    Ok(page(&visitor, Place::Elsewhere, &title, &content).into_response())
}

fn by_process(answers: &[TargetAnswer], now_ms: i64) -> Markup {
    let row = |instance: &str, target: &TargetReport| {
        html! {
            tr {
                th scope="row" { (printable(instance)) }
                td data-label="State" {
                    (target_state(target.state))
                    @if let Some(since) = target.since_ms { " since " (time(since)) }
                    @if let Some(at) = target.probe_at_ms { ", probed " (ahead(now_ms, at)) }
                }
                td class="number" data-label="Attempts" { (target.attempts_per_minute) }
                td class="number" data-label="Applied" { (target.applied_per_minute) }
                td class="number" data-label="Milliseconds" { (latency(target.latency_ms)) }
                td data-label="Limit" {
                    (target.limit.as_deref().map_or_else(|| "–".to_owned(), printable))
                    @if let Some(rate) = target.rate { " (" (format!("{rate:.1}")) " a second)" }
                }
                td class="number" data-label="Waiting" { (target.waiting_for_permit) }
                td class="words" data-label="Last failure" {
                    (target.last_failure.as_deref().map_or_else(|| "–".to_owned(), printable))
                    @if let Some(at) = target.last_failure_ms { span class="quiet" { " " (time(at)) } }
                }
            }
        }
    };
    html! {
        div class="scroll" tabindex="0" role="region" aria-label="The target at each process" {
            table {
                thead {
                    tr {
                        th scope="col" { "Process" }
                        th scope="col" { "State" }
                        th scope="col" class="number" { abbr title="Attempts that ended in the last minute" { "Attempts" } }
                        th scope="col" class="number" { "Applied" }
                        th scope="col" class="number" { abbr title="Median and 99th percentile, in milliseconds" { "ms 50 / 99 %" } }
                        th scope="col" { "Limit" }
                        th scope="col" class="number" { abbr title="Requests that wait for a permit" { "Waiting" } }
                        th scope="col" { "Last failure" }
                    }
                }
                tbody {
                    @for answer in answers {
                        @if let Some(target) = &answer.target { (row(&answer.instance, target)) }
                    }
                }
            }
        }
    }
}

/// What all processes did together in a step.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
struct Together {
    attempts: u32,
    applied: u32,
    refused: u32,
    /// Of the slowest process: percentiles of several do not add up.
    latency_ms: Option<(f64, f64)>,
}

/// The last hour, oldest first.
fn together(answers: &[TargetAnswer], now_ms: i64) -> Vec<Together> {
    let mut steps = vec![Together::default(); STEPS];
    for step in answers.iter().flat_map(|answer| &answer.steps) {
        let StepReport { at_ms, attempts, applied, refused, latency_ms } = *step;
        // The clocks of processes may differ: what seems to come from the future counts as now.
        let back = usize::try_from(now_ms.saturating_sub(at_ms) / STEP_MS).unwrap_or(0);
        let Some(place) = (STEPS - 1).checked_sub(back) else { continue };
        let into = &mut steps[place];
        into.attempts = into.attempts.saturating_add(attempts);
        into.applied = into.applied.saturating_add(applied);
        into.refused = into.refused.saturating_add(refused);
        let slower = |one: (f64, f64), other: (f64, f64)| (one.0.max(other.0), one.1.max(other.1));
        into.latency_ms = match (into.latency_ms, latency_ms) {
            (Some(one), Some(other)) => Some(slower(one, other)),
            (one, other) => one.or(other),
        };
    }
    steps
}

fn charts(answers: &[TargetAnswer], now_ms: i64) -> Markup {
    let steps = together(answers, now_ms);
    if steps.iter().all(|step| step.attempts == 0) {
        return html! { p class="state" { "No attempt has ended in the last hour." } };
    }
    let per_second = |of: fn(&Together) -> u32| -> Vec<Option<f64>> {
        steps.iter().map(|step| Some(f64::from(of(step)) / STEP_S)).collect()
    };
    let milliseconds = |of: fn((f64, f64)) -> f64| -> Vec<Option<f64>> {
        steps.iter().map(|step| step.latency_ms.map(of)).collect()
    };
    let line = |name, class, values| Series { name, class, values };
    let all = [
        Chart {
            title: "Attempts in a second",
            unit: "/s",
            lines: vec![
                line("ended", "line-1", per_second(|step| step.attempts)),
                line("applied", "line-2", per_second(|step| step.applied)),
            ],
        },
        Chart {
            title: "Latency in milliseconds",
            unit: "ms",
            lines: vec![
                line("99th percentile", "line-1", milliseconds(|(_, p99)| p99)),
                line("median", "line-2", milliseconds(|(median, _)| median)),
            ],
        },
        Chart {
            title: "Refusals in a second",
            unit: "/s",
            lines: vec![line("refused", "line-3", per_second(|step| step.refused))],
        },
    ];
    html! {
        div class="charts" { @for chart in &all { (chart.draw()) } }
        p class="quiet" {
            "In steps of 10 s, of all processes that answered; latencies are those of the slowest one. \
             Refusals are answers that refuse the request for now (429) or because of who we are."
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_processes_did_is_added_up_step_by_step() {
        let step = |at_ms, attempts, latency_ms| StepReport {
            at_ms,
            attempts,
            applied: attempts,
            refused: 1,
            latency_ms: Some(latency_ms),
        };
        let answer =
            |steps| TargetAnswer { instance: String::new(), process: String::new(), target: None, steps };
        let now = 10_000_000;
        let answers = [
            answer(vec![step(now - 5 * 3_600_000, 9, (1.0, 1.0)), step(now - 20_000, 3, (1.0, 9.0))]),
            answer(vec![step(now - 25_000, 4, (2.0, 5.0)), step(now + 90_000, 5, (1.0, 1.0))]),
        ];
        let steps = together(&answers, now);
        assert_eq!(steps.iter().map(|step| step.attempts).sum::<u32>(), 12, "what is too old does not count");
        let expected = Together { attempts: 7, applied: 7, refused: 2, latency_ms: Some((2.0, 9.0)) };
        assert_eq!((steps[STEPS - 3], steps[STEPS - 1].attempts), (expected, 5));
    }
}

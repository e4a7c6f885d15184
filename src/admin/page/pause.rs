//! The forms that pause and resume a target or a record, each asked for again.

use axum::Extension;
use axum::extract::State;
use axum::response::Response;
use maud::{Markup, html};

use super::super::Parts;
use super::super::fields::Fields;
use super::super::guard::Visitor;
use super::super::parked::change::operator_reason;
use super::super::parked::record_key;
use super::super::paused::{self, refused};
use super::super::problem::{AdminProblem, ProblemCode};
use super::change::{CONFIRMED, Confirmation, as_sent, by_whom, confirm};
use super::login::see_other;
use super::overview::target_path;
use super::parked::{time, who_and_why, with_key};
use super::{Place, form_token};
use crate::pausing::{self, by, is_known};
use crate::printable::printable;
use lanekeeper_core::update::RecordKey;
use lanekeeper_ledger::{OperatorReason, Pause};

type Answer = Result<Response, AdminProblem>;

/// The page of a record that has a form, and that a person comes back to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum RecordPage {
    /// `/record`.
    Record,
    /// `/parked/record`.
    Parked,
}

impl RecordPage {
    fn of(fields: &Fields) -> Self {
        if fields.get("from") == Some(Self::Parked.name()) { Self::Parked } else { Self::Record }
    }

    fn name(self) -> &'static str {
        match self {
            Self::Record => "record",
            Self::Parked => "parked",
        }
    }

    fn path(self, key: &str) -> String {
        match self {
            Self::Record => with_key("/record", key),
            Self::Parked => with_key("/parked/record", key),
        }
    }
}

fn since(since_ms: i64, by: &str) -> Markup {
    html! { "since " (time(since_ms)) " UTC by " (printable(by)) }
}

/// What the page of a paused target says of it.
pub(super) fn target_state(pause: &Pause) -> Markup {
    html! {
        div class="state warn" {
            p { strong { "Paused" } " " (since(pause.since_ms, &by(&pause.operator_reason))) }
            p { "No request starts here. Its updates wait, in order, until a person resumes it." }
        }
    }
}

/// What the pages of a paused record say of it.
pub(super) fn record_state(since_ms: i64, by: &str) -> Markup {
    html! {
        div class="state warn" {
            p { strong { "Paused" } " " (since(since_ms, by)) }
            p { "Its updates are parked as they come, in order, until a person resumes it." }
        }
    }
}

/// What has been done to a target, if it is so still.
pub(super) fn target_done(done: Option<&str>, is_paused: bool) -> Markup {
    match (done, is_paused) {
        (Some("pause"), true) => {
            done_words("Paused. Within two seconds no process starts a request here; those that are out end.")
        }
        (Some("resume"), false) => {
            done_words("Resumed. Within two seconds its updates are attempted again, in order.")
        }
        _ => html! {},
    }
}

/// What has been done to a record, if it is so still.
pub(super) fn record_done(done: Option<&str>, is_paused: bool) -> Markup {
    match (done, is_paused) {
        (Some("pause"), true) => {
            done_words("Paused. A request that is out ends; what comes from now on is parked.")
        }
        (Some("resume"), false) => {
            done_words("Resumed. What was parked for the pause is released, and sent in order.")
        }
        (Some("resume-parked"), false) => done_words(
            "Resumed. It stays parked, since its oldest update failed: release or discard it when the cause is mended.",
        ),
        _ => html! {},
    }
}

pub(super) fn done_words(words: &str) -> Markup {
    html! { p class="state good" role="status" { (words) } }
}

/// A form of one kind of thing.
struct PauseForm<'a> {
    /// The path, without what is done.
    path: &'a str,
    hidden: Markup,
    is_paused: bool,
    /// What pausing and what resuming does.
    summaries: [&'a str; 2],
    /// The command that does the same.
    commands: [&'a str; 2],
}

impl PauseForm<'_> {
    fn show(&self, visitor: &Visitor) -> Markup {
        let (verb, index) = if self.is_paused { ("resume", 1) } else { ("pause", 0) };
        html! {
            @if visitor.may_change() {
                details open[self.is_paused] {
                    summary { (self.summaries[index]) }
                    form class="stacked" method="post" action={ (self.path) "/" (verb) } {
                        (form_token(visitor))
                        (self.hidden)
                        (who_and_why(verb))
                        div { button { @if self.is_paused { "Resume…" } @else { "Pause…" } } }
                    }
                }
            } @else if visitor.access.can_change() {
                p class="hint" { "To " (verb) " it, " a href="/login" { "log in" } " with admin.write_token." }
            } @else {
                p class="hint" {
                    "To " (verb) " it here, set admin.write_token; or use " code { (self.commands[index]) } "."
                }
            }
        }
    }
}

/// The form of a target.
pub(super) fn target_forms(visitor: &Visitor, name: &str, is_paused: bool) -> Markup {
    let form = PauseForm {
        path: "/target",
        hidden: html! { input type="hidden" name="name" value=(name); },
        is_paused,
        summaries: [
            "Pause it: no request starts at this target until a person resumes it",
            "Resume it: its updates are attempted again, in order",
        ],
        commands: ["lanekeeper target pause", "lanekeeper target resume"],
    };
    form.show(visitor)
}

/// The form of a record, on this page.
pub(super) fn record_forms(visitor: &Visitor, key: &str, is_paused: bool, from: RecordPage) -> Markup {
    let form = PauseForm {
        path: "/record",
        hidden: html! {
            input type="hidden" name="key" value=(key);
            input type="hidden" name="from" value=(from.name());
        },
        is_paused,
        summaries: [
            "Pause it: its updates are parked as they come, until a person resumes it",
            "Resume it: what was parked for the pause is sent, in order",
        ],
        commands: ["lanekeeper parked pause", "lanekeeper parked resume"],
    };
    form.show(visitor)
}

/// What every one of these forms has.
struct Sent {
    operator_reason: OperatorReason,
    is_confirmed: bool,
}

impl Sent {
    fn of(fields: &Fields) -> Result<Self, AdminProblem> {
        let operator_reason = operator_reason(fields.require("who")?, fields.require("why")?)?;
        Ok(Self { operator_reason, is_confirmed: fields.get(CONFIRMED).is_some() })
    }

    fn by_whom(&self) -> Markup {
        by_whom(&self.operator_reason.who, &self.operator_reason.why)
    }
}

/// `POST /target/pause`.
pub(in super::super) async fn pause_target(
    State(parts): State<Parts>,
    Extension(visitor): Extension<Visitor>,
    Extension(fields): Extension<Fields>,
) -> Answer {
    let (name, sent) = (fields.require("name")?, Sent::of(&fields)?);
    let back = target_path(name);
    if sent.is_confirmed {
        paused::pause_target(&parts, name.to_owned(), sent.operator_reason).await?;
        return Ok(see_other(&format!("{back}&done=pause")));
    }
    let config = parts.config.borrow().clone();
    let free = pausing::check_pause_target(&*parts.ledger.open()?, &config, name).await;
    free.map_err(|error| refused(&error))?;
    let asked = Confirmation {
        place: Place::Paused,
        title: "Pause this target?",
        what: html! {
            p {
                "Within two seconds, no process starts a request at the target " strong { (printable(name)) }
                ", until a person resumes it. Requests that are out end. Its updates wait, in order, which costs them no attempt. \
                 While they wait they take room in their partitions: after a while, updates of other targets can wait behind them."
            }
            (sent.by_whom())
        },
        action: "/target/pause",
        button: "Pause",
        is_danger: false,
        back,
    };
    Ok(confirm(&visitor, &as_sent(&fields, &["name", "who", "why"]), &asked))
}

/// `POST /target/resume`.
pub(in super::super) async fn resume_target(
    State(parts): State<Parts>,
    Extension(visitor): Extension<Visitor>,
    Extension(fields): Extension<Fields>,
) -> Answer {
    let (name, sent) = (fields.require("name")?, Sent::of(&fields)?);
    let config = parts.config.borrow().clone();
    let back = target_path(name);
    let pause = pausing::check_resume_target(&*parts.ledger.open()?, &config, name).await;
    let pause = pause.map_err(|error| refused(&error))?;
    if sent.is_confirmed {
        is_as_seen(&fields, &pause)?;
        paused::resume_target(&parts, name.to_owned(), sent.operator_reason).await?;
        // A target that is in no config any more has no page from now on.
        let done = if is_known(&config, name) {
            format!("{back}&done=resume")
        } else {
            "/paused?done=resume".to_owned()
        };
        return Ok(see_other(&done));
    }
    let asked = Confirmation {
        place: Place::Paused,
        title: "Resume this target?",
        what: html! {
            p {
                "The target " strong { (printable(name)) } " is paused " (since(pause.since_ms, &by(&pause.operator_reason))) "."
            }
            p { "Within two seconds, its updates are attempted again, in order." }
            (sent.by_whom())
        },
        action: "/target/resume",
        button: "Resume",
        is_danger: false,
        back,
    };
    Ok(confirm(&visitor, &with_since(as_sent(&fields, &["name", "who", "why"]), &pause), &asked))
}

/// `POST /record/pause`.
pub(in super::super) async fn pause_record(
    State(parts): State<Parts>,
    Extension(visitor): Extension<Visitor>,
    Extension(fields): Extension<Fields>,
) -> Answer {
    let (key, sent) = (record_key(fields.require("key")?)?, Sent::of(&fields)?);
    let (ledger, back) = (parts.ledger.open()?, RecordPage::of(&fields).path(key.as_str()));
    if sent.is_confirmed {
        paused::pause_record(ledger, key, sent.operator_reason).await?;
        return Ok(see_other(&format!("{back}&done=pause")));
    }
    pausing::check_pause_record(&ledger, &key).await.map_err(|error| refused(&error))?;
    let asked = Confirmation {
        place: Place::Paused,
        title: "Pause this record?",
        what: html! {
            p {
                "No request for the record " (named(&key)) " starts any more. Its updates are parked as they come, in order, until \
                 a person resumes it. A request that is out ends; if it fails, its update is parked, too."
            }
            (sent.by_whom())
        },
        action: "/record/pause",
        button: "Pause",
        is_danger: false,
        back,
    };
    Ok(confirm(&visitor, &as_sent(&fields, &["key", "from", "who", "why"]), &asked))
}

/// `POST /record/resume`.
pub(in super::super) async fn resume_record(
    State(parts): State<Parts>,
    Extension(visitor): Extension<Visitor>,
    Extension(fields): Extension<Fields>,
) -> Answer {
    let (key, sent) = (record_key(fields.require("key")?)?, Sent::of(&fields)?);
    let (ledger, back) = (parts.ledger.open()?, RecordPage::of(&fields).path(key.as_str()));
    let pause = pausing::check_resume_record(&ledger, &key).await.map_err(|error| refused(&error))?;
    if sent.is_confirmed {
        is_as_seen(&fields, &pause)?;
        let resumed = paused::resume_record(ledger, key, sent.operator_reason).await?;
        let done = if resumed.still_parked.is_some() { "resume-parked" } else { "resume" };
        return Ok(see_other(&format!("{back}&done={done}")));
    }
    let asked = Confirmation {
        place: Place::Paused,
        title: "Resume this record?",
        what: html! {
            p { "The record " (named(&key)) " is paused " (since(pause.since_ms, &by(&pause.operator_reason))) "." }
            p {
                "What was parked for the pause is released, and sent in order. If its oldest parked update failed before, the \
                 record stays parked for that, and waits for a release."
            }
            (sent.by_whom())
        },
        action: "/record/resume",
        button: "Resume",
        is_danger: false,
        back,
    };
    Ok(confirm(&visitor, &with_since(as_sent(&fields, &["key", "from", "who", "why"]), &pause), &asked))
}

/// The field of a confirmation with the time of the pause that it ends.
const SINCE: &str = "since";

/// Fails if it is another pause by now than the one that was shown.
fn is_as_seen(fields: &Fields, pause: &Pause) -> Result<(), AdminProblem> {
    if fields.get(SINCE) == Some(pause.since_ms.to_string().as_str()) {
        return Ok(());
    }
    Err(AdminProblem::new(
        ProblemCode::Changed,
        "somebody has paused it again since you looked: look at the new reason before you decide",
    ))
}

fn with_since<'a>(mut fields: Vec<(&'a str, String)>, pause: &Pause) -> Vec<(&'a str, String)> {
    fields.push((SINCE, pause.since_ms.to_string()));
    fields
}

fn named(key: &RecordKey) -> Markup {
    html! { span class="key" { (printable(key.as_str())) } }
}

//! Pages for people. Every text from outside is escaped by the templates (`maud`), which have no way around it here.

pub(super) mod change;
mod chart;
pub(super) mod door;
pub(super) mod kept;
pub(super) mod login;
pub(super) mod overview;
pub(super) mod parked;
pub(super) mod parked_record;
pub(super) mod pause;
pub(super) mod paused;
pub(super) mod record;
pub(super) mod target;

use axum::response::Html;
use maud::{DOCTYPE, Markup, html};

use super::access::Access;
use super::guard::{FORM_TOKEN, Visitor};
use super::problem::{AdminProblem, ProblemCode};

/// Where a page stands among the others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Place {
    Overview,
    Parked,
    Paused,
    Updates,
    Changes,
    /// In no list.
    Elsewhere,
}

/// The pages that each page links to.
const PLACES: [(Place, &str, &str); 5] = [
    (Place::Overview, "/", "Overview"),
    (Place::Parked, "/parked", "Parked records"),
    (Place::Paused, "/paused", "Paused"),
    (Place::Updates, "/updates", "Update ids"),
    (Place::Changes, "/changes", "Changes"),
];

/// A whole page.
pub(super) fn page(visitor: &Visitor, place: Place, title: &str, content: &Markup) -> Html<String> {
    page_with_head(visitor, place, title, &html! {}, content)
}

/// A whole page, with more in its head.
pub(super) fn page_with_head(
    visitor: &Visitor,
    place: Place,
    title: &str,
    head: &Markup,
    content: &Markup,
) -> Html<String> {
    whole(&visitor.access, Some(visitor), place, title, (head, content))
}

/// The page for a problem.
pub(super) fn problem(access: &Access, visitor: Option<&Visitor>, problem: &AdminProblem) -> Html<String> {
    let content = html! {
        h1 { (problem.title()) }
        p { (problem.detail()) "." }
        @if matches!(problem.code(), ProblemCode::Unauthorized | ProblemCode::TooManyWrongTokens) {
            p { a href="/login" { "Log in" } }
        }
    };
    whole(access, visitor, Place::Elsewhere, problem.title(), (&html! {}, &content))
}

fn whole(
    access: &Access,
    visitor: Option<&Visitor>,
    place: Place,
    title: &str,
    (head, content): (&Markup, &Markup),
) -> Html<String> {
    let may_read = visitor.is_some_and(|visitor| visitor.right.is_some());
    let markup = html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                meta name="color-scheme" content="light dark";
                title { (title) " · Lanekeeper" }
                link rel="stylesheet" href="/assets/style.css";
                link rel="icon" href="/assets/icon.svg" type="image/svg+xml";
                (head)
            }
            body {
                a class="skip" href="#content" { "Skip to the content" }
                header {
                    a class="name" href="/" { "Lanekeeper" }
                    @if may_read {
                        nav aria-label="Pages" {
                            ul {
                                @for (of, path, text) in PLACES {
                                    li { a href=(path) aria-current=[(of == place).then_some("page")] { (text) } }
                                }
                            }
                        }
                    }
                    @if let Some(visitor) = visitor {
                        (session(access, visitor))
                    }
                }
                main id="content" tabindex="-1" { (content) }
            }
        }
    };
    Html(markup.into_string())
}

fn session(access: &Access, visitor: &Visitor) -> Markup {
    html! {
        @if visitor.has_session {
            form class="session" method="post" action="/logout" {
                (form_token(visitor))
                span { @if visitor.may_change() { "may change" } @else { "may read" } }
                button { "Log out" }
            }
        } @else if visitor.right.is_some() && access.can_change() {
            div class="session" { a href="/login" { "Log in to change" } }
        }
    }
}

/// The field that each form has.
pub(super) fn form_token(visitor: &Visitor) -> Markup {
    html! { input type="hidden" name=(FORM_TOKEN) value=(visitor.form_token()); }
}

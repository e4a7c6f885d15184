//! Logging in and out.

use std::time::Instant;

use axum::Extension;
use axum::extract::Request;
use axum::http::{HeaderValue, StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use maud::html;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};

use super::super::fields::Fields;
use super::super::guard::{LOGIN, SESSION, Visitor, check_token};
use super::super::problem::{AdminProblem, ProblemCode};
use super::{Place, form_token, page};

/// Longer paths are not gone back to.
const NEXT_BYTES_MAX: usize = 2000;

/// To the login page, from which one comes back here.
pub(in super::super) fn redirect(uri: &Uri) -> Response {
    let path = uri.path_and_query().map_or("/", |path| path.as_str());
    let next = if path == "/" {
        String::new()
    } else {
        format!("?next={}", utf8_percent_encode(path, NON_ALPHANUMERIC))
    };
    see_other(&format!("/login{next}"))
}

/// `GET /login`.
pub(in super::super) async fn form(
    Extension(mut visitor): Extension<Visitor>,
    request: Request,
) -> Result<Response, AdminProblem> {
    let query = Fields::parse(request.uri().query().unwrap_or_default())?;
    let is_new = visitor.cookie.is_none();
    if is_new {
        visitor.cookie = Some(visitor.access.random());
    }
    let mut answer = shown(&visitor, query.get("next").unwrap_or_default(), None).into_response();
    if let Some(cookie) = visitor.cookie.as_ref().filter(|_| is_new) {
        answer.headers_mut().append(header::SET_COOKIE, visitor.set_cookie(LOGIN, cookie.reveal()));
    }
    Ok(answer)
}

/// `POST /login`.
pub(in super::super) async fn log_in(
    Extension(visitor): Extension<Visitor>,
    Extension(fields): Extension<Fields>,
) -> Response {
    let now = Instant::now();
    let next = fields.get("next").unwrap_or_default();
    match check_token(&visitor, fields.get("token").unwrap_or_default(), now) {
        Ok(right) => {
            // Another one than before: who has put a session into this browser does not share what it may do now.
            end_session(&visitor);
            let id = visitor.access.begin_session(right, now);
            let mut answer = see_other(local_path(next));
            answer.headers_mut().append(header::SET_COOKIE, visitor.set_cookie(SESSION, id.reveal()));
            answer.headers_mut().append(header::SET_COOKIE, visitor.set_cookie(LOGIN, ""));
            answer
        }
        Err(problem) if problem.code() == ProblemCode::Unauthorized => {
            (StatusCode::UNAUTHORIZED, shown(&visitor, next, Some(problem.detail()))).into_response()
        }
        Err(problem) => problem.into_response(),
    }
}

/// `POST /logout`.
pub(in super::super) async fn log_out(Extension(visitor): Extension<Visitor>) -> Response {
    end_session(&visitor);
    let mut answer = see_other("/login");
    answer.headers_mut().append(header::SET_COOKIE, visitor.set_cookie(SESSION, ""));
    answer
}

fn end_session(visitor: &Visitor) {
    if let Some(id) = visitor.cookie.as_ref().filter(|_| visitor.has_session) {
        visitor.access.end_session(id.reveal());
    }
}

fn shown(visitor: &Visitor, next: &str, fault: Option<&str>) -> impl IntoResponse + use<> {
    let content = html! {
        h1 { "Log in" }
        @if let Some(fault) = fault {
            p class="fault" role="alert" id="fault" { (fault) "." }
        }
        form class="stacked" method="post" action="/login" {
            (form_token(visitor))
            input type="hidden" name="next" value=(next);
            // Password managers keep tokens under a name.
            input type="hidden" autocomplete="username" value="lanekeeper";
            label for="token" { "Token" }
            input id="token" name="token" type="password" autocomplete="current-password" required autofocus
                spellcheck="false" aria-describedby=(if fault.is_some() { "fault hint" } else { "hint" });
            p class="hint" id="hint" { "admin.read_token of the config to read, admin.write_token to read and change." }
            button { "Log in" }
        }
    };
    page(visitor, Place::Elsewhere, "Log in", &content)
}

/// A path of this port: anything else leads to the overview.
fn local_path(next: &str) -> &str {
    let is_local = next.starts_with('/')
        && next.len() <= NEXT_BYTES_MAX
        && !next[1..].starts_with(['/', '\\'])
        && next.bytes().all(|byte| byte.is_ascii_graphic());
    if is_local { next } else { "/" }
}

/// To another page, which is asked for with GET.
pub(in super::super) fn see_other(path: &str) -> Response {
    let location = HeaderValue::try_from(path).unwrap_or(HeaderValue::from_static("/"));
    (StatusCode::SEE_OTHER, [(header::LOCATION, location)]).into_response()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn after_a_login_one_comes_back_to_this_port_and_nowhere_else() {
        for local in ["/", "/parked?key=a%2Fb", "/a//b"] {
            assert_eq!(local_path(local), local);
        }
        for foreign in [
            "",
            "//evil.example",
            "/\\evil.example",
            "https://evil.example",
            "evil",
            "/a\r\nx: y",
            "/a b",
            "/ü",
        ] {
            assert_eq!(local_path(foreign), "/", "{foreign:?}");
        }
        assert_eq!(local_path(&format!("/{}", "a".repeat(NEXT_BYTES_MAX))), "/");
    }

    #[test]
    fn the_login_page_knows_where_one_comes_from() {
        let check = |uri: &str, expected: &str| {
            let answer = redirect(&uri.parse().unwrap());
            assert_eq!(answer.headers()["location"], expected, "{uri}");
        };
        check("/", "/login");
        check("/parked?key=a%2Fb&x=1", "/login?next=%2Fparked%3Fkey%3Da%252Fb%26x%3D1");
    }
}

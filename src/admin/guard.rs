//! What every request passes: is the port closed, is the request from a page of ours, what may its client do, and is its form
//! ours? And what every answer gets: headers that keep browsers from doing more than is meant, and a page for each problem.

use std::time::{Duration, Instant};

use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, Uri, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use bytes::{Bytes, BytesMut};
use futures_util::StreamExt as _;
use serde::de::DeserializeOwned;
use tokio::time::timeout;

use super::access::{Access, Right, TokenRefused};
use super::connections::Client;
use super::fields::Fields;
use super::page;
use super::problem::{AdminProblem, ProblemCode};
use lanekeeper_core::secret::Secret;

/// The largest form or JSON body. A reason may have some thousand characters.
const BODY_BYTES_MAX: usize = 64 * 1024;
/// How long it may take to come.
const BODY_TIMEOUT: Duration = Duration::from_secs(10);
/// The field of each form with its anti-forgery token.
pub(super) const FORM_TOKEN: &str = "form_token";
const SEC_FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");
const SEC_FETCH_MODE: HeaderName = HeaderName::from_static("sec-fetch-mode");

/// On every answer except those of probes.
const SECURITY: [(HeaderName, &str); 8] = [
    (
        header::CONTENT_SECURITY_POLICY,
        "default-src 'none'; style-src 'self'; img-src 'self'; connect-src 'self'; script-src 'self'; form-action 'self'; \
         frame-ancestors 'none'; base-uri 'none'",
    ),
    (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    (header::X_FRAME_OPTIONS, "DENY"),
    // With `no-referrer`, browsers would send `Origin: null` with our own forms.
    (header::REFERRER_POLICY, "same-origin"),
    (header::CACHE_CONTROL, "no-store"),
    (HeaderName::from_static("cross-origin-resource-policy"), "same-origin"),
    (HeaderName::from_static("cross-origin-opener-policy"), "same-origin"),
    (HeaderName::from_static("x-robots-tag"), "noindex"),
];

/// Who gets the answers of a route.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Audience {
    /// Pages and forms. Changes need the form's anti-forgery token.
    People,
    /// JSON. Changes need a token in `Authorization`, which no page of others can send.
    Programs,
}

/// What a route needs.
#[derive(Clone, Debug)]
pub(super) struct Door {
    pub(super) access: Access,
    /// `None`: nothing.
    pub(super) needs: Option<Right>,
    pub(super) audience: Audience,
    /// It changes something, and has a body.
    pub(super) is_change: bool,
}

/// Who asks, among the extensions of a request that has passed.
#[derive(Clone, Debug)]
pub(super) struct Visitor {
    pub(super) access: Access,
    pub(super) right: Option<Right>,
    /// The id of the session, or what the login page has set.
    pub(super) cookie: Option<Secret>,
    pub(super) has_session: bool,
    /// [`Access::generation`] of then.
    generation: u64,
    pub(super) client: Client,
}

impl Visitor {
    /// The anti-forgery token for forms of this client; without a cookie none counts.
    pub(super) fn form_token(&self) -> String {
        self.cookie.as_ref().map(|cookie| self.access.form_token(cookie.reveal())).unwrap_or_default()
    }

    /// Returns true if what let it read holds still: tokens are those of then, and the session is not over.
    pub(super) fn may_still_read(&self) -> bool {
        let is_session = |id: &Secret| self.access.is_session(id.reveal(), Instant::now());
        self.generation == self.access.generation()
            && (!self.has_session || self.cookie.as_ref().is_some_and(is_session))
    }

    /// Returns true if it may change things.
    pub(super) fn may_change(&self) -> bool {
        self.right == Some(Right::Change)
    }

    /// Sets or, with an empty value, deletes a cookie.
    pub(super) fn set_cookie(&self, what: &str, value: &str) -> HeaderValue {
        let (name, secure) =
            (self.access.cookie_name(what), if self.client.has_tls { "; Secure" } else { "" });
        let ends = if value.is_empty() { "; Max-Age=0" } else { "" };
        HeaderValue::try_from(format!("{name}={value}; Path=/; HttpOnly; SameSite=Strict{secure}{ends}"))
            .expect("our names and values are ASCII")
    }
}

/// The body of a change by the API.
#[derive(Clone, Debug)]
pub(super) struct JsonBody(pub(super) Bytes);

impl JsonBody {
    /// What it says.
    pub(super) fn parse<T: DeserializeOwned>(&self) -> Result<T, AdminProblem> {
        serde_json::from_slice(&self.0).map_err(|error| {
            AdminProblem::new(ProblemCode::InvalidRequest, format!("the body is not understood: {error}"))
        })
    }
}

/// The cookies that there are.
pub(super) const SESSION: &str = "session";
pub(super) const LOGIN: &str = "login";

/// Lets a request pass, or says why not.
pub(super) async fn check(State(door): State<Door>, request: Request, next: Next) -> Response {
    let (uri, method) = (request.uri().clone(), request.method().clone());
    let (answer, visitor) = match pass(&door, request).await {
        Ok((visitor, request)) => (next.run(request).await, Some(visitor)),
        Err(problem) => (problem.into_response(), None),
    };
    finish(&door, &method, &uri, visitor.as_ref(), answer)
}

/// For what no route takes.
pub(super) fn missing(access: &Access, request: &Request, problem: AdminProblem) -> Response {
    let is_api = request.uri().path().starts_with("/api/");
    let audience = if is_api { Audience::Programs } else { Audience::People };
    let door = Door { access: access.clone(), needs: None, audience, is_change: false };
    let answer = if access.is_closed() { closed() } else { problem };
    finish(&door, request.method(), request.uri(), None, answer.into_response())
}

async fn pass(door: &Door, mut request: Request) -> Result<(Visitor, Request), AdminProblem> {
    if door.access.is_closed() {
        return Err(closed());
    }
    let host = host(request.headers())?;
    // Without a token, whoever reaches this port may read. A page of others must not, by a name of its own that leads here.
    if door.access.without_token().is_some() && !is_of_this_host(host) {
        return Err(not_of_this_host());
    }
    no_foreign_page(request.headers(), host, door.is_change)?;
    let (visitor, has_bearer) = visitor(door, &request)?;
    if door.needs > visitor.right {
        return Err(not_enough(door, &visitor));
    }
    if door.is_change {
        match door.audience {
            Audience::People => {
                let body = body(&mut request, "application/x-www-form-urlencoded").await?;
                let text = std::str::from_utf8(&body);
                let text =
                    text.map_err(|_| AdminProblem::new(ProblemCode::InvalidRequest, "a field is not UTF-8"))?;
                let fields = Fields::parse(text)?;
                let form_token = fields.get(FORM_TOKEN).unwrap_or_default();
                let is_ours = visitor
                    .cookie
                    .as_ref()
                    .is_some_and(|cookie| door.access.is_form_token(cookie.reveal(), form_token));
                if !is_ours {
                    return Err(AdminProblem::new(
                        ProblemCode::ForeignRequest,
                        "the form is not of this session: go back, load the page again, and send it once more",
                    ));
                }
                request.extensions_mut().insert(fields);
            }
            Audience::Programs => {
                if !has_bearer {
                    return Err(AdminProblem::new(
                        ProblemCode::Unauthorized,
                        "a change by the API needs `Authorization: Bearer` with admin.write_token; a login does not count here",
                    ));
                }
                let body = body(&mut request, "application/json").await?;
                request.extensions_mut().insert(JsonBody(body));
            }
        }
    }
    request.extensions_mut().insert(visitor.clone());
    Ok((visitor, request))
}

pub(super) fn not_of_this_host() -> AdminProblem {
    AdminProblem::new(
        ProblemCode::ForeignRequest,
        "ask for 127.0.0.1, [::1] or localhost, or set admin.read_token",
    )
}

pub(super) fn closed() -> AdminProblem {
    AdminProblem::new(
        ProblemCode::Closed,
        "set admin.read_token: other hosts reach this port, and what is served here has record keys and bodies",
    )
}

fn not_enough(door: &Door, visitor: &Visitor) -> AdminProblem {
    if door.needs == Some(Right::Change) && !door.access.can_change() {
        let detail = "nothing can be changed by this port, since admin.write_token is not set";
        return AdminProblem::new(ProblemCode::Forbidden, detail);
    }
    match (door.needs, visitor.right, visitor.has_session || door.access.without_token().is_none()) {
        (Some(Right::Change), Some(Right::Read), true) => {
            AdminProblem::new(ProblemCode::Forbidden, "this token may only read: use admin.write_token")
        }
        _ => AdminProblem::new(
            ProblemCode::Unauthorized,
            "log in, or show the token as `Authorization: Bearer TOKEN`",
        ),
    }
}

/// Who asks; and whether a token shows it.
fn visitor(door: &Door, request: &Request) -> Result<(Visitor, bool), AdminProblem> {
    let (access, now) = (door.access.clone(), Instant::now());
    let client = request.extensions().get::<Client>().expect("the server sets it").clone();
    let headers = request.headers();
    let mut visitor = Visitor {
        generation: access.generation(),
        right: access.without_token(),
        cookie: None,
        has_session: false,
        client,
        access,
    };
    if let Some(authorization) = headers.get(header::AUTHORIZATION) {
        let token = authorization.to_str().ok().and_then(bearer).ok_or_else(|| {
            AdminProblem::new(ProblemCode::Unauthorized, "write `Authorization: Bearer TOKEN`")
        })?;
        let right = check_token(&visitor, token, now)?;
        visitor.right = Some(right);
        return Ok((visitor, true));
    }
    let session = cookie(headers, &visitor.access.cookie_name(SESSION));
    match session.and_then(|id| Some((id, visitor.access.session(id, now)?))) {
        Some((id, right)) => {
            visitor.right = visitor.right.max(Some(right));
            visitor.cookie = Some(Secret::new(id));
            visitor.has_session = true;
        }
        None => visitor.cookie = cookie(headers, &visitor.access.cookie_name(LOGIN)).map(Secret::new),
    }
    Ok((visitor, false))
}

/// What a token is good for.
pub(super) fn check_token(visitor: &Visitor, token: &str, now: Instant) -> Result<Right, AdminProblem> {
    let wrong = "the token is wrong: it is neither admin.read_token nor admin.write_token";
    visitor.access.check_token(visitor.client.ip, token, now).map_err(|refused| refusal(refused, wrong))
}

/// What signs with the read token counts as one who shows it.
pub(super) fn check_signature(access: &Access, client: &Client, is_right: bool) -> Result<(), AdminProblem> {
    access.check_signature(client.ip, is_right, Instant::now()).map_err(|refused| {
        refusal(
            refused,
            "it is not signed with our admin.read_token for this port and not long ago: compare the tokens, admin.advertise, and the \
             clocks of both hosts, which may differ by five minutes",
        )
    })
}

fn refusal(refused: TokenRefused, wrong: &str) -> AdminProblem {
    match refused {
        TokenRefused::Wrong => AdminProblem::new(ProblemCode::Unauthorized, wrong),
        TokenRefused::TooMany(wait) => {
            let seconds = wait.as_secs() + 1;
            let detail = format!("no token is looked at for {seconds} s");
            AdminProblem::new(ProblemCode::TooManyWrongTokens, detail).retry_after(seconds)
        }
    }
}

fn bearer(authorization: &str) -> Option<&str> {
    let (scheme, token) = authorization.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| token.trim())
}

/// The value of a cookie. If it comes twice, as with one that another page on this host has set for a longer path, it does not
/// count.
fn cookie<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    let pairs = headers.get_all(header::COOKIE).iter().filter_map(|value| value.to_str().ok());
    let mut values = pairs
        .flat_map(|pairs| pairs.split(';'))
        .filter_map(|pair| pair.trim().split_once('=').filter(|(known, _)| *known == name));
    let (_, value) = values.next()?;
    values.next().is_none().then_some(value)
}

pub(super) fn host(headers: &HeaderMap) -> Result<&str, AdminProblem> {
    let mut hosts = headers.get_all(header::HOST).iter();
    match (hosts.next().and_then(|host| host.to_str().ok()), hosts.next()) {
        (Some(host), None) => Ok(host),
        _ => Err(AdminProblem::new(ProblemCode::InvalidRequest, "there must be one `Host`")),
    }
}

/// Returns true for a `Host` that only clients of this host can mean.
pub(super) fn is_of_this_host(host: &str) -> bool {
    let name = match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => name,
        _ => host,
    };
    matches!(name, "localhost" | "[::1]")
        || name.parse::<std::net::Ipv4Addr>().is_ok_and(|ip| ip.is_loopback())
}

/// Browsers say where a request comes from. A page of others may link here, and do nothing else. Programs say nothing.
pub(super) fn no_foreign_page(headers: &HeaderMap, host: &str, is_change: bool) -> Result<(), AdminProblem> {
    let text = |name: HeaderName| headers.get(name).map(|value| value.to_str().unwrap_or("?"));
    let is_ours = match text(SEC_FETCH_SITE) {
        None | Some("same-origin") => true,
        // Typed, or a bookmark: or a link that is followed.
        Some(site) => !is_change && (site == "none" || text(SEC_FETCH_MODE) == Some("navigate")),
    };
    let is_of_host = match text(header::ORIGIN) {
        None => true,
        Some(origin) => origin.split_once("://").is_some_and(|(scheme, authority)| {
            matches!(scheme, "http" | "https") && authority.eq_ignore_ascii_case(host)
        }),
    };
    if is_ours && is_of_host {
        return Ok(());
    }
    Err(AdminProblem::new(
        ProblemCode::ForeignRequest,
        "it was sent by a page of another origin; if a proxy stands in between, it must pass `Host` on",
    ))
}

/// Reads a bounded body of this type.
pub(super) async fn body(request: &mut Request, media_type: &str) -> Result<Bytes, AdminProblem> {
    let content_type = request.headers().get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
    let essence = content_type.and_then(|value| value.split(';').next()).unwrap_or_default().trim();
    if !essence.eq_ignore_ascii_case(media_type) {
        let detail = format!("send it as {media_type}");
        return Err(AdminProblem::new(ProblemCode::UnsupportedMediaType, detail));
    }
    let mut stream = std::mem::take(request.body_mut()).into_data_stream();
    let reading = async {
        let mut body = BytesMut::new();
        while let Some(part) = stream.next().await {
            let part =
                part.map_err(|_| AdminProblem::new(ProblemCode::InvalidRequest, "the body is not complete"))?;
            if body.len() + part.len() > BODY_BYTES_MAX {
                let detail = format!("a body may have {BODY_BYTES_MAX} bytes");
                return Err(AdminProblem::new(ProblemCode::TooLarge, detail));
            }
            body.extend_from_slice(&part);
        }
        Ok(body.freeze())
    };
    let detail = || format!("a body may take {} s", BODY_TIMEOUT.as_secs());
    timeout(BODY_TIMEOUT, reading)
        .await
        .unwrap_or_else(|_| Err(AdminProblem::new(ProblemCode::TooSlow, detail())))
}

fn finish(door: &Door, method: &Method, uri: &Uri, visitor: Option<&Visitor>, answer: Response) -> Response {
    let answer = match answer.extensions().get::<AdminProblem>().cloned() {
        Some(problem) if door.audience == Audience::People => {
            let is_page = matches!(*method, Method::GET | Method::HEAD);
            let headers = answer.headers();
            let mut page = if problem.code() == ProblemCode::Unauthorized && is_page {
                page::login::redirect(uri)
            } else {
                (problem.status(), page::problem(&door.access, visitor, &problem)).into_response()
            };
            if let Some(seconds) = headers.get(header::RETRY_AFTER) {
                page.headers_mut().insert(header::RETRY_AFTER, seconds.clone());
            }
            page
        }
        _ => answer,
    };
    with_security(answer)
}

/// With the headers that every answer has.
pub(super) fn with_security(mut answer: Response) -> Response {
    // What was not read of a body would be taken for the next request.
    let is_unread = matches!(
        answer.status(),
        StatusCode::PAYLOAD_TOO_LARGE | StatusCode::REQUEST_TIMEOUT | StatusCode::UNSUPPORTED_MEDIA_TYPE
    );
    let headers = answer.headers_mut();
    if is_unread {
        headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
    }
    for (name, value) in SECURITY {
        headers.entry(name).or_insert(HeaderValue::from_static(value));
    }
    answer
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_names_of_this_host_are_answered() {
        for host in ["127.0.0.1:9419", "127.0.0.1", "localhost:1", "[::1]:9419", "[::1]", "127.1.2.3:80"] {
            assert!(is_of_this_host(host), "{host}");
        }
        for host in ["", "evil.example:9419", "127.0.0.1.evil.example", "10.0.0.1:9419", "[::2]:80", "::1"] {
            assert!(!is_of_this_host(host), "{host}");
        }
    }

    #[test]
    fn what_a_page_of_others_sends_is_refused() {
        let check = |headers: &[(HeaderName, &'static str)], is_change, expected| {
            let headers: HeaderMap =
                headers.iter().map(|(name, value)| (name.clone(), HeaderValue::from_static(value))).collect();
            let passes = no_foreign_page(&headers, "lk.example:9419", is_change).is_ok();
            assert_eq!(passes, expected, "{headers:?} {is_change}");
        };
        let (site, mode, origin) = (SEC_FETCH_SITE, SEC_FETCH_MODE, header::ORIGIN);
        for is_change in [false, true] {
            check(&[], is_change, true);
            check(&[(site.clone(), "same-origin")], is_change, true);
            check(&[(origin.clone(), "http://lk.example:9419")], is_change, true);
            check(&[(origin.clone(), "https://LK.example:9419")], is_change, true);
            for foreign in
                ["null", "http://evil.example", "http://lk.example", "file://", "", "ftp://lk.example:9419"]
            {
                check(&[(origin.clone(), foreign)], is_change, false);
            }
            // A page on another port of this host.
            check(&[(site.clone(), "same-site"), (mode.clone(), "cors")], is_change, false);
            check(&[(site.clone(), "cross-site"), (mode.clone(), "no-cors")], is_change, false);
            check(&[(site.clone(), "cross-site"), (mode.clone(), "navigate")], is_change, !is_change);
            check(&[(site.clone(), "none"), (mode.clone(), "navigate")], is_change, !is_change);
        }
    }

    #[test]
    fn a_cookie_that_comes_twice_does_not_count() {
        let check = |cookies: &[&'static str], expected| {
            let mut headers = HeaderMap::new();
            for value in cookies {
                headers.append(header::COOKIE, HeaderValue::from_static(value));
            }
            assert_eq!(cookie(&headers, "a"), expected, "{cookies:?}");
        };
        check(&[], None);
        check(&["a=1"], Some("1"));
        check(&["b=2; a=1;c=3"], Some("1"));
        check(&["aa=2", "a=1="], Some("1="));
        check(&["a=1; a=2"], None);
        check(&["a=1", "b=1; a=1"], None);
    }
}

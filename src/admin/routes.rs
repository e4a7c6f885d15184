//! The one table of routes. A test compares what programs are offered with docs/openapi.json.

use axum::Router;
use axum::extract::{Request, State};
use axum::http::{Method, header};
use axum::middleware::from_fn_with_state;
use axum::response::Response;
use axum::routing::{MethodRouter, get, post};

use super::Parts;
use super::access::Right;
use super::guard::{self, Audience, Door};
use super::live;
use super::page;
use super::parked;
use super::paused;
use super::problem::{AdminProblem, ProblemCode};

/// The description of what programs are offered. A test compares it with the table.
const OPENAPI: &str = include_str!("../../docs/openapi.json");

/// What is served beside health and metrics.
pub(super) struct Route {
    pub(super) method: Method,
    /// As axum writes it.
    pub(super) path: &'static str,
    /// `None`: a client needs no right.
    pub(super) needs: Option<Right>,
    pub(super) audience: Audience,
    handler: MethodRouter<Parts>,
}

/// All of them.
pub(super) fn routes() -> Vec<Route> {
    use Audience::{People, Programs};
    let route =
        |method: Method, path, needs, audience, handler| Route { method, path, needs, audience, handler };
    let page = |path, handler| route(Method::GET, path, Some(Right::Read), People, handler);
    let asset = |path, media_type, text| {
        let handler = get(move || async move { ([(header::CONTENT_TYPE, media_type)], text) });
        route(Method::GET, path, None, People, handler)
    };
    let form = |path, handler| route(Method::POST, path, Some(Right::Change), People, handler);
    let api = |path, handler| route(Method::GET, path, Some(Right::Read), Programs, handler);
    let change = |path, handler| route(Method::POST, path, Some(Right::Change), Programs, handler);
    vec![
        page("/", get(page::overview::overview)),
        page("/events", get(live::events::events)),
        page("/record", get(page::record::record)),
        page("/partition", get(page::record::partition)),
        page("/target", get(page::target::target)),
        page("/door", get(page::door::door)),
        page("/parked", get(page::parked::search)),
        page("/parked/record", get(page::parked_record::record)),
        page("/paused", get(page::paused::paused)),
        form("/target/pause", post(page::pause::pause_target)),
        form("/target/resume", post(page::pause::resume_target)),
        form("/record/pause", post(page::pause::pause_record)),
        form("/record/resume", post(page::pause::resume_record)),
        form("/parked/release", post(page::change::release)),
        form("/parked/discard", post(page::change::discard)),
        form("/parked/release-found", post(page::change::release_found)),
        page("/parked/releasing", get(page::change::releasing)),
        form("/parked/releasing/stop", post(page::change::stop)),
        page("/updates", get(page::kept::update_ids)),
        page("/changes", get(page::kept::changes)),
        api("/api/openapi.json", get(|| async { ([(header::CONTENT_TYPE, "application/json")], OPENAPI) })),
        api("/api/status", get(live::api::status)),
        api("/api/records/{key}", get(live::api::record_by_path)),
        api("/api/record", get(live::api::record_by_query)),
        api("/api/partition", get(live::api::partition)),
        api("/api/target", get(live::api::target)),
        change("/api/target/pause", post(paused::api::pause_target)),
        change("/api/target/resume", post(paused::api::resume_target)),
        change("/api/record/pause", post(paused::api::pause_record)),
        change("/api/record/resume", post(paused::api::resume_record)),
        api("/api/paused/targets", get(paused::api::targets)),
        api("/api/paused/records", get(paused::api::records)),
        api("/api/parked", get(parked::api::search)),
        api("/api/parked/updates", get(parked::api::updates)),
        api("/api/parked/body", get(parked::body::download)),
        api("/api/parked/export", get(parked::export::export)),
        change("/api/parked/release", post(parked::api::release)),
        change("/api/parked/discard", post(parked::api::discard)),
        api("/api/parked/release-found", get(parked::api::found_release)),
        change("/api/parked/release-found", post(parked::api::release_found)),
        change("/api/parked/release-found/stop", post(parked::api::stop_found_release)),
        api("/api/updates", get(parked::api::update_ids)),
        api("/api/changes", get(parked::api::changes)),
        route(Method::GET, "/login", None, People, get(page::login::form)),
        route(Method::POST, "/login", None, People, post(page::login::log_in)),
        route(Method::POST, "/logout", None, People, post(page::login::log_out)),
        asset("/assets/style.css", "text/css; charset=utf-8", include_str!("assets/style.css")),
        asset("/assets/live.js", "text/javascript; charset=utf-8", include_str!("assets/live.js")),
        asset("/assets/icon.svg", "image/svg+xml", include_str!("assets/icon.svg")),
    ]
}

/// The table as axum uses it.
pub(super) fn router(parts: &Parts) -> Router {
    let mut router = Router::new();
    for Route { method, path, needs, audience, handler } in routes() {
        let is_change = method != Method::GET;
        let door = Door { access: parts.access.clone(), needs, audience, is_change };
        router = router.route(path, handler.layer(from_fn_with_state(door, guard::check)));
    }
    router.fallback(not_found).method_not_allowed_fallback(method_not_allowed).with_state(parts.clone())
}

async fn not_found(State(parts): State<Parts>, request: Request) -> Response {
    let problem = AdminProblem::new(ProblemCode::NotFound, "look at the overview, or at /api/openapi.json");
    guard::missing(&parts.access, &request, problem)
}

async fn method_not_allowed(State(parts): State<Parts>, request: Request) -> Response {
    let problem = AdminProblem::new(ProblemCode::MethodNotAllowed, "look at /api/openapi.json");
    guard::missing(&parts.access, &request, problem)
}

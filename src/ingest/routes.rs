//! The one table of routes. A test compares it with docs/ingest-openapi.json.

use std::ops::Deref;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::SystemTime;

use axum::Router;
use axum::body::Body;
use axum::extract::State;
use axum::http::{Method, Request};
use axum::response::{IntoResponse as _, Response};
use axum::routing::{MethodFilter, on};
use tracing::debug;

use super::body::BodyBudget;
use super::clients::Clients;
use super::door::Door;
use super::guesses::Guesses;
use super::hooks::{self, Hooks};
use super::metrics::IngestMetrics;
use super::problem::{DoorProblem, DoorProblemCode};
use super::request::{self, RequestLimits};
use super::senders::SenderNumbers;
use super::statistics::DoorStatistics;
use crate::config::IngestConfig;
use crate::wall_time::unix_millis;

/// What a request needs, as it was when the request began.
#[derive(Debug)]
pub(super) struct Served {
    pub(super) common: Common,
    pub(super) clients: Clients,
    pub(super) hooks: Hooks,
    pub(super) senders: SenderNumbers,
    pub(super) limits: RequestLimits,
}

/// What stays when the config changes. Cheap to clone.
#[derive(Clone, Debug)]
pub(super) struct Common {
    pub(super) door: Door,
    pub(super) guesses: Guesses,
    pub(super) budget: BodyBudget,
    /// Of webhooks, whose senders are not known before their bodies are read.
    pub(super) hook_budget: BodyBudget,
    pub(super) body_bytes_max: usize,
    pub(super) metrics: IngestMetrics,
    pub(super) statistics: DoorStatistics,
}

impl Common {
    /// With what this config says of clients, hooks and requests.
    pub(super) fn served(&self, config: &IngestConfig) -> Served {
        self.statistics.change(config);
        Served {
            clients: Clients::new(&config.clients),
            hooks: Hooks::new(config),
            senders: self.door.change_senders(config),
            limits: RequestLimits::new(config, self.body_bytes_max),
            common: self.clone(),
        }
    }
}

impl Deref for Served {
    type Target = Common;

    fn deref(&self) -> &Common {
        &self.common
    }
}

/// What the next request needs. Cheap to clone.
#[derive(Clone, Debug)]
pub(super) struct CurrentServed(Arc<RwLock<Arc<Served>>>);

impl CurrentServed {
    pub(super) fn new(served: Served) -> Self {
        Self(Arc::new(RwLock::new(Arc::new(served))))
    }

    pub(super) fn get(&self) -> Arc<Served> {
        Arc::clone(&self.0.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Requests that have begun go on with what was there before.
    pub(super) fn change(&self, served: Served) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(served);
    }
}

/// A route that takes updates.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Takes {
    /// One, whose record is in the path.
    ByKey,
    /// One, whose record and id are in the path.
    ByKeyAndId,
    /// Several, or an event.
    Several,
    /// A webhook of somebody else.
    Hook,
}

/// Method and path of each, as axum writes them.
const ROUTES: [(Method, &str, Takes); 4] = [
    (Method::POST, "/updates/{record_key}", Takes::ByKey),
    (Method::PUT, "/updates/{record_key}/{update_id}", Takes::ByKeyAndId),
    (Method::POST, "/updates", Takes::Several),
    (Method::POST, "/hooks/{name}", Takes::Hook),
];

/// The table as axum uses it.
pub(super) fn router(served: CurrentServed) -> Router {
    let mut router = Router::new();
    for (method, path, takes) in ROUTES {
        let filter = MethodFilter::try_from(method).expect("each method has a filter");
        let handler = move |State(served): State<CurrentServed>, request: Request<Body>| async move {
            let served = served.get();
            let answer = answer(&served, takes, request).await;
            finish(&served, path, answer)
        };
        router = router.route(path, on(filter, handler));
    }
    router.fallback(not_found).method_not_allowed_fallback(method_not_allowed).with_state(served)
}

async fn answer(served: &Served, takes: Takes, request: Request<Body>) -> Result<Response, DoorProblem> {
    // As they are written: axum's own extraction would decode them, and answer faults in its own words.
    let path = request.uri().path().to_owned();
    let mut segments = path.split('/').skip(2);
    let (first, second) = (segments.next().unwrap_or_default(), segments.next());
    match takes {
        Takes::ByKey => request::single(served, first, None, request).await,
        Takes::ByKeyAndId => request::single(served, first, second, request).await,
        Takes::Several => request::several(served, request).await,
        Takes::Hook => hooks::receive(served, first, request).await,
    }
}

async fn not_found(State(served): State<CurrentServed>) -> Response {
    let detail = "updates go to /updates/{record_key}, /updates/{record_key}/{update_id} or /updates, webhooks to /hooks/{name}";
    finish(&served.get(), "other", Err(DoorProblem::new(DoorProblemCode::NotFound, detail)))
}

async fn method_not_allowed(State(served): State<CurrentServed>) -> Response {
    let detail =
        "POST to /updates/{record_key}, /updates or /hooks/{name}, PUT to /updates/{record_key}/{update_id}";
    finish(&served.get(), "other", Err(DoorProblem::new(DoorProblemCode::Method, detail)))
}

fn finish(served: &Served, route: &'static str, answer: Result<Response, DoorProblem>) -> Response {
    let answer = answer.unwrap_or_else(|problem| {
        let code = problem.code().name();
        debug!(route, code, "request refused");
        served.metrics.problem(&code);
        served.statistics.refused(&problem, unix_millis(SystemTime::now()));
        problem.into_response()
    });
    served.metrics.answered(route, answer.status());
    answer
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use serde_json::Value as Json;
    use strum::VariantArray as _;

    use super::*;

    #[test]
    fn each_route_and_each_problem_is_described_and_nothing_else() {
        let document: Json = serde_json::from_str(include_str!("../../docs/ingest-openapi.json")).unwrap();
        let mut described = BTreeSet::new();
        for (path, operations) in document["paths"].as_object().unwrap() {
            for (method, operation) in operations.as_object().unwrap() {
                assert!(operation["responses"]["default"].is_object(), "{path}: problems are described");
                described.insert((method.to_uppercase(), path.clone()));
            }
        }
        let served = ROUTES.iter().map(|(method, path, _)| (method.to_string(), (*path).to_owned()));
        assert_eq!(described, served.collect());
        let codes: Vec<String> = DoorProblemCode::VARIANTS.iter().map(|code| code.name()).collect();
        let described = &document["components"]["schemas"]["Problem"]["properties"]["code"]["enum"];
        assert_eq!(*described, serde_json::json!(codes));
        let page = include_str!("../../docs/ingest.md");
        for code in codes {
            assert!(page.contains(&format!("`{code}`")), "docs/ingest.md explains {code}");
        }
    }
}

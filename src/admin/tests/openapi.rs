//! docs/openapi.json describes what programs are offered, and nothing else.

use std::collections::{BTreeMap, BTreeSet};

use axum::http::Method;
use serde_json::Value as Json;
use strum::VariantArray as _;

use super::super::access::Right;
use super::super::guard::Audience;
use super::super::problem::ProblemCode;
use super::super::routes::routes;

fn described() -> Json {
    serde_json::from_str(include_str!("../../../docs/openapi.json")).unwrap()
}

#[test]
fn each_route_of_programs_is_described_with_the_right_that_it_needs() {
    let right = |needs| match needs {
        None => Vec::new(),
        Some(Right::Read) => vec!["read"],
        Some(Right::Change) => vec!["change"],
    };
    let served: BTreeMap<(String, String), Vec<&str>> = routes()
        .iter()
        .filter(|route| route.audience == Audience::Programs)
        .map(|route| {
            assert!(route.path.starts_with("/api/"), "{}: problems there are JSON", route.path);
            ((route.path.to_owned(), route.method.as_str().to_lowercase()), right(route.needs))
        })
        .collect();
    let document = described();
    let mut found = BTreeMap::new();
    for (path, operations) in document["paths"].as_object().unwrap() {
        for (method, operation) in operations.as_object().unwrap() {
            let security = operation["security"].as_array().unwrap();
            let rights = security.iter().flat_map(|one| one["token"].as_array().unwrap());
            let rights: Vec<&str> = rights.map(|right| right.as_str().unwrap()).collect();
            assert!(operation["responses"]["default"].is_object(), "{path}: problems are described");
            found.insert((path.clone(), method.clone()), rights);
        }
    }
    assert_eq!(found, served);
    let operations = document["paths"].as_object().unwrap().values().filter_map(Json::as_object);
    let ids: BTreeSet<&str> = operations
        .flat_map(|operations| operations.values().filter_map(|operation| operation["operationId"].as_str()))
        .collect();
    assert_eq!(ids.len(), served.len(), "each has a name of its own");
}

#[test]
fn each_route_of_people_is_no_api() {
    for route in routes().iter().filter(|route| route.audience == Audience::People) {
        assert!(!route.path.starts_with("/api/"), "{}", route.path);
        let changes = route.method == Method::POST;
        let is_session = matches!(route.path, "/login" | "/logout");
        assert_eq!(changes && !is_session, route.needs == Some(Right::Change), "{}", route.path);
    }
}

#[test]
fn each_code_of_a_problem_is_described() {
    let codes: Vec<String> = ProblemCode::VARIANTS.iter().map(|code| code.name()).collect();
    assert_eq!(
        described()["components"]["schemas"]["Problem"]["properties"]["code"]["enum"],
        serde_json::json!(codes)
    );
}

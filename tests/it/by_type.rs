//! APIs with rules of their own, connected by config alone. Judged by what the API saw.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use axum::extract::State;
use axum::http::{Method, StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use axum::{Json, Router};
use serde_json::{Value, json};

use crate::harness::{World, until};

/// An API of customers that answers 200 to everything, and says in the body what went wrong.
#[derive(Clone, Default)]
struct Api {
    /// By customer: method, target and body of each request that was applied.
    applied: Arc<Mutex<BTreeMap<String, Vec<String>>>>,
    /// Customers that were busy once.
    busy: Arc<Mutex<BTreeMap<String, u32>>>,
}

impl Api {
    async fn start(&self) -> String {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port is free");
        let address = listener.local_addr().expect("it is bound");
        let router = Router::new().fallback(answer).with_state(self.clone());
        tokio::spawn(async move { axum::serve(listener, router).await });
        format!("http://{address}")
    }
}

async fn answer(State(api): State<Api>, method: Method, uri: Uri, body: String) -> Response {
    let in_path = uri.path().strip_prefix("/customers/").map(ToOwned::to_owned);
    let in_body =
        serde_json::from_str::<Value>(&body).ok().and_then(|body| Some(body["ref"].as_str()?.to_owned()));
    let Some(customer) = in_path.or(in_body) else { return StatusCode::NOT_FOUND.into_response() };
    let refused = |code: &str| Json(json!({ "error": { "code": code } })).into_response();
    if customer == "c-bad" {
        return refused("invalid_customer");
    }
    // Each first request of a customer, and of those that follow every third.
    let mut busy = api.busy.lock().expect("nothing panics with it");
    let requests = busy.entry(customer.clone()).or_default();
    *requests += 1;
    if *requests % 3 == 1 {
        return refused("locked");
    }
    let request = format!("{method} {uri} {body}");
    api.applied.lock().expect("nothing panics with it").entry(customer).or_default().push(request);
    Json(json!({ "error": null, "ok": true })).into_response()
}

/// The target of docs/connecting.md.
fn target(api: &str) -> String {
    let document = include_str!("../../docs/connecting.md");
    let sections = ["## Method, URL and body by type", "## An API that answers 200 with an error"];
    let configs = sections.map(|heading| {
        let section = document.split_once(heading).unwrap_or_else(|| panic!("{heading} is there")).1;
        let config = section.split_once("```toml\n").expect("it has a config").1;
        config.split_once("```").expect("it ends").0
    });
    // The second has the rows of answers alone, which end the target of the first.
    let rows = configs[1].find("[[target.answers]]").expect("it has rows");
    let whole = format!("{}\n{}", configs[0], &configs[1][rows..]);
    whole.replace("https://api.example", api)
}

#[tokio::test(flavor = "multi_thread")]
async fn created_updated_and_deleted_become_post_put_and_delete_of_one_api() {
    let (world, api) = (World::new("by-type").await, Api::default());
    let quick = "updates.partitions = 2\nretry.delay_initial = \"50ms\"\nretry.delay_max = \"100ms\"";
    let config = world.config(quick);
    let common = config.split_once("[[target]]").expect("it has a target").0;
    let dispatcher = world.start(&format!("{common}{}", target(&api.start().await)));
    dispatcher.ready().await;
    let customers: Vec<String> = (0..20).map(|number| format!("c-{number}")).collect();
    let update = |key: &str, kind: &str, body: Value| json!({ "key": key, "id": format!("{key}-{kind}"), "type": format!("customer.{kind}"), "body": body });
    let of_customer = |key: &String| {
        let body = json!({ "name": format!("N\"{key}"), "credit": { "amount": 10, "id": 9_007_199_254_740_993_u64 } });
        [
            update(key, "created", body.clone()),
            update(key, "updated", body),
            update(key, "deleted", json!({})),
        ]
    };
    let bad = [update("c-bad", "updated", json!({ "name": "x", "credit": { "amount": 1, "id": 1 } }))];
    world.publish(customers.iter().flat_map(of_customer).chain(bad)).await;

    let applied = until("60 applied requests", || async {
        let applied = api.applied.lock().expect("nothing panics with it").clone();
        let count: usize = applied.values().map(Vec::len).sum();
        if count == 60 { Ok(applied) } else { Err(format!("{count} applied")) }
    })
    .await;
    for key in &customers {
        let number = 9_007_199_254_740_993_u64;
        let members = format!(r#""name": "N\"{key}", "credit": {{"amount":10,"id":{number}}}"#);
        let expected = [
            format!(r#"POST /customers {{"ref": "{key}", {members}}}"#),
            format!(r"PUT /customers/{key} {{{members}}}"),
            format!("DELETE /customers/{key}?reason=deleted "),
        ];
        assert_eq!(applied[key], expected, "in order, and each once");
    }
    let dead = dispatcher.metric("lanekeeper_updates_dead_lettered_total").await;
    assert!((dead - 1.0).abs() < f64::EPSILON, "the rejected one: {dead}");
}

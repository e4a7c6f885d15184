//! The configs of docs/connecting/zapier-make.md as they stand there: only hosts and the exchange are replaced.

use std::collections::BTreeMap;

use reqwest::{RequestBuilder, StatusCode};
use serde_json::json;

use super::{Ingest, WithJson as _, answer, config_in, dispatcher_to, updates_to};
use crate::harness::{StandIn, World, assert_flawless, http, until};

const PAGE: &str = include_str!("../../../docs/connecting/zapier-make.md");
const TOKENS: [(&str, &str); 2] =
    [("${ZAPIER_DOOR_TOKEN}", "0123456789abcdef-zapier"), ("${MAKE_DOOR_TOKEN}", "0123456789abcdef-make")];

#[tokio::test(flavor = "multi_thread")]
async fn steps_that_are_run_again_send_the_same_update() {
    let world = World::new("zapier-make-in").await;
    let _dispatcher = world.dispatcher(&world.ledger()).await;
    let config = config_in(PAGE, "From a Zap or a scenario to Lanekeeper");
    let clients = TOKENS.iter().fold(config.to_owned(), |config, (name, token)| config.replace(name, token));
    let door = Ingest::of_clients(&world, &clients).await;
    let put = |key: &str, change: u64| {
        let url = format!("http://{}/updates/{key}/{key}-{change}?type=order.updated", door.address);
        http().put(url).json(&json!({ "sequence": change }))
    };
    let zap = |change| put("order-1", change).bearer_auth(TOKENS[0].1);
    let scenario = |change| put("order-2", change).header("x-door-token", TOKENS[1].1);
    let sent = async |step: RequestBuilder, state: &str| {
        let (status, body) = answer(step).await;
        assert_eq!((status, &body["state"]), (StatusCode::ACCEPTED, &json!(state)), "{body}");
    };
    for change in 1..=3 {
        for state in ["accepted", "known"] {
            sent(zap(change), state).await;
            sent(scenario(change), state).await;
        }
    }
    let crossed = put("order-3", 1).header("x-door-token", TOKENS[0].1);
    assert_eq!(answer(crossed).await.0, StatusCode::UNAUTHORIZED, "each token has its header");
    assert_flawless(&world.applied(6).await, 6);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_webhook_of_a_zap_or_a_scenario_gets_each_update_for_it_in_order() {
    let world = World::new("zapier-make-out").await;
    let webhooks = StandIn::start(|_| (200, "\"Accepted\"".to_owned())).await;
    let target = config_in(PAGE, "From Lanekeeper to a Zap or a scenario");
    let url = |app: &str| format!("http://{}/{app}", webhooks.address());
    let variables = [("ZAPIER_WEBHOOK_URL", &*url("zapier")), ("MAKE_WEBHOOK_URL", &*url("make"))];
    let _dispatcher = dispatcher_to(&world, target, &variables).await;
    // Each app gets records of its own.
    let of = |app: &'static str| {
        updates_to(app, 10, 4).map(move |mut update| {
            update["key"] = json!(format!("{app}-{}", update["key"].as_str().expect("it has a key")));
            update
        })
    };
    world.publish(of("zapier").chain(of("make"))).await;
    until("the webhooks", || async {
        match webhooks.seen().len() {
            80 => Ok(()),
            requests => Err(requests.to_string()),
        }
    })
    .await;
    let mut by_record: BTreeMap<(String, String), Vec<String>> = BTreeMap::new();
    for request in webhooks.seen() {
        let header = |name| request.header(name).expect("each request has it").to_owned();
        let record = (request.uri.path().to_owned(), header("lanekeeper-record-key"));
        by_record.entry(record).or_default().push(header("idempotency-key"));
    }
    assert_eq!(by_record.len(), 20);
    for ((path, record), ids) in by_record {
        let number = record.strip_prefix(&format!("{}-record-", &path[1..])).expect("it is one for this app");
        let expected: Vec<String> = (1..=4).map(|sequence| format!("{number}-{sequence}")).collect();
        assert_eq!(ids, expected, "{record}");
    }
}

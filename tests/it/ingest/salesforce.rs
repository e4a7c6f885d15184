//! The configs of docs/connecting/salesforce.md as they stand there, against a stand-in that behaves as the documentation of
//! Salesforce says: only hosts and the exchange are replaced.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use reqwest::StatusCode;
use serde_json::{Value, json};

use super::{Ingest, WithJson as _, answer, config_in, dispatcher_to, updates_to};
use crate::harness::{StandIn, World, assert_flawless, http, until};

const PAGE: &str = include_str!("../../../docs/connecting/salesforce.md");
const TOKEN: &str = "0123456789abcdef-salesforce";
const UPSERT: &str = "/services/data/v62.0/sobjects/Account/External_Id__c/";

/// An error as Salesforce writes it.
fn fault(status: u16, code: &str) -> (u16, String) {
    (status, json!([{"message": "for a person", "errorCode": code}]).to_string())
}

#[tokio::test(flavor = "multi_thread")]
async fn records_are_upserted_in_order_through_locks_and_an_expired_token() {
    let world = World::new("salesforce").await;
    let upserted: &'static Mutex<BTreeMap<String, Vec<u64>>> = Box::leak(Box::default());
    let locked: &'static Mutex<BTreeSet<(String, u64)>> = Box::leak(Box::default());
    let tokens: &'static AtomicUsize = Box::leak(Box::default());
    let salesforce = StandIn::start(|request| {
        let body = String::from_utf8_lossy(&request.body).into_owned();
        if request.uri.path() == "/services/oauth2/token" {
            let asks = ["grant_type=client_credentials", "client_id=k3y", "client_secret=s3cret"];
            if !asks.iter().all(|part| body.contains(part)) {
                return (400, json!({"error": "invalid_client"}).to_string());
            }
            let number = tokens.fetch_add(1, Ordering::Relaxed) + 1;
            return (200, json!({"access_token": format!("t{number}"), "token_type": "Bearer"}).to_string());
        }
        let upserts = upserted.lock().expect("no panic").values().map(Vec::len).sum::<usize>();
        // The first token expires in the midst of it.
        let good = if upserts < 12 { "Bearer t1" } else { "Bearer t2" };
        if request.header("authorization") != Some(good) {
            return fault(401, "INVALID_SESSION_ID");
        }
        let key = request.uri.path().strip_prefix(UPSERT).expect("it is an upsert").to_owned();
        let body: Value = serde_json::from_str(&body).expect("it is JSON");
        let sequence = body["sequence"].as_u64().expect("the updates have one");
        if key == "record-9" {
            return (300, json!([format!("{UPSERT}one"), format!("{UPSERT}two")]).to_string());
        }
        if sequence == 2 && locked.lock().expect("no panic").insert((key.clone(), sequence)) {
            return fault(400, "UNABLE_TO_LOCK_ROW");
        }
        upserted.lock().expect("no panic").entry(key).or_default().push(sequence);
        (if sequence == 1 { 201 } else { 200 }, json!({"success": true, "errors": []}).to_string())
    })
    .await;
    let target = config_in(PAGE, "From Lanekeeper to Salesforce")
        .replace("https://acme.my.salesforce.com", &format!("http://{}", salesforce.address()));
    let variables = [("SALESFORCE_CONSUMER_KEY", "k3y"), ("SALESFORCE_CONSUMER_SECRET", "s3cret")];
    let dispatcher = dispatcher_to(&world, &target, &variables).await;
    world.publish(updates_to("salesforce", 10, 3)).await;
    let expected: BTreeMap<String, Vec<u64>> =
        (0..9).map(|record| (format!("record-{record}"), vec![1, 2, 3])).collect();
    until("the upserts", || async {
        let seen = upserted.lock().expect("no panic").clone();
        if seen == expected { Ok(()) } else { Err(format!("{seen:?}")) }
    })
    .await;
    until("the record that is there twice to be parked", || async {
        let parked = dispatcher.metric("lanekeeper_updates_parked_total").await;
        if (parked - 3.0).abs() < 0.5 { Ok(()) } else { Err(parked.to_string()) }
    })
    .await;
    assert_eq!(tokens.load(Ordering::Relaxed), 2, "one token for all, and one in its place");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_callout_of_a_flow_is_an_update() {
    let world = World::new("salesforce-in").await;
    let _dispatcher = world.dispatcher(&world.ledger()).await;
    let config = config_in(PAGE, "From a flow to Lanekeeper").replace("${SALESFORCE_DOOR_TOKEN}", TOKEN);
    let door = Ingest::of_clients(&world, &config).await;
    let call = |change: u64| {
        let id = format!("001A-2026-11-30T12:00:0{change}Z");
        let url = format!("http://{}/updates/001A/{id}?type=account.updated", door.address);
        let request = http().put(url);
        request.header("x-door-token", TOKEN).json(&json!({"sequence": change}))
    };
    for change in 1..=3 {
        // A flow that is repeated makes the same call.
        for state in ["accepted", "known"] {
            let (status, body) = answer(call(change)).await;
            assert_eq!((status, &body["state"]), (StatusCode::ACCEPTED, &json!(state)));
        }
    }
    assert_flawless(&world.applied(3).await, 3);
}

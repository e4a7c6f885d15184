//! The configs of docs/connecting/workato.md as they stand there, against a stand-in that behaves as Workato's documentation
//! says: only hosts and the exchange are replaced.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Mutex;
use std::time::Duration;

use lanekeeper_core::update::RecordKey;
use reqwest::StatusCode;
use serde_json::{Value, json};

use super::{Ingest, WithJson as _, answer, config_in, dispatcher_to, updates_to};
use crate::harness::{SeenRequest, StandIn, World, assert_flawless, http, until};

const PAGE: &str = include_str!("../../../docs/connecting/workato.md");
const TOKEN: &str = "0123456789abcdef-workato";

/// A recipe with concurrency 1. Its action repeats a PUT by itself if no answer comes in time.
async fn run_recipe(address: String, customer: usize, jobs: u64) {
    for job in 1..=jobs {
        let path = format!("updates/customer-{customer}/job-{customer}-{job}?type=customer.updated");
        let url = format!("http://{address}/{path}");
        let put = || http().put(&url).bearer_auth(TOKEN).json(&json!({ "sequence": job }));
        if job % 3 == 0 {
            let _ = put().timeout(Duration::from_millis(1)).send().await;
        }
        let (status, body) = answer(put()).await;
        assert_eq!(status, StatusCode::ACCEPTED, "{body}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn recipes_that_repeat_requests_send_each_update_once_and_in_order() {
    let world = World::new("workato-in").await;
    let _dispatcher = world.dispatcher(&world.ledger()).await;
    let config = config_in(PAGE, "From a recipe to Lanekeeper").replace("${WORKATO_DOOR_TOKEN}", TOKEN);
    let door = Ingest::of_clients(&world, &config).await;
    let recipes = (0..4).map(|customer| tokio::spawn(run_recipe(door.address.clone(), customer, 12)));
    for recipe in recipes.collect::<Vec<_>>() {
        recipe.await.expect("every job ends well");
    }
    let report = world.applied(48).await;
    assert_flawless(&report, 48);
    let wrong = http().put(format!("http://{}/updates/c/j", door.address)).bearer_auth("another-token-0123");
    assert_eq!(answer(wrong.json(&json!({}))).await.0, StatusCode::UNAUTHORIZED);
}

fn record_key(request: &SeenRequest) -> RecordKey {
    RecordKey::new(request.header("lanekeeper-record-key").expect("each request has it")).expect("a key")
}

fn sequence(request: &SeenRequest) -> u64 {
    let body: Value = serde_json::from_slice(&request.body).expect("it is JSON");
    body["sequence"].as_u64().expect("the updates have one")
}

/// What Workato did of each record, in order.
type Jobs = BTreeMap<String, Vec<u64>>;

async fn until_jobs(jobs: &Mutex<Jobs>, expected: &Jobs) {
    until("the jobs", || async {
        let seen = jobs.lock().expect("no panic").clone();
        if seen == *expected { Ok(()) } else { Err(format!("{seen:?}")) }
    })
    .await;
}

fn all_of(records: usize, each: u64) -> Jobs {
    (0..records).map(|record| (format!("record-{record}"), (1..=each).collect())).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_api_recipe_gets_the_next_update_when_it_has_done_the_one_before() {
    let world = World::new("workato-api").await;
    let jobs: &'static Mutex<Jobs> = Box::leak(Box::default());
    let failed: &'static Mutex<BTreeSet<String>> = Box::leak(Box::default());
    let workato = StandIn::start(|request| {
        if request.header("api-token") != Some("t0ken") {
            return (401, "{}".to_owned());
        }
        let id = request.header("idempotency-key").expect("each request has it").to_owned();
        let (key, sequence) = (record_key(request), sequence(request));
        // Some steps fail once. One record is never good enough.
        if key.as_str() == "record-9" {
            return (422, json!({"error": "no such country"}).to_string());
        }
        if sequence.is_multiple_of(2) && failed.lock().expect("no panic").insert(id) {
            return (500, "{}".to_owned());
        }
        jobs.lock().expect("no panic").entry(key.as_str().to_owned()).or_default().push(sequence);
        (200, json!({"done": true}).to_string())
    })
    .await;
    let target = config_in(PAGE, "From Lanekeeper to a recipe, answered when it is done");
    let url = format!("http://{}/customers/v1/changed", workato.address());
    let variables = [("WORKATO_API_URL", &*url), ("WORKATO_API_TOKEN", "t0ken")];
    let dispatcher = dispatcher_to(&world, target, &variables).await;
    world.publish(updates_to("workato-api", 10, 4)).await;
    until_jobs(jobs, &all_of(9, 4)).await;
    until("the record that is never good enough to be parked", || async {
        let parked = dispatcher.metric("lanekeeper_updates_parked_total").await;
        if (parked - 4.0).abs() < 0.5 { Ok(()) } else { Err(parked.to_string()) }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_webhook_trigger_starts_one_job_for_each_update_in_order() {
    let world = World::new("workato-webhook").await;
    let jobs: &'static Mutex<Jobs> = Box::leak(Box::default());
    let known: &'static Mutex<BTreeSet<String>> = Box::leak(Box::default());
    let workato = StandIn::start(|request| {
        let id = request.header("x-workato-dedup").expect("each request has it").to_owned();
        let fresh = known.lock().expect("no panic").insert(id);
        if fresh {
            let key = record_key(request).as_str().to_owned();
            jobs.lock().expect("no panic").entry(key).or_default().push(sequence(request));
        }
        // The event is taken, and the answer comes from a gateway that fails on its way: it is sent again.
        if fresh && sequence(request) == 2 { (502, "{}".to_owned()) } else { (200, "{}".to_owned()) }
    })
    .await;
    let target = config_in(PAGE, "From Lanekeeper to a webhook trigger");
    let url = format!("http://{}/webhooks/rest/1234/changed", workato.address());
    let _dispatcher = dispatcher_to(&world, target, &[("WORKATO_WEBHOOK_URL", &url)]).await;
    // What a recipe has sent by a door does not come back.
    world.publish([json!({"key": "record-0", "id": "job-1", "type": "customer.updated", "body": {}})]).await;
    world.publish(updates_to("workato", 10, 4)).await;
    until_jobs(jobs, &all_of(10, 4)).await;
    until("the requests", || async {
        match workato.seen().len() {
            50 => Ok(()),
            requests => Err(requests.to_string()),
        }
    })
    .await;
}

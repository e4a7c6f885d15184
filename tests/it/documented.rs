//! The configs of docs/connecting.md that say who we are, as they stand there: only hosts and the directory of secrets are
//! replaced. (`by_type.rs` has those of the other sections.)

use std::collections::BTreeMap;

use serde_json::json;
use standardwebhooks::Webhook;

use crate::harness::{
    Authority, Dispatcher, HttpsTarget, SeenRequest, StandIn, World, lanekeeper_command, until, updates,
};

const SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";

/// The first config of a section.
fn config_of(section: &str) -> &'static str {
    let page = include_str!("../../docs/connecting.md");
    let (_, section) =
        page.split_once(&format!("\n{section}\n")).unwrap_or_else(|| panic!("{section} is there"));
    let (_, config) = section.split_once("```toml\n").expect("it has a config");
    config.split_once("```").expect("it ends").0
}

/// A dispatcher with this target; secrets are in the directory of the world.
async fn dispatcher(world: &World, target: &str, variables: &[(&str, &str)]) -> Dispatcher {
    let config = world.config("updates.partitions = 2\nretry.attempts_max = 1\n");
    let (common, _) = config.split_once("[[target]]").expect("it has one");
    let target = target.replace("/run/secrets", &world.dir.path().display().to_string());
    let path = world.write_config(&format!("{common}{target}"));
    let mut command = lanekeeper_command();
    command.arg("run").arg("--config").arg(path).envs(variables.iter().copied());
    let dispatcher = Dispatcher::start_command(command);
    dispatcher.ready().await;
    dispatcher
}

fn write(world: &World, file: &str, content: &str) {
    std::fs::write(world.dir.path().join(file), content).expect("the directory is ours");
}

/// 10 records with 5 updates each.
async fn assert_all_arrive_in_order(world: &World, api: &StandIn, is_update: impl Fn(&SeenRequest) -> bool) {
    world.publish(updates(10, 5)).await;
    let arrived = || api.seen().into_iter().filter(&is_update).collect::<Vec<_>>();
    until("50 requests", || async {
        match arrived().len() {
            50 => Ok(()),
            requests => Err(format!("{requests} requests")),
        }
    })
    .await;
    let mut last = BTreeMap::new();
    for request in arrived() {
        let body: serde_json::Value = serde_json::from_slice(&request.body).expect("it is JSON");
        let sequence = body["sequence"].as_u64().expect("the updates have one");
        let before = last.insert(request.uri.path().to_owned(), sequence).unwrap_or_default();
        assert_eq!(sequence, before + 1, "{}", request.uri);
    }
}

async fn assert_nothing_failed(dispatcher: &Dispatcher) {
    assert!(dispatcher.metric("lanekeeper_updates_dead_lettered_total").await < 0.5);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_api_key() {
    let world = World::new("documented-key").await;
    let api = StandIn::start(|request| match request.header("x-api-key") {
        Some("k3y") => (200, "{}".to_owned()),
        _ => (401, "{}".to_owned()),
    })
    .await;
    let target = config_of("## API key").replace("https://api.example", &format!("http://{}", api.address()));
    let dispatcher = dispatcher(&world, &target, &[("CRM_KEY", "k3y")]).await;
    assert_all_arrive_in_order(&world, &api, |_| true).await;
    assert_nothing_failed(&dispatcher).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn oauth2() {
    let world = World::new("documented-oauth2").await;
    let api = StandIn::start(|request| {
        if request.uri.path() == "/oauth2/token" {
            let body = String::from_utf8_lossy(&request.body).into_owned();
            // Base64 of lanekeeper:s3cret.
            let is_ours = request.header("authorization") == Some("Basic bGFuZWtlZXBlcjpzM2NyZXQ=");
            let asks =
                body.contains("grant_type=client_credentials") && body.contains("scope=customers.write");
            if !(is_ours && asks) {
                return (401, json!({"error": "invalid_client"}).to_string());
            }
            let token = json!({"access_token": "t0ken", "token_type": "Bearer", "expires_in": 3600});
            return (200, token.to_string());
        }
        match request.header("authorization") {
            Some("Bearer t0ken") => (200, "{}".to_owned()),
            _ => (401, "{}".to_owned()),
        }
    })
    .await;
    let at = format!("http://{}", api.address());
    let target =
        config_of("## OAuth2").replace("https://api.example", &at).replace("https://login.example", &at);
    let dispatcher = dispatcher(&world, &target, &[("CRM_SECRET", "s3cret")]).await;
    assert_all_arrive_in_order(&world, &api, |request| request.uri.path() != "/oauth2/token").await;
    assert_nothing_failed(&dispatcher).await;
    let fetches = api.seen().iter().filter(|request| request.uri.path() == "/oauth2/token").count();
    assert_eq!(fetches, 1, "one token for all partitions");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_signed_webhook() {
    let world = World::new("documented-webhook").await;
    let api = StandIn::start(|request| {
        let webhook = Webhook::new(SECRET).expect("it is one");
        let verified = webhook.verify(&request.body, &request.headers);
        (if verified.is_ok() { 200 } else { 401 }, "{}".to_owned())
    })
    .await;
    write(&world, "webhook", SECRET);
    let target = config_of("## Signed webhook")
        .replace("https://partner.example", &format!("http://{}", api.address()));
    let dispatcher = dispatcher(&world, &target, &[]).await;
    assert_all_arrive_in_order(&world, &api, |_| true).await;
    assert_nothing_failed(&dispatcher).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn mutual_tls() {
    let (world, authority) = (World::new("documented-mtls").await, Authority::new("ours"));
    let api = HttpsTarget::start_demanding(b"h2", &authority.issue("localhost"), &authority).await;
    let client = authority.issue("lanekeeper");
    write(&world, "ca.pem", authority.pem());
    write(&world, "client.pem", &client.pem());
    write(&world, "client.key", &client.key_pem());
    let target = config_of("## Mutual TLS")
        .replace("https://crm.internal.example", &format!("https://localhost:{}", api.port));
    let dispatcher = dispatcher(&world, &target, &[]).await;
    world.publish(updates(10, 5)).await;
    until("50 requests", || async {
        match api.seen().len() {
            50 => Ok(()),
            requests => Err(format!("{requests} requests")),
        }
    })
    .await;
    assert_nothing_failed(&dispatcher).await;
}

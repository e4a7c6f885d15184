//! The config of docs/connecting/stripe-shopify-github.md as it stands there, with senders that sign and repeat as their
//! documentation says.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use reqwest::StatusCode;
use ring::hmac;
use serde_json::json;

use super::hooks::{hex, hook, now};
use super::{Ingest, config};
use crate::harness::{World, assert_flawless};

const PAGE: &str = include_str!("../../../docs/connecting/stripe-shopify-github.md");
const SECRETS: [(&str, &str); 3] = [
    ("STRIPE_WEBHOOK_SECRET", "whsec_0123456789abcdef"),
    ("GITHUB_WEBHOOK_SECRET", "0123456789abcdef-github"),
    ("SHOPIFY_CLIENT_SECRET", "0123456789abcdef-shopify"),
];

fn hooks() -> String {
    let (_, config) = PAGE.split_once("```toml\n").expect("the page has a config");
    let (config, _) = config.split_once("```").expect("it ends");
    SECRETS.iter().fold(config.to_owned(), |config, (name, secret)| {
        let variable = format!("${{{name}}}");
        assert!(config.contains(&variable), "{variable}");
        config.replace(&variable, secret)
    })
}

async fn stripe(door: &Ingest, id: &str, sequence: u64) -> StatusCode {
    let body = json!({
        "id": id, "type": "customer.updated", "created": 1_700_000_000, "sequence": sequence,
        "data": {"object": {"id": "cus_1", "object": "customer"}},
    })
    .to_string();
    let time = now();
    // While a secret is rolled, there are two signatures.
    let good = hex(SECRETS[0].1, format!("{time}.{body}").as_bytes());
    let header = format!("t={time},v1={},v1={good},v0=00", hex("of another secret", body.as_bytes()));
    hook(door, "stripe", &[("stripe-signature", header)], &body).await.0
}

async fn github(door: &Ingest, delivery: &str, event: &str, sequence: u64) -> StatusCode {
    let body = json!({"repository": {"full_name": "octo/hello"}, "sequence": sequence}).to_string();
    let headers = [
        ("x-hub-signature-256", format!("sha256={}", hex(SECRETS[1].1, body.as_bytes()))),
        ("x-github-event", event.to_owned()),
        ("x-github-delivery", delivery.to_owned()),
    ];
    hook(door, "github", &headers, &body).await.0
}

/// The fourth one is of a deletion, which has less in its body.
async fn shopify(door: &Ingest, id: &str, sequence: u64) -> StatusCode {
    let (topic, body) = if sequence == 4 {
        ("products/delete", json!({"id": 820_982_911, "sequence": sequence}))
    } else {
        let gid = "gid://shopify/Product/820982911";
        ("products/update", json!({"id": 820_982_911, "admin_graphql_api_id": gid, "sequence": sequence}))
    };
    let body = body.to_string();
    let key = hmac::Key::new(hmac::HMAC_SHA256, SECRETS[2].1.as_bytes());
    let headers = [
        ("x-shopify-hmac-sha256", STANDARD.encode(hmac::sign(&key, body.as_bytes()))),
        ("x-shopify-topic", topic.to_owned()),
        ("x-shopify-webhook-id", id.to_owned()),
    ];
    hook(door, "shopify", &headers, &body).await.0
}

#[tokio::test(flavor = "multi_thread")]
async fn webhooks_of_each_sender_arrive_once_however_often_they_are_repeated() {
    const ACCEPTED: StatusCode = StatusCode::ACCEPTED;
    let world = World::new("ingest-senders").await;
    let _dispatcher = world.dispatcher(&world.ledger()).await;
    let config = config(&world, world.broker.url(), "") + &hooks();
    let doors = [Ingest::start_with(&world, &config).await, Ingest::start_with(&world, &config).await];
    for door in &doors {
        door.process.ready().await;
    }
    for sequence in 1..=3 {
        // A repeat comes at another door.
        for door in &doors {
            assert_eq!(stripe(door, &format!("evt_{sequence}"), sequence).await, ACCEPTED);
            assert_eq!(shopify(door, &format!("b54557e4-{sequence}"), sequence).await, ACCEPTED);
            assert_eq!(github(door, &format!("72d3162e-{sequence}"), "push", sequence).await, ACCEPTED);
        }
    }
    assert_eq!(github(&doors[0], "72d3162e-0", "ping", 0).await, StatusCode::OK);
    // Once the last ones have arrived, the repeats before them are settled.
    assert_eq!(stripe(&doors[1], "evt_4", 4).await, ACCEPTED);
    assert_eq!(shopify(&doors[1], "b54557e4-4", 4).await, ACCEPTED);
    assert_eq!(github(&doors[1], "72d3162e-4", "push", 4).await, ACCEPTED);
    assert_flawless(&world.applied(12).await, 12);
    for record in ["cus_1", "octo/hello", "820982911"] {
        assert!(world.receiver.record(record).is_some(), "{record}");
    }
}

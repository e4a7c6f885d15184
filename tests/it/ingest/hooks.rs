//! Webhooks of others: what is signed arrives as it came, and nothing else does.

use std::time::{SystemTime, UNIX_EPOCH};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use reqwest::StatusCode;
use ring::hmac;
use serde_json::{Value, json};

use super::{Ingest, answer, config};
use crate::harness::{World, assert_flawless, http};

const HOOKS: &str = r#"
[[ingest.hook]]
name = "stripe"
verify = "stripe"
secrets = ["whsec_old_secret", "whsec_new_secret"]
record_key = ["/data/object/customer", "/data/object/id"]
type_prefix = "stripe."

[[ingest.hook]]
name = "github"
verify = "github"
secrets = ["It's a Secret to Everybody"]
record_key = ["/repository/id"]
key_prefix = "repository-"
ignore_types = ["ping"]
answer = 200

[[ingest.hook]]
name = "make"
verify = "standard_webhooks"
secrets = ["whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"]
record_key = ["/record"]
answer = 204
"#;

pub fn hex(key: &str, signed: &[u8]) -> String {
    let tag = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, key.as_bytes()), signed);
    tag.as_ref().iter().fold(String::new(), |hex, byte| hex + &format!("{byte:02x}"))
}

pub fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).expect("it is later").as_secs()
}

/// Sends a webhook, and returns status and body.
pub async fn hook(door: &Ingest, name: &str, headers: &[(&str, String)], body: &str) -> (StatusCode, Value) {
    let request = http().post(format!("http://{}/hooks/{name}", door.address)).body(body.to_owned());
    let request = request.header("content-type", "application/json");
    answer(headers.iter().fold(request, |request, (name, value)| request.header(*name, value))).await
}

#[tokio::test(flavor = "multi_thread")]
async fn webhooks_that_are_signed_are_updates_and_others_never_arrive() {
    let world = World::new("ingest-hooks").await;
    let _dispatcher = world.dispatcher(&world.ledger()).await;
    let door = Ingest::start_with(&world, &(config(&world, world.broker.url(), "") + HOOKS)).await;
    door.process.ready().await;

    let event = |id: &str, sequence: u64| {
        json!({"id": id, "type": "customer.updated", "data": {"object": {"id": "cus_1"}}, "sequence": sequence}).to_string()
    };
    let stripe = async |secret: &str, time: u64, signed: &str, body: &str| {
        let signature = hex(secret, format!("{time}.{signed}").as_bytes());
        hook(&door, "stripe", &[("stripe-signature", format!("t={time},v1={signature}"))], body).await
    };
    let one = event("evt_1", 1);
    let accepted = json!({"record_key": "cus_1", "update_id": "stripe:evt_1", "state": "accepted"});
    assert_eq!(stripe("whsec_old_secret", now(), &one, &one).await, (StatusCode::ACCEPTED, accepted));
    assert_eq!(stripe("whsec_new_secret", now(), &one, &one).await.1["state"], "known");
    // A repeat says of the same event how many deliveries are still open, and may not be refused for it.
    let repeated = one.replace("\"type\"", "\"pending_webhooks\":1,\"type\"");
    assert_ne!(repeated, one);
    assert_eq!(stripe("whsec_new_secret", now(), &repeated, &repeated).await.1["state"], "known");
    let two = event("evt_2", 2);
    for (secret, time, signed) in [
        ("whsec_other_secret", now(), two.as_str()),
        ("whsec_new_secret", now() - 400, &two),
        ("whsec_new_secret", now() + 400, &two),
        ("whsec_new_secret", now(), &one),
    ] {
        assert_eq!(stripe(secret, time, signed, &two).await.0, StatusCode::UNAUTHORIZED);
    }
    assert_eq!(hook(&door, "stripe", &[], &two).await.0, StatusCode::UNAUTHORIZED);
    let without = json!({"id": "evt_3", "type": "ping", "data": {}}).to_string();
    let (status, body) = stripe("whsec_new_secret", now(), &without, &without).await;
    assert_eq!((status, &body["code"]), (StatusCode::UNPROCESSABLE_ENTITY, &json!("no_key")));
    assert_eq!(stripe("whsec_new_secret", now(), "{", "{").await.1["code"], "bad_event");
    assert_eq!(hook(&door, "nobody", &[], &two).await.0, StatusCode::NOT_FOUND);

    let github = async |event: &str, delivery: &str, body: &str| {
        let signature = format!("sha256={}", hex("It's a Secret to Everybody", body.as_bytes()));
        let headers = [
            ("x-hub-signature-256", signature),
            ("x-github-event", event.to_owned()),
            ("x-github-delivery", delivery.to_owned()),
        ];
        hook(&door, "github", &headers, body).await
    };
    let push = json!({"repository": {"id": 35_129_377}, "sequence": 1}).to_string();
    assert_eq!(github("ping", "d-0", &push).await, (StatusCode::OK, json!({"state": "ignored"})));
    assert_eq!(github("push", "d-1", &push).await.0, StatusCode::OK);

    let library = standardwebhooks::Webhook::new("MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw").expect("a secret");
    let body = json!({"record": "r", "type": "t", "sequence": 1}).to_string();
    let time = now();
    let signed =
        library.sign("msg_1", i64::try_from(time).expect("small"), body.as_bytes()).expect("it signs");
    let request = http()
        .post(format!("http://{}/hooks/make", door.address))
        .header("webhook-id", "msg_1")
        .header("webhook-timestamp", time.to_string())
        .header("webhook-signature", format!("v1,{} {signed}", STANDARD.encode("of another key")))
        .body(body);
    assert_eq!(request.send().await.expect("the door answers").status(), StatusCode::NO_CONTENT);

    assert_flawless(&world.applied(3).await, 3);
    assert!(world.receiver.record("repository-35129377").is_some());
    assert!((door.process.metric("lanekeeper_ingest_signature_failures_total").await - 5.0).abs() < 0.5);
}

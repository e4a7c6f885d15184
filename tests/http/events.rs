//! Notifications of events: requests as those of a target, which name no record.

use bytes::Bytes;
use lanekeeper::config::{Environment, Purpose};
use lanekeeper::http::Target;
use lanekeeper_core::outcome::Outcome;
use lanekeeper_core::update::Update;
use standardwebhooks::Webhook;

use crate::server::{Server, answer};
use crate::signature::parsed;
use crate::{attempt_of, targets, update};

const SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";

#[tokio::test]
async fn a_notification_is_a_signed_post_that_names_no_record() {
    let mut server = Server::answering(answer("204 No Content", "", ""), false).await;
    let text = format!(
        "[[notify]]\nname = \"chat\"\nurl = \"http://{}/hook?room=crm\"\nbody = '{{\"text\": {{{{ body.data.text }}}}}}'\n\
         query = {{ kind = \"{{{{ update_type }}}}\" }}\n[notify.auth]\nbearer = \"s3cret\"\n\
         [notify.signature]\nstandard_webhooks = \"{SECRET}\"\n",
        server.address
    );
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), text).unwrap();
    let loaded = lanekeeper::config::load(Some(file.path()), &Environment::default(), Purpose::Publish);
    let notify = loaded.unwrap_or_else(|faults| panic!("{faults}")).config.notify.remove(0);
    let body = Bytes::from_static(br#"{"data": {"text": "a \"record\" is parked"}}"#);
    let event = Update { body, update_type: Some("lanekeeper.record_parked".into()), ..update("id-1") };
    assert_eq!(targets(notify.receiver).unwrap().attempt(attempt_of(event)).await, Outcome::Applied);

    let request = server.next_request().await;
    assert!(
        request.starts_with("POST /hook?room=crm&kind=lanekeeper.record_parked HTTP/1.1\r\n"),
        "{request}"
    );
    let (headers, body) = parsed(&request);
    assert_eq!(body, r#"{"text": "a \"record\" is parked"}"#);
    for (name, value) in [
        ("authorization", "Bearer s3cret"),
        ("content-type", "application/json"),
        ("idempotency-key", "\"u-1\""),
        ("webhook-id", "u-1"),
        ("lanekeeper-attempt", "1"),
    ] {
        assert_eq!(headers.get(name).and_then(|value| value.to_str().ok()), Some(value), "{name}: {request}");
    }
    for name in ["lanekeeper-record-key", "lanekeeper-update-id", "record-version"] {
        assert!(!headers.contains_key(name), "{name}: {request}");
    }
    Webhook::new(SECRET).unwrap().verify(body.as_bytes(), &headers).expect("the library verifies it");
}

//! What `HttpTargets` makes of targets, from well-behaved to hostile. Each test's target is in its own process.

mod answers;
mod connecting;
mod connections;
mod farewell;
mod faults;
mod receiver;
mod requests;
mod send_guard;
mod server;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use lanekeeper::config::{IdempotencyKeyStyle, Secret, TargetConfig};
use lanekeeper::http::client::{HttpTargets, TargetsFault};
use lanekeeper::http::{Attempt, SendGuard, Target};
use lanekeeper_core::outcome::Outcome;
use lanekeeper_core::policy::{FailurePolicies, FailurePolicy};
use lanekeeper_core::routes::TargetId;
use lanekeeper_core::template::UrlTemplate;
use lanekeeper_core::update::{RecordKey, Update, UpdateId};

/// Long enough for a slow machine, short enough to fail in good time.
const TEST_TIMEOUT: Duration = Duration::from_secs(20);

fn target(address: SocketAddr) -> TargetConfig {
    TargetConfig {
        name: "crm".into(),
        types: Vec::new(),
        method: "PUT".into(),
        url: UrlTemplate::parse(&format!("http://{address}/customers/{{record_key}}")).unwrap(),
        connect_timeout: TEST_TIMEOUT,
        timeout: TEST_TIMEOUT,
        takeover_wait: lanekeeper::config::TakeoverWait::Auto,
        idempotency_key: IdempotencyKeyStyle::Quoted,
        idempotency_header: "Idempotency-Key".into(),
        headers: vec![("authorization".into(), Secret::new("Bearer s3cret"))],
        outcomes: BTreeMap::new(),
        if_match: lanekeeper::config::IfMatch::Header,
        first_contact: lanekeeper::config::FirstContact::Get,
        answer_body: lanekeeper::config::AnswerBody::Complete,
        connection_age_max: Duration::from_secs(300),
        limits: "crm".to_owned(),
        failure: FailurePolicies::all(FailurePolicy::Park),
    }
}

fn targets(config: TargetConfig) -> Result<HttpTargets, TargetsFault> {
    // Another test of this process may have installed it.
    let _ = rustls::crypto::ring::default_provider().install_default();
    HttpTargets::new(&[config])
}

fn update(record_key: &str) -> Update {
    Update {
        record_key: RecordKey::new(record_key).unwrap(),
        id: UpdateId::published("u-1"),
        target: TargetId(0),
        update_type: None,
        version: None,
        content_type: Some("application/json".into()),
        content_encoding: None,
        if_match: None,
        published_at: None,
        headers: Vec::new(),
        body: Bytes::from_static(br#"{"sequence":1}"#),
    }
}

fn attempt_of(update: Update) -> Attempt {
    Attempt { update: Arc::new(update), number: 1, tenure: None, etag: None, send_guard: SendGuard::always() }
}

/// One attempt of a plain update at this target, which must end within [`TEST_TIMEOUT`] and a little.
async fn attempt(config: TargetConfig) -> Outcome {
    let targets = targets(config).unwrap();
    let ended = tokio::time::timeout(TEST_TIMEOUT * 2, targets.attempt(attempt_of(update("k")))).await;
    ended.expect("an attempt ends within its timeout")
}

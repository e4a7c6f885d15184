//! What `HttpTargets` makes of targets, from well-behaved to hostile. Each test's target is in its own process.

mod answers;
mod auth;
mod authlib;
#[path = "../it/harness/authority.rs"]
mod authority;
mod collector;
mod connecting;
mod connections;
mod current;
mod documented;
mod events;
mod farewell;
mod faults;
#[path = "../it/harness/tls.rs"]
#[expect(dead_code, reason = "tests/it uses the rest")]
mod https_target;
mod judged;
mod made;
mod oauth2;
mod on;
mod proxy;
mod proxy_server;
mod receiver;
mod requests;
mod send_guard;
mod server;
mod signature;
mod tls;
mod versions;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use lanekeeper::config::{Environment, Purpose, TargetConfig};
use lanekeeper::http::client::{HttpTargets, TargetsFault};
use lanekeeper::http::{Attempt, SendGuard, Target};
use lanekeeper_core::outcome::Outcome;
use lanekeeper_core::routes::TargetId;
use lanekeeper_core::update::{RecordKey, Update, UpdateId};

/// Long enough for a slow machine, short enough to fail in good time.
const TEST_TIMEOUT: Duration = Duration::from_secs(20);

/// A target as in a config file, with patience.
fn target(address: SocketAddr) -> TargetConfig {
    target_at(address, "")
}

/// As `target`, with further lines.
fn target_at(address: SocketAddr, lines: &str) -> TargetConfig {
    let key = "{record_key}";
    target_with(&format!(
        "url = \"http://{address}/customers/{key}\"\nheaders = {{ authorization = \"Bearer s3cret\" }}\n{lines}\n"
    ))
}

/// A target as in a config file, with patience and these lines.
fn target_with(lines: &str) -> TargetConfig {
    let text = format!(
        "[[target]]\nname = \"crm\"\ntypes = [\"*\"]\nconnect_timeout = \"20s\"\ntimeout = \"20s\"\n{lines}\n"
    );
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), text).unwrap();
    let loaded = lanekeeper::config::load(Some(file.path()), &Environment::default(), Purpose::Dispatch);
    loaded.unwrap_or_else(|faults| panic!("{faults}")).config.targets.remove(0)
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
    Attempt {
        update: Arc::new(update),
        number: 1,
        tenure: None,
        etag: None,
        send_guard: SendGuard::always(),
        trace: None,
    }
}

/// One attempt of a plain update at this target, which must end within [`TEST_TIMEOUT`] and a little.
async fn attempt(config: TargetConfig) -> Outcome {
    let targets = targets(config).unwrap();
    let ended = tokio::time::timeout(TEST_TIMEOUT * 2, targets.attempt(attempt_of(update("k")))).await;
    ended.expect("an attempt ends within its timeout")
}

//! Sends a notification, as an attempt at a target, some times if need be.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::sleep;
use tracing::debug;

use crate::http::client::HttpTargets;
use crate::http::{Attempt, SendGuard, Target as _};
use lanekeeper_core::outcome::{Cause, Outcome};
use lanekeeper_core::routes::TargetId;
use lanekeeper_core::update::{RecordKey, Update, UpdateId};

/// Before the second try, and so on. Then it is given up: what it says is old by then.
pub(super) const WAITS: [Duration; 3] =
    [Duration::from_secs(1), Duration::from_secs(5), Duration::from_secs(25)];

/// What a receiver gets. `id` is the same for each try.
#[derive(Clone, Debug)]
pub(super) struct Notification {
    /// Of the receiver.
    pub(super) number: usize,
    pub(super) id: String,
    /// `lanekeeper.record_parked`.
    pub(super) kind: String,
    pub(super) body: Vec<u8>,
}

/// Sends it. `waits`: before each further try.
///
/// # Errors
/// Nobody has taken it: how the last try failed, without the words of the receiver, which may repeat record keys.
pub(super) async fn deliver(
    targets: &HttpTargets,
    name: &str,
    notification: &Notification,
    waits: &[Duration],
) -> Result<(), String> {
    let update = Arc::new(Update {
        record_key: RecordKey::new(notification.id.as_str()).expect("an id is short, and not empty"),
        id: UpdateId::published(notification.id.as_str()),
        target: TargetId(notification.number),
        update_type: Some(notification.kind.as_str().into()),
        version: None,
        content_type: Some("application/cloudevents+json; charset=utf-8".into()),
        content_encoding: None,
        if_match: None,
        published_at: None,
        headers: Vec::new(),
        body: notification.body.clone().into(),
    });
    let mut number = 1;
    loop {
        let (update, send_guard) = (Arc::clone(&update), SendGuard::always());
        let attempt = Attempt { update, number, tenure: None, etag: None, trace: None, send_guard };
        let outcome = targets.attempt(attempt).await;
        let Some(failure) = outcome.failure() else { return Ok(()) };
        let why = match failure.cause {
            Cause::Connection | Cause::Unsendable | Cause::NoCredential => failure.to_string(),
            Cause::Status(_) | Cause::Timeout => failure.cause.to_string(),
        };
        debug!(notify = name, why, attempt = number, "a notification was not taken");
        // Whoever rejects it, rejects it again.
        let is_final = matches!(outcome, Outcome::Rejected(_) | Outcome::Conflict(_));
        let Some(wait) = waits.get(number as usize - 1).filter(|_| !is_final) else { return Err(why) };
        sleep(*wait).await;
        number += 1;
    }
}

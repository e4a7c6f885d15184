//! Publishes the messages of this process to the stream of members.

use std::sync::Arc;
use std::time::Duration;

use lapin::BasicProperties;
use tokio::time::{sleep, timeout};
use tracing::warn;

use super::message::MemberMessage;
use super::state::State;
use crate::channel::confirm_channel::Message;
use crate::channel::confirmed_publisher::ConfirmedPublisher;
use crate::log_on_change::LogOnChange;
use lanekeeper_core::error::error_chain;

/// How often we look if an alarm blocks what we wait for.
pub(super) const BLOCKED_POLL: Duration = Duration::from_millis(100);
const RETRY_DELAY: Duration = Duration::from_millis(250);

pub(super) async fn publish_for_ever(state: Arc<State>) {
    state.opened().await;
    let mut publisher =
        ConfirmedPublisher::new(state.publishing.clone(), "publishing to the stream of members");
    let mut log = LogOnChange::default();
    loop {
        let due = state.due();
        if due.is_empty() {
            let waiting = !state.outgoing().is_empty();
            if waiting && state.publishing.is_blocked() {
                state.allow_unnumbered_claims();
            }
            let wait = if waiting { BLOCKED_POLL } else { Duration::MAX };
            let _ = timeout(wait, state.wake.notified()).await;
            continue;
        }
        let bodies: Vec<Vec<u8>> = due.iter().map(MemberMessage::body).collect();
        let properties = || BasicProperties::default().with_content_type("application/json".into());
        let messages =
            bodies.iter().map(|body| Message::to_queue(&state.stream, properties(), body)).collect();
        let published = tokio::select! {
            // Reading it back is the proof, not the answers.
            published = publisher.publish_all(messages) => published,
            never = waive_claims_while_blocked(&state) => match never {},
        };
        match published {
            Ok(_) => {
                state.published(&due);
                log.cleared();
            }
            Err(fault) => {
                let error = error_chain(&fault);
                if log.is_new(error.clone()) {
                    warn!(
                        stream = state.stream,
                        error,
                        "cannot publish to the stream of members, trying again: until this succeeds, no partition gets a tenure number"
                    );
                }
                sleep(RETRY_DELAY).await;
            }
        }
    }
}

async fn waive_claims_while_blocked(state: &State) -> std::convert::Infallible {
    loop {
        sleep(BLOCKED_POLL).await;
        if state.publishing.is_blocked() {
            state.allow_unnumbered_claims();
        }
    }
}

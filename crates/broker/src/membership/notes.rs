//! Publishes the notes of this process, one every quarter of a heartbeat, on a channel of their own.

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use lapin::BasicProperties;
use tokio::time::{Instant, sleep, timeout_at};
use tracing::warn;

use super::message::{MemberMessage, MessageKind, PublishedTerms};
use super::state::State;
use crate::channel::confirm_channel::{ConfirmChannel, Message, PublishAnswer, PublishOutcome};
use crate::error::SourceError;
use crate::liveness::LivenessProbe;
use crate::log_on_change::LogOnChange;
use lanekeeper_core::error::error_chain;
use lanekeeper_core::layout::PartitionNumber;

/// Partitions that a note names. A layout has no more.
const OWNED_MAX: usize = 1024;
/// Notes that the broker has not answered before they are published on another channel: it may have lost this one's way to
/// the leader of the stream.
const UNCONFIRMED_MAX: usize = 8;
/// Longer than that the lease does not wait for the next try.
const RETRY_DELAY_MAX: Duration = Duration::from_millis(500);
const PUBLISHING: &str = "publishing a note to the stream of members";

/// Publishes notes until it is dropped. It waits for no answer: a note counts once it is read back.
pub(super) async fn publish_notes(state: Arc<State>) {
    state.opened().await;
    let mut log = LogOnChange::default();
    loop {
        let fault = match publish_on_one_channel(&state, &mut log).await {
            Ok(never) => match never {},
            Err(fault) => fault,
        };
        let error = error_chain(&fault);
        if log.is_new(error.clone()) {
            warn!(
                stream = state.stream,
                error,
                "cannot publish notes to the stream of members, trying again: without them the lease of this process lapses, and it sends no requests"
            );
        }
        sleep(period(&state).min(RETRY_DELAY_MAX)).await;
    }
}

async fn publish_on_one_channel(state: &State, log: &mut LogOnChange) -> Result<Infallible, SourceError> {
    let client_error = SourceError::amqp(PUBLISHING);
    let silent = |within: Duration| SourceError::Silent { step: PUBLISHING, seconds: within.as_secs() };
    let opening =
        async { ConfirmChannel::select(state.publishing.channel().await?).await.map_err(&client_error) };
    let within = state.heartbeat();
    let channel = timeout_at(Instant::now() + within, opening).await.map_err(|_| silent(within))??;
    let mut unconfirmed = FuturesUnordered::new();
    let mut next = Instant::now();
    let mut hurried = state.shares.watch();
    loop {
        tokio::select! {
            Ok(()) = hurried.changed() => next = Instant::now(),
            Some(answer) = unconfirmed.next(), if !unconfirmed.is_empty() => {
                let answer: PublishAnswer = answer?;
                if answer.outcome() != PublishOutcome::Taken {
                    return Err(SourceError::NotTaken { exchange: format!("the stream {}", state.stream) });
                }
                log.cleared();
            }
            () = tokio::time::sleep_until(next) => {
                next = Instant::now() + period(state);
                if state.publishing.is_blocked() {
                    continue;
                }
                if unconfirmed.len() >= UNCONFIRMED_MAX {
                    return Err(silent(period(state) * u32::try_from(UNCONFIRMED_MAX).unwrap_or(u32::MAX)));
                }
                let body = note(state).body();
                let properties = BasicProperties::default().with_content_type("application/json".into());
                let sending = channel.send(Message::to_queue(&state.stream, properties, &body));
                let sent = timeout_at(Instant::now() + within, sending).await.map_err(|_| silent(within))?;
                let sent = sent.map_err(&client_error)?;
                unconfirmed.push(async { sent.answer().await.map_err(SourceError::amqp(PUBLISHING)) });
            }
        }
    }
}

fn period(state: &State) -> Duration {
    state.heartbeat() / 4
}

fn note(state: &State) -> MemberMessage {
    let owned =
        state.owned().iter().take(OWNED_MAX).map(|(partition, number)| (partition.0, number.0)).collect();
    let terms = Some(PublishedTerms::of(state.terms()));
    // The lease counts from here on, before the note is sent.
    let number = state.lease().sending(state.clock.now(), state.heartbeat());
    state.sending_note(number);
    let message = state.replica.message(MessageKind::Note, PartitionNumber(0), 0, number);
    let read = state.knows_stream.load(Ordering::Relaxed).then(|| *state.position.borrow());
    let works = state.reach.works();
    let (shares, admin) = (Some(state.shares.own()), state.admin.clone());
    let notices = state.presence.own();
    MemberMessage {
        admin,
        terms,
        owned,
        read,
        works,
        shares,
        notices,
        epoch: Some(state.numbering().epoch()),
        ..message
    }
}

/// Hands on what the broker answers, which counts while it takes no publishes.
pub(super) async fn observe_answers(state: Arc<State>, liveness: LivenessProbe) {
    let mut last_seen = liveness.watch();
    while last_seen.changed().await.is_ok() {
        let seen = *last_seen.borrow_and_update();
        if let Some((_, asked)) = seen {
            state.answered(state.clock.tick(asked));
        }
    }
}

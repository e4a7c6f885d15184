//! Sees whether keys still go to the queues that they went to when the layout was made.
//!
//! After every connect the layout's witnesses are published straight to its hash exchange, and whichever consumer gets
//! one compares. docs/decisions/009 has the reasons.

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use lapin::message::Delivery;
use lapin::options::{BasicPublishOptions, ConfirmSelectOptions};
use lapin::types::ShortString;
use lapin::{BasicProperties, Channel, Confirmation};
use tokio::sync::Notify;
use tokio::time::{Instant, timeout};
use tracing::{info, warn};
use uuid::Uuid;

use super::error::SourceError;
use super::halt::Halt;
use super::link::{ANSWER_TIMEOUT, Link};
use super::names::Names;
use super::task::Task;
use super::topology::close;
use lanekeeper_core::change::ActiveLayout;
use lanekeeper_core::error::error_chain;
use lanekeeper_core::layout::{LayoutNumber, PartitionNumber};
use lanekeeper_core::witness::Witness;

/// AMQP `type` of a witness.
const WITNESS: &str = "lanekeeper.witness";
/// Rounds that a process publishes at most within [`ROUNDS_PERIOD`] if it has not seen them come: they may wait behind a
/// long backlog, and connections that break again and again must not fill the queues with witnesses.
const ROUNDS_UNSEEN_MAX: usize = 10;
const ROUNDS_PERIOD: Duration = Duration::from_secs(600);
const RETRY_DELAY: Duration = Duration::from_secs(5);
/// How often we look whether an alarm has ended: what is published meanwhile would only pile up.
const BLOCKED_POLL: Duration = Duration::from_secs(1);

/// One set of witnesses, published one after another: who published it, and which of that process's it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Round {
    process: String,
    number: u64,
}

impl Round {
    /// One of its own, for a process that publishes once.
    pub(super) fn single() -> Self {
        Self { process: Uuid::new_v4().to_string(), number: 0 }
    }

    fn text(&self) -> String {
        format!("{} {}", self.process, self.number)
    }

    fn parse(text: &str) -> Option<Self> {
        let (process, number) = text.split_once(' ')?;
        Some(Self { process: process.to_owned(), number: number.parse().ok()? })
    }
}

/// The round of a witness; `None` where the delivery is none. What publishers send comes by way of another exchange, so
/// that no update can look like a witness.
pub(super) fn round_of(delivery: &Delivery, layout_exchange: &str) -> Option<Round> {
    let kind = delivery.properties.kind().as_ref().map(ShortString::as_str);
    let is_witness = kind == Some(WITNESS) && delivery.exchange.as_str() == layout_exchange;
    is_witness
        .then(|| delivery.properties.message_id().as_ref().and_then(|id| Round::parse(id.as_str())))
        .flatten()
}

/// Publishes a round; every witness is in some queue once this has returned.
///
/// # Errors
/// The broker did not confirm it, or no queue is bound to the exchange.
pub(super) async fn publish(
    channel: &Channel,
    exchange: &str,
    keys: impl IntoIterator<Item = &str>,
    round: &Round,
) -> Result<(), SourceError> {
    let publishing = async {
        let amqp = SourceError::amqp(PUBLISHING);
        channel.confirm_select(ConfirmSelectOptions::default()).await.map_err(amqp)?;
        let options = BasicPublishOptions { mandatory: true, ..BasicPublishOptions::default() };
        let properties = BasicProperties::default()
            .with_type(WITNESS.into())
            .with_message_id(round.text().into())
            .with_delivery_mode(2);
        let mut confirms = Vec::new();
        for key in keys {
            let (exchange, properties) = (exchange.into(), properties.clone());
            let sent = channel.basic_publish(exchange, key.into(), options, b"", properties).await;
            confirms.push(sent.map_err(amqp)?);
        }
        for confirm in confirms {
            match confirm.await.map_err(amqp)? {
                Confirmation::Ack(None) => {}
                Confirmation::Ack(Some(_)) => {
                    let text = format!("no queue is bound to the exchange {exchange}");
                    return Err(SourceError::Missing { text });
                }
                Confirmation::Nack(_) | Confirmation::NotRequested => {
                    return Err(SourceError::NotTaken { exchange: exchange.to_owned() });
                }
            }
        }
        Ok(())
    };
    match timeout(ANSWER_TIMEOUT, publishing).await {
        Ok(published) => published,
        Err(_) => Err(SourceError::Silent { step: PUBLISHING, seconds: ANSWER_TIMEOUT.as_secs() }),
    }
}

const PUBLISHING: &str = "publishing the witnesses of the layout";

/// Publishes witnesses and judges where they come, for as long as it lives.
#[derive(Clone, Debug)]
pub struct Witnesses {
    shared: Arc<WitnessState>,
    task: Arc<Task>,
}

#[derive(Debug)]
struct WitnessState {
    process: String,
    names: Names,
    layout: LayoutNumber,
    /// The layout's hash exchange: every delivery is asked whether it came through it.
    exchange: String,
    recorded: HashMap<String, PartitionNumber>,
    rounds: Mutex<Rounds>,
    /// Somebody doubts that the last round still tells where keys go, or needs a delivery in a queue.
    doubt: Notify,
    halt: Halt,
}

/// The rounds of this process.
#[derive(Debug, Default)]
struct Rounds {
    published: u64,
    /// Which witnesses of the last one have come to this process.
    seen: HashSet<String>,
    /// When those were published that have not come yet, as far as this process knows.
    unseen: VecDeque<Instant>,
}

impl Rounds {
    /// How long to wait before the next.
    fn delay(&mut self, now: Instant) -> Duration {
        self.unseen.retain(|published| now.duration_since(*published) < ROUNDS_PERIOD);
        match self.unseen.front() {
            Some(oldest) if self.unseen.len() >= ROUNDS_UNSEEN_MAX => *oldest + ROUNDS_PERIOD - now,
            _ => Duration::ZERO,
        }
    }

    fn begin(&mut self, now: Instant) -> u64 {
        self.published += 1;
        self.seen.clear();
        self.unseen.push_back(now);
        self.published
    }

    /// A queue is first in, first out: if the last round has come, so have those before.
    fn saw(&mut self, number: u64, key: &str, of: usize) {
        if number == self.published && self.seen.insert(key.to_owned()) && self.seen.len() == of {
            self.unseen.clear();
        }
    }
}

impl Witnesses {
    /// Begins with a round at once, unless the layout drains: then nothing is published to it any more, and those that
    /// come are still compared. `halt` is set when a key has moved.
    #[must_use]
    pub fn begin(
        consuming: Link,
        publishing: Link,
        names: &Names,
        active_layout: &ActiveLayout,
        halt: Halt,
    ) -> Self {
        let ActiveLayout { layout, witnesses, draining, .. } = active_layout;
        let recorded = witnesses.iter().cloned().map(|Witness { key, partition }| (key, partition));
        let shared = Arc::new(WitnessState {
            process: Uuid::new_v4().to_string(),
            names: names.clone(),
            layout: layout.number,
            exchange: names.layout(layout.number),
            recorded: recorded.collect(),
            rounds: Mutex::default(),
            doubt: Notify::new(),
            halt,
        });
        let task = Arc::new(Task::begin(publish_for_ever(Arc::clone(&shared), consuming, publishing)));
        if *draining {
            task.stop();
        }
        Self { shared, task }
    }

    /// The layout drains from now on: nothing more is published to it.
    pub fn retire(&self) {
        self.task.stop();
    }

    /// Asks for a further round.
    pub(super) fn ask(&self) {
        self.shared.doubt.notify_one();
    }

    /// Whether the delivery is a witness; if so, it is judged. `partition` is the one whose queue it came from.
    ///
    /// One of this process shows where keys have gone since it started. One of another process, or of an earlier life
    /// of this one, may be from before somebody put the bindings right: this process then asks anew.
    pub(super) fn recognize(&self, delivery: &Delivery, partition: PartitionNumber) -> bool {
        let shared = &self.shared;
        let Some(round) = round_of(delivery, &shared.exchange) else { return false };
        let key = delivery.routing_key.as_str();
        let is_ours = round.process == shared.process;
        match shared.recorded.get(key) {
            Some(recorded) if *recorded != partition && is_ours => shared.halt.set(SourceError::Moved {
                exchange: shared.exchange.clone(),
                key: key.to_owned(),
                recorded: shared.names.partition(shared.layout, *recorded),
                found: shared.names.partition(shared.layout, partition),
            }),
            Some(recorded) if *recorded != partition => {
                info!(%partition, "a witness of another process is out of place, asking anew");
                shared.doubt.notify_one();
            }
            Some(_) if is_ours => shared.rounds().saw(round.number, key, shared.recorded.len()),
            // In its place; or of a program that chooses others.
            Some(_) | None => {}
        }
        true
    }
}

impl WitnessState {
    fn rounds(&self) -> std::sync::MutexGuard<'_, Rounds> {
        self.rounds.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A round for every connection that is made, and wherever there is doubt.
async fn publish_for_ever(shared: Arc<WitnessState>, consuming: Link, publishing: Link) {
    let (mut asked, mut last_logged) = (None, String::new());
    loop {
        let (consumes, publishes) = (consuming.up().await, publishing.up().await);
        if asked != Some((consumes, publishes)) {
            let delay = shared.rounds().delay(Instant::now());
            tokio::time::sleep(delay).await;
            while publishing.is_blocked() {
                tokio::time::sleep(BLOCKED_POLL).await;
            }
            match publish_round(&shared, &publishing).await {
                Ok(()) => {
                    asked = Some((consumes, publishes));
                    if !std::mem::take(&mut last_logged).is_empty() {
                        info!("the witnesses of the layout are published again");
                    }
                }
                Err(fault) => {
                    let fault = error_chain(&fault);
                    if fault != last_logged {
                        warn!(error = fault, "the witnesses of the layout are not published, trying again");
                        last_logged = fault;
                    }
                    tokio::time::sleep(RETRY_DELAY).await;
                    continue;
                }
            }
        }
        tokio::select! {
            () = consuming.lost(consumes) => {}
            () = publishing.lost(publishes) => {}
            () = shared.doubt.notified() => asked = None,
        }
    }
}

async fn publish_round(shared: &WitnessState, publishing: &Link) -> Result<(), SourceError> {
    let channel = publishing.channel().await?;
    let number = shared.rounds().begin(Instant::now());
    let round = Round { process: shared.process.clone(), number };
    // In the order of their partitions: nearer to each other, and the same in every round.
    let keys: BTreeMap<_, _> =
        shared.recorded.iter().map(|(key, partition)| ((*partition, key.as_str()), key.as_str())).collect();
    let published = publish(&channel, &shared.exchange, keys.into_values(), &round).await;
    close(channel).await;
    // Without an answer it may still arrive.
    if published.as_ref().is_err_and(|fault| !matches!(fault, SourceError::Silent { .. })) {
        shared.rounds().unseen.pop_back();
    }
    published
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rounds_that_are_seen_follow_at_once_and_others_are_bounded() {
        let mut rounds = Rounds::default();
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        for second in 0..1_000 {
            assert_eq!(rounds.delay(at(second)), Duration::ZERO);
            let number = rounds.begin(at(second));
            rounds.saw(number, "one", 2);
            rounds.saw(number, "one", 2);
            rounds.saw(number - 1, "two", 2);
            assert!(!rounds.unseen.is_empty(), "one of two has come");
            rounds.saw(number, "two", 2);
        }
        for second in 1_000..1_010 {
            assert_eq!(rounds.delay(at(second)), Duration::ZERO);
            rounds.begin(at(second));
        }
        assert_eq!(rounds.delay(at(1_010)), Duration::from_secs(590));
        assert_eq!(rounds.delay(at(1_599)), Duration::from_secs(1));
        assert_eq!(rounds.delay(at(1_600)), Duration::ZERO);
        rounds.begin(at(1_600));
        assert_eq!(rounds.delay(at(1_600)), Duration::from_secs(1));
    }

    #[test]
    fn a_round_is_read_as_it_was_written() {
        let round = Round { process: Uuid::new_v4().to_string(), number: 7 };
        assert_eq!(Round::parse(&round.text()), Some(round));
        for other in ["", "a", "a b", "7"] {
            assert_eq!(Round::parse(other), None, "{other}");
        }
    }
}

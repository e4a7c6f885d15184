//! Checks that keys still go to the queues that they went to when the layout was made.
//!
//! After every connect the layout's witnesses are published straight to its hash exchange, and whichever consumer gets
//! one compares. docs/decisions/009 has the reasons.

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use lapin::message::Delivery;
use tokio::sync::{Notify, watch};
use tokio::time::{Instant, timeout};
use tokio_util::task::AbortOnDropHandle;
use tracing::{info, warn};
use uuid::Uuid;

use super::probe::is_probe_through;
use super::witness_round::{PUBLISHING, Round, check_answers, round_of};
use crate::channel::confirmed_publisher::ConfirmedPublisher;
use crate::error::SourceError;
use crate::halt::Halt;
use crate::link::Link;
use crate::log_on_change::LogOnChange;
use crate::names::Names;
use lanekeeper_core::change::ActiveLayout;
use lanekeeper_core::error::error_chain;
use lanekeeper_core::layout::{LayoutNumber, PartitionNumber};
use lanekeeper_core::witness::Witness;

/// Rounds that a process publishes at most within [`ROUNDS_PERIOD`] if it has not seen them come: they may wait behind a
/// long backlog, and connections that break again and again must not fill the queues with witnesses.
const ROUNDS_UNSEEN_MAX: usize = 10;
const ROUNDS_PERIOD: Duration = Duration::from_secs(600);
const RETRY_DELAY: Duration = Duration::from_secs(5);
/// Rounds that follow each other keep this distance, so that a flood of misplaced deliveries asks for few.
const ROUNDS_INTERVAL: Duration = Duration::from_secs(1);
/// How long a misplaced delivery waits for a round to show that keys have not moved: the time in which one that is out of
/// place stops all processes, unless every queue has a backlog.
const IN_PLACE_MAX: Duration = Duration::from_secs(10);
/// How often we look if an alarm has ended: what is published before that would only pile up.
const BLOCKED_POLL: Duration = Duration::from_secs(1);

/// Publishes witnesses, and compares where they arrive. Stops publishing when it is dropped.
#[derive(Clone, Debug)]
pub struct Witnesses {
    shared: Arc<WitnessState>,
    task: Arc<AbortOnDropHandle<()>>,
}

#[derive(Debug)]
struct WitnessState {
    process: String,
    names: Names,
    layout: LayoutNumber,
    /// The layout's hash exchange: every delivery is asked whether it came through it.
    exchange: String,
    /// The exchange of probes, too.
    probe_exchange: String,
    recorded: HashMap<String, PartitionNumber>,
    rounds: Mutex<Rounds>,
    /// The newest round of which all witnesses came to this process, each to its place.
    in_place: watch::Sender<u64>,
    /// Asks for a round: a witness of another process was out of place, or the owner of a partition needs a delivery.
    doubt: Notify,
    halt: Halt,
}

/// The rounds of this process.
#[derive(Debug, Default)]
struct Rounds {
    published: u64,
    /// When the last one was begun.
    begun: Option<Instant>,
    /// Which witnesses of the last one have come to this process.
    seen: HashSet<String>,
    /// When those were published that have not come yet, as far as this process knows.
    unseen: VecDeque<Instant>,
}

impl Rounds {
    /// How long to wait before the next.
    fn delay(&mut self, now: Instant) -> Duration {
        self.forget_old(now);
        match self.unseen.front() {
            Some(oldest) if self.unseen.len() >= ROUNDS_UNSEEN_MAX => *oldest + ROUNDS_PERIOD - now,
            _ => self.begun.map_or(Duration::ZERO, |begun| (begun + ROUNDS_INTERVAL).duration_since(now)),
        }
    }

    /// Returns true if a round may be published that can wait: some are left for new connections, and for owners that need a
    /// delivery.
    fn few_unseen(&mut self, now: Instant) -> bool {
        self.forget_old(now);
        self.unseen.len() < ROUNDS_UNSEEN_MAX / 2
    }

    fn forget_old(&mut self, now: Instant) {
        self.unseen.retain(|published| now.duration_since(*published) < ROUNDS_PERIOD);
    }

    fn begin(&mut self, now: Instant) -> u64 {
        self.published += 1;
        self.begun = Some(now);
        self.seen.clear();
        self.unseen.push_back(now);
        self.published
    }

    /// A queue is first in, first out: if the last round has come, so have those before. Returns true if it has now.
    fn saw(&mut self, number: u64, key: &str, of: usize) -> bool {
        let is_last = number == self.published && self.seen.insert(key.to_owned()) && self.seen.len() == of;
        if is_last {
            self.unseen.clear();
        }
        is_last
    }
}

impl Witnesses {
    /// Publishes a round at once, unless the layout drains: then nothing more is published to it, and witnesses that arrive
    /// are still compared. A key that has moved sets `halt`.
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
            probe_exchange: names.probe(),
            recorded: recorded.collect(),
            rounds: Mutex::default(),
            in_place: watch::Sender::new(0),
            doubt: Notify::new(),
            halt,
        });
        let publishing = publish_for_ever(Arc::clone(&shared), consuming, publishing);
        let task = Arc::new(AbortOnDropHandle::new(tokio::spawn(publishing)));
        if *draining {
            task.abort();
        }
        Self { shared, task }
    }

    /// The layout drains from now on: nothing more is published to it.
    pub fn retire(&self) {
        self.task.abort();
    }

    /// Asks for a further round.
    pub(crate) fn ask(&self) {
        self.shared.doubt.notify_one();
    }

    /// Returns once a round that begins after this call shows that keys go where they went, so that what is in a wrong queue
    /// was put there past the layout's exchange. Never returns if keys have moved.
    ///
    /// A round that does not come whole is waited for no longer than [`IN_PLACE_MAX`]: other processes see a part of it,
    /// and stop all if that is out of place.
    pub(crate) async fn in_place(self) {
        let shared = &self.shared;
        // Nothing is published to a layout that drains.
        if !self.task.is_finished() {
            let (next, few_unseen) = {
                let mut rounds = shared.rounds();
                (rounds.published + 1, rounds.few_unseen(Instant::now()))
            };
            let mut in_place = shared.in_place.subscribe();
            if few_unseen {
                self.ask();
            }
            let _ = timeout(IN_PLACE_MAX, in_place.wait_for(|newest| *newest >= next)).await;
        }
        if shared.halt.is_set() {
            std::future::pending::<()>().await;
        }
    }

    /// Returns true if the delivery is a probe, which has served; or a witness, and compares it then. `partition`: the one whose
    /// queue it came from.
    ///
    /// One of this process shows where keys have gone since it started. One of another process, or of an earlier life
    /// of this one, may be from before somebody put the bindings right: this process then publishes another
    /// round.
    pub(crate) fn recognize(&self, delivery: &Delivery, partition: PartitionNumber) -> bool {
        let shared = &self.shared;
        if is_probe_through(delivery, &shared.probe_exchange) {
            return true;
        }
        let Some(round) = round_of(delivery, &shared.exchange) else { return false };
        let key = delivery.routing_key.as_str();
        let is_ours = round.process() == shared.process;
        match shared.recorded.get(key) {
            Some(recorded) if *recorded != partition && is_ours => shared.halt.set(SourceError::Moved {
                exchange: shared.exchange.clone(),
                key: key.to_owned(),
                recorded: shared.names.partition(shared.layout, *recorded),
                found: shared.names.partition(shared.layout, partition),
            }),
            Some(recorded) if *recorded != partition => {
                info!(%partition, "a witness of another process came to a wrong queue, publishing our own to check");
                shared.doubt.notify_one();
            }
            Some(_) if is_ours => {
                if shared.rounds().saw(round.number(), key, shared.recorded.len()) {
                    shared.in_place.send_replace(round.number());
                }
            }
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

/// Publishes a round for every connection that is made, and for every request.
async fn publish_for_ever(shared: Arc<WitnessState>, consuming: Link, publishing: Link) {
    let mut publisher = ConfirmedPublisher::new(publishing.clone(), PUBLISHING);
    let (mut asked, mut log) = (None, LogOnChange::default());
    loop {
        let (consumes, publishes) = (consuming.up().await, publishing.up().await);
        if asked != Some((consumes, publishes)) {
            let delay = shared.rounds().delay(Instant::now());
            tokio::time::sleep(delay).await;
            while publishing.is_blocked() {
                tokio::time::sleep(BLOCKED_POLL).await;
            }
            match publish_round(&shared, &mut publisher).await {
                Ok(()) => {
                    asked = Some((consumes, publishes));
                    if log.cleared() {
                        info!("publishing the witnesses of the layout works again");
                    }
                }
                Err(fault) => {
                    let error = error_chain(&fault);
                    if log.is_new(error.clone()) {
                        warn!(error, "cannot publish the witnesses of the layout, trying again");
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

async fn publish_round(shared: &WitnessState, publisher: &mut ConfirmedPublisher) -> Result<(), SourceError> {
    let number = shared.rounds().begin(Instant::now());
    let round = Round::new(&shared.process, number);
    // In the order of their partitions: nearer to each other, and the same in every round.
    let keys: BTreeMap<_, _> =
        shared.recorded.iter().map(|(key, partition)| ((*partition, key.as_str()), key.as_str())).collect();
    let answers = publisher.publish_all(round.messages(&shared.exchange, keys.into_values())).await;
    let published = answers.and_then(|answers| check_answers(&answers, &shared.exchange));
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
        assert!(!rounds.few_unseen(at(1_600)));
        rounds.begin(at(1_600));
        assert_eq!(rounds.delay(at(1_600)), Duration::from_secs(1));
        assert!(rounds.few_unseen(at(3_000)));
        assert_eq!(rounds.delay(at(3_000)), Duration::ZERO);
        rounds.begin(at(3_000));
        let half = Duration::from_millis(500);
        assert_eq!(rounds.delay(at(3_000) + half), half, "rounds keep their distance");
    }
}

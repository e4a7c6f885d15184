//! One partition's task: hands events to the core, does what the core asks for. Decides nothing itself.

mod attach;
mod drain;
mod observability;
mod record;
mod status;

use std::collections::BTreeSet;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use tokio::sync::watch;
use tokio::time::{Sleep, sleep};
use tracing::{info, warn};

use self::attach::{attach, attached, next, send_acks, stopped};
pub use self::drain::DriverExit;
use self::record::{Leftover, Resolved, Writing, Written, WrittenAs, claim, loaded};
use self::status::StatusReporter;
use super::attempt::{Fence, FinishedAttempt, PendingAttempt};
use super::breakers::BreakerWatch;
use super::clock::Clock;
use super::ledger_client::{Fenced, LedgerClient};
use super::refusals::Refusals;
use super::releases::Releases;
use crate::admin::health::Health;
use crate::admin::metrics::{LedgerMetrics, PartitionMetrics, TargetMetrics};
use crate::http::Target;
use lanekeeper_broker::{Deliveries, Lost, Received, Source, SourceEvent};
use lanekeeper_core::drain::{DrainWatch, Drained};
use lanekeeper_core::layout::{Layout, PartitionNumber};
use lanekeeper_core::message::{Effect, Event, Tenure};
use lanekeeper_core::ownership::OwnershipState;
use lanekeeper_core::partition::{Partition, View};
use lanekeeper_core::tick::Tick;
use lanekeeper_core::update::IdOrigin;
use lanekeeper_ledger::Recorded;

/// Everything that one partition needs.
#[derive(Debug)]
pub struct Driver<S, T> {
    /// Of which layout.
    pub layout: Layout,
    /// Which partition.
    pub partition: PartitionNumber,
    /// Its decisions.
    pub core: Partition,
    /// Partitions of the layout before that are not drained.
    pub previous: watch::Receiver<BTreeSet<PartitionNumber>>,
    /// Whether it holds nothing more, where its layout drains.
    pub drain: DrainWatch,
    /// Where its updates come from.
    pub source: Arc<S>,
    /// Where they go.
    pub target: Arc<T>,
    /// What remembers them; `None`: there is no ledger.
    pub ledger_client: Option<LedgerClient>,
    /// Records whose parked updates are to go out.
    pub releases: Releases,
    /// Which targets are shut.
    pub breakers: BreakerWatch,
    /// How long attempts in flight may take after a stop, or where the partition is handed over.
    pub drain_timeout: Duration,
    /// How long a delivery may be held before everything is given back: well below the broker's acknowledgement timeout.
    pub held_max: Duration,
    /// The clock, shared by all drivers.
    pub clock: Clock,
    /// Counts and gauges of this partition.
    pub metrics: PartitionMetrics,
    /// Counts of the ledger's use.
    pub ledger_metrics: LedgerMetrics,
    /// Counts of the targets, in the order of the config.
    pub target_metrics: Arc<[TargetMetrics]>,
    /// When a refusal of a target is told, shared by all drivers.
    pub refusals: Arc<Refusals>,
    /// Where we say whether we are attached.
    pub health: Health,
}

/// What one channel gives and takes, from attaching to losing it.
struct Session<D> {
    tenure: Tenure,
    deliveries: D,
    /// The delivery that is oldest was reported as held for too long.
    held_too_long: bool,
    status_reporter: StatusReporter,
}

/// On the way out of a tenure: what is in flight ends, what is finished is settled.
#[derive(Clone, Copy)]
struct Leaving {
    until: Tick,
    /// For good.
    stop: bool,
}

impl<S: Source, T: Target + 'static> Driver<S, T> {
    /// Works until `stop` turns true or the partition is drained for good, then finishes what is in flight, settles and
    /// closes.
    pub async fn run(mut self, mut stop: watch::Receiver<bool>) -> DriverExit {
        let mut attempts = FuturesUnordered::new();
        // Targets that one of them is a probe of.
        let mut probing = BTreeSet::new();
        let aborted = watch::Sender::new(());
        let fence = watch::Sender::new(Fence::default());
        let mut writings: FuturesUnordered<Pin<Box<dyn Future<Output = Written> + Send>>> =
            FuturesUnordered::new();
        // Those of malformed deliveries, which the next tenure does not recognise and writes down anew: they end with theirs.
        let mut writings_of_tenure = FuturesUnordered::new();
        let mut claims = FuturesUnordered::new();
        let mut loadings = FuturesUnordered::new();
        let mut timer = pin!(sleep(Duration::ZERO));
        let mut attaching = Some(attach(&self.source));
        let mut session: Option<Session<S::Deliveries>> = None;
        let mut tenures = 0;
        let mut written_as = WrittenAs::default();
        let mut leaving: Option<Leaving> = None;
        let mut last_logged = OwnershipState::Unclaimed;
        let mut leftover: Leftover = None;
        // A newer owner has written to the ledger; what is resolved cannot be written down.
        let (mut fenced, mut stuck) = (false, false);
        // What was not written, for the core to know once the tenure has ended.
        let mut unwritten: Option<Written> = None;
        let mut exit = DriverExit::Stopped;
        loop {
            self.set_fence(&fence);
            // What the core asks for, until it asks for nothing.
            let mut lost = std::mem::take(&mut fenced)
                .then(|| Lost("a newer owner of the partition has written to the ledger".to_owned()));
            if std::mem::take(&mut stuck) {
                lost = Some(Lost("what is resolved could not be written down in drain_timeout".to_owned()));
            }
            while let Some(effect) = self.core.poll_effect() {
                match effect {
                    Effect::Attempt { attempt, number, tenure, holder, update, probe } => {
                        if tenure.is_none() {
                            self.metrics.attempt_without_tenure();
                        }
                        let pending = PendingAttempt {
                            target: Arc::clone(&self.target),
                            ledger_client: self.ledger_client.clone(),
                            clock: self.clock,
                            fence: fence.subscribe(),
                            attempt,
                            number,
                            tenure,
                            holder,
                            update,
                            probe,
                        };
                        if probe {
                            probing.insert(pending.update.target);
                        }
                        attempts.push(pending.run(aborted.subscribe()));
                    }
                    Effect::AskProbe(target) => {
                        if self.breakers.grant_probe(self.clock.now(), target) {
                            self.core.handle(self.clock.now(), Event::ProbeGranted(target));
                        }
                    }
                    Effect::ReturnProbe(target) => self.breakers.return_probe(self.clock.now(), target),
                    Effect::Claim { tenure } => {
                        if let Some(session) = session.as_mut().filter(|session| session.tenure == tenure) {
                            claims.clear(); // an earlier one counts no more
                            session.deliveries.claim();
                        }
                    }
                    Effect::Yield { tenure, reason } => {
                        info!(partition = %self.partition, tenure = tenure.0, reason = reason.name(), "stepping back: attempts in flight are finished, the rest goes back in order");
                        self.metrics.yielded(reason.name());
                        leaving = leaving.or_else(|| Some(self.leaving(false)));
                    }
                    Effect::Abandon { .. } => {
                        lost = Some(Lost("another process has claimed the partition".to_owned()));
                    }
                    Effect::Record { tenure, holder, update, resolution } => {
                        self.resolved(update.as_deref(), &resolution);
                        let session = session.as_ref().filter(|session| session.tenure == tenure);
                        let resolved = Resolved { tenure, holder, update, resolution };
                        match self.write_down(session, resolved, written_as.number, &mut leftover) {
                            Writing::Done(written) => self.written(written),
                            Writing::Begun(writing) => writings.push(writing),
                            Writing::BegunOfTenure(writing) => writings_of_tenure.push(writing),
                            Writing::Void => {}
                        }
                    }
                    Effect::Settle { tenure, delivery } => {
                        if let Some(session) = session.as_mut().filter(|session| session.tenure == tenure) {
                            session.deliveries.settle(delivery);
                        }
                    }
                }
            }
            leftover = None;
            if lost.is_none() {
                lost = send_acks(&mut session).await.err();
            }
            if let Some(lost) = lost {
                writings_of_tenure.clear();
                claims.clear();
                loadings.clear();
                leaving = leaving.filter(|leaving| leaving.stop);
                attaching = self.lose(session.take(), &lost, leaving.is_some()).await;
                if let Some(written) = unwritten.take() {
                    self.written(written);
                }
                continue;
            }
            match leaving.filter(|_| self.core.is_quiet()) {
                Some(Leaving { stop: true, .. }) => break,
                Some(Leaving { stop: false, .. }) => {
                    leaving = None;
                    writings_of_tenure.clear();
                    claims.clear();
                    loadings.clear();
                    self.leave(session.take()).await;
                    attaching = Some(attach(&self.source));
                    continue;
                }
                None => {}
            }
            let at_rest = loadings.is_empty() && writings.is_empty() && writings_of_tenure.is_empty();
            if leaving.is_none()
                && let Some(drained) = self.look_at_drain(session.as_ref(), at_rest)
            {
                let proven = drained == Drained::Proven;
                exit = if proven { DriverExit::Drained } else { exit };
                leaving = Some(self.leaving(proven));
                self.core.handle(self.clock.now(), Event::StopRequested);
                continue;
            }
            self.log_ownership(&mut last_logged);
            self.show(session.as_mut());
            let alarm = self.set_timer(timer.as_mut(), &mut session, leaving);
            tokio::select! {
                biased;
                () = stopped(&mut stop), if leaving.is_none_or(|leaving| !leaving.stop) => {
                    attaching = None;
                    leaving = Some(self.leaving(true));
                    self.core.handle(self.clock.now(), Event::StopRequested);
                }
                () = timer.as_mut(), if alarm => {
                    let now = self.clock.now();
                    self.core.wake(now);
                    self.look_at_the_oldest(session.as_mut(), now);
                    if let Some(over) = leaving.filter(|leaving| leaving.until <= now) {
                        let View { in_flight, recording, .. } = self.core.view();
                        warn!(partition = %self.partition, in_flight, recording, "drain_timeout is over: attempts in flight are cut off, what is not written down goes back");
                        if over.stop {
                            break;
                        }
                        // They end as failed, and go on counting when the update comes back.
                        aborted.send_replace(());
                        stuck = in_flight == 0;
                        leaving = Some(self.leaving(false));
                    }
                }
                Some(ended) = attempts.next(), if !attempts.is_empty() => {
                    if ended.probe {
                        probing.remove(&ended.update.target);
                    }
                    leftover = self.attempt_ended(ended);
                }
                Some(written) = writings.next(), if !writings.is_empty() => {
                    fenced = written.recorded == Recorded::Fenced
                        && session.as_ref().is_some_and(|session| session.tenure == written.tenure);
                    let further = self.further(&written);
                    if fenced {
                        unwritten = Some(written);
                    } else {
                        self.written(written);
                    }
                    if let Some((ledger_client, record_key)) = further.filter(|(_, key)| !self.core.has_released(key)) {
                        loadings.push(ledger_client.released(record_key));
                    }
                }
                Some(written) = writings_of_tenure.next(), if !writings_of_tenure.is_empty() => {
                    self.written(written);
                }
                Some((event, result)) = claims.next(), if !claims.is_empty() => match (result, event) {
                    (Ok(()), event) => {
                        written_as.observe(&event);
                        self.core.handle(self.clock.now(), event);
                    }
                    (Err(Fenced), _) => fenced = true,
                },
                (record_key, updates) = loaded(&mut loadings) => {
                    if let Some(session) = &session {
                        let event = Event::Released { tenure: session.tenure, record_key, updates };
                        self.core.handle(self.clock.now(), event);
                    }
                }
                mut released = self.releases.next(self.layout, self.partition), if leaving.is_none() => {
                    released.retain(|key| !self.core.is_blocked_by_previous(key));
                    if self.releases.need_claim(&released, self.core.ownership_state()) {
                        self.source.ask_for_delivery();
                    }
                    if let Some(ledger_client) = self.ledger_client.as_ref().filter(|_| loadings.is_empty()) {
                        for record_key in released.into_iter().filter(|key| !self.core.has_released(key)) {
                            loadings.push(ledger_client.clone().released(record_key));
                        }
                    }
                }
                () = self.breakers.changed() => self.on_breaker_change(),
                Ok(()) = self.previous.changed() => self.on_previous_drained(),
                event = next(&mut session), if leaving.is_none() => match event {
                    Ok(event) => {
                        if let Some(event) = self.on_source_event(&mut session, event) {
                            let ledger_client = self.ledger_client.clone().filter(|_| written_as.is_outdated_by(&event));
                            claims.push(claim(ledger_client, event));
                        }
                    }
                    Err(lost) => {
                        writings_of_tenure.clear();
                        claims.clear();
                        loadings.clear();
                        attaching = self.lose(session.take(), &lost, false).await;
                    }
                },
                Some(deliveries) = attached(&mut attaching) => {
                    attaching = None;
                    let Ok(deliveries) = deliveries else {
                        exit = DriverExit::Gone;
                        leaving = Some(self.leaving(true));
                        continue;
                    };
                    tenures += 1;
                    let (tenure, last_seen) = (Tenure(tenures), self.clock.tick(deliveries.since()));
                    self.core.handle(self.clock.now(), Event::TenureBegan { tenure, last_seen });
                    self.health.set_attached(self.layout.number, self.partition, true);
                    session = Some(Session {
                        tenure,
                        deliveries,
                        held_too_long: false,
                        status_reporter: StatusReporter::default(),
                    });
                }
            }
        }
        // What is left is cut off before a standby can begin: dropping an attempt closes its connection.
        drop(attempts);
        for target in probing {
            self.breakers.return_probe(self.clock.now(), target);
        }
        self.leave(session).await;
        self.show(None); // its gauges stay, with nothing
        exit
    }

    fn leaving(&self, stop: bool) -> Leaving {
        Leaving { until: self.clock.now().after(self.drain_timeout), stop }
    }

    /// Answers with the claim that the ledger is to know of before the core does.
    fn on_source_event(
        &mut self,
        session: &mut Option<Session<S::Deliveries>>,
        event: SourceEvent,
    ) -> Option<Event> {
        let tenure = session.as_ref().map(|session| session.tenure)?;
        let event = match event {
            SourceEvent::Received(received) => {
                self.received(session, received);
                return None;
            }
            SourceEvent::Witness(delivery) => {
                self.witnessed(session, delivery);
                return None;
            }
            SourceEvent::Marker => {
                self.marked();
                return None;
            }
            SourceEvent::StatusRequested(request) => {
                if let Some(session) = session {
                    session.status_reporter.asked(request);
                }
                return None;
            }
            SourceEvent::BrokerSeen(at) => Event::BrokerSeen { at: self.clock.tick(at) },
            SourceEvent::Claimed { number, rival_claim } => {
                return Some(Event::Claimed { tenure, number, rival_claim });
            }
            SourceEvent::ClaimSuperseded => Event::ClaimSuperseded(tenure),
            SourceEvent::Preempted => Event::Preempted(tenure),
        };
        self.core.handle(self.clock.now(), event);
        None
    }

    /// Requests that wait for the ledger are held to what holds when they leave.
    fn set_fence(&self, fence: &watch::Sender<Fence>) {
        let may = self.core.may_send_until();
        let now = Fence { tenure: may.and_then(|(tenure, _)| tenure), until: may.map(|(_, until)| until) };
        fence.send_if_modified(|fence| std::mem::replace(fence, now) != now);
    }

    /// The broker ends a channel that holds a delivery for too long: the partition is given back in order before that.
    fn look_at_the_oldest(&mut self, session: Option<&mut Session<S::Deliveries>>, now: Tick) {
        let Some(session) = session else { return };
        let oldest = session.deliveries.oldest_received_at();
        let held_too_long = oldest.is_some_and(|came| came.elapsed() >= self.held_max);
        if held_too_long && !std::mem::replace(&mut session.held_too_long, true) {
            let tenure = session.tenure;
            self.core.handle(now, Event::HeldTooLong(tenure));
        }
    }

    fn received(&mut self, session: &mut Option<Session<S::Deliveries>>, received: Received) {
        let Some(session) = session else { return };
        let Received { delivery, redelivered, update } = received;
        let now = self.clock.now();
        self.drain.update_came();
        let tenure = session.tenure;
        let event = match update {
            Ok(update) => {
                self.metrics.received(redelivered, update.id.origin() == IdOrigin::Delivery);
                Event::Received { tenure, delivery, redelivered, update }
            }
            Err(fault) => {
                self.metrics.received(redelivered, false);
                Event::ReceivedMalformed { tenure, delivery, fault }
            }
        };
        self.core.handle(now, event);
    }

    fn attempt_ended(&mut self, ended: FinishedAttempt) -> Leftover {
        let FinishedAttempt { attempt, number, update, probe, outcome, signal, receipt, lock, took } = ended;
        self.target_metrics[update.target.0].attempt_ended(&outcome, took);
        self.log_failure(&update, &outcome, number);
        let record_key = update.record_key.clone();
        let leftover = Some((record_key.clone(), receipt, lock));
        if probe && !outcome.was_sent() {
            self.breakers.return_probe(self.clock.now(), update.target); // it has not asked
        } else {
            self.breakers.ended(self.clock.now(), update.target, &record_key, signal, probe);
        }
        // Before the core judges the outcome, so that it knows whether the target fails for everyone.
        self.on_breaker_change();
        self.core.handle(self.clock.now(), Event::AttemptEnded { attempt, record_key, outcome });
        leftover
    }

    fn on_breaker_change(&mut self) {
        for event in self.breakers.take_changes() {
            self.core.handle(self.clock.now(), event);
        }
    }

    /// Sets the timer to the next deadline. Whether there is one.
    fn set_timer(
        &self,
        mut timer: Pin<&mut Sleep>,
        session: &mut Option<Session<S::Deliveries>>,
        leaving: Option<Leaving>,
    ) -> bool {
        let answer = session.as_ref().and_then(|session| session.status_reporter.next_deadline());
        let until = leaving.map(|leaving| leaving.until);
        let quiet = self.drain.next_deadline().filter(|_| leaving.is_none());
        let next = [self.core.next_deadline(), until, quiet, answer].into_iter().flatten().min();
        let acks = session.as_mut().and_then(|session| session.deliveries.next_ack_at());
        let session = session.as_ref().filter(|session| !session.held_too_long);
        let held = session.and_then(|session| session.deliveries.oldest_received_at());
        let held = held.map(|came| came + self.held_max);
        let next = next.map(|tick| self.clock.instant(tick));
        let Some(next) = [next, acks, held].into_iter().flatten().min() else { return false };
        if timer.deadline() != next || timer.is_elapsed() {
            timer.as_mut().reset(next);
        }
        true
    }
}

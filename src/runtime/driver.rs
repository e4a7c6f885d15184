//! One partition's task: hands events to the core, does what the core asks for. Decides nothing itself.

mod answering;
mod draining;
mod telling;
mod way;
mod writing;

use std::collections::BTreeSet;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use tokio::sync::watch;
use tokio::time::{Sleep, sleep};
use tracing::{info, warn};

use self::answering::Answering;
pub use self::draining::Ending;
use self::way::{attach, attached, next, send_acks, stopped};
use self::writing::{Leftover, Resolved, Writing, Written, WrittenAs, claim, loaded};
use super::attempt::{Ended, Fence, Making};
use super::books::{Books, Fenced};
use super::breakers::BreakerWatch;
use super::clock::Clock;
use super::refusals::Refusals;
use super::releases::Releases;
use crate::admin::health::Health;
use crate::admin::metrics::{LedgerMetrics, PartitionMetrics, TargetMetrics};
use crate::http::Target;
use lanekeeper_broker::{Deliveries, Lost, News, Received, Source};
use lanekeeper_core::drain::{DrainWatch, Drained};
use lanekeeper_core::layout::{Layout, PartitionNumber};
use lanekeeper_core::message::{Effect, Event, Tenure};
use lanekeeper_core::ownership::Standing;
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
    pub former: watch::Receiver<BTreeSet<PartitionNumber>>,
    /// Whether it holds nothing more, where its layout drains.
    pub drain: DrainWatch,
    /// Where its updates come from.
    pub source: Arc<S>,
    /// Where they go.
    pub target: Arc<T>,
    /// What remembers them; `None`: there is no ledger.
    pub books: Option<Books>,
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
struct Tenancy<D> {
    tenure: Tenure,
    deliveries: D,
    /// The delivery that is oldest was reported as held for too long.
    held_too_long: bool,
    answering: Answering,
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
    pub async fn run(mut self, mut stop: watch::Receiver<bool>) -> Ending {
        let mut attempts = FuturesUnordered::new();
        // Targets that one of them is a probe of.
        let mut probing = BTreeSet::new();
        let cut = watch::Sender::new(());
        let fence = watch::Sender::new(Fence::default());
        let mut writings: FuturesUnordered<Pin<Box<dyn Future<Output = Written> + Send>>> =
            FuturesUnordered::new();
        // Those of malformed deliveries, which the next tenure does not recognise and writes down anew: they end with theirs.
        let mut writings_of_tenure = FuturesUnordered::new();
        let mut claims = FuturesUnordered::new();
        let mut loadings = FuturesUnordered::new();
        let mut timer = pin!(sleep(Duration::ZERO));
        let mut attaching = Some(attach(&self.source));
        let mut tenancy: Option<Tenancy<S::Deliveries>> = None;
        let mut tenures = 0;
        let mut written_as = WrittenAs::default();
        let mut leaving: Option<Leaving> = None;
        let mut told = Standing::Unclaimed;
        let mut leftover: Leftover = None;
        // A newer owner has written to the ledger; what is resolved cannot be written down.
        let (mut fenced, mut stuck) = (false, false);
        // What was not written, for the core to know once the tenure has ended.
        let mut unwritten: Option<Written> = None;
        let mut ending = Ending::Stopped;
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
                        let making = Making {
                            target: Arc::clone(&self.target),
                            books: self.books.clone(),
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
                            probing.insert(making.update.target);
                        }
                        attempts.push(making.make(cut.subscribe()));
                    }
                    Effect::AskProbe(target) => {
                        if self.breakers.grant_probe(self.clock.now(), target) {
                            self.core.handle(self.clock.now(), Event::ProbeGranted(target));
                        }
                    }
                    Effect::ReturnProbe(target) => self.breakers.return_probe(self.clock.now(), target),
                    Effect::Claim { tenure } => {
                        if let Some(tenancy) = tenancy.as_mut().filter(|tenancy| tenancy.tenure == tenure) {
                            claims.clear(); // an earlier one counts no more
                            tenancy.deliveries.claim();
                        }
                    }
                    Effect::StepBack { tenure, reason } => {
                        info!(partition = %self.partition, tenure = tenure.0, reason = reason.name(), "stepping back: attempts in flight are finished, the rest goes back in order");
                        self.metrics.step_back(reason.name());
                        leaving = leaving.or_else(|| Some(self.leaving(false)));
                    }
                    Effect::GiveUp { .. } => {
                        lost = Some(Lost("another process has claimed the partition".to_owned()));
                    }
                    Effect::Record { tenure, holder, update, resolution } => {
                        self.resolved(update.as_deref(), &resolution);
                        let tenancy = tenancy.as_ref().filter(|tenancy| tenancy.tenure == tenure);
                        let resolved = Resolved { tenure, holder, update, resolution };
                        match self.write_down(tenancy, resolved, written_as.number, &mut leftover) {
                            Writing::Done(written) => self.written(written),
                            Writing::Begun(writing) => writings.push(writing),
                            Writing::BegunOfTenure(writing) => writings_of_tenure.push(writing),
                            Writing::Void => {}
                        }
                    }
                    Effect::Settle { tenure, delivery } => {
                        if let Some(tenancy) = tenancy.as_mut().filter(|tenancy| tenancy.tenure == tenure) {
                            tenancy.deliveries.settle(delivery);
                        }
                    }
                }
            }
            leftover = None;
            if lost.is_none() {
                lost = send_acks(&mut tenancy).await.err();
            }
            if let Some(lost) = lost {
                writings_of_tenure.clear();
                claims.clear();
                loadings.clear();
                leaving = leaving.filter(|leaving| leaving.stop);
                attaching = self.lose(tenancy.take(), &lost, leaving.is_some()).await;
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
                    self.leave(tenancy.take()).await;
                    attaching = Some(attach(&self.source));
                    continue;
                }
                None => {}
            }
            let at_rest = loadings.is_empty() && writings.is_empty() && writings_of_tenure.is_empty();
            if leaving.is_none()
                && let Some(drained) = self.look_at_drain(tenancy.as_ref(), at_rest)
            {
                let proven = drained == Drained::Proven;
                ending = if proven { Ending::Drained } else { ending };
                leaving = Some(self.leaving(proven));
                self.core.handle(self.clock.now(), Event::DrainBegan);
                continue;
            }
            self.tell_standing(&mut told);
            self.show(tenancy.as_mut());
            let alarm = self.set_timer(timer.as_mut(), &mut tenancy, leaving);
            tokio::select! {
                biased;
                () = stopped(&mut stop), if leaving.is_none_or(|leaving| !leaving.stop) => {
                    attaching = None;
                    leaving = Some(self.leaving(true));
                    self.core.handle(self.clock.now(), Event::DrainBegan);
                }
                () = timer.as_mut(), if alarm => {
                    let now = self.clock.now();
                    self.core.wake(now);
                    self.look_at_the_oldest(tenancy.as_mut(), now);
                    if let Some(over) = leaving.filter(|leaving| leaving.until <= now) {
                        let View { in_flight, recording, .. } = self.core.view();
                        warn!(partition = %self.partition, in_flight, recording, "drain_timeout is over: attempts in flight are cut off, what is not written down goes back");
                        if over.stop {
                            break;
                        }
                        // They end as failed, and go on counting when the update comes back.
                        cut.send_replace(());
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
                        && tenancy.as_ref().is_some_and(|tenancy| tenancy.tenure == written.tenure);
                    let further = self.further(&written);
                    if fenced {
                        unwritten = Some(written);
                    } else {
                        self.written(written);
                    }
                    if let Some((books, record_key)) = further.filter(|(_, key)| !self.core.has_released(key)) {
                        loadings.push(books.released(record_key));
                    }
                }
                Some(written) = writings_of_tenure.next(), if !writings_of_tenure.is_empty() => {
                    self.written(written);
                }
                Some((event, result)) = claims.next(), if !claims.is_empty() => match (result, event) {
                    (Ok(()), event) => {
                        written_as.heed(&event);
                        self.core.handle(self.clock.now(), event);
                    }
                    (Err(Fenced), _) => fenced = true,
                },
                (record_key, updates) = loaded(&mut loadings) => {
                    if let Some(tenancy) = &tenancy {
                        let event = Event::Released { tenure: tenancy.tenure, record_key, updates };
                        self.core.handle(self.clock.now(), event);
                    }
                }
                mut released = self.releases.next(self.layout, self.partition), if leaving.is_none() => {
                    released.retain(|key| !self.core.is_awaited(key));
                    if self.releases.need_claim(&released, self.core.standing()) {
                        self.source.ask_for_delivery();
                    }
                    if let Some(books) = self.books.as_ref().filter(|_| loadings.is_empty()) {
                        for record_key in released.into_iter().filter(|key| !self.core.has_released(key)) {
                            loadings.push(books.clone().released(record_key));
                        }
                    }
                }
                () = self.breakers.changed() => self.hear_breakers(),
                Ok(()) = self.former.changed() => self.hear_former(),
                news = next(&mut tenancy), if leaving.is_none() => match news {
                    Ok(news) => {
                        if let Some(event) = self.hear(&mut tenancy, news) {
                            let books = self.books.clone().filter(|_| written_as.is_outdated_by(&event));
                            claims.push(claim(books, event));
                        }
                    }
                    Err(lost) => {
                        writings_of_tenure.clear();
                        claims.clear();
                        loadings.clear();
                        attaching = self.lose(tenancy.take(), &lost, false).await;
                    }
                },
                Some(deliveries) = attached(&mut attaching) => {
                    attaching = None;
                    let Ok(deliveries) = deliveries else {
                        ending = Ending::Gone;
                        leaving = Some(self.leaving(true));
                        continue;
                    };
                    tenures += 1;
                    let (tenure, heard) = (Tenure(tenures), self.clock.tick(deliveries.since()));
                    self.core.handle(self.clock.now(), Event::TenureBegan { tenure, heard });
                    self.health.set_attached(self.layout.number, self.partition, true);
                    tenancy = Some(Tenancy {
                        tenure,
                        deliveries,
                        held_too_long: false,
                        answering: Answering::default(),
                    });
                }
            }
        }
        // What is left is cut off before a standby can begin: dropping an attempt closes its connection.
        drop(attempts);
        for target in probing {
            self.breakers.return_probe(self.clock.now(), target);
        }
        self.leave(tenancy).await;
        self.show(None); // its gauges stay, with nothing
        ending
    }

    fn leaving(&self, stop: bool) -> Leaving {
        Leaving { until: self.clock.now().after(self.drain_timeout), stop }
    }

    /// Answers with the claim that the ledger is to know of before the core does.
    fn hear(&mut self, tenancy: &mut Option<Tenancy<S::Deliveries>>, news: News) -> Option<Event> {
        let tenure = tenancy.as_ref().map(|tenancy| tenancy.tenure)?;
        let event = match news {
            News::Received(received) => {
                self.received(tenancy, received);
                return None;
            }
            News::Witness(delivery) => {
                self.witnessed(tenancy, delivery);
                return None;
            }
            News::Marker => {
                self.marked();
                return None;
            }
            News::Asked(question) => {
                if let Some(tenancy) = tenancy {
                    tenancy.answering.asked(question);
                }
                return None;
            }
            News::Heard(at) => Event::Heard { at: self.clock.tick(at) },
            News::Claimed { number, other } => return Some(Event::Claimed { tenure, number, other }),
            News::Superseded => Event::Superseded(tenure),
            News::Outranked => Event::Outranked(tenure),
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
    fn look_at_the_oldest(&mut self, tenancy: Option<&mut Tenancy<S::Deliveries>>, now: Tick) {
        let Some(tenancy) = tenancy else { return };
        let oldest = tenancy.deliveries.oldest_came_at();
        let held_too_long = oldest.is_some_and(|came| came.elapsed() >= self.held_max);
        if held_too_long && !std::mem::replace(&mut tenancy.held_too_long, true) {
            let tenure = tenancy.tenure;
            self.core.handle(now, Event::HeldTooLong(tenure));
        }
    }

    fn received(&mut self, tenancy: &mut Option<Tenancy<S::Deliveries>>, received: Received) {
        let Some(tenancy) = tenancy else { return };
        let Received { delivery, redelivered, update } = received;
        let now = self.clock.now();
        self.drain.update_came();
        let tenure = tenancy.tenure;
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

    fn attempt_ended(&mut self, ended: Ended) -> Leftover {
        let Ended { attempt, number, update, probe, outcome, sign, receipt, lock, took } = ended;
        self.target_metrics[update.target.0].attempt_ended(&outcome, took);
        self.tell_failure(&update, &outcome, number);
        let record_key = update.record_key.clone();
        let leftover = Some((record_key.clone(), receipt, lock));
        if probe && !outcome.was_sent() {
            self.breakers.return_probe(self.clock.now(), update.target); // it has not asked
        } else {
            self.breakers.ended(self.clock.now(), update.target, &record_key, sign, probe);
        }
        // Before the core judges the outcome, so that it knows whether the target fails for everyone.
        self.hear_breakers();
        self.core.handle(self.clock.now(), Event::AttemptEnded { attempt, record_key, outcome });
        leftover
    }

    fn hear_breakers(&mut self) {
        for event in self.breakers.news() {
            self.core.handle(self.clock.now(), event);
        }
    }

    /// Sets the timer to the next deadline. Whether there is one.
    fn set_timer(
        &self,
        mut timer: Pin<&mut Sleep>,
        tenancy: &mut Option<Tenancy<S::Deliveries>>,
        leaving: Option<Leaving>,
    ) -> bool {
        let answer = tenancy.as_ref().and_then(|tenancy| tenancy.answering.next_deadline());
        let until = leaving.map(|leaving| leaving.until);
        let quiet = self.drain.next_deadline().filter(|_| leaving.is_none());
        let next = [self.core.next_deadline(), until, quiet, answer].into_iter().flatten().min();
        let acks = tenancy.as_mut().and_then(|tenancy| tenancy.deliveries.next_ack_at());
        let tenancy = tenancy.as_ref().filter(|tenancy| !tenancy.held_too_long);
        let held = tenancy.and_then(|tenancy| tenancy.deliveries.oldest_came_at());
        let held = held.map(|came| came + self.held_max);
        let next = next.map(|tick| self.clock.instant(tick));
        let Some(next) = [next, acks, held].into_iter().flatten().min() else { return false };
        if timer.deadline() != next || timer.is_elapsed() {
            timer.as_mut().reset(next);
        }
        true
    }
}

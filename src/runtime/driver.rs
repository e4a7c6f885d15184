//! One partition's task: hands events to the core and does what the core asks for. It decides nothing itself.
//!
//! [`Driver::run`] is the loop: do what the core asks for, end a session that is over, wait for the next [`Input`], handle
//! it. [`phase`] has the states of a driver, [`pending`] what runs at the same time and answers later.

mod attach;
mod drain;
mod effects;
mod ends;
mod observability;
mod pending;
mod phase;
mod questions;
mod record;
mod status;
#[cfg(test)]
mod tests;
mod trace;

use std::collections::BTreeSet;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{Sleep, sleep};
use tokio_util::sync::CancellationToken;

use self::ends::TenureEnds;
use self::pending::Pending;
pub use self::phase::DriverExit;
use self::phase::{Phase, Then};
use self::record::{LastAnswer, LedgerTenure, Loaded, Written};
use self::trace::HeldSpans;
use super::attempt::{Fence, FinishedAttempt};
use super::breakers::{BreakerWatch, Why};
use super::dead_letter_log::DeadLetterLog;
use super::inspection::{DriverMailbox, DriverMailboxes, DriverQuestion};
use super::ledger_client::{Fenced, LedgerClient};
use super::notify::Notifier;
use super::pacers::PacerWatch;
use super::pauses::PauseWatch;
use super::refusals::Refusals;
use super::releases::{ReleasedHere, Releases};
use super::step_down::ReachWatch;
use super::target_history::TargetHistories;
use crate::admin::health::Health;
use crate::admin::metrics::{LedgerMetrics, PartitionMetrics, TargetMetrics};
use crate::http::Target;
use crate::telemetry::{AttemptFacts, AttemptTrace, PartitionSpans};
use lanekeeper_broker::{Clock, Gone, Lost, Received, Source, SourceEvent};
use lanekeeper_core::breaker::{AttemptEnd, HealthSignal};
use lanekeeper_core::drain::{DrainWatch, UnexpectedMarkers};
use lanekeeper_core::layout::{Layout, PartitionNumber};
use lanekeeper_core::log_interval::LogInterval;
use lanekeeper_core::message::{Event, Tenure};
use lanekeeper_core::ownership::OwnershipState;
use lanekeeper_core::pacing::{Reply, RequestEnd};
use lanekeeper_core::partition::Partition;
use lanekeeper_core::placement::Placement;
use lanekeeper_core::tick::Tick;
use lanekeeper_core::update::IdOrigin;
use lanekeeper_ledger::Ledger;

/// What a driver knows of its partition, and what it uses. Nothing of it changes while the driver lives.
#[derive(Debug)]
pub struct PartitionContext<S, T, L> {
    /// The layout that the partition belongs to.
    pub layout: Layout,
    /// Which partition of the layout a record belongs to.
    pub placement: Placement,
    /// Its number.
    pub partition: PartitionNumber,
    /// Where updates come from.
    pub source: Arc<S>,
    /// Where they go.
    pub target: Arc<T>,
    /// `None`: there is no ledger.
    pub ledger_client: Option<LedgerClient<L>>,
    /// The longest time that a request can be at work at a target.
    pub at_work: Duration,
    /// How long attempts in flight may take after a stop, or when the partition is handed over.
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
    /// Decides when a refusal of a target is logged; shared by all drivers.
    pub reach_watch: ReachWatch,
    pub refusals: Arc<Refusals>,
    /// Decides when dead letters are logged; shared by all drivers.
    pub dead_letter_log: Arc<DeadLetterLog>,
    /// Tells people that records were parked.
    pub notifier: Notifier,
    /// Is told when the driver attaches and when it loses its channel.
    pub health: Health,
    /// `None`: traces are off.
    pub spans: Option<PartitionSpans>,
    /// What people ask of the drivers comes through these.
    pub mailboxes: DriverMailboxes,
    /// Is told how attempts end, for people; shared by all drivers.
    pub histories: TargetHistories,
}

/// Drives one partition from its first session to its end.
pub struct Driver<S: Source, T, L> {
    context: PartitionContext<S, T, L>,
    /// The partition's decisions.
    core: Partition,
    /// Tells which parked records a person has released.
    releases: Releases,
    /// Tells which targets are shut.
    breakers: BreakerWatch,
    /// Tells which targets a person has paused.
    pauses: PauseWatch,
    /// Tells which targets need permits, and has them.
    pacers: PacerWatch,
    /// Tells which partitions of the previous layout are not drained.
    previous: watch::Receiver<BTreeSet<PartitionNumber>>,
    /// Proves that the partition holds nothing more, if its layout drains.
    drain: DrainWatch,
    /// Markers that came though the layout does not drain.
    unexpected_markers: UnexpectedMarkers,
    phase: Phase<S::Deliveries>,
    /// How many sessions have begun.
    sessions: u64,
    /// Set when the present session must end at once.
    loss: Option<Loss>,
    pending: Pending,
    fence: watch::Sender<Fence>,
    /// Aborts the attempts that are out. Each of them has a clone.
    abort: CancellationToken,
    ledger_tenure: LedgerTenure,
    ends: TenureEnds,
    /// Of the attempt that has just ended.
    last_answer: Option<LastAnswer>,
    held_spans: HeldSpans,
    last_logged: OwnershipState,
    stray_log: LogInterval,
    mailbox: DriverMailbox,
    timer: Pin<Box<Sleep>>,
}

/// What can happen to a driver.
enum Input<D> {
    /// The process is to stop, or does not dispatch this layout any more.
    StopRequested,
    /// The earliest of all deadlines has come.
    DeadlineCame,
    AttemptEnded(FinishedAttempt),
    /// A resolution was written down, or could not be.
    Written(Written),
    /// The ledger knows of our claim, which the broker has confirmed, or refuses it.
    Claimed(Event, Result<(), Fenced>),
    /// Parked updates of a released record were read from the ledger.
    Loaded(Loaded),
    /// A person has released these parked records of the partition.
    Released(ReleasedHere),
    BreakersChanged,
    /// A person has paused or resumed a target.
    PausesChanged,
    /// Permits have come, or are needed from now on or no longer.
    PacersChanged,
    /// A partition of the previous layout was drained.
    PreviousDrained,
    /// The partition's queue is consumed, or does not exist any more.
    Attached(Result<D, Gone>),
    Source(SourceEvent),
    ChannelLost(Lost),
    /// A person asks.
    Asked(DriverQuestion),
}

/// Why a session ends at once.
struct Loss {
    why: String,
    /// A resolution that the ledger refused. The core is to know once the session has ended.
    unwritten: Option<Written>,
}

impl<S: Source, T: Target + 'static, L: Ledger> Driver<S, T, L> {
    /// Attaches when it is run.
    #[must_use]
    pub fn new(
        context: PartitionContext<S, T, L>,
        core: Partition,
        previous: watch::Receiver<BTreeSet<PartitionNumber>>,
        (releases, breakers, pacers, pauses): (Releases, BreakerWatch, PacerWatch, PauseWatch),
    ) -> Self {
        Self {
            phase: Phase::attaching(&context.source),
            held_spans: HeldSpans::new(context.spans.clone(), context.layout),
            mailbox: context.mailboxes.open((context.layout.number, context.partition)),
            context,
            core,
            releases,
            breakers,
            pauses,
            pacers,
            previous,
            drain: DrainWatch::default(),
            unexpected_markers: UnexpectedMarkers::default(),
            sessions: 0,
            loss: None,
            pending: Pending::default(),
            fence: watch::Sender::default(),
            abort: CancellationToken::new(),
            ledger_tenure: LedgerTenure::default(),
            ends: TenureEnds::default(),
            last_answer: None,
            last_logged: OwnershipState::Unclaimed,
            stray_log: LogInterval::default(),
            timer: Box::pin(sleep(Duration::ZERO)),
        }
    }

    /// Works until `stop` is cancelled or the partition is drained for good, then finishes what is in flight, settles and
    /// closes.
    pub async fn run(mut self, stop: CancellationToken) -> DriverExit {
        let mut stop = pin!(stop.cancelled());
        loop {
            self.do_effects();
            self.publish_end();
            self.send_acks().await;
            if let Some(loss) = self.loss.take() {
                self.lose_session(loss).await;
                continue;
            }
            if self.phase.is_over(self.core.is_quiet()) {
                match self.leave_session().await {
                    Then::Attach => continue,
                    Then::Exit(exit) => return exit,
                }
            }
            if self.check_drained() {
                continue;
            }
            self.observe();
            let input = self.next_input(stop.as_mut()).await;
            self.handle(input);
        }
    }

    /// Waits for the next input. If several are there, the one that stands first here: what has ended makes room for what
    /// comes.
    async fn next_input(&mut self, stop: Pin<&mut impl Future<Output = ()>>) -> Input<S::Deliveries> {
        let has_deadline = self.set_timer();
        let (is_leaving, is_exiting) = (self.phase.is_leaving(), self.phase.is_exiting());
        let (partition, placed) = (self.context.partition, (self.context.layout, self.context.placement));
        tokio::select! {
            biased;
            () = stop, if !is_exiting => Input::StopRequested,
            () = self.timer.as_mut(), if has_deadline => Input::DeadlineCame,
            input = self.pending.next() => input,
            released = self.releases.next(placed, partition), if !is_leaving => Input::Released(released),
            () = self.pauses.changed() => Input::PausesChanged,
            () = self.breakers.changed() => Input::BreakersChanged,
            () = self.pacers.changed() => Input::PacersChanged,
            Ok(()) = self.previous.changed() => Input::PreviousDrained,
            // Before what comes of the source, which may never pause; a mailbox holds a few questions.
            question = self.mailbox.next() => Input::Asked(question),
            input = self.phase.next() => input,
        }
    }

    fn handle(&mut self, input: Input<S::Deliveries>) {
        match input {
            Input::StopRequested => self.stop(DriverExit::Stopped),
            Input::DeadlineCame => self.deadline_came(),
            Input::AttemptEnded(attempt) => self.attempt_ended(attempt),
            Input::Written(written) => self.written(written),
            Input::Claimed(event, Ok(())) => {
                self.ledger_tenure.observe(&event);
                self.notify(event);
            }
            Input::Claimed(_, Err(Fenced)) => {
                self.ledger_tenure.refuse();
                self.loss = Some(Loss::fenced(None));
            }
            Input::Loaded(loaded) => self.loaded(loaded),
            Input::Released(released) => self.released(released),
            Input::PausesChanged => {
                for event in self.pauses.take_changes() {
                    self.notify(event);
                }
            }
            Input::BreakersChanged => self.on_breaker_change(),
            Input::PacersChanged => self.on_pacer_change(),
            Input::PreviousDrained => self.on_previous_drained(),
            Input::Attached(Ok(deliveries)) => self.attached(deliveries),
            Input::Attached(Err(Gone)) => self.leave(Then::Exit(DriverExit::Gone)),
            Input::Source(event) => self.source_event(event),
            Input::Asked(question) => self.asked(question),
            Input::ChannelLost(Lost(why)) => self.loss = Some(Loss { why, unwritten: None }),
        }
    }

    fn now(&self) -> Tick {
        self.context.clock.now()
    }

    /// Tells the core what has happened. Its effects are done at the next turn of the loop.
    fn notify(&mut self, event: Event) {
        self.core.handle(self.context.clock.now(), event);
    }

    /// Starts nothing more, and ends the driver when nothing is in flight or being written down.
    fn stop(&mut self, exit: DriverExit) {
        self.leave(Then::Exit(exit));
        self.notify(Event::StopRequested);
    }

    fn deadline_came(&mut self) {
        let now = self.now();
        self.core.wake(now);
        self.settle_unexpected_markers(now);
        self.check_oldest(now);
        self.check_drain_timeout(now);
    }

    fn attempt_ended(&mut self, attempt: FinishedAttempt) {
        let FinishedAttempt {
            attempt,
            number,
            update,
            probe,
            permit,
            outcome,
            signal,
            receipt,
            lock,
            began,
            took,
            trace,
        } = attempt;
        let metrics = &self.context.target_metrics[update.target.0];
        metrics.attempt_ended(&outcome, took, trace.as_ref().and_then(AttemptTrace::sampled_id));
        if let Some(trace) = trace {
            let (target, receipt) = (metrics.name(), &receipt);
            let facts = AttemptFacts { number, target, outcome: &outcome, receipt, took };
            self.held_spans.attempt_ended(trace, &facts);
        }
        self.context.reach_watch.attempted(&outcome, signal);
        let why = outcome.failure().map(|failure| Why::new(&update, failure));
        if outcome.was_sent() {
            self.context.histories.ended(self.now(), update.target, &outcome, took, why.as_ref());
        }
        let record_key = update.record_key.clone();
        let quota = receipt.quota.as_deref().copied().unwrap_or_default();
        self.last_answer = Some(LastAnswer { record_key: record_key.clone(), receipt, lock });
        let outcome = if (probe || permit) && !outcome.was_sent() {
            if probe {
                self.breakers.return_probe(self.now(), update.target);
            } else {
                self.pacers.give_up(self.now(), update.target, 1);
            }
            outcome
        } else {
            // Whoever has paused it expects failures, as of a maintenance: they do not shut it.
            let signal = match signal {
                signal if signal.is_failure() && self.pauses.is_paused(update.target) && !probe => {
                    HealthSignal::Neutral
                }
                signal => signal,
            };
            let end = AttemptEnd { record_key: &record_key, began, signal };
            let believed = self.breakers.ended(self.now(), update.target, end, probe, why.as_ref());
            let end =
                RequestEnd { record_key: &record_key, began, permit, reply: Reply::of(&outcome), quota };
            let outcome = self.pacers.ended(self.now(), update.target, &end, outcome, why.as_ref());
            if believed { outcome } else { outcome.doubted() }
        };
        self.log_failure(&update, &outcome, number);
        // The core must know if the target fails for everyone, or is paced, before it judges the outcome.
        self.on_breaker_change();
        self.on_pacer_change();
        self.notify(Event::AttemptEnded { attempt, record_key, outcome });
    }

    fn on_pacer_change(&mut self) {
        for event in self.pacers.take_changes() {
            self.notify(event);
        }
    }

    fn on_breaker_change(&mut self) {
        for event in self.breakers.take_changes() {
            self.notify(event);
        }
    }

    fn source_event(&mut self, event: SourceEvent) {
        let Some(session) = self.phase.session() else { return };
        let tenure = session.tenure;
        match event {
            SourceEvent::Received(received) => self.received(tenure, received),
            SourceEvent::Witness(delivery) => self.witnessed(delivery),
            SourceEvent::Marker(delivery) => self.marked(delivery),
            SourceEvent::Stray(delivery) => self.strayed(delivery),
            SourceEvent::StatusRequested(request) => session.status.requested(request),
            SourceEvent::LeaseRenewed(until) => self.notify(Event::LeaseRenewed { until }),
            SourceEvent::Claimed { number, rival_claim, wait_until } => {
                self.ends.claimed(number);
                self.record_claim(Event::Claimed { tenure, number, rival_claim, wait_until });
            }
            SourceEvent::ClaimsKeptBack => self.notify(Event::ClaimsKeptBack(tenure)),
            SourceEvent::TakeOverWait(until) => self.notify(Event::TakeOverWait { tenure, until }),
            SourceEvent::ClaimSuperseded => self.notify(Event::ClaimSuperseded(tenure)),
            SourceEvent::DeliveriesVoid => self.notify(Event::DeliveriesVoid(tenure)),
            SourceEvent::Preempted => self.notify(Event::Preempted(tenure)),
        }
    }

    fn received(&mut self, tenure: Tenure, Received { delivery, redelivered, update }: Received) {
        self.drain.update_came();
        let event = match update {
            Ok(update) => {
                let without_id = update.id.origin() == IdOrigin::Delivery;
                self.context.metrics.received(redelivered, without_id);
                self.held_spans.received(delivery, redelivered, &update);
                Event::Received { tenure, delivery, redelivered, update }
            }
            Err(fault) => {
                self.context.metrics.received(redelivered, false);
                Event::ReceivedMalformed { tenure, delivery, fault }
            }
        };
        self.notify(event);
    }

    /// Sets the timer to the next deadline. Returns true if there is one.
    fn set_timer(&mut self) -> bool {
        let leaving = self.phase.leaving_until();
        let [quiet, marker] = [self.drain.next_deadline(), self.unexpected_markers.next_deadline()]
            .map(|deadline| deadline.filter(|_| leaving.is_none()));
        let mut ticks = [self.core.next_deadline(), leaving, quiet, marker, None];
        let mut instants = [None; 3];
        if let Some(session) = self.phase.session() {
            ticks[4] = session.status.next_deadline();
            instants = [None, session.next_ack_at(), session.held_until(self.context.held_max)];
        }
        instants[0] = ticks.into_iter().flatten().min().map(|tick| self.context.clock.instant(tick));
        let Some(next) = instants.into_iter().flatten().min() else { return false };
        if self.timer.deadline() != next || self.timer.is_elapsed() {
            self.timer.as_mut().reset(next);
        }
        true
    }
}

impl Loss {
    fn of(why: &str) -> Self {
        Self { why: why.to_owned(), unwritten: None }
    }

    fn fenced(unwritten: Option<Written>) -> Self {
        Self { unwritten, ..Self::of("a newer owner of the partition has written to the ledger") }
    }
}

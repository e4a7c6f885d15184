//! One partition: its lanes, permits and deadlines. The only place where the status of a lane changes.
//!
//! [`Partition::handle`] and [`Partition::wake`] take in, [`Partition::poll_effect`] gives out, and
//! [`Partition::next_deadline`] says when to wake it. I1 to I13 are the invariants of ARCHITECTURE.md.

mod claim;
mod explain;
mod limits;
mod paced;
mod previous_layout;
mod ready_queue;
mod release;
mod shut;
mod strict;
mod take_over;
mod tenure;
mod view;

use std::collections::{BTreeMap, BTreeSet, HashSet, VecDeque};
use std::sync::Arc;

use self::claim::Unclaimed;
pub use self::explain::{Explained, FirstOfLane};
pub use self::limits::Limits;
use self::paced::{PacedTargets, Pass};
use self::previous_layout::BlockedLanes;
use self::shut::{ShutTargets, TargetGate};
use self::take_over::TakeOver;
pub use self::view::{Oldest, Retried, View};
use super::lane::{HeldUpdate, Lane, LaneId, LaneStatus, Lanes, QueuePosition, Stray, Token};
use super::memory::{Memory, RememberedState};
use super::message::{AttemptId, DeliveryTag, Effect, Event, Holder, Tenure, TenureNumber, YieldReason};
use super::outcome::Outcome;
use super::ownership::{Ownership, Permit};
use super::policy::{Policy, Progress, Resolution, Verdict};
use super::tick::Tick;
use super::update::{IdOrigin, RecordKey};

/// One partition. See the module's documentation.
#[derive(Debug)]
pub struct Partition {
    /// Of the event that is, or was last, handled.
    now: Tick,
    limits: Limits,
    policy: Arc<Policy>,
    tenure: Option<Tenure>,
    newest_tenure: Tenure,
    ownership: Ownership,
    /// The newest claim of another process after which memory was cleared. Claims of ours that were read too late to count
    /// can have mentioned it too, so it is kept here and not compared with them.
    last_rival_claim: Option<TenureNumber>,
    /// Until when requests of a tenure before ours can be at work, with the lanes that wait for them.
    take_over: TakeOver,
    stopping: bool,
    /// Deliveries that wait for the claim: what is known of their updates depends on who owned the partition before.
    unclaimed: VecDeque<Unclaimed>,
    lanes: Lanes,
    /// The key of the only lane in strict mode, where `in_flight_max` is 1.
    strict: Option<RecordKey>,
    /// Lanes whose head may be attempted, in the order of their turns (I9).
    ready: BTreeMap<QueuePosition, LaneId>,
    /// Updates that came so far, and how often a lane became ready again.
    last_arrival: u64,
    last_requeue: u64,
    /// Lanes whose head waits between attempts.
    deadlines: BTreeSet<(Tick, LaneId)>,
    /// Targets that are shut or paused, with the lanes that wait for them.
    targets: ShutTargets,
    /// Targets whose requests need permits, with the lanes that wait for one.
    paced: PacedTargets,
    /// Previous partitions that are not drained, with the lanes that wait for them.
    blocked: BlockedLanes,
    /// Malformed deliveries that are being written down; they have no lane.
    malformed: HashSet<DeliveryTag>,
    memory: Memory,
    attempts_begun: u64,
    in_flight: usize,
    recording: usize,
    held: usize,
    released: usize,
    stale: u64,
    /// See [`Self::beside_nobody`].
    ended_beside_nobody: bool,
    effects: VecDeque<Effect>,
}

impl Partition {
    /// Empty, and not ours yet.
    #[must_use]
    pub fn new(limits: Limits, policy: Arc<Policy>) -> Self {
        Self {
            now: Tick::ZERO,
            limits,
            policy,
            tenure: None,
            newest_tenure: Tenure::default(),
            ownership: Ownership::default(),
            last_rival_claim: None,
            take_over: TakeOver::default(),
            stopping: false,
            unclaimed: VecDeque::new(),
            lanes: Lanes::default(),
            strict: (limits.in_flight_max.get() == 1).then(RecordKey::whole_queue),
            ready: BTreeMap::new(),
            last_arrival: 0,
            last_requeue: 0,
            deadlines: BTreeSet::new(),
            targets: ShutTargets::default(),
            paced: PacedTargets::default(),
            blocked: BlockedLanes::default(),
            malformed: HashSet::new(),
            memory: Memory::new(limits.window.get()),
            attempts_begun: 0,
            in_flight: 0,
            recording: 0,
            held: 0,
            released: 0,
            stale: 0,
            ended_beside_nobody: false,
            effects: VecDeque::new(),
        }
    }

    /// Something happened. Effects may follow.
    ///
    /// # Panics
    /// On a fault of ours: a broken invariant, or events that no source may send (an old tenure beginning again, more
    /// deliveries than the window).
    pub fn handle(&mut self, now: Tick, event: Event) {
        self.now = now;
        self.ownership.check_lease(now);
        match event {
            Event::TenureBegan(tenure) => self.begin_tenure(tenure),
            Event::LeaseRenewed { until } => {
                self.lease_renewed(now, until);
                self.make_due_ready(now);
            }
            Event::Claimed { tenure, number, rival_claim, wait_until } => {
                self.claimed(now, tenure, number, rival_claim, wait_until);
                // The deadline of what an earlier tenure left may have passed.
                self.make_due_ready(now);
            }
            Event::TakeOverWait { tenure, until } => self.take_over_wait_changed(tenure, until),
            Event::ClaimsKeptBack(tenure) => self.claims_kept_back(tenure),
            Event::ClaimSuperseded(tenure) => self.claim_superseded(tenure),
            Event::Preempted(tenure) => self.preempted(tenure),
            Event::OwnershipHint(tenure) => self.ownership_hint(tenure),
            Event::DeliveriesVoid(tenure) => self.deliveries_void(tenure),
            Event::HeldTooLong(tenure) => self.request_yield(tenure, YieldReason::HeldTooLong),
            Event::TenureEnded(tenure) => self.end_tenure(now, tenure),
            Event::Received { tenure, delivery, redelivered, update } => {
                self.delivered(tenure, Unclaimed::Update { delivery, redelivered, update });
            }
            Event::ReceivedMalformed { tenure, delivery, fault } => {
                self.delivered(tenure, Unclaimed::Malformed { delivery, fault });
            }
            Event::AttemptEnded { attempt, record_key, outcome } => {
                self.end_attempt(now, attempt, &record_key, outcome);
            }
            Event::Released { tenure, record_key, updates } => self.release(tenure, &record_key, updates),
            Event::Recorded { tenure, holder, record_key } => match (record_key, holder) {
                (Some(record_key), holder) => self.recorded((tenure, holder), &record_key),
                (None, Holder::Broker(delivery)) => self.recorded_malformed(tenure, delivery),
                (None, Holder::Ledger(_)) => unreachable!("what is parked is an update"),
            },
            Event::NotRecorded { tenure, holder, record_key } => {
                self.not_recorded((tenure, holder), &record_key);
            }
            Event::PreviousDrained { undrained } => self.previous_drained(undrained),
            Event::TargetShut { target, probe_from } => self.target_shut(now, target, probe_from),
            Event::TargetOpened(target) => self.target_opened(now, target),
            Event::TargetPaused(target) => self.target_paused(now, target),
            Event::TargetResumed(target) => self.target_resumed(now, target),
            Event::ProbeGranted(target) => self.probe_granted(target),
            Event::TargetPaced(target) => self.target_paced(target),
            Event::TargetUnpaced(target) => self.target_unpaced(now, target),
            Event::PermitsGranted { target, permits } => self.permits_granted(now, target, permits),
            Event::StopRequested => self.stopping = true,
        }
        self.go_on(now);
    }

    /// Time has passed: lanes whose deadline has come are ready again. Early and late calls do no harm.
    pub fn wake(&mut self, now: Tick) {
        self.now = now;
        self.ownership.check_lease(now);
        self.make_due_ready(now);
        self.go_on(now);
    }

    fn go_on(&mut self, now: Tick) {
        if self.stopping {
            self.return_probes();
            self.withdraw_permits();
        }
        self.end_take_over_wait(now);
        self.start_attempts(now);
        self.ask_for_probes(now);
    }

    fn make_due_ready(&mut self, now: Tick) {
        while let Some((until, id)) = self.deadlines.first().copied() {
            if until > now {
                break;
            }
            self.make_ready_again(id);
        }
    }

    /// When [`Self::wake`] has something to do.
    #[must_use]
    pub fn next_deadline(&self) -> Option<Tick> {
        let waiting = self.deadlines.first().map(|(until, _)| *until);
        let probe = self.targets.next_deadline().filter(|_| !self.stopping);
        [waiting, probe, self.take_over.next_deadline()].into_iter().flatten().min()
    }

    /// The next thing to do, in order.
    pub fn poll_effect(&mut self) -> Option<Effect> {
        self.effects.pop_front()
    }

    /// Returns true if no attempt is out, nothing is being written down and no effect waits.
    #[must_use]
    pub fn is_quiet(&self) -> bool {
        self.in_flight == 0 && self.recording == 0 && self.effects.is_empty()
    }

    /// Returns true if a delivery is of the present tenure (I5); there is always room for it (I6).
    fn admit(&mut self, tenure: Tenure) -> bool {
        if self.tenure != Some(tenure) {
            self.stale += 1;
            return false;
        }
        assert!(self.held < self.limits.window.get(), "I6: the broker keeps to the prefetch window");
        self.held += 1;
        true
    }

    fn receive(&mut self, held: HeldUpdate) {
        if let Some(id) = self.find_lane(&held.update.record_key) {
            let lane = &mut self.lanes[id];
            if let (Some(Holder::Broker(newest)), Holder::Broker(delivery)) =
                (lane.held.back().map(|newest| newest.holder), held.holder)
            {
                assert!(newest < delivery, "I2: deliveries of a record come in order");
            }
            lane.held.push_back(held);
            return;
        }
        let id = self.lanes.insert(Lane {
            key: self.lane_key(&held.update.record_key).clone(),
            position: QueuePosition::first(held.arrival),
            held: VecDeque::from([held]),
            status: LaneStatus::Ready,
            since: self.now,
            progress: Progress::default(),
        });
        self.enter_head(id);
    }

    /// An update became the head of its lane: it goes on from where an earlier tenure left it, or begins.
    fn enter_head(&mut self, id: LaneId) {
        if self.block_by_previous(id) {
            return;
        }
        let lane = &mut self.lanes[id];
        (lane.progress, lane.position) = (Progress::default(), QueuePosition::first(lane.head().arrival));
        if lane.head().settled_before {
            return self.resolve(id, Resolution::Duplicate);
        }
        let HeldUpdate { update, identity, .. } = lane.head().clone();
        let (record_key, released) = (&update.record_key, lane.head().is_released());
        match self.memory.take_head(record_key, &identity) {
            Some(RememberedState::InFlight { attempt, progress, .. }) => {
                lane.progress = progress;
                self.set_status(id, LaneStatus::InFlight(attempt));
            }
            Some(RememberedState::Ended { outcome, target_shut, progress, at }) => {
                lane.progress = progress;
                self.judge(at, id, outcome, target_shut);
            }
            Some(RememberedState::Waiting { until, progress }) => {
                lane.progress = progress;
                self.wait_until(id, until);
            }
            Some(RememberedState::Recording { token, resolution }) => {
                self.set_status(id, LaneStatus::Recording { resolution, token });
                self.recording += 1;
            }
            // It was parked, and a person has released it since.
            Some(RememberedState::Recorded { resolution: Resolution::Parked(_) }) if released => {
                self.make_new_ready(id);
            }
            Some(RememberedState::Recorded { .. }) => self.resolve(id, Resolution::Duplicate),
            Some(RememberedState::Unwritten { resolution }) => self.resolve(id, resolution),
            None => match self.memory.stray(record_key) {
                Some(stray) => self.set_status(id, LaneStatus::Behind(stray)),
                None => self.make_new_ready(id),
            },
        }
    }

    /// The head is sent as for the first time. If it has no id of its publisher, or if updates were published again, it
    /// may be a repetition.
    fn make_new_ready(&mut self, id: LaneId) {
        let lane = &mut self.lanes[id];
        let head = lane.head();
        let unsure = head.identity.origin() == IdOrigin::Delivery || self.memory.may_hold_repeated();
        if head.redelivered && unsure {
            let update = Arc::clone(&head.update);
            self.memory.resend_from(&update.record_key);
            for held in lane.held.iter_mut().filter(|held| held.update.record_key == update.record_key) {
                held.settled_before = false;
            }
        }
        let arrival = self.lanes[id].head().arrival;
        self.enqueue(id, QueuePosition::first(arrival));
    }

    fn start_attempts(&mut self, now: Tick) {
        if self.tenure.is_some()
            && !self.stopping
            && let Permit::Granted(tenure) = self.ownership.permit()
        {
            self.start_ready(now, tenure);
            self.return_permits(usize::from(!self.ready.is_empty()));
            self.ask_for_permits();
        } else {
            self.return_permits(0);
        }
    }

    /// Ends when no lane is ready or no room is left.
    fn start_ready(&mut self, now: Tick, tenure: Option<TenureNumber>) {
        while self.in_flight < self.limits.in_flight_max.get() {
            let Some((position, id)) = self.ready.pop_first() else { break };
            let next = self.ready.first_key_value();
            assert!(
                next.is_none_or(|(next, _)| position < *next),
                "I9: the lane whose head came first is next"
            );
            if self.take_over.holds(&self.lanes[id], now) {
                self.wait_for_take_over(position, id);
                continue;
            }
            let target = self.lanes[id].head().update.target;
            match self.targets.gate(target, id) {
                TargetGate::Probe => self.start_attempt(now, id, tenure, Pass::Probe),
                TargetGate::Shut => self.hold_back(position, id, target),
                TargetGate::Open => match self.pace(target) {
                    Some(pass) => self.start_attempt(now, id, tenure, pass),
                    None => self.wait_for_permit(now, position, id, target),
                },
            }
        }
    }

    fn start_attempt(&mut self, now: Tick, id: LaneId, tenure: Option<TenureNumber>, pass: Pass) {
        let lane = &mut self.lanes[id];
        assert_eq!(lane.status, LaneStatus::Ready, "I1: only a ready lane is attempted");
        assert_eq!(
            self.memory.stray(&lane.head().update.record_key),
            None,
            "I1: nothing that an earlier tenure began for the record is under way"
        );
        assert!(!self.take_over.holds(lane, now), "I11: no request of an earlier tenure is at work");
        let head = lane.head();
        assert!(
            !self.blocked.holds(&head.update.record_key),
            "I2: no older update waits in the layout before"
        );
        self.memory.sent(&head.update.record_key, &head.identity);
        self.attempts_begun += 1;
        let attempt = AttemptId(self.attempts_begun);
        lane.progress.shut_for(self.targets.shut_for(lane.head().update.target, now));
        let number = lane.progress.begin_attempt(now);
        let (holder, update) = (lane.head().holder, Arc::clone(&lane.head().update));
        self.set_status(id, LaneStatus::InFlight(attempt));
        self.in_flight += 1;
        let (probe, permit) = (pass == Pass::Probe, pass == Pass::Permit);
        self.effects.push_back(Effect::Attempt { attempt, number, tenure, holder, update, probe, permit });
    }

    fn end_attempt(&mut self, now: Tick, attempt: AttemptId, record_key: &RecordKey, outcome: Outcome) {
        let lane = self.find_lane(record_key);
        let status = lane.map(|id| &self.lanes[id].status);
        match (lane, status) {
            (Some(id), Some(LaneStatus::InFlight(out))) if *out == attempt => {
                self.in_flight -= 1;
                let target_shut = self.targets.is_shut(self.lanes[id].head().update.target);
                self.judge(now, id, outcome, target_shut);
            }
            _ if self
                .memory
                .attempt_ended(now, record_key, attempt, outcome, |target| self.targets.is_shut(target)) =>
            {
                self.in_flight -= 1;
                self.stray_ended(record_key, Stray::Attempt(attempt));
            }
            _ => self.stale += 1,
        }
    }

    /// A lane that waits for the stray goes on.
    fn stray_ended(&mut self, record_key: &RecordKey, stray: Stray) {
        if let Some(id) = self.find_lane(record_key)
            && self.lanes[id].status == LaneStatus::Behind(stray)
        {
            self.make_new_ready(id);
        }
    }

    /// `target_shut`: the target was shut when the attempt ended.
    fn judge(&mut self, now: Tick, id: LaneId, outcome: Outcome, target_shut: bool) {
        if self.was_found_before_parked(id, &outcome) {
            return self.make_ready_again(id);
        }
        let outcome = self.beside_nobody(now, outcome);
        let lane = &mut self.lanes[id];
        let Lane { held, progress, .. } = lane;
        let head = held.front().expect("a lane exists only while it holds an update");
        let (id_of_head, target) = (&head.update.id, head.update.target);
        progress.shut_for(self.targets.shut_for(target, now));
        progress.attempt_ended(now, &outcome);
        let refused = matches!(outcome, Outcome::RefusedAlone { .. });
        let verdict = if target_shut {
            self.policy.judge_while_shut(id_of_head, target, outcome, progress, now)
        } else {
            self.policy.judge(id_of_head, target, outcome, progress, now)
        };
        match verdict {
            Verdict::RetryAt(until) => self.wait_until(id, until),
            Verdict::RetryInTurn => {
                let position = lane.position;
                self.enqueue(id, position);
            }
            Verdict::Resolve(resolution) => {
                self.ended_beside_nobody |= refused;
                self.resolve(id, resolution);
            }
        }
    }

    fn resolve(&mut self, id: LaneId, resolution: Resolution) {
        let tenure = self.tenure.expect("lanes exist only within a tenure");
        let lane = &mut self.lanes[id];
        let head = lane.head();
        let (holder, update) = (head.holder, Arc::clone(&head.update));
        let status = LaneStatus::Recording { resolution: resolution.clone(), token: (tenure, holder) };
        self.set_status(id, status);
        self.recording += 1;
        self.effects.push_back(Effect::Record { tenure, holder, update: Some(update), resolution });
    }

    /// The lane whose head's resolution is being written down under this name.
    fn find_recording(&self, token: Token, record_key: &RecordKey) -> Option<LaneId> {
        self.find_lane(record_key).filter(
            |id| matches!(&self.lanes[*id].status, LaneStatus::Recording { token: of, .. } if *of == token),
        )
    }

    /// The only way to a settlement: a resolution that is written down (I3).
    fn recorded(&mut self, token: Token, record_key: &RecordKey) {
        let Some(id) = self.find_recording(token, record_key) else {
            if self.memory.recorded(record_key, token) {
                self.stray_ended(record_key, Stray::Recording(token));
            } else {
                self.stale += 1;
            }
            return;
        };
        self.recording -= 1;
        let lane = &mut self.lanes[id];
        let parked = matches!(&lane.status, LaneStatus::Recording { resolution: Resolution::Parked(_), .. });
        let head = lane.held.pop_front().expect("a lane exists only while it holds an update");
        match head.holder {
            Holder::Broker(delivery) => {
                self.memory.settled(record_key, &head.identity);
                self.settle(delivery);
            }
            Holder::Ledger(_) => self.released_resolved(id, record_key, parked),
        }
        if self.lanes[id].held.is_empty() {
            self.lanes.remove(id);
        } else {
            self.enter_head(id);
        }
    }

    fn settle(&mut self, delivery: DeliveryTag) {
        let tenure = self.tenure.expect("only deliveries of the present tenure are settled (I5)");
        self.held -= 1; // `Acks` knows which deliveries are held, and asserts that each is settled once (I7)
        self.effects.push_back(Effect::Settle { tenure, delivery });
    }
}

#[cfg(test)]
mod tests;

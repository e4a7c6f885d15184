//! What must hold, told from outside: from the requests that left and how they ended, from what the target applied,
//! and from what left the queue. The judge never looks into the partition.
//!
//! Updates are named by their place in the queue's history, so "earlier" is "smaller".

use std::sync::Arc;

use lanekeeper_core::message::Holder;
use lanekeeper_core::outcome::Outcome;
use lanekeeper_core::partition::Limits;
use lanekeeper_core::policy::Policy;
use lanekeeper_core::tick::Tick;
use lanekeeper_core::update::UpdateId;

use crate::facts::{Facts, Here, RecordFacts, Sent, facts_of};
use crate::fairness::Fairness;
use crate::setup::Setup;
use crate::shut::ShutJudge;

/// Ends the world: rule and what broke it.
macro_rules! fault {
    ($rule:literal, $($what:tt)*) => { panic!("judge ({}): {}", $rule, format_args!($($what)*)) };
}
pub(crate) use fault;

mod endings;
mod pauses;
mod redelivery;
mod release;
mod why;

pub use why::HeldRecord;

#[derive(Debug)]
pub struct Judge {
    limits: Limits,
    pub policy: Arc<Policy>,
    pub updates: Vec<Facts>,
    records: Vec<RecordFacts>,
    pub fairness: Fairness,
    pub circuits: ShutJudge,
    /// Counts what the core is told.
    step: u64,
    in_flight: usize,
    tenure: Option<u64>,
    /// A claim was asked for in this tenure, and nothing has made it void since.
    claiming: bool,
    /// The newest claim of another process that the dispatcher has read together with one of its own.
    rival_known: Option<u64>,
    /// The number of the claim that was read back in this tenure.
    claimed: Option<u64>,
    /// Deliveries since then that wait for a claim: record, update, and whether it comes again.
    unclaimed: Vec<(usize, usize, bool)>,
    /// Until when requests may leave.
    lease_until: Tick,
    stopping: bool,
    /// A ledger knows what was resolved; `ledger` judges what is sent.
    kept: bool,
    /// The judge sees each effect as soon as it is decided.
    pub exact: bool,
}

impl Judge {
    pub fn new(setup: &Setup) -> Self {
        let (updates, records) = facts_of(setup);
        Self {
            limits: setup.limits,
            policy: Arc::clone(&setup.policy),
            updates,
            fairness: Fairness::new(records.len(), !setup.lazy && setup.ledger.is_none()),
            records,
            circuits: ShutJudge::new(setup.circuits.targets),
            step: 0,
            in_flight: 0,
            tenure: None,
            claiming: false,
            rival_known: None,
            claimed: None,
            unclaimed: Vec::new(),
            lease_until: Tick::ZERO,
            stopping: false,
            kept: setup.ledger.is_some(),
            exact: !setup.lazy,
        }
    }

    pub fn woke(&mut self, now: Tick) {
        self.step += 1;
        self.fairness.woke(now, self.step);
    }

    pub fn tenure_began(&mut self, tenure: u64) {
        self.tenure = Some(tenure);
    }

    /// A note that was read back gives so much. The number stays the same.
    pub fn lease_renewed(&mut self, now: Tick, until: Tick) {
        self.lease_until = self.lease_until.max(until);
        self.woke(now);
        self.take_in(now);
    }

    /// Nothing is held, and another may own the partition: a claim comes before the next attempt.
    pub fn let_go(&mut self) {
        (self.claiming, self.claimed) = (false, None);
    }

    pub fn claim_asked(&mut self, tenure: u64) {
        self.claiming |= self.tenure == Some(tenure);
    }

    /// Where another process has owned the partition, what was known here of its updates is old: they may be sent again.
    pub fn claimed(&mut self, now: Tick, tenure: u64, number: u64, rival_claim: Option<u64>) {
        if self.tenure != Some(tenure) || !std::mem::take(&mut self.claiming) {
            return;
        }
        self.claimed = Some(number);
        if rival_claim > self.rival_known {
            self.rival_known = rival_claim;
            for facts in &mut self.updates {
                facts.here = Here { turn: facts.here.turn + 1, ..Here::default() };
            }
            self.records.iter_mut().for_each(|record| record.recording = None);
        }
        self.step += 1;
        self.take_in(now);
    }

    /// Another has claimed the partition after us.
    pub fn claim_superseded(&mut self, tenure: u64) {
        if self.tenure == Some(tenure) {
            self.let_go();
        }
    }

    /// A request carries the number of the present claim, and leaves only within the lease.
    pub fn sent_under(&self, now: Tick, update: usize, number: Option<u64>) {
        if !self.exact {
            return;
        }
        if number.is_none() || number != self.claimed {
            let claimed = self.claimed;
            fault!("tenure, I5", "#{update} was sent under number {number:?}, and {claimed:?} is in force");
        }
        if now > self.lease_until {
            fault!("lease", "#{update} was sent {:?} after the lease", now.since(self.lease_until));
        }
    }

    pub fn stop_requested(&mut self) {
        self.stopping = true;
    }

    pub fn tenure_ended(&mut self) {
        self.tenure = None;
        self.let_go();
        self.unclaimed.clear();
        self.stopping = false;
        self.fairness.forget();
        self.forget_released();
    }

    pub fn crashed(&mut self, now: Tick) {
        self.circuits.crashed(now);
        self.tenure_ended();
        self.in_flight = 0;
        self.updates.iter_mut().for_each(|facts| facts.here = Here::default());
        self.records.iter_mut().for_each(|record| (record.out, record.recording) = (None, None));
    }

    pub fn received(&mut self, now: Tick, update: usize, redelivered: bool) {
        self.step += 1;
        let Some(record) = self.updates[update].record else { return };
        self.unclaimed.push((record, update, redelivered));
        self.take_in(now);
    }

    /// What was delivered joins its lane, if the partition is claimed and the lease runs.
    fn take_in(&mut self, now: Tick) {
        if self.claimed.is_some() && now <= self.lease_until {
            for (record, update, redelivered) in std::mem::take(&mut self.unclaimed) {
                let without_id = self.updates[update].id.is_none();
                if redelivered && without_id {
                    self.begin_turn(update);
                }
                let new = without_id || !redelivered && self.updates[update].twin.is_none();
                let free = self.records[record].is_free();
                self.fairness.received(record, update, new, free, self.step);
            }
        }
    }

    /// Lanes that wait for it are no longer next.
    pub fn target_shut(&mut self, now: Tick, target: usize) {
        self.step += 1;
        self.circuits.shut(now, target);
    }

    pub fn target_opened(&mut self, now: Tick, target: usize) {
        self.step += 1;
        self.circuits.opened(now, target);
        self.lanes_go_on(target);
    }

    pub fn probe_granted(&mut self, target: usize) {
        self.step += 1;
        self.circuits.granted(target, self.step);
    }

    pub fn sent(
        &mut self,
        now: Tick,
        update: usize,
        (attempt, number, probe): (u64, u32, bool),
        holder: Holder,
        id: UpdateId,
    ) -> Sent {
        let released = matches!(holder, Holder::Ledger(_));
        let record = self.updates[update].record.expect("malformed updates are never sent");
        let facts = &self.updates[update];
        if facts.id.as_ref().is_some_and(|own| *own != id) {
            fault!("identity", "#{update} was sent with the id of another update");
        }
        if let Some((out, _)) = self.records[record].out {
            fault!(
                "one at a time, I1",
                "attempt {attempt} of #{update} while attempt {out} of its record is in flight"
            );
        }
        if let Some((recording, _)) = self.records[record].recording {
            fault!(
                "one at a time",
                "#{update} was sent while the resolution of #{recording} of its record is being written down"
            );
        }
        // The end of an attempt counts for whichever publishing of the update is the head by then.
        if now < facts.here.earliest && facts.twin.is_none() && !released {
            fault!("deadline, I4", "#{update} was sent {:?} too early", facts.here.earliest.since(now));
        }
        if self.stopping && self.exact {
            fault!("drain", "#{update} was sent after the drain began");
        }
        if !released {
            self.judge_turn(record, update);
            self.judge_release(record, update);
        }
        if !self.kept {
            self.judge_number(update, number);
            self.judge_need(record, update);
        }
        let target = self.updates[update].target;
        let granted = self.circuits.sent(target, attempt, probe, self.exact);
        if self.tenure.is_some() && !self.strict() && !released {
            let (circuits, updates) = (&self.circuits, &self.updates);
            self.fairness.sent(record, update, self.step, granted, |other| {
                let of = updates[other].target;
                (of == target, circuits.is_shut(of))
            });
        }
        self.records[record].out = Some((attempt, update));
        self.in_flight += 1;
        if self.in_flight > self.limits.in_flight_max.get() {
            fault!(
                "bounds, I6",
                "{} attempts in flight, {} allowed",
                self.in_flight,
                self.limits.in_flight_max
            );
        }
        if self.updates[update].here.resolved_at.is_some() {
            self.begin_turn(update);
        }
        let Facts { here, .. } = &mut self.updates[update];
        here.attempts = number;
        here.first_sent_at.get_or_insert(now);
        here.sent_at = self.step;
        Sent { attempt, number, probe, update, id, turn: here.turn, under: 0 }
    }

    /// One attempt at a time, in the order of the queue: nobody is ready but its head.
    fn strict(&self) -> bool {
        self.limits.in_flight_max.get() == 1
    }

    /// Order: every earlier update of the record is resolved, and settled by this tenure if it was here again.
    /// In strict mode that goes for every earlier update of the queue.
    fn judge_turn(&self, record: usize, update: usize) {
        for earlier in 0..update {
            let facts = &self.updates[earlier];
            let before = if self.strict() { facts.record.is_some() } else { facts.record == Some(record) };
            if !before {
                continue;
            }
            if !self.kept && !self.is_resolved(earlier) {
                fault!("order, I2", "#{update} was sent before #{earlier} of its record was resolved");
            }
            if let Some(tenure) = self.tenure
                && !facts.gone
                && facts.settled_in != tenure
            {
                fault!(
                    "order, I2",
                    "#{update} was sent before #{earlier} of its record, which has come again"
                );
            }
        }
    }

    /// The target has applied a request. A stray one is of a dead process.
    pub fn applied(&mut self, update: usize, stray: bool) {
        let record = self.updates[update].record.expect("malformed updates are never sent");
        if !self.updates[update].applied && !self.kept {
            for earlier in &self.records[record].updates {
                let done = self.is_applied(*earlier) || self.is_dead_lettered(*earlier);
                if *earlier < update && !done {
                    fault!("order", "#{update} was first applied before #{earlier} of its record");
                }
            }
        }
        self.updates[update].applied = true;
        if !stray {
            self.updates[update].applied_in_life = true;
            self.records[record].last_applied = Some(update);
        }
    }

    /// Another process has applied it, in its turn.
    pub fn applied_by_other_process(&mut self, update: usize) {
        self.applied(update, false);
        self.updates[update].resolved = true;
    }

    /// A living process was told how an attempt ended.
    pub fn attempt_ended(&mut self, now: Tick, sent: &Sent, outcome: &Outcome) {
        self.step += 1;
        let record = self.updates[sent.update].record.expect("malformed updates are never sent");
        if self.records[record].out.take() != Some((sent.attempt, sent.update)) {
            fault!("one at a time, I1", "attempt {} ended and was not in flight", sent.attempt);
        }
        self.in_flight -= 1;
        self.circuits.attempt_ended(sent.attempt);
        let facts = &mut self.updates[sent.update];
        let counts = !self.circuits.is_shut(facts.target);
        facts.resolved |= *outcome == Outcome::Applied;
        if facts.here.turn != sent.turn {
            return;
        }
        if *outcome == Outcome::Applied {
            facts.here.resolved_at = Some(self.step);
        }
        facts.here.failures += u32::from(counts && matches!(outcome, Outcome::Retryable { .. }));
        facts.here.ended_at = now;
        facts.here.last = Some(outcome.clone());
        let (earliest, exact) = self.earliest(now, sent, outcome);
        self.updates[sent.update].here.earliest = earliest;
        let certain = exact && self.updates[sent.update].twin.is_none();
        self.fairness.waits(record, sent.update, certain.then_some(earliest));
    }

    /// The dead-letter queue has it, whether or not the dispatcher lives to know.
    pub fn dead_lettered(&mut self, update: usize) {
        self.updates[update].dead_lettered = true;
    }

    /// The dispatcher was told that a resolution is written down.
    pub fn recorded(&mut self, update: usize, turn: u32) {
        self.step += 1;
        self.recording_ended(update, turn);
        let facts = &mut self.updates[update];
        facts.resolved |= facts.dead_lettered;
        if facts.here.resolved_at.is_none() && facts.here.turn == turn {
            facts.here.resolved_at = Some(self.step);
            facts.here.earliest = Tick::ZERO;
        }
    }

    /// The dispatcher regards a delivery as done: its ack may leave.
    pub fn settled(&mut self, update: usize, tenure: u64) {
        if !self.kept && !self.is_resolved_here(update) {
            fault!("settle, I3", "#{update} was settled without being resolved");
        }
        if self.tenure != Some(tenure) {
            fault!("tenure, I5", "#{update} was settled for tenure {tenure}");
        }
        let facts = &mut self.updates[update];
        facts.settled_in = tenure;
        if let Some(record) = facts.record {
            self.fairness.settled(record, update, self.records[record].is_free());
        }
    }

    /// The broker has let go of it.
    pub fn acked(&mut self, update: usize) {
        if !self.kept && !self.was_resolved(update) {
            fault!("settle, I3", "#{update} left the queue, neither applied nor dead-lettered");
        }
        self.updates[update].gone = true;
    }

    /// A channel was closed after a drain: what was settled by then has left the queue.
    pub fn drained(&self, settled: &[usize]) {
        for update in settled {
            if !self.updates[*update].gone {
                fault!(
                    "drain",
                    "#{update} was settled, and its ack was not sent before the channel was closed"
                );
            }
        }
    }

    /// After each event: a permit that is free and a lane that is ready do not lie side by side.
    pub fn at_rest(&mut self, now: Tick) {
        if self.stopping || self.tenure.is_none() {
            self.circuits.at_rest();
        }
        if now > self.lease_until {
            return;
        }
        let free = self.in_flight < self.limits.in_flight_max.get();
        let starts = self.claimed.is_some() && !self.stopping && free;
        if starts {
            self.circuits.at_rest();
            self.fairness.hold_back(self.step, |update| self.circuits.is_shut(self.updates[update].target));
        }
        if starts
            && !self.strict()
            && let Some(update) = self.fairness.ready()
        {
            fault!(
                "liveness",
                "#{update} is ready and is not sent, though only {} are in flight",
                self.in_flight
            );
        }
    }

    /// The earlier updates of its record.
    pub fn earlier_of(&self, record: usize, update: usize) -> Vec<usize> {
        self.records[record].updates.iter().copied().take_while(|earlier| *earlier < update).collect()
    }

    /// Everything has left the queue for good.
    pub fn all_gone(&self) -> bool {
        self.updates.iter().all(|facts| facts.gone)
    }

    /// The world has come to rest.
    pub fn end(&self) {
        for (update, facts) in self.updates.iter().enumerate() {
            if !facts.gone {
                fault!("liveness", "#{update} is still in the queue and nothing will happen any more");
            }
        }
        for record in self.records.iter().filter(|_| !self.kept) {
            let Some(last) = record.last_applied else { continue };
            // What was published again holds the same value as its repetition.
            let last = self.updates[last].twin.map_or(last, |twin| twin.max(last));
            for later in record.updates.iter().copied().filter(|later| *later > last) {
                let facts = &self.updates[later];
                // A repeated publishing may count as the earlier one that it repeats, if an id says that it does.
                let counts = facts.id.is_none() || facts.applied_in_life && facts.twin.is_none();
                if counts && !facts.dead_lettered {
                    fault!("last value", "the record keeps #{last}, though #{later} was applied");
                }
            }
        }
    }

    /// Of updates that say the same, each must have its own turn, unless an id says that they are one.
    fn was_resolved(&self, update: usize) -> bool {
        let facts = &self.updates[update];
        let own = facts.applied || facts.dead_lettered;
        own || facts.id.is_some() && (self.is_applied(update) || self.is_dead_lettered(update))
    }

    fn any(&self, update: usize, holds: impl Fn(&Facts) -> bool) -> bool {
        let facts = &self.updates[update];
        holds(facts) || facts.twin.is_some_and(|twin| holds(&self.updates[twin]))
    }

    pub fn is_applied(&self, update: usize) -> bool {
        self.any(update, |facts| facts.applied)
    }

    fn is_dead_lettered(&self, update: usize) -> bool {
        self.any(update, |facts| facts.dead_lettered)
    }

    fn is_resolved(&self, update: usize) -> bool {
        self.any(update, |facts| facts.resolved || facts.dead_lettered)
    }

    pub fn is_resolved_here(&self, update: usize) -> bool {
        self.any(update, |facts| facts.here.resolved_at.is_some())
    }
}

//! The rules of the world with limits, judged without a look into the core.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use lanekeeper_core::outcome::{Cause, Failure, Outcome};
use lanekeeper_core::pacing::Refusal;
use lanekeeper_core::tick::Tick;
use lanekeeper_core::update::Update;

use super::budget::{Budget, Ended};
use super::{ELAPSED_MAX, WINDOW};

/// If for so long, in microseconds, no other record was refused, this one is alone at the target.
const LATELY: u64 = 10_000_000;
/// If a target refuses by chance alone, updates end so soon after the last one was published.
const TIME_MAX: Duration = Duration::from_secs(60);
/// If something was refused for so long before, in microseconds, refusals on end may be chance,
const REMEMBERED: u64 = 130_000_000;
/// unless they are so many.
const NO_CHANCE: u32 = 16;
/// With no more records, a full window shows nothing of others.
const RECORDS_FEW: usize = 4;

#[derive(Debug)]
pub struct LimitsJudge {
    updates: Vec<Facts>,
    /// Of each record: its updates, oldest first.
    records: BTreeMap<u64, Vec<usize>>,
    partitions: usize,
    strict: bool,
    /// Counts what happens.
    step: u64,
    pub with_permit: u64,
    pub refused: u64,
    /// When which record was refused.
    refusals: Vec<(Tick, u64)>,
    /// When the requests began with which records were applied.
    applied: Vec<(Tick, u64)>,
    /// Of each partition: an update was parked for refusals beside nobody, and nothing was applied since.
    ended_beside_nobody: Vec<bool>,
    /// How long a head can wait for room.
    room: Duration,
    /// When something was refused first, and nothing was applied with a request from after it.
    none_applied_since: Option<Tick>,
    /// Requests that were refused since then, and began later.
    refused_on_end: u32,
    /// When something was refused last before that.
    refused_before: Option<Tick>,
    /// When something was refused last with 429 or 503.
    refused_at: Option<Tick>,
    /// Until when nothing may be sent.
    paused_until: Tick,
    /// What each partition has sent in this pause all the same.
    in_pause: Vec<u32>,
    resolved_last: Tick,
    pub parked: u64,
    pub parked_for_refusals: u64,
}

#[derive(Debug, Default)]
struct Facts {
    record: u64,
    /// Its delivery in the present tenure, and the step in which it came.
    delivered: Option<(u64, u64)>,
    /// The step in which the update before it was resolved.
    head_since: u64,
    attempted: bool,
    in_flight: bool,
    resolved: bool,
    first_sent: Option<Tick>,
    budget: Budget,
    /// The latest attempt was refused, and what counts of it counts beside nobody.
    beside_nobody: bool,
}

impl LimitsJudge {
    pub fn new(updates: &[Arc<Update>], partitions: usize, strict: bool, room: Duration) -> Self {
        let mut records: BTreeMap<u64, Vec<usize>> = BTreeMap::new();
        let mut facts = Vec::new();
        for (number, update) in updates.iter().enumerate() {
            let record = update.record_key.as_str()[1..].parse().expect("keys are numbers");
            records.entry(record).or_default().push(number);
            facts.push(Facts { record, ..Facts::default() });
        }
        Self {
            updates: facts,
            records,
            partitions,
            strict,
            step: 0,
            with_permit: 0,
            refused: 0,
            refusals: Vec::new(),
            applied: Vec::new(),
            ended_beside_nobody: vec![false; partitions],
            room,
            none_applied_since: None,
            refused_on_end: 0,
            refused_before: None,
            refused_at: None,
            paused_until: Tick::ZERO,
            in_pause: vec![0; partitions],
            resolved_last: Tick::ZERO,
            parked: 0,
            parked_for_refusals: 0,
        }
    }

    pub fn step(&mut self) {
        self.step += 1;
    }

    pub fn record_of(&self, update: usize) -> u64 {
        self.updates[update].record
    }

    pub fn partition_of(&self, update: usize) -> usize {
        self.home_of(self.updates[update].record)
    }

    fn home_of(&self, record: u64) -> usize {
        usize::try_from(record).expect("small") % self.partitions
    }

    pub fn delivered(&mut self, partition: usize, update: usize, delivery: u64) {
        assert_eq!(partition, self.partition_of(update));
        self.updates[update].delivered = Some((delivery, self.step));
    }

    pub fn tenure_ended(&mut self, partition: usize) {
        for update in 0..self.updates.len() {
            if self.partition_of(update) == partition {
                self.updates[update].delivered = None;
                self.updates[update].budget.channel_lost();
            }
        }
    }

    fn head(&self, record: u64) -> Option<usize> {
        self.records[&record].iter().copied().find(|update| !self.updates[*update].resolved)
    }

    pub fn sent(&mut self, now: Tick, partition: usize, update: usize, (number, permit): (u32, bool)) {
        let record = self.updates[update].record;
        assert_eq!(self.head(record), Some(update), "judge (order, I2): #{update} was sent");
        assert!(!self.updates[update].in_flight, "judge (one at a time, I1): #{update}");
        self.with_permit += u64::from(permit);
        self.judge_pause(now, partition, update);
        if permit && number == 1 && !self.updates[update].attempted && !self.strict {
            self.judge_turn(partition, update);
        }
        let facts = &mut self.updates[update];
        (facts.attempted, facts.in_flight) = (true, true);
        facts.first_sent.get_or_insert(now);
    }

    /// No record waits whose head came before and could have gone.
    fn judge_turn(&self, partition: usize, update: usize) {
        let Some((delivery, _)) = self.updates[update].delivered else { return };
        for record in self.records.keys() {
            let Some(head) = self.head(*record) else { continue };
            let facts = &self.updates[head];
            if self.partition_of(head) == partition
                && !facts.attempted
                && facts.head_since < self.step
                && facts.delivered.is_some_and(|(before, came)| before < delivery && came < self.step)
            {
                panic!("judge (fair, I9): #{update} was sent before #{head}, which came earlier");
            }
        }
    }

    /// A pause holds for all, but for the permit that a partition may have kept for a lane that waits for room.
    fn judge_pause(&mut self, now: Tick, partition: usize, update: usize) {
        if now < self.paused_until {
            self.in_pause[partition] += 1;
            let until = self.paused_until;
            assert!(
                self.in_pause[partition] <= 1,
                "judge (pause): #{update} was sent, and the pause ends at {until:?}"
            );
        } else {
            self.in_pause.fill(0);
        }
    }

    pub fn attempt_ended(
        &mut self,
        (now, began): (Tick, Tick),
        update: usize,
        outcome: &Outcome,
        refusal: Refusal,
    ) {
        let partition = self.partition_of(update);
        let record = self.updates[update].record;
        let others_applied =
            self.applied.iter().filter(|(_, other)| *other != record).map(|(began, _)| *began).max();
        let beside_nobody = self.has_few_records(partition);
        let room = self.room;
        let facts = &mut self.updates[update];
        facts.in_flight = false;
        let end = Ended { now, began, outcome, refusal, others_applied, beside_nobody, room };
        facts.beside_nobody = facts.budget.attempt_ended(&end);
        facts.budget.judge_end(update);
        if outcome.failure().is_some() {
            self.refused += 1;
            self.refusals.push((now, record));
        } else {
            self.applied.push((began, record));
            self.none_applied_since.take_if(|since| began > *since);
            self.ended_beside_nobody[partition] = false;
        }
        if matches!(outcome.failure(), Some(Failure { cause: Cause::Status(429 | 503), .. })) {
            match self.none_applied_since {
                None => {
                    (self.none_applied_since, self.refused_on_end) = (Some(now), 0);
                    self.refused_before = self.refused_at;
                }
                Some(since) => self.refused_on_end += u32::from(began > since),
            }
            self.refused_at = Some(now);
        }
        let may_be_chance =
            self.refused_before.is_some_and(|before| before.micros() + REMEMBERED > now.micros());
        let refuses_all = self.refused_on_end >= if may_be_chance { NO_CHANCE } else { 1 };
        if let (Outcome::Retryable { retry_after: Some(wait), .. }, Refusal::OfTarget) = (outcome, refusal)
            && refuses_all
        {
            if now >= self.paused_until {
                self.in_pause.fill(0);
            }
            self.paused_until = self.paused_until.max(now.after(*wait));
        }
    }

    /// Few records fill the window of the partition.
    fn has_few_records(&self, partition: usize) -> bool {
        let delivered = |facts: &&Facts| facts.delivered.is_some() && !facts.resolved;
        let here =
            self.updates.iter().filter(delivered).filter(|facts| self.home_of(facts.record) == partition);
        let records: Vec<u64> = here.map(|facts| facts.record).collect();
        let distinct: BTreeSet<u64> = records.iter().copied().collect();
        records.len() >= WINDOW && (self.strict || distinct.len() <= RECORDS_FEW)
    }

    /// `parked`: the update is parked; for refusals (403), if `refused`.
    pub fn resolved(
        &mut self,
        now: Tick,
        update: usize,
        (parked, refused): (bool, bool),
        stuck: Option<u64>,
    ) {
        let partition = self.partition_of(update);
        let facts = &mut self.updates[update];
        facts.resolved = true;
        self.resolved_last = now;
        if parked {
            self.parked += 1;
            facts.budget.judge(update);
        }
        if refused {
            self.parked_for_refusals += 1;
            let before = std::mem::replace(&mut self.ended_beside_nobody[partition], true);
            assert!(
                !(before && facts.beside_nobody),
                "judge (budget): #{update} is parked, and nothing was applied since the last one that was, beside nobody"
            );
        } else if parked {
            let first = facts.first_sent.expect("it was sent");
            // If no other record was refused, nothing showed that the target refuses all. In strict mode no other is tried.
            let lately = first.max(Tick::from_micros(now.micros().saturating_sub(LATELY)));
            let mut since_then = self.refusals.iter().rev().take_while(|(at, _)| *at >= lately);
            let alone = since_then.all(|(_, record)| *record == facts.record || Some(*record) == stuck);
            assert!(
                stuck == Some(facts.record) || alone || self.strict,
                "judge (budget): #{update} is parked, though the target refuses others as well"
            );
            let since = now.since(first);
            assert!(since + Duration::from_secs(5) >= ELAPSED_MAX, "judge (budget): parked after {since:?}");
        }
        let (record, step) = (facts.record, self.step);
        if let Some(next) = self.head(record) {
            self.updates[next].head_since = step;
        }
    }

    pub fn unresolved(&self) -> String {
        let left: Vec<usize> = (0..self.updates.len()).filter(|u| !self.updates[*u].resolved).collect();
        format!("{} updates never end, the first is #{:?}", left.len(), left.first())
    }

    /// A target that refuses by chance takes what comes.
    pub fn judge_speed(&self, published_last: Tick) {
        let took = self.resolved_last.since(published_last);
        assert!(took < TIME_MAX, "judge (chance): the last update ended {took:?} after it was published");
    }

    pub fn ended(&self) {
        assert!(self.updates.iter().all(|facts| facts.resolved), "judge (liveness): {}", self.unresolved());
    }
}

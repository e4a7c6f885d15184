//! The rules of the world with limits, told from outside.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use lanekeeper_core::outcome::Outcome;
use lanekeeper_core::tick::Tick;
use lanekeeper_core::update::Update;

use super::ELAPSED_MAX;

/// If for so long, in microseconds, no other record was refused, this one is alone at the target.
const LATELY: u64 = 10_000_000;

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
    pub parked: u64,
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
}

impl LimitsJudge {
    pub fn new(updates: &[Arc<Update>], partitions: usize, strict: bool) -> Self {
        let mut records: BTreeMap<u64, Vec<usize>> = BTreeMap::new();
        let mut facts = Vec::new();
        for (number, update) in updates.iter().enumerate() {
            let record = update.record_key.as_str()[1..].parse().expect("keys are numbers");
            records.entry(record).or_default().push(number);
            facts.push(Facts { record, ..Facts::default() });
        }
        let (with_permit, refused, parked, refusals) = (0, 0, 0, Vec::new());
        Self { updates: facts, records, partitions, strict, step: 0, with_permit, refused, refusals, parked }
    }

    pub fn step(&mut self) {
        self.step += 1;
    }

    pub fn record_of(&self, update: usize) -> u64 {
        self.updates[update].record
    }

    pub fn partition_of(&self, update: usize) -> usize {
        usize::try_from(self.updates[update].record).expect("small") % self.partitions
    }

    pub fn delivered(&mut self, partition: usize, update: usize, delivery: u64) {
        assert_eq!(partition, self.partition_of(update));
        self.updates[update].delivered = Some((delivery, self.step));
    }

    pub fn tenure_ended(&mut self, partition: usize) {
        for update in 0..self.updates.len() {
            if self.partition_of(update) == partition {
                self.updates[update].delivered = None;
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

    pub fn attempt_ended(&mut self, now: Tick, update: usize, outcome: &Outcome) {
        let facts = &mut self.updates[update];
        facts.in_flight = false;
        if outcome.failure().is_some() {
            self.refused += 1;
            self.refusals.push((now, facts.record));
        }
    }

    pub fn resolved(&mut self, now: Tick, update: usize, parked: bool, stuck: Option<u64>) {
        let facts = &mut self.updates[update];
        facts.resolved = true;
        if parked {
            self.parked += 1;
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

    pub fn ended(&self) {
        assert!(self.updates.iter().all(|facts| facts.resolved), "judge (liveness): {}", self.unresolved());
    }
}

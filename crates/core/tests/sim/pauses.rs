//! Persons who pause and resume targets and records, at moments of their own.

use std::time::Duration;

use lanekeeper_core::message::Event;
use lanekeeper_core::routes::TargetId;
use lanekeeper_core::tick::Tick;

use crate::rng::Rng;
use crate::trace::TraceLine;
use crate::world::{SimEvent, World};

/// What is paused, and when. It has a chance of its own, so that worlds without pauses stay as they are.
#[derive(Debug)]
pub struct Pauses {
    pub targets: Vec<TargetPause>,
    /// Of the records, each time that an operator comes, in a thousand.
    records: u64,
    rng: Rng,
    /// Of the probes, while the core waits for the answer, in a thousand.
    at_probes: u64,
    chance_of_probes: Rng,
}

/// A time in which a target is paused.
#[derive(Clone, Copy, Debug)]
pub struct TargetPause {
    pub target: usize,
    pub from: Tick,
    pub until: Tick,
}

/// A process learns of it so much later, at most.
const LEARNED_WITHIN_MS: u64 = 20;

impl Pauses {
    pub fn new(mut rng: Rng, mut chance_of_probes: Rng, targets: usize, calm_at: Tick) -> Self {
        if !rng.chance(300) {
            return Self { rng, chance_of_probes, ..Self::none() };
        }
        let count = rng.pick(&[1, 1, 2, 4]);
        let paused = (0..count).map(|_| {
            let from = Tick::from_micros(rng.below(calm_at.micros()));
            let until = from.after(Duration::from_millis(rng.between(1, 800))).min(calm_at);
            TargetPause { target: rng.index(targets), from, until }
        });
        let (targets, records) = (paused.collect(), rng.pick(&[0, 50, 300]));
        let at_probes = chance_of_probes.pick(&[0, 0, 0, 200]);
        Self { targets, records, rng, at_probes, chance_of_probes }
    }

    /// Nothing is paused.
    pub fn none() -> Self {
        Self {
            targets: Vec::new(),
            records: 0,
            rng: Rng::new(0),
            at_probes: 0,
            chance_of_probes: Rng::new(0),
        }
    }

    fn is_paused(&self, target: usize, now: Tick) -> bool {
        self.targets.iter().any(|pause| pause.target == target && pause.from <= now && now < pause.until)
    }
}

impl World {
    pub fn start_pauses(&mut self) {
        for pause in self.setup.pauses.targets.clone() {
            for change in [pause.from, pause.until] {
                let late = Duration::from_millis(self.setup.pauses.rng.between(0, LEARNED_WITHIN_MS));
                self.at(change.after(late), SimEvent::PausesRead);
            }
        }
    }

    /// The process reads which targets are paused.
    pub fn read_pauses(&mut self) {
        for target in 0..self.dispatcher.paused.len() {
            let paused = self.setup.pauses.is_paused(target, self.now);
            if std::mem::replace(&mut self.dispatcher.paused[target], paused) == paused {
                continue;
            }
            let id = TargetId(target);
            if paused {
                self.target_paused(id);
                self.core_was_fed();
            } else {
                self.trace(TraceLine::TargetResumed { target });
                self.judge.target_resumed(self.now, target);
                self.feed_core(Event::TargetResumed(id));
            }
        }
    }

    fn target_paused(&mut self, target: TargetId) {
        self.trace(TraceLine::TargetPaused { target: target.0 });
        self.judge.target_paused(self.now, target.0);
        self.dispatcher.partition.handle(self.now, Event::TargetPaused(target));
    }

    /// The core has asked for a probe. The process learns that the target is paused before the answer.
    pub fn pause_before_answer(&mut self, target: TargetId) {
        let (pauses, now) = (&mut self.setup.pauses, self.now);
        if now >= self.setup.calm_at
            || self.dispatcher.paused[target.0]
            || !pauses.chance_of_probes.chance(pauses.at_probes)
        {
            return;
        }
        let lasts = Duration::from_millis(pauses.chance_of_probes.between(1, 200));
        let until = now.after(lasts).min(self.setup.calm_at);
        pauses.targets.push(TargetPause { target: target.0, from: now, until });
        self.dispatcher.paused[target.0] = true;
        self.at(until, SimEvent::PausesRead);
        self.target_paused(target);
    }

    /// An operator pauses and resumes records. In the end everything is resumed.
    pub fn pause_records(&mut self) {
        let (calm, now) = (self.now >= self.setup.calm_at, self.now);
        for record in 0..self.setup.record_keys.len() {
            let share = self.setup.pauses.records;
            let parked = self.ledger_client().ledger.parked(record);
            let releasing = parked.is_some_and(|parked| parked.releasing);
            if self.ledger_client().ledger.is_paused(record) {
                if calm || self.setup.pauses.rng.chance(300) {
                    self.ledger_client().ledger.resume(record);
                    self.trace(TraceLine::RecordResumed { record });
                }
            } else if !calm && self.setup.pauses.rng.chance(if releasing { share * 2 } else { share }) {
                self.ledger_client().ledger.pause(record, now);
                self.trace(TraceLine::RecordPaused { record });
            }
        }
    }
}

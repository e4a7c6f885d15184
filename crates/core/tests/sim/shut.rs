//! What must hold while a target is shut or paused: single probes, or none, and time and failures that do not count.

use std::collections::BTreeSet;
use std::time::Duration;

use lanekeeper_core::breaker::{BreakerLimits, HealthSignal};
use lanekeeper_core::tick::Tick;

use crate::judge::fault;

#[derive(Debug, Default)]
pub struct ShutJudge(Vec<Target>);

#[derive(Debug, Default)]
struct Target {
    /// Since then it is shut or paused, as the partition was told.
    shut: Option<Tick>,
    /// It is shut, for the breaker says so.
    tripped: bool,
    paused: bool,
    /// Earlier times.
    was_shut: Vec<(Tick, Tick)>,
    probe: Probe,
    /// How attempts ended since it was open last.
    ended: Vec<(Tick, usize, bool)>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq)]
enum Probe {
    #[default]
    None,
    /// To our partition, in this step.
    Granted(u64),
    Out(u64),
    Elsewhere,
}

impl Target {
    /// What began when it was shut or paused is over if it is neither.
    fn end_if_open(&mut self, now: Tick) {
        if !self.tripped && !self.paused {
            self.was_shut.extend(self.shut.take().map(|since| (since, now)));
        }
    }
}

impl ShutJudge {
    pub fn new(targets: usize) -> Self {
        Self((0..targets).map(|_| Target::default()).collect())
    }

    pub fn is_paused(&self, target: usize) -> bool {
        self.0[target].paused
    }

    pub fn is_shut(&self, target: usize) -> bool {
        self.0[target].shut.is_some()
    }

    /// The process died, and its breakers with it.
    pub fn crashed(&mut self, now: Tick) {
        for target in 0..self.0.len() {
            self.0[target].paused = false;
            self.opened(now, target);
            self.0[target].probe = Probe::None;
        }
    }

    pub fn shut(&mut self, now: Tick, target: usize) {
        let target = &mut self.0[target];
        target.tripped = true;
        target.shut.get_or_insert(now);
    }

    pub fn opened(&mut self, now: Tick, target: usize) {
        let target = &mut self.0[target];
        target.ended.clear();
        target.tripped = false;
        target.end_if_open(now);
    }

    pub fn paused(&mut self, now: Tick, target: usize) {
        let target = &mut self.0[target];
        target.paused = true;
        target.shut.get_or_insert(now);
    }

    pub fn resumed(&mut self, now: Tick, target: usize) {
        let target = &mut self.0[target];
        target.paused = false;
        target.end_if_open(now);
    }

    pub fn reported(&mut self, now: Tick, target: usize, record: usize, signal: HealthSignal) {
        if signal != HealthSignal::Neutral && !self.0[target].tripped {
            self.0[target].ended.push((now, record, signal.is_failure()));
        }
    }

    /// A recount: records that are stuck never shut their target for others.
    pub fn tripped(&self, now: Tick, target: usize, limits: &BreakerLimits) {
        let within = self.0[target].ended.iter().filter(|(at, ..)| now.since(*at) <= limits.window);
        let (mut attempts, mut failures, mut records) = (0_u32, 0_u32, BTreeSet::new());
        for (_, record, failed) in within {
            attempts += 1;
            failures += u32::from(*failed);
            records.extend(failed.then_some(*record));
        }
        let enough = records.len() >= limits.records_min
            && attempts as usize >= limits.attempts_min
            && f64::from(failures) >= f64::from(attempts) * limits.failure_share;
        if !enough {
            fault!(
                "shut",
                "target {target} was shut for {failures} failures of {attempts}, {} records",
                records.len()
            );
        }
    }

    pub fn granted(&mut self, target: usize, step: u64) {
        self.begin_probe(target, Probe::Granted(step));
    }

    pub fn elsewhere(&mut self, target: usize) {
        self.begin_probe(target, Probe::Elsewhere);
    }

    fn begin_probe(&mut self, target: usize, probe: Probe) {
        let before = std::mem::replace(&mut self.0[target].probe, probe);
        if before != Probe::None {
            fault!("probe", "{probe:?} at target {target} while there is {before:?}");
        }
    }

    pub fn elsewhere_ended(&mut self, target: usize) {
        self.0[target].probe = Probe::None;
    }

    pub fn returned(&mut self, target: usize) {
        if !matches!(self.0[target].probe, Probe::Granted(_)) {
            fault!("probe", "a probe at target {target} was returned that was not ours to make");
        }
        self.0[target].probe = Probe::None;
    }

    /// Returns the step in which it was granted as a probe.
    pub fn sent(&mut self, target: usize, attempt: u64, probe: bool, exact: bool) -> Option<u64> {
        let of = &mut self.0[target];
        if of.paused && exact {
            fault!("pause", "attempt {attempt} was made at target {target}, which is paused");
        }
        if probe {
            let Probe::Granted(step) = of.probe else {
                fault!("probe", "attempt {attempt} is a probe at target {target}, and was not granted");
            };
            of.probe = Probe::Out(attempt);
            return Some(step);
        } else if of.shut.is_some() && exact {
            fault!("shut", "attempt {attempt} was made at target {target}, which is shut");
        }
        None
    }

    pub fn attempt_ended(&mut self, attempt: u64) {
        for target in &mut self.0 {
            if target.probe == Probe::Out(attempt) {
                target.probe = Probe::None;
            }
        }
    }

    /// No probe lies about that could start, or that never will.
    pub fn at_rest(&self) {
        if let Some(target) = self.0.iter().position(|target| matches!(target.probe, Probe::Granted(_))) {
            fault!("probe", "a probe at target {target} was granted, and is neither made nor returned");
        }
    }

    /// How long between two moments it was not shut.
    pub fn open_for(&self, target: usize, from: Tick, to: Tick) -> Duration {
        let Target { shut, was_shut, .. } = &self.0[target];
        let periods = was_shut.iter().copied().chain(shut.map(|since| (since, to)));
        periods.fold(to.since(from), |open, (since, until)| {
            open.saturating_sub(until.min(to).since(since.max(from)))
        })
    }
}

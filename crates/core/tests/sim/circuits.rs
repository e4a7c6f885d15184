//! The breakers of a process as a model: the shell around the pure ones, and the other partitions that share them.

use std::sync::Arc;
use std::time::Duration;

use lanekeeper_core::breaker::{AttemptEnd, Breaker, BreakerLimits, Circuit, HealthSignal};
use lanekeeper_core::message::Event;
use lanekeeper_core::routes::TargetId;
use lanekeeper_core::tick::Tick;
use lanekeeper_core::update::RecordKey;

use crate::rng::Rng;
use crate::trace::TraceLine;
use crate::world::{SimEvent, World};

/// What chance decides of targets and breakers before a world begins. It has a chance of its own, so that worlds without
/// outages stay as they are.
#[derive(Debug)]
pub struct Circuits {
    pub targets: usize,
    /// `None`: breakers are turned off.
    pub limits: Option<Arc<BreakerLimits>>,
    pub outages: Vec<Outage>,
    /// Of the probes that we ask for: another partition is faster. Each in a thousand.
    pub elsewhere: u64,
}

/// A time in which a target fails for everyone.
#[derive(Clone, Copy, Debug)]
pub struct Outage {
    pub target: usize,
    pub from: Tick,
    pub until: Tick,
    pub refuses: bool,
}

impl Circuits {
    pub fn new(rng: &mut Rng, calm_at: Tick) -> Self {
        let targets = rng.index(3) + 1;
        let enabled = rng.chance(750);
        let mut wait = rng.between(1, 30);
        let waits = (0..rng.between(1, 3)).map(|_| {
            wait *= rng.between(1, 3);
            Duration::from_millis(wait)
        });
        let limits = BreakerLimits {
            waits: waits.collect(),
            window: Duration::from_millis(rng.pick(&[30, 100, 500])),
            attempts_min: rng.pick(&[1, 2, 3, 4]),
            records_min: rng.pick(&[2, 2, 3]),
            failure_share: rng.pick(&[0.3, 0.5, 0.9]),
        };
        let count = rng.pick(&[0, 1, 2, 3, 5]);
        let outages = (0..count).map(|_| {
            let from = Tick::from_micros(rng.below(calm_at.micros()));
            let lasts = Duration::from_millis(rng.between(50, 1200));
            let until = from.after(lasts).min(calm_at);
            Outage { target: rng.index(targets), from, until, refuses: rng.chance(200) }
        });
        Self {
            outages: outages.collect(),
            elsewhere: rng.pick(&[0, 0, 300, 800]),
            limits: enabled.then(|| Arc::new(limits)),
            targets,
        }
    }

    /// One target that is never shut.
    pub fn none() -> Self {
        Self { targets: 1, limits: None, outages: Vec::new(), elsewhere: 0 }
    }

    /// Most records stay with one target.
    pub fn target_of(&self, rng: &mut Rng, record: usize) -> usize {
        if rng.chance(100) { rng.index(self.targets) } else { record % self.targets }
    }

    pub fn outage(&self, target: usize, now: Tick) -> Option<&Outage> {
        self.outages.iter().find(|out| out.target == target && out.from <= now && now < out.until)
    }

    pub fn breakers(&self) -> Vec<(Breaker, Circuit)> {
        let breaker = |limits: &Arc<BreakerLimits>| (Breaker::new(Arc::clone(limits)), Circuit::Closed);
        self.limits.iter().flat_map(|limits| (0..self.targets).map(move |_| breaker(limits))).collect()
    }
}

impl World {
    /// An attempt of ours ended: first the breaker is told, then the core what came of it.
    pub fn report(&mut self, update: usize, signal: HealthSignal, probe: bool) {
        let publication = &self.setup.publications[update];
        let (target, record) = (publication.target, publication.record.expect("it was sent"));
        let record_key = self.setup.record_keys[record].clone();
        let (now, limits) = (self.now, self.setup.circuits.limits.clone());
        let (Some((breaker, _)), Some(limits)) = (self.dispatcher.breakers.get_mut(target), limits) else {
            return;
        };
        self.judge.circuits.reported(now, target, record, signal);
        let end = AttemptEnd { record_key: &record_key, began: now, signal };
        if probe {
            breaker.probe_ended(now, end);
        } else if breaker.ended(now, end).trip.is_some() {
            self.judge.circuits.tripped(now, target, &limits);
        }
        self.on_breaker_change();
    }

    /// What the core has not been told yet.
    pub fn on_breaker_change(&mut self) {
        for target in 0..self.dispatcher.breakers.len() {
            let (breaker, known) = &mut self.dispatcher.breakers[target];
            let circuit = breaker.circuit();
            if std::mem::replace(known, circuit) == circuit {
                continue;
            }
            let id = TargetId(target);
            let event = match circuit {
                Circuit::Closed => {
                    self.trace(TraceLine::TargetOpened { target });
                    self.judge.target_opened(self.now, target);
                    Event::TargetOpened(id)
                }
                Circuit::Shut { probe_from } => {
                    self.trace(TraceLine::TargetShut { target, probing: false });
                    self.judge.target_shut(self.now, target);
                    Event::TargetShut { target: id, probe_from: Some(probe_from) }
                }
                Circuit::Probing => {
                    self.trace(TraceLine::TargetShut { target, probing: true });
                    self.judge.target_shut(self.now, target);
                    Event::TargetShut { target: id, probe_from: None }
                }
            };
            self.feed_core(event);
        }
    }

    pub fn ask_probe(&mut self, target: TargetId) {
        let (process, now) = (self.dispatcher.process, self.now);
        if self.rng.chance(self.setup.circuits.elsewhere)
            && self.dispatcher.breakers[target.0].0.grant_probe(now)
        {
            self.judge.circuits.elsewhere(target.0);
            self.soon(60, SimEvent::ProbeElsewhere { process, target: target.0 });
        }
        self.pause_before_answer(target);
        let (breaker, known) = &mut self.dispatcher.breakers[target.0];
        let granted = breaker.grant_probe(now);
        // The core takes it that a probe is under way, whoever has it.
        *known = Circuit::Probing;
        self.trace(TraceLine::ProbeAsked { target: target.0, granted });
        if granted {
            self.judge.probe_granted(target.0);
            self.dispatcher.partition.handle(now, Event::ProbeGranted(target));
            self.trace_lapse();
        }
        // In another partition it may be over by now.
        self.soon(1, SimEvent::BreakersChanged { process });
    }

    pub fn return_probe(&mut self, target: TargetId) {
        self.trace(TraceLine::ProbeReturned { target: target.0 });
        self.judge.circuits.returned(target.0);
        self.dispatcher.breakers[target.0].0.probe_returned(self.now);
        let process = self.dispatcher.process;
        self.soon(1, SimEvent::BreakersChanged { process });
    }

    /// The probe of another partition ended, or it had nothing to send.
    pub fn probe_elsewhere_ended(&mut self, target: usize) {
        self.judge.circuits.elsewhere_ended(target);
        let works = self.setup.circuits.outage(target, self.now).is_none();
        let (breaker, _) = &mut self.dispatcher.breakers[target];
        if self.rng.chance(300) {
            breaker.probe_returned(self.now);
        } else {
            let signal = if works { HealthSignal::Success } else { HealthSignal::Failure };
            let record_key = RecordKey::new("elsewhere").expect("it is short");
            breaker.probe_ended(self.now, AttemptEnd { record_key: &record_key, began: self.now, signal });
        }
        self.on_breaker_change();
    }
}

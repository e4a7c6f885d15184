//! Targets that are shut or paused: lanes whose head goes there wait apart, so that they hold up nothing else. At a target that
//! is shut, single probes find out if it works again; the breakers decide which targets are shut, for all partitions of the
//! process. A person pauses a target, and nothing is sent there until a person resumes it.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use super::Partition;
use crate::lane::{LaneId, LaneStatus, QueuePosition};
use crate::message::Effect;
use crate::outcome::Outcome;
use crate::routes::TargetId;
use crate::tick::Tick;

/// Every target that has been shut or paused (I6: as many as the config has).
#[derive(Debug, Default)]
pub(super) struct ShutTargets(BTreeMap<TargetId, TargetState>);

#[derive(Debug)]
struct TargetState {
    /// How long it was shut or paused in all before the latest time.
    shut_before: Duration,
    /// When it was shut or paused the latest time.
    since: Tick,
    status: TargetStatus,
}

#[derive(Debug)]
enum TargetStatus {
    /// Leaves to `Shut`.
    Open { shut_until: Tick },
    /// `lanes` were next for an attempt. Leaves to `Open` when the target is neither shut nor paused.
    Shut { lanes: BTreeMap<QueuePosition, LaneId>, probe: Probe, paused: bool },
}

/// The one attempt that may be made at a target that is shut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Probe {
    /// Asked for from this moment on, if a lane waits. Leaves to `UnderWay`.
    NotBefore(Tick),
    /// Asked for, or granted to another partition, or out. Leaves to `Granted` or, with the next report, to `NotBefore`.
    UnderWay,
    /// Ours, for this lane, which is ready. Leaves to `UnderWay` when it starts, or is returned.
    Granted(LaneId),
    /// The target is paused and not shut. Leaves to `NotBefore` or `UnderWay` if it is shut, too.
    None,
}

/// If the lane that is next may be attempted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum TargetGate {
    Open,
    Probe,
    Shut,
}

impl TargetState {
    fn shut_for(&self, at: Tick) -> Duration {
        let until = match self.status {
            TargetStatus::Open { shut_until } => shut_until.min(at),
            TargetStatus::Shut { .. } => at,
        };
        self.shut_before + until.since(self.since)
    }
}

impl ShutTargets {
    /// How long the target was shut in all, up to `at`, which may lie within the latest time.
    pub(super) fn shut_for(&self, target: TargetId, at: Tick) -> Duration {
        self.0.get(&target).map_or(Duration::ZERO, |target| target.shut_for(at))
    }

    /// Returns true if it is shut or paused.
    pub(super) fn is_shut(&self, target: TargetId) -> bool {
        self.0.get(&target).is_some_and(|target| matches!(target.status, TargetStatus::Shut { .. }))
    }

    /// Returns true if a person has paused it.
    pub(super) fn is_paused(&self, target: TargetId) -> bool {
        let status = self.0.get(&target).map(|target| &target.status);
        matches!(status, Some(TargetStatus::Shut { paused: true, .. }))
    }

    /// Lanes that wait for a target that is paused, or is not but shut.
    pub(super) fn lanes(&self, paused: bool) -> usize {
        let of = |(id, lanes, _): (TargetId, &BTreeMap<_, _>, _)| {
            if self.is_paused(id) == paused { lanes.len() } else { 0 }
        };
        self.shut().map(of).sum()
    }

    /// Of a lane that waits for the target: if a probe is out or about to leave, how many lanes are before it, and otherwise
    /// from when on a probe may leave.
    pub(super) fn wait_of(&self, target: TargetId, position: QueuePosition) -> (bool, usize, Option<Tick>) {
        let shut = self.shut().find(|(shut, ..)| *shut == target);
        shut.map_or((false, 0, None), |(_, lanes, probe)| {
            let before = lanes.range(..position).count();
            match probe {
                Probe::NotBefore(from) => (false, before, Some(*from)),
                Probe::UnderWay | Probe::Granted(_) => (true, before, None),
                Probe::None => (false, before, None),
            }
        })
    }

    /// When the next probe is to be asked for.
    pub(super) fn next_deadline(&self) -> Option<Tick> {
        let deadlines = self.shut().filter_map(|(id, lanes, probe)| match probe {
            Probe::NotBefore(from) if !lanes.is_empty() && !self.is_paused(id) => Some(*from),
            Probe::NotBefore(_) | Probe::UnderWay | Probe::Granted(_) | Probe::None => None,
        });
        deadlines.min()
    }

    fn shut(&self) -> impl Iterator<Item = (TargetId, &BTreeMap<QueuePosition, LaneId>, &Probe)> {
        self.0.iter().filter_map(|(id, target)| match &target.status {
            TargetStatus::Open { .. } => None,
            TargetStatus::Shut { lanes, probe, .. } => Some((*id, lanes, probe)),
        })
    }

    fn shut_mut(&mut self, target: TargetId) -> Option<(&mut BTreeMap<QueuePosition, LaneId>, &mut Probe)> {
        match &mut self.0.get_mut(&target)?.status {
            TargetStatus::Open { .. } => None,
            TargetStatus::Shut { lanes, probe, .. } => Some((lanes, probe)),
        }
    }

    /// Has it wait apart what comes for the target, which was open.
    fn close(&mut self, now: Tick, target: TargetId, probe: Probe, paused: bool) {
        let shut_before = self.shut_for(target, now);
        let status = TargetStatus::Shut { lanes: BTreeMap::new(), probe, paused };
        self.0.insert(target, TargetState { shut_before, since: now, status });
    }

    /// Decides if `lane`, which is next and whose head goes to `target`, may be attempted.
    pub(super) fn gate(&mut self, target: TargetId, lane: LaneId) -> TargetGate {
        match self.shut_mut(target) {
            None => TargetGate::Open,
            Some((_, probe)) if *probe == Probe::Granted(lane) => {
                *probe = Probe::UnderWay;
                TargetGate::Probe
            }
            Some(_) => TargetGate::Shut,
        }
    }

    /// If a probe was granted to this lane, it is returned: the lane waits for something else.
    pub(super) fn forget_granted(&mut self, lane: LaneId, effects: &mut VecDeque<Effect>) {
        for (id, target) in &mut self.0 {
            if let TargetStatus::Shut { probe, .. } = &mut target.status
                && *probe == Probe::Granted(lane)
            {
                *probe = Probe::UnderWay;
                effects.push_back(Effect::ReturnProbe(*id));
            }
        }
    }

    /// The targets whose probe was granted and has not started.
    fn take_granted(&mut self) -> Vec<TargetId> {
        let granted = self.shut().filter(|(.., probe)| matches!(probe, Probe::Granted(_)));
        let granted: Vec<TargetId> = granted.map(|(target, ..)| target).collect();
        for target in &granted {
            if let Some((_, probe)) = self.shut_mut(*target) {
                *probe = Probe::UnderWay;
            }
        }
        granted
    }
}

/// Lanes with which a full window shows nothing of other records.
const LANES_FEW: usize = 4;

impl Partition {
    /// If few records fill the window, nothing shows if the target works for others, which wait for room. Then a refusal counts
    /// as if it did: at most one of these records ends so before the target has applied something here.
    pub(super) fn beside_nobody(&mut self, now: Tick, outcome: Outcome) -> Outcome {
        if outcome == Outcome::Applied {
            self.ended_beside_nobody = false;
        }
        // What waits for the claim has no lane yet, and can be of any record.
        let alone = self.held - self.unclaimed.len() == self.limits.window.get()
            && self.lanes.len() <= LANES_FEW
            && !self.ended_beside_nobody;
        outcome.beside(alone.then_some(now))
    }

    /// `probe_from`: when a probe may be asked for; `None`: one is under way.
    pub(super) fn target_shut(&mut self, now: Tick, target: TargetId, probe_from: Option<Tick>) {
        let reported = probe_from.map_or(Probe::UnderWay, Probe::NotBefore);
        if let Some((_, probe)) = self.targets.shut_mut(target) {
            // The report counts a probe that was granted to us as under way.
            if !matches!(probe, Probe::Granted(_)) {
                *probe = reported;
            }
            return;
        }
        self.stop_waiting_for_permits(now, target);
        self.targets.close(now, target, reported, false);
    }

    /// If it is not paused either, its lanes are ready again.
    pub(super) fn target_opened(&mut self, now: Tick, target: TargetId) {
        if self.targets.is_paused(target) {
            if let Some((_, probe)) = self.targets.shut_mut(target) {
                *probe = Probe::None;
            }
            return;
        }
        self.let_lanes_go(now, target);
    }

    /// A person has paused the target: nothing is sent there, not even a probe. What is in flight ends.
    pub(super) fn target_paused(&mut self, now: Tick, target: TargetId) {
        if !self.targets.is_shut(target) {
            self.stop_waiting_for_permits(now, target);
            self.targets.close(now, target, Probe::None, true);
            return;
        }
        // Another process may make the probe; here the lane of ours waits.
        if let Some((_, probe)) = self.targets.shut_mut(target)
            && matches!(probe, Probe::Granted(_))
        {
            *probe = Probe::UnderWay;
            self.effects.push_back(Effect::ReturnProbe(target));
        }
        self.set_paused(target, true);
    }

    /// A person has resumed the target. If it is not shut either, its lanes are ready again.
    pub(super) fn target_resumed(&mut self, now: Tick, target: TargetId) {
        if !self.targets.is_paused(target) {
            return;
        }
        match self.targets.shut_mut(target) {
            Some((_, Probe::None)) => self.let_lanes_go(now, target),
            _ => self.set_paused(target, false),
        }
    }

    /// Its lanes wait for the other reason from now on.
    fn set_paused(&mut self, target: TargetId, is_paused: bool) {
        let Some(TargetState { status: TargetStatus::Shut { lanes, paused, .. }, .. }) =
            self.targets.0.get_mut(&target)
        else {
            return;
        };
        *paused = is_paused;
        let lanes: Vec<LaneId> = lanes.values().copied().collect();
        for id in lanes {
            self.set_status(id, if is_paused { LaneStatus::TargetPaused } else { LaneStatus::TargetShut });
        }
    }

    /// Its lanes are ready again, each with its turn. Each was put apart once before, so that this costs no more than that
    /// did.
    fn let_lanes_go(&mut self, now: Tick, target: TargetId) {
        let Some((lanes, _)) = self.targets.shut_mut(target) else { return };
        let lanes = std::mem::take(lanes);
        if let Some(target) = self.targets.0.get_mut(&target) {
            target.status = TargetStatus::Open { shut_until: now };
        }
        for (position, id) in lanes {
            self.enqueue(id, position);
        }
    }

    /// The first lane that waits for the target is ready; with none, the probe goes back.
    pub(super) fn probe_granted(&mut self, target: TargetId) {
        let refused = self.stopping || self.targets.is_paused(target);
        let lane = self.targets.shut_mut(target).filter(|_| !refused).and_then(|(lanes, probe)| {
            let next = lanes.pop_first()?;
            *probe = Probe::Granted(next.1);
            Some(next)
        });
        match lane {
            Some((position, id)) => self.enqueue(id, position),
            None => self.effects.push_back(Effect::ReturnProbe(target)),
        }
    }

    /// Its turn had come, and its target is shut or paused.
    pub(super) fn hold_back(&mut self, position: QueuePosition, id: LaneId, target: TargetId) {
        let paused = self.targets.is_paused(target);
        let (lanes, _) =
            self.targets.shut_mut(target).expect("lanes are held back while their target is shut");
        lanes.insert(position, id);
        self.set_status(id, if paused { LaneStatus::TargetPaused } else { LaneStatus::TargetShut });
    }

    /// Nobody else may probe while a probe of ours waits, so one that will not start goes back.
    pub(super) fn return_probes(&mut self) {
        for target in self.targets.take_granted() {
            self.effects.push_back(Effect::ReturnProbe(target));
        }
    }

    /// Asks for every probe whose time has come and that there is a lane for.
    pub(super) fn ask_for_probes(&mut self, now: Tick) {
        if self.stopping {
            return;
        }
        for (target, TargetState { status, .. }) in &mut self.targets.0 {
            if let TargetStatus::Shut { lanes, probe, paused: false } = status
                && !lanes.is_empty()
                && matches!(probe, Probe::NotBefore(from) if *from <= now)
            {
                *probe = Probe::UnderWay;
                self.effects.push_back(Effect::AskProbe(*target));
            }
        }
    }

    /// The lanes end with their tenure.
    pub(super) fn forget_held_back(&mut self) {
        for TargetState { status, .. } in self.targets.0.values_mut() {
            if let TargetStatus::Shut { lanes, .. } = status {
                lanes.clear();
            }
        }
        self.return_probes();
    }
}

#[cfg(test)]
mod tests;

//! What goes wrong: splits and what the larger side makes of them, alarms, processes that are killed, stopped or stand
//! still, channels that are lost.

use std::time::Duration;

use lanekeeper_core::message::Event;
use lanekeeper_core::tick::Tick;

use super::event::ClusterEvent;
use super::{MILLI, World};
use crate::rng::Rng;

/// A consumer is dropped by the broker after a silence of so many times the lease.
const TIMES_UNTIL_DROPPED: u32 = 3;

impl World {
    /// Splits and alarms do not overlap: a split during an alarm is an exception that the promise names.
    pub(super) fn plan_faults(&mut self, last: u64) {
        let mut from = self.rng.between(0, last / 2);
        for _ in 0..self.rng.between(0, 3) {
            let lasts = self.rng.between(20 * MILLI, 700 * MILLI);
            let (at, duration) = (Tick::from_micros(from), Duration::from_micros(lasts));
            if self.rng.chance(200) {
                self.at(at, ClusterEvent::Alarm { lasts: duration });
            } else {
                self.at(at, ClusterEvent::Split { lasts: duration });
            }
            from += lasts + self.rng.between(250 * MILLI, 600 * MILLI);
        }
        for _ in 0..self.rng.pick(&[0, 2, 6]) {
            let at = Tick::from_micros(self.rng.between(0, last + 300 * MILLI));
            self.at(at, ClusterEvent::Fault);
        }
    }

    /// In every fourth world. It takes no chance from the others.
    pub(super) fn plan_misplaced(&mut self, seed: u64, last: u64) {
        if !seed.is_multiple_of(4) {
            return;
        }
        let mut rng = Rng::new(seed ^ 0x006d_6973_706c_6163);
        for _ in 0..rng.between(1, 8) {
            self.at(Tick::from_micros(rng.between(0, last)), ClusterEvent::Misplace);
        }
    }

    pub(super) fn misplace(&mut self) {
        if self.queue.misplace_oldest(&self.record_of) {
            self.met.misplaced += 1;
            self.trace.push(format!("{:>12} somebody else gives an update back late", self.now.micros()));
        }
        self.hand_over();
    }

    pub(super) fn begin_split(&mut self, lasts: Duration) {
        self.met.splits += 1;
        self.trace.push(format!("{:>12} split for {lasts:?}", self.now.micros()));
        self.split = true;
        // The leader of the stream may have been on the smaller side.
        self.appends_after = self.now.after(Duration::from_micros(self.rng.pick(&[0, 0, 80]) * MILLI));
        for process in self.processes.iter_mut().filter(|process| process.minor) {
            process.reader_dead = true;
        }
        if lasts > self.suspected_after {
            self.at(self.now.after(self.suspected_after), ClusterEvent::Suspected);
        }
        self.at(self.now.after(lasts), ClusterEvent::Heal);
    }

    /// The larger side believes that the nodes of the smaller one are down.
    pub(super) fn suspect(&mut self) {
        let minor: Vec<u64> = self
            .channels
            .iter()
            .filter(|(_, p)| self.processes[**p].minor)
            .map(|(number, _)| *number)
            .collect();
        for channel in minor {
            self.met.taken_back += u32::from(self.queue.is_active(channel));
            self.queue.suspect(channel);
        }
        self.hand_over();
    }

    pub(super) fn heal(&mut self) {
        self.trace.push(format!("{:>12} healed", self.now.micros()));
        self.split = false;
        self.queue.heal();
        for event in std::mem::take(&mut self.held_back) {
            match event {
                // Refused, or kept until now and appended above what the majority wrote.
                ClusterEvent::Append { .. } => {
                    if self.rng.chance(600) {
                        self.met.late_appends += 1;
                        self.soon(60, event);
                    }
                }
                event => {
                    let at = self.now.after(Duration::from_millis(1));
                    if let ClusterEvent::Delivery { process, .. } = event {
                        self.processes[process].held_back_until = at;
                    }
                    self.at(at, event);
                }
            }
        }
        for process in 0..self.processes.len() {
            if self.processes[process].reader_dead {
                self.soon(60, ClusterEvent::ReaderReopened { process });
            }
        }
        self.hand_over();
    }

    pub(super) fn inject_fault(&mut self) {
        let alive: Vec<usize> = (0..self.processes.len()).filter(|p| self.processes[*p].alive).collect();
        if alive.is_empty() {
            return;
        }
        // The owner is hit more often than others.
        let owner = alive.iter().copied().find(|p| self.processes[*p].claim.is_some());
        let p = owner.filter(|_| self.rng.chance(700)).unwrap_or_else(|| self.rng.pick(&alive));
        match self.rng.below(10) {
            0..4 => self.kill(p),
            4..6 => {
                self.met.stops += 1;
                let drain = Duration::from_millis(self.rng.pick(&[0, 20, 1000]));
                self.leave(p, true, self.now.after(drain));
            }
            6 => {
                if let Some(tenure) = self.processes[p].channel.as_ref().map(|channel| channel.tenure) {
                    let held_too_long = self.rng.chance(500);
                    self.note(p, format_args!("is preempted, or holds for too long"));
                    let event =
                        if held_too_long { Event::HeldTooLong(tenure) } else { Event::Preempted(tenure) };
                    self.feed(p, event);
                }
            }
            7 => self.stall(p),
            _ => {
                if let Some(channel) = self.processes[p].channel.as_ref().map(|channel| channel.number) {
                    self.note(p, format_args!("its channel is lost"));
                    self.at(self.now, ClusterEvent::ChannelClosed { process: p, channel });
                    self.soon(40, ClusterEvent::ChannelLost { process: p, channel });
                }
            }
        }
    }

    fn kill(&mut self, p: usize) {
        self.met.kills += 1;
        self.note(p, format_args!("is killed"));
        if let Some(channel) = self.processes[p].channel.as_ref().map(|channel| channel.number) {
            self.soon(5, ClusterEvent::ChannelClosed { process: p, channel });
        }
        self.end_process(p);
    }

    /// Its requests stay at work.
    pub(super) fn end_process(&mut self, p: usize) {
        self.processes[p].alive = false;
        let minor = self.processes[p].minor;
        self.soon(200, ClusterEvent::Start { minor });
    }

    fn stall(&mut self, p: usize) {
        if self.now < self.processes[p].stalled_until {
            return;
        }
        self.met.stalls += 1;
        let lease = self.processes[p].terms.lease;
        let most = u64::try_from((lease * 6).as_micros()).expect("some seconds");
        let lasts = Duration::from_micros(self.rng.between(MILLI, most));
        self.note(p, format_args!("stands still for {lasts:?}"));
        self.processes[p].stalled_until = self.now.after(lasts);
        let dropped_after = lease * TIMES_UNTIL_DROPPED;
        if lasts > dropped_after
            && let Some(channel) = self.processes[p].channel.as_ref().map(|channel| channel.number)
        {
            let at = self.now.after(dropped_after);
            self.at(at, ClusterEvent::ChannelClosed { process: p, channel });
            self.at(at, ClusterEvent::ChannelLost { process: p, channel });
        }
    }
}

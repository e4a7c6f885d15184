//! Another process: it owns the partition while we do not, keeps to the rules, and may die at any point. And what it does
//! to us: a stall in which it takes over, its claim that we read, its rank.

use std::time::Duration;

use lanekeeper_core::message::{Event, Tenure};
use lanekeeper_core::ownership::Standing;

use crate::trace::Line;
use crate::world::{Happening, World};

/// A single active consumer is dropped by the broker after so many times the silence that we allow ourselves.
const TIMES_UNTIL_DROPPED: u32 = 3;

impl World {
    /// The broker has dropped us: perhaps somebody else is there, and does some of the work before we are back.
    pub fn rival_may_own(&mut self) {
        if !self.rng.chance(self.setup.faults.rival) || self.broker.queued() == 0 {
            return;
        }
        let number = self.next_claim();
        self.rival_claim = Some(number);
        let taken = self.broker.take(self.setup.limits.window.get());
        let (kept, applied) = if self.books.is_some() {
            let taken: Vec<usize> = taken.iter().map(|(update, _)| *update).collect();
            self.rival_keeps_books(number, &taken)
        } else {
            let applied = self.rng.index(taken.len() + 1);
            (applied, applied)
        };
        // Of one record, acks that are lost are the newest; those of other records may lie between.
        let acked = self.rng.index(kept + 1);
        self.trace(Line::RivalClaimed { number, applied, acked });
        for (update, _) in taken[..applied].iter().filter(|_| self.books.is_none()) {
            match self.setup.publications[*update].record {
                Some(_) => self.judge.applied_by_rival(*update),
                None => self.judge.dead_lettered(*update),
            }
        }
        for (update, _) in &taken[..acked] {
            self.judge.acked(*update);
            self.judge_safe(*update);
        }
        let returned: Vec<usize> = taken[acked..].iter().map(|(update, _)| *update).collect();
        self.broker.put_back(&returned);
        if let Some(channel) = &self.dispatcher.channel {
            // It comes on a connection that may be gone as well, or not.
            if self.rng.chance(500) {
                let (process, tenure) = (self.dispatcher.process, channel.tenure.0);
                self.soon(self.setup.delays.news, Happening::Superseded { process, tenure });
            }
        }
    }

    /// Our process stands still. After a while the broker drops us, and somebody else goes on.
    pub fn stall(&mut self) {
        let most = u64::try_from((self.setup.limits.silence_max * 6).as_millis()).expect("some seconds");
        let lasts = Duration::from_millis(self.rng.between(1, most));
        self.stalled_until = self.now.after(lasts);
        self.trace(Line::Stalled { lasts_ms: lasts.as_millis() });
        let dropped_after = self.setup.limits.silence_max * TIMES_UNTIL_DROPPED;
        if lasts > dropped_after {
            let process = self.dispatcher.process;
            self.at(self.now.after(dropped_after), Happening::DroppedBySilence { process });
        }
    }

    /// What a process that stands still gets later.
    pub fn is_stalled(&self, happening: Happening) -> bool {
        self.now < self.stalled_until
            && match happening {
                Happening::Publish { .. }
                | Happening::Ack { .. }
                | Happening::Request { .. }
                | Happening::DroppedBySilence { .. } => false,
                Happening::Page(page) => page.is_the_dispatchers(),
                Happening::Delivery { .. }
                | Happening::Answer { .. }
                | Happening::Echo { .. }
                | Happening::Written { .. }
                | Happening::Wake { .. }
                | Happening::AcksDue { .. }
                | Happening::Effects { .. }
                | Happening::ChannelGone { .. }
                | Happening::Attach { .. }
                | Happening::Claimed { .. }
                | Happening::Superseded { .. }
                | Happening::Pulse { .. }
                | Happening::Heard { .. }
                | Happening::BreakersChanged { .. }
                | Happening::ProbeElsewhere { .. }
                | Happening::Close { .. } => true,
            }
    }

    pub fn superseded(&mut self, tenure: u64) {
        self.trace(Line::Superseded { tenure });
        self.judge.superseded(tenure);
        self.tell(Event::Superseded(Tenure(tenure)));
    }

    pub fn outranked(&mut self, held_too_long: bool) {
        let Some(tenure) = self.dispatcher.channel.as_ref().map(|channel| channel.tenure) else { return };
        self.trace(Line::Outranked { held_too_long });
        let event = if held_too_long { Event::HeldTooLong(tenure) } else { Event::Outranked(tenure) };
        let view = self.dispatcher.partition.view();
        if !held_too_long && view.held == 0 && view.released == 0 {
            self.judge.let_go();
        }
        self.tell(event);
    }

    /// A sign of life is asked for while there is something to lose.
    pub fn pulse(&mut self, channel: u64) {
        self.dispatcher.pulse = false;
        self.dispatcher.pulsed = Some(self.now);
        if self.dispatcher.channel.as_ref().is_some_and(|of| of.number == channel)
            && self.broker.is_open(channel)
        {
            let (process, at) = (self.dispatcher.process, self.now);
            let delay = Duration::from_millis(self.rng.between(0, 5));
            self.at(self.now.after(delay), Happening::Heard { process, channel, at });
        }
        self.set_pulse();
    }

    pub fn heard(&mut self, channel: u64, at: lanekeeper_core::tick::Tick) {
        if self.dispatcher.channel.as_ref().is_some_and(|of| of.number == channel) {
            self.judge.heard(self.now, at);
            self.tell(Event::Heard { at });
        }
    }

    /// Sets the next pulse.
    pub fn set_pulse(&mut self) {
        let (view, standing) = (self.dispatcher.partition.view(), self.dispatcher.partition.standing());
        // What was released waits for a broker that answers.
        let waits = self.books.is_some() && standing == Standing::Silent;
        if self.dispatcher.pulse || view.held == 0 && view.released == 0 && !waits {
            return;
        }
        let Some(channel) = &self.dispatcher.channel else { return };
        let (process, channel) = (self.dispatcher.process, channel.number);
        if self.broker.is_open(channel) {
            self.dispatcher.pulse = true;
            let every = self.setup.limits.silence_max / 4;
            let next = self.dispatcher.pulsed.map_or(self.now, |last| last.after(every).max(self.now));
            self.at(next, Happening::Pulse { process, channel });
        }
    }
}

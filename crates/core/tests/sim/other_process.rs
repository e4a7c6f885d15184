//! Another process: it owns the partition while we do not, keeps to the rules, and may die at any point. And what it does
//! to us: a stall in which it takes over, its claim that we read, its rank.

use std::time::Duration;

use lanekeeper_core::message::{Event, Tenure};
use lanekeeper_core::ownership::OwnershipState;
use lanekeeper_core::tick::Tick;

use crate::trace::TraceLine;
use crate::world::{SimEvent, World};

/// A single active consumer is dropped by the broker after a silence of so many times the lease.
const TIMES_UNTIL_DROPPED: u32 = 3;

impl World {
    /// The broker has dropped us: perhaps somebody else is there, and does some of the work before we are back.
    pub fn other_process_may_own(&mut self) {
        if !self.rng.chance(self.setup.faults.other_process) || self.broker.queued() == 0 {
            return;
        }
        let number = self.next_claim();
        self.rival_claim = Some(number);
        let taken = self.broker.take(self.setup.limits.window.get());
        let (kept, applied) = if self.ledger_client.is_some() {
            let taken: Vec<usize> = taken.iter().map(|(update, _)| *update).collect();
            self.other_process_uses_ledger(number, &taken)
        } else {
            let applied = self.rng.index(taken.len() + 1);
            (applied, applied)
        };
        // Of one record, acks that are lost are the newest; those of other records may lie between.
        let acked = self.rng.index(kept + 1);
        self.trace(TraceLine::OtherProcessClaimed { number, applied, acked });
        for (update, _) in taken[..applied].iter().filter(|_| self.ledger_client.is_none()) {
            match self.setup.publications[*update].record {
                Some(_) => self.judge.applied_by_other_process(*update),
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
                self.soon(self.setup.delays.notice, SimEvent::ClaimSuperseded { process, tenure });
            }
        }
    }

    /// Our process stands still. After a while the broker drops us, and somebody else goes on.
    pub fn stall(&mut self) {
        let most = u64::try_from((self.setup.lease * 6).as_millis()).expect("some seconds");
        let lasts = Duration::from_millis(self.rng.between(1, most));
        self.stalled_until = self.now.after(lasts);
        self.trace(TraceLine::Stalled { lasts_ms: lasts.as_millis() });
        let dropped_after = self.setup.lease * TIMES_UNTIL_DROPPED;
        if lasts > dropped_after {
            let process = self.dispatcher.process;
            self.at(self.now.after(dropped_after), SimEvent::DroppedBySilence { process });
        }
    }

    /// What a process that stands still gets later.
    pub fn is_stalled(&self, event: SimEvent) -> bool {
        self.now < self.stalled_until
            && match event {
                SimEvent::Publish { .. }
                | SimEvent::Ack { .. }
                | SimEvent::Request { .. }
                | SimEvent::DroppedBySilence { .. } => false,
                SimEvent::Ledger(event) => event.is_of_dispatcher(),
                SimEvent::Delivery { .. }
                | SimEvent::WriteResult { .. }
                | SimEvent::Echo { .. }
                | SimEvent::Written { .. }
                | SimEvent::Wake { .. }
                | SimEvent::AcksDue { .. }
                | SimEvent::Effects { .. }
                | SimEvent::ChannelGone { .. }
                | SimEvent::Attach { .. }
                | SimEvent::Claimed { .. }
                | SimEvent::ClaimSuperseded { .. }
                | SimEvent::NoteSent { .. }
                | SimEvent::NoteReadBack { .. }
                | SimEvent::BreakersChanged { .. }
                | SimEvent::ProbeElsewhere { .. }
                | SimEvent::PausesRead
                | SimEvent::Close { .. } => true,
            }
    }

    pub fn claim_superseded(&mut self, tenure: u64) {
        self.trace(TraceLine::ClaimSuperseded { tenure });
        self.judge.claim_superseded(tenure);
        self.feed_core(Event::ClaimSuperseded(Tenure(tenure)));
    }

    pub fn preempted(&mut self, held_too_long: bool) {
        let Some(tenure) = self.dispatcher.channel.as_ref().map(|channel| channel.tenure) else { return };
        self.trace(TraceLine::Preempted { held_too_long });
        let event = if held_too_long { Event::HeldTooLong(tenure) } else { Event::Preempted(tenure) };
        let view = self.dispatcher.partition.view();
        if !held_too_long && view.held == 0 && view.released == 0 {
            self.judge.let_go();
        }
        self.feed_core(event);
    }

    /// Notes are published while there is something to lose.
    pub fn send_note(&mut self, channel: u64) {
        self.dispatcher.note_set = false;
        self.dispatcher.note_sent_at = Some(self.now);
        if self.dispatcher.channel.as_ref().is_some_and(|of| of.number == channel)
            && self.broker.is_open(channel)
        {
            let (process, at) = (self.dispatcher.process, self.now);
            let delay = Duration::from_millis(self.rng.between(0, 5));
            self.at(self.now.after(delay), SimEvent::NoteReadBack { process, channel, at });
        }
        self.schedule_note();
    }

    pub fn note_read_back(&mut self, channel: u64, at: Tick) {
        if self.dispatcher.channel.as_ref().is_some_and(|of| of.number == channel) {
            self.renew_lease(at);
        }
    }

    /// A note that was sent then has come back.
    pub fn renew_lease(&mut self, at: Tick) {
        let until = at.after(self.setup.lease);
        self.judge.lease_renewed(self.now, until);
        self.feed_core(Event::LeaseRenewed { until });
    }

    /// Sets the next note.
    pub fn schedule_note(&mut self) {
        let (view, ownership_state) =
            (self.dispatcher.partition.view(), self.dispatcher.partition.ownership_state());
        // What was released waits for the lease.
        let waits = self.ledger_client.is_some() && matches!(ownership_state, OwnershipState::Lapsed(_));
        if self.dispatcher.note_set || view.held == 0 && view.released == 0 && !waits {
            return;
        }
        let Some(channel) = &self.dispatcher.channel else { return };
        let (process, channel) = (self.dispatcher.process, channel.number);
        if self.broker.is_open(channel) {
            self.dispatcher.note_set = true;
            let every = self.setup.lease / 4;
            let next = self.dispatcher.note_sent_at.map_or(self.now, |last| last.after(every).max(self.now));
            self.at(next, SimEvent::NoteSent { process, channel });
        }
    }
}

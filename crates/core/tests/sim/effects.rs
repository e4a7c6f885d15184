//! What the model driver does after each event: performs effects, sends acks as the real driver does, sets its timer,
//! goes on draining.

use std::sync::Arc;
use std::time::Duration;

use lanekeeper_core::message::{DeliveryTag, Effect, Holder, Tenure, YieldReason};
use lanekeeper_core::outcome::{Known, Outcome};
use lanekeeper_core::policy::{ParkReason, Resolution};
use lanekeeper_core::tick::Tick;
use lanekeeper_core::update::Update;

use crate::dispatcher::{Stopping, Writing};
use crate::judge::fault;
use crate::kills::Step;
use crate::ledger::WriteResult;
use crate::trace::TraceLine;
use crate::world::{SimEvent, World};

/// How long a drained channel stays open for its acks to arrive.
const ACK_GRACE: Duration = Duration::from_millis(100);

impl World {
    /// What the driver does after each event.
    pub fn follow_up(&mut self) {
        if self.setup.lazy && self.rng.chance(200) && self.dispatcher.channel.is_some() {
            let event = SimEvent::Effects { process: self.dispatcher.process };
            self.soon(5, event);
        } else {
            self.perform_effects();
            if !self.setup.lazy {
                self.judge.at_rest(self.now);
                self.ask_why();
            }
            self.go_on_stopping();
        }
        self.send_acks();
        self.set_timer();
        self.schedule_note();
    }

    pub fn perform_effects(&mut self) {
        while let Some(effect) = self.dispatcher.partition.poll_effect() {
            match effect {
                Effect::Attempt { attempt, number, tenure, holder, update, probe, permit: _ } => {
                    self.send((attempt.0, number, probe), tenure, holder, &update);
                }
                Effect::AskProbe(target) => self.ask_probe(target),
                Effect::ReturnProbe(target) => self.return_probe(target),
                Effect::AskPermits { .. } | Effect::WithdrawPermits(_) | Effect::ReturnPermits { .. } => {
                    unreachable!("no target is paced")
                }
                Effect::Claim { tenure } => {
                    self.judge.claim_asked(tenure.0);
                    let process = self.dispatcher.process;
                    let event = SimEvent::Claimed { process, tenure: tenure.0 };
                    self.soon(self.setup.delays.claim, event);
                }
                Effect::ClaimEnded { .. } => {}
                Effect::Yield { tenure, reason } => self.yield_partition(tenure, reason),
                Effect::Abandon { tenure } => self.abandon(tenure),
                Effect::Record { tenure, holder, update, resolution } => {
                    self.write(tenure, holder, update, &resolution);
                }
                Effect::Settle { tenure, delivery } => self.settle(tenure, delivery),
            }
        }
    }

    fn yield_partition(&mut self, tenure: Tenure, reason: YieldReason) {
        let reason = match reason {
            YieldReason::Preempted => "outranked",
            YieldReason::HeldTooLong => "held too long",
        };
        self.trace(TraceLine::Yielded { reason });
        if self.dispatcher.channel.as_ref().is_some_and(|channel| channel.tenure == tenure) {
            self.dispatcher.stopping = self.dispatcher.stopping.or(Some(Stopping::Began { stop: false }));
            self.judge.stop_requested();
        }
    }

    fn abandon(&mut self, tenure: Tenure) {
        self.trace(TraceLine::Abandoned);
        self.judge.let_go();
        let Some(channel) = self.dispatcher.channel.as_ref().filter(|channel| channel.tenure == tenure)
        else {
            return;
        };
        let (process, channel) = (self.dispatcher.process, channel.number);
        if self.broker.is_open(channel) {
            let done = self.acks_that_arrive();
            self.lose_at_broker(done);
        }
        self.soon(0, SimEvent::ChannelGone { process, channel });
    }

    fn write(
        &mut self,
        tenure: Tenure,
        holder: Holder,
        update: Option<Arc<Update>>,
        resolution: &Resolution,
    ) {
        let known = self.dispatcher.channel.as_ref().filter(|channel| channel.tenure == tenure);
        let malformed = || match holder {
            Holder::Broker(tag) => known.and_then(|_| self.dispatcher.names.get(&tag).copied()),
            Holder::Ledger(_) => None,
        };
        let named = update.as_ref().map(|update| self.name_of(holder, update));
        let Some(number) = named.or_else(malformed) else {
            return;
        };
        self.trace(TraceLine::Record { update: number, resolution: resolution.name() });
        let paused = self.judge.updates[number].here.last == Some(Outcome::Known(Known::RecordPaused));
        if let (Holder::Ledger(_), Resolution::Parked(ParkReason::Behind), false) =
            (holder, resolution, paused)
        {
            fault!("resolution", "#{number} was released, and is parked behind others");
        }
        let turn = self.judge.record_begun(number, resolution);
        self.judge_known(number, holder, resolution);
        self.writings.push(Writing {
            process: self.dispatcher.process,
            tenure,
            holder,
            record_key: update.as_ref().map(|update| update.record_key.clone()),
            update: number,
            turn,
            dead_letter: matches!(resolution, Resolution::DeadLettered(_)),
            entry: None,
            answer: WriteResult::Done,
            done: false,
        });
        let writing = self.writings.len() - 1;
        if let Some(update) = update.filter(|_| self.ledger_client.is_some()) {
            self.submit(writing, update, resolution);
            self.dies_after(Step::Recorded);
        } else {
            self.soon(self.setup.delays.record, SimEvent::Written { writing });
        }
    }

    fn settle(&mut self, tenure: Tenure, tag: DeliveryTag) {
        let now = self.now;
        let Some(channel) = self.dispatcher.channel.as_mut().filter(|channel| channel.tenure == tenure)
        else {
            fault!("tenure, I5", "tag {} was settled for tenure {}, which has ended", tag.0, tenure.0);
        };
        let Some(update) = self.dispatcher.names.get(&tag).copied() else {
            fault!("settle, I7", "tag {} was settled and never delivered", tag.0);
        };
        channel.acks.finished(tag, now);
        channel.settled.push(update);
        self.trace(TraceLine::Settle { update, tag: tag.0 });
        self.judge.settled(update, tenure.0);
        self.judge_safe(update);
    }

    fn send_acks(&mut self) {
        let now = self.now;
        let closing = matches!(self.dispatcher.stopping, Some(Stopping::Closing { .. }));
        let mut due = Vec::new();
        let Some(channel) = &mut self.dispatcher.channel else { return };
        while let Some(ack) = if closing { channel.acks.flush() } else { channel.acks.poll(now) } {
            due.push(ack);
        }
        let (number, next) = (channel.number, channel.acks.next_deadline());
        for ack in due {
            let lost = !self.broker.send_ack(number, ack);
            self.trace(TraceLine::AckSent { tag: ack.tag.0, multiple: ack.multiple, lost });
            if !lost {
                self.ack_travels(number);
            }
        }
        if self.broker.acks_on_their_way() > 0 && self.dies_after(Step::Acked) {
            return;
        }
        if let Some(next) = next {
            if next <= now {
                fault!("liveness", "acks ask to be polled again at once, without end");
            }
            if self.dispatcher.acks_at.is_none_or(|at| next < at) {
                self.dispatcher.acks_at = Some(next);
                let late = self.late();
                self.at(next.after(late), SimEvent::AcksDue { process: self.dispatcher.process });
            }
        }
    }

    /// Timers come late, early, or twice.
    fn set_timer(&mut self) {
        let Some(deadline) = self.dispatcher.partition.next_deadline() else { return };
        if self.dispatcher.wake_at.is_some_and(|at| at <= deadline) {
            return;
        }
        self.dispatcher.wake_at = Some(deadline);
        let event = SimEvent::Wake { process: self.dispatcher.process };
        let late = self.late();
        self.at(deadline.max(self.now).after(late), event);
        if self.rng.chance(100) {
            let early = self.rng.between(self.now.micros(), deadline.max(self.now).micros());
            self.at(Tick::from_micros(early), event);
        }
    }

    fn go_on_stopping(&mut self) {
        let Some(Stopping::Began { stop }) = self.dispatcher.stopping else { return };
        if !self.dispatcher.partition.is_quiet() {
            return;
        }
        self.dispatcher.stopping = Some(Stopping::Closing { stop });
        self.trace(TraceLine::Drained);
        if let Some(channel) = &self.dispatcher.channel {
            let number = channel.number;
            self.at(
                self.now.after(ACK_GRACE),
                SimEvent::Close { process: self.dispatcher.process, channel: number },
            );
        }
    }
}

//! What goes wrong: channels lost, processes killed, drains begun, before any step.

use crate::dispatcher::{Dispatcher, Writing};
use crate::trace::TraceLine;
use crate::world::{SimEvent, World};

impl World {
    /// Something may go wrong before the next happening.
    pub fn inject_fault(&mut self) {
        if self.now >= self.setup.calm_at || self.setup.faults.left == 0 {
            return;
        }
        let draw = self.rng.below(1000);
        if self.now < self.stalled_until {
            return;
        }
        let (lost, crash, stopping) =
            (self.setup.faults.channel_lost, self.setup.faults.crash, self.setup.faults.stopping);
        let (stall, yield_partition) = (self.setup.faults.stall, self.setup.faults.yield_partition);
        if draw < lost {
            self.lose_channel();
        } else if draw < lost + crash {
            self.crash();
        } else if draw < lost + crash + stopping {
            let stop = self.rng.chance(500);
            self.request_stop(stop);
        } else if draw < lost + crash + stopping + stall {
            self.stall();
        } else if draw < lost + crash + stopping + stall + yield_partition {
            let held_too_long = self.rng.chance(300);
            self.preempted(held_too_long);
        } else {
            return;
        }
        self.setup.faults.left -= 1;
    }

    fn lose_channel(&mut self) {
        let done = self.acks_that_arrive();
        let Some(channel) = self.lose_at_broker(done) else { return };
        let process = self.dispatcher.process;
        self.other_process_may_own();
        self.soon(self.setup.delays.notice, SimEvent::ChannelGone { process, channel });
    }

    /// The broker has heard nothing of us for too long.
    pub fn dropped_by_silence(&mut self) {
        if self.now < self.stalled_until {
            self.lose_channel();
        }
    }

    pub fn crash(&mut self) {
        self.trace(TraceLine::Crashed { process: self.dispatcher.process });
        let done = self.acks_that_arrive();
        self.lose_at_broker(done);
        let process = self.dispatcher.process;
        for request in 0..self.requests.len() {
            let of = &mut self.requests[request];
            if of.process == process && !of.over {
                // Either it is on the wire already and arrives, some time, or it never does.
                of.over = true;
                if of.applies && self.rng.chance(500) {
                    self.requests[request].over = false;
                    self.soon(300, SimEvent::Request { request });
                }
            }
        }
        for writing in 0..self.writings.len() {
            let Writing { process: of, done, dead_letter, update, .. } = self.writings[writing];
            if of == process && !done && dead_letter && self.ledger_client.is_none() && self.rng.chance(500) {
                self.trace(TraceLine::DeadLettered { update });
                self.judge.dead_lettered(update);
            }
        }
        self.ledger_client_crashed();
        self.end_process();
    }

    pub fn end_process(&mut self) {
        self.judge.crashed(self.now);
        self.other_process_may_own();
        let process = self.dispatcher.process + 1;
        self.dispatcher = Dispatcher::new(process, &self.setup);
        self.soon(self.setup.delays.attach, SimEvent::Attach { process });
    }

    pub fn acks_that_arrive(&mut self) -> usize {
        let on_their_way = self.broker.acks_on_their_way();
        self.rng.index(on_their_way + 1)
    }
}

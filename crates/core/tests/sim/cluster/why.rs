//! A person asks every process what the records wait for that it holds, at random moments.

use lanekeeper_core::why::WaitCause;

use super::World;
use super::judge::fault;
use super::process::{Channel, Process};
use super::queue::Delivery;
use crate::waits::{Known, MaySend, UnderWay, judge_lists};

/// Of a thousand moments, in so many somebody asks.
const ASKED: u64 = 50;

impl World {
    /// The question changes nothing.
    pub fn ask_why(&mut self) {
        if !self.chance_of_questions.chance(ASKED) {
            return;
        }
        for p in 0..self.processes.len() {
            let process = &self.processes[p];
            if process.alive && self.now >= process.stalled_until {
                let causes = self.ask_process(process);
                self.causes.count_all(&causes);
            }
        }
    }

    fn ask_process(&self, process: &Process) -> Vec<WaitCause> {
        let now = self.now;
        let ask = |record: usize| process.core.explain(now, |key| *key == self.keys[record]);
        let record_of = |of: &Delivery| self.record_of[of.update];
        let held: Vec<&Delivery> = process.channel.iter().flat_map(|channel| channel.held.values()).collect();
        let is_taken_in = |of: &Delivery| {
            process.channel.as_ref().is_some_and(|channel| !channel.unclaimed.contains(&of.tag))
        };
        let taken_in: Vec<&Delivery> = held.iter().copied().filter(|of| is_taken_in(of)).collect();
        let first = taken_in.first().and_then(|of| ask(record_of(of)));
        let mut said = Vec::new();
        for record in 0..self.keys.len() {
            let explained = ask(record);
            let of_record: Vec<&Delivery> =
                held.iter().copied().filter(|of| record_of(of) == record).collect();
            let (Some(head), Some(channel)) = (of_record.first(), &process.channel) else {
                if let Some(explained) = explained {
                    fault!("why", "{} holds nothing of r{record}: {explained:?}", process.name);
                }
                continue;
            };
            let place = taken_in.iter().position(|of| of.tag == head.tag);
            let known = Known {
                name: format!("{}, r{record}", process.name),
                updates: of_record.len(),
                in_lane: place.is_some(),
                before: if self.in_flight_max == 1 { place.unwrap_or_default() } else { 0 },
                ..self.known(process, channel, head)
            };
            known.judge(now, explained.as_ref(), first.as_ref().map(|first| &first.cause));
            let Some(explained) = explained else { continue };
            if explained.cause == WaitCause::TakeOver && !known.is_due {
                self.judge_take_over(process, head);
            }
            let oldest = held.iter().position(|of| of.tag == head.tag).unwrap_or_default();
            said.push((oldest, explained));
        }
        let causes = said.iter().map(|(_, explained)| explained.cause.clone()).collect();
        judge_lists(&process.name, &process.core, now, said);
        causes
    }

    /// A head waits for requests of others no longer than the promise says.
    fn judge_take_over(&self, process: &Process, head: &Delivery) {
        let number = process.claim.as_ref().and_then(|claim| claim.number);
        let until = number.map(|number| self.stream.wait_max(&process.name, number, &process.read_at));
        if until.is_some_and(|until| self.now > until) {
            fault!(
                "why",
                "#{} is said to wait for another process, which it did until {until:?}",
                head.update
            );
        }
    }

    fn known(&self, process: &Process, channel: &Channel, head: &Delivery) -> Known {
        let record = self.record_of[head.update];
        let out = process
            .in_flight
            .iter()
            .map(|request| self.requests[*request].1)
            .find(|update| self.record_of[*update] == record);
        let last = process.attempts.last(head.update);
        let is_claimed = process.claim.as_ref().is_some_and(|claim| claim.number.is_some());
        let may_send = match process.leaving {
            Some(_) => MaySend::Stopping,
            None if !is_claimed => MaySend::Unclaimed,
            None if self.now > process.lease_until => MaySend::Lapsed,
            None => MaySend::Yes,
        };
        Known {
            name: String::new(),
            head: head.update,
            updates: 0,
            in_lane: true,
            before: 0,
            tenure: channel.tenure,
            may_send,
            out: out.map(|update| UnderWay {
                of_head: update == head.update,
                in_this_tenure: last.is_some_and(|last| last.tenure == channel.tenure),
            }),
            written: None,
            previous: None,
            last,
            is_due: process.core.next_deadline().is_some_and(|due| due <= self.now),
            may_be_forgotten: process.attempts.has_lapsed() || !self.with_id[head.update],
            take_over: process.told_to_wait_until.filter(|_| head.count > 0),
            paced: false,
            in_flight: process.in_flight.len(),
            in_flight_max: self.in_flight_max,
        }
    }
}

//! Who sends the updates of one record, and waits for each answer.

use lanekeeper_core::publish::intake::LineAnswer;

use super::judge::{HttpReply, Response};
use super::{Carried, DoorsEvent, MILLISECOND, Sent, World};

pub(super) struct Sender {
    updates: usize,
    /// The first one that is neither accepted nor passed over.
    pub(super) next: usize,
    /// Given up: every answer said that the broker does not have it.
    pub(super) passed: Vec<usize>,
    /// The requests that it waits for, of the same updates; the first answer counts.
    outstanding: Vec<usize>,
}

impl Sender {
    pub(super) fn new(updates: usize) -> Self {
        Self { updates, next: 0, passed: Vec::new(), outstanding: Vec::new() }
    }

    pub(super) fn is_done(&self) -> bool {
        self.next >= self.updates
    }
}

impl World {
    pub(super) fn act(&mut self, sender: usize) {
        let own = &self.senders[sender];
        if own.is_done() || !own.outstanding.is_empty() {
            return;
        }
        let left = own.updates - own.next;
        let count = if self.rng.chance(300) { left.min(self.rng.index(3) + 1) } else { 1 };
        let carried = |sequence| Carried { record: sender, sequence, is_impostor: false };
        let next = own.next;
        let batch: Vec<Carried> = (next..next + count).map(carried).collect();
        let copies = if self.hedges && self.rng.chance(200) { 2 } else { 1 };
        for _ in 0..copies {
            let request = self.request(sender, batch.clone());
            self.senders[sender].outstanding.push(request);
        }
        if self.impostors && self.rng.chance(100) && !self.is_quiet() {
            let sequence = self.rng.index(next + 1);
            self.request(sender, vec![Carried { record: sender, sequence, is_impostor: true }]);
        }
    }

    fn request(&mut self, sender: usize, carried: Vec<Carried>) -> usize {
        let request = self.requests.len();
        self.judge.sent(&carried);
        self.requests.push(Sent { sender, carried, deadline: None, is_open: true });
        let door = self.rng.index(self.doors.len());
        let micros = self.rng.below(MILLISECOND);
        self.at(micros, DoorsEvent::Reaches { request, door });
        if self.rng.chance(500) {
            let micros = self.rng.between(2 * MILLISECOND, 300 * MILLISECOND);
            self.at(micros, DoorsEvent::TimedOut { request, door });
        }
        request
    }

    pub(super) fn time_out(&mut self, request: usize, door: usize) {
        if !self.requests[request].is_open {
            return;
        }
        self.requests[request].deadline = None;
        self.hang_up(request, door);
        self.deliver(request, HttpReply::HungUp);
    }

    /// Its sender goes on.
    pub(super) fn go_on(&mut self, sender: usize, request: usize, response: &Response) {
        let carried = self.requests[request].carried.clone();
        let own = &mut self.senders[sender];
        if !own.outstanding.contains(&request) {
            return;
        }
        if let Response::OfLines(answers) = response {
            let is_accepted =
                |answer: &LineAnswer| matches!(answer, LineAnswer::Accepted | LineAnswer::Known);
            let accepted = answers.iter().take_while(|answer| is_accepted(answer)).count();
            own.next = own.next.max(carried[0].sequence + accepted);
        }
        let gives_up = self.rng.chance(300) && !self.judge.may_be_there(carried[0]) && carried.len() == 1;
        let own = &mut self.senders[sender];
        own.outstanding.retain(|other| *other != request);
        if own.next > carried[0].sequence {
            own.outstanding.clear();
        } else if gives_up && own.outstanding.is_empty() && own.next == carried[0].sequence {
            own.passed.push(own.next);
            own.next += 1;
        }
        // After a hang-up, its door has time to see that.
        let micros = self.rng.between(3 * MILLISECOND, 40 * MILLISECOND);
        self.at(micros, DoorsEvent::Acts { sender });
    }
}

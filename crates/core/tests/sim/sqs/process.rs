//! One process: what a driver does around the partition and what it holds, in short.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use lanekeeper_core::message::{AttemptId, Effect, Event, Tenure, TenureNumber};
use lanekeeper_core::message_groups::{
    BATCH_MAX, Entry, EntryAnswer, Message, MessageGroups, ReceiptHandle, VisibilityLost,
};
use lanekeeper_core::outcome::{Cause, Failure, Outcome};
use lanekeeper_core::partition::Partition;
use lanekeeper_core::routes::TargetId;
use lanekeeper_core::tick::Tick;
use lanekeeper_core::update::{Update, UpdateId};

use super::judge::fault;
use super::queue::Handed;
use super::{Call, SqsEvent, World};

#[derive(Debug)]
pub struct Process {
    pub name: String,
    pub alive: bool,
    pub stalled_until: Tick,
    pub core: Partition,
    pub groups: MessageGroups<(usize, u32)>,
    pub tenure: u64,
    pub lease_until: Tick,
    /// Requests that are out.
    pub in_flight: BTreeSet<usize>,
    wake_at: Option<Tick>,
    due_at: Option<Tick>,
    /// It was asked to stop; until when it finishes what it has begun.
    pub stops_at: Option<Tick>,
    /// What is still to be given back.
    leaving: Option<Vec<Entry>>,
}

impl Process {
    pub fn new(name: String, core: Partition, groups: MessageGroups<(usize, u32)>) -> Self {
        Self {
            name,
            alive: true,
            stalled_until: Tick::ZERO,
            core,
            groups,
            tenure: 0,
            lease_until: Tick::ZERO,
            in_flight: BTreeSet::new(),
            wake_at: None,
            due_at: None,
            stops_at: None,
            leaving: None,
        }
    }
}

impl World {
    /// A new tenure, which holds nothing.
    pub fn attach(&mut self, p: usize) {
        let groups = MessageGroups::new(self.limits);
        let process = &mut self.processes[p];
        process.groups = groups;
        process.due_at = None;
        process.tenure += 1;
        let tenure = Tenure(process.tenure);
        self.note(p, format_args!("begins tenure {}", tenure.0));
        self.feed(p, Event::TenureBegan(tenure));
        for _ in 0..2 {
            let tenure = tenure.0;
            self.soon(10, SqsEvent::PollDue { process: p, tenure });
        }
    }

    fn lost(&mut self, p: usize, why: VisibilityLost) {
        self.note(p, format_args!("{why}"));
        match why {
            VisibilityLost::HandleRefused => self.met.handles_refused += 1,
            VisibilityLost::CameAgain => self.met.came_again += 1,
        }
        // Nothing is given back: what is held becomes visible by itself.
        let tenure = Tenure(self.processes[p].tenure);
        self.processes[p].groups = MessageGroups::new(self.limits);
        self.feed(p, Event::TenureEnded(tenure));
        if self.processes[p].stops_at.is_none() {
            self.attach(p);
        } else if self.processes[p].leaving.is_none() {
            self.processes[p].tenure += 1; // answers of before are nobody's
        }
    }

    pub fn poll(&mut self, p: usize) {
        let (now, tenure) = (self.now, self.processes[p].tenure);
        let process = &mut self.processes[p];
        if process.leaving.is_some() || process.stops_at.is_some() {
            return;
        }
        match process.groups.begin_receive(now) {
            Some(receive) => {
                let arrived = SqsEvent::ReceiveArrived { process: p, tenure, receive };
                self.soon(self.delay_ms, arrived);
            }
            None if self.is_over() => {}
            None => self.soon(20, SqsEvent::PollDue { process: p, tenure }),
        }
    }

    pub fn receive_ended(
        &mut self,
        p: usize,
        id: lanekeeper_core::message_groups::ReceiveId,
        handed: &[Handed],
    ) {
        let now = self.now;
        let messages: Vec<_> = handed
            .iter()
            .map(|Handed { update, receipt, receives }| Message {
                record_key: self.keys[self.record_of[*update]].clone(),
                receipt_handle: ReceiptHandle(receipt.to_string().into()),
                sequence_number: *update as u128,
                content: (*update, *receives),
            })
            .collect();
        let ended = self.processes[p].groups.receive_ended(now, id, messages);
        if let Err(why) = ended {
            return self.lost(p, why);
        }
        self.go_on(p);
        let tenure = self.processes[p].tenure;
        if !self.is_over() {
            self.soon(5, SqsEvent::PollDue { process: p, tenure });
        }
    }

    pub fn call_ended(&mut self, p: usize, call: Call, entries: &[Entry], answers: &[EntryAnswer]) {
        let now = self.now;
        for (entry, answer) in entries.iter().zip(answers) {
            let groups = &mut self.processes[p].groups;
            let ended = match call {
                Call::Delete => groups.deletion_ended(now, entry, *answer),
                Call::Renew => {
                    self.met.renewed += u32::from(*answer == EntryAnswer::Done);
                    groups.renewal_ended(now, entry, *answer)
                }
                Call::HandBack => Ok(()),
            };
            if let Err(why) = ended {
                return self.lost(p, why);
            }
        }
        if call == Call::HandBack {
            return self.hand_back(p);
        }
        self.go_on(p);
    }

    /// What is held has changed: the lease, what the partition gets, and what is to be sent to SQS.
    pub fn go_on(&mut self, p: usize) {
        let now = self.now;
        let process = &mut self.processes[p];
        if process.leaving.is_some() {
            return;
        }
        let until = process.groups.may_send_until(now);
        self.met.leases_over += u32::from(process.lease_until < now && !process.groups.is_empty());
        process.lease_until = process.lease_until.max(until);
        self.feed(p, Event::LeaseRenewed { until });
        while let Some(handed) = self.processes[p].groups.next_handed() {
            let (update, receives) = handed.content;
            let record = self.record_of[update];
            let tenure = Tenure(self.processes[p].tenure);
            self.note(p, format_args!("gets #{update} of r{record}, receive {receives}"));
            let update = Arc::new(Update {
                record_key: handed.record_key,
                id: UpdateId::published(format!("u{update}")),
                target: TargetId(0),
                update_type: None,
                version: None,
                content_type: None,
                content_encoding: None,
                if_match: None,
                published_at: Some(update as u64),
                headers: Vec::new(),
                body: Bytes::new(),
            });
            let (delivery, redelivered) = (handed.delivery, receives > 1);
            self.feed(p, Event::Received { tenure, delivery, redelivered, update });
        }
        self.send_due(p);
    }

    pub fn send_due(&mut self, p: usize) {
        let now = self.now;
        let tenure = self.processes[p].tenure;
        self.processes[p].due_at = self.processes[p].due_at.filter(|at| *at > now);
        for call in [Call::Delete, Call::Renew] {
            loop {
                let groups = &mut self.processes[p].groups;
                let entries = match call {
                    Call::Renew => groups.next_renewals(now),
                    _ => groups.next_deletions(now),
                };
                if entries.is_empty() {
                    break;
                }
                self.soon(self.delay_ms, SqsEvent::CallArrived { process: p, tenure, call, entries });
            }
        }
        let process = &mut self.processes[p];
        if let Some(at) = process.groups.next_deadline()
            && process.due_at.is_none_or(|due| at < due)
        {
            process.due_at = Some(at);
            self.at(at, SqsEvent::GroupsDue { process: p, tenure });
        }
    }

    pub fn feed(&mut self, p: usize, event: Event) {
        self.processes[p].core.handle(self.now, event);
        self.follow_up(p);
    }

    pub fn wake(&mut self, p: usize) {
        self.processes[p].wake_at = None;
        self.processes[p].core.wake(self.now);
        self.follow_up(p);
    }

    fn follow_up(&mut self, p: usize) {
        while let Some(effect) = self.processes[p].core.poll_effect() {
            match effect {
                Effect::Attempt { attempt, update, .. } => self.send(p, attempt, &update),
                Effect::Claim { tenure } => {
                    // SQS has no owner of a queue: what it handed over is ours. What happened before is not known.
                    let rival_claim = Some(TenureNumber(tenure.0));
                    let claimed = Event::Claimed { tenure, number: None, rival_claim, wait_until: None };
                    self.processes[p].core.handle(self.now, claimed);
                }
                Effect::Record { tenure, holder, update, .. } => {
                    let record_key = update.map(|update| update.record_key.clone());
                    let recorded = Event::Recorded { tenure, holder, record_key };
                    self.processes[p].core.handle(self.now, recorded);
                }
                Effect::Settle { delivery, .. } => {
                    let now = self.now;
                    self.processes[p].groups.settle(now, delivery);
                    self.send_due(p);
                }
                other => unreachable!("nothing asks for {other:?} here"),
            }
        }
        if let Some(deadline) = self.processes[p].core.next_deadline()
            && self.processes[p].wake_at.is_none_or(|at| deadline < at)
        {
            self.processes[p].wake_at = Some(deadline);
            self.at(deadline, SqsEvent::Wake { process: p });
        }
        self.go_on_leaving(p);
    }

    fn send(&mut self, p: usize, attempt: AttemptId, update: &Update) {
        let name = usize::try_from(update.published_at.expect("it is its name")).expect("a small number");
        if self.now > self.processes[p].lease_until {
            fault!("lease, I12", "{} sent #{name} after its lease", self.processes[p].name);
        }
        let record = self.record_of[name];
        self.note(p, format_args!("sends #{name} of r{record}"));
        self.begin_request(p, attempt, name);
    }

    /// The process learns how its request ended.
    pub fn request_ended(&mut self, p: usize, request: usize) {
        let (attempt, update, applied) = self.requests[request];
        self.processes[p].in_flight.remove(&request);
        let record_key = self.keys[self.record_of[update]].clone();
        let failure = Failure { cause: Cause::Timeout, detail: String::new() };
        let outcome =
            if applied { Outcome::Applied } else { Outcome::Retryable { failure, retry_after: None } };
        self.note(p, format_args!("#{update} ended, applied {applied}"));
        self.feed(p, Event::AttemptEnded { attempt, record_key, outcome });
    }

    /// It was asked to stop: nothing new begins.
    pub fn stop(&mut self, p: usize, within: Duration) {
        if self.processes[p].stops_at.is_some() {
            return;
        }
        self.met.stops += 1;
        let at = self.now.after(within);
        self.note(p, format_args!("is asked to stop"));
        self.processes[p].stops_at = Some(at);
        self.at(at, SqsEvent::StopDue { process: p });
        self.feed(p, Event::StopRequested);
    }

    pub fn go_on_leaving(&mut self, p: usize) {
        let process = &self.processes[p];
        let Some(stops_at) = process.stops_at else { return };
        let is_done = process.in_flight.is_empty();
        if !process.alive || process.leaving.is_some() || (self.now < stops_at && !is_done) {
            return;
        }
        let at_work = !is_done;
        let groups = std::mem::replace(&mut self.processes[p].groups, MessageGroups::new(self.limits));
        let entries = groups.hand_back(at_work);
        self.note(p, format_args!("gives back {} messages", entries.len()));
        let tenure = Tenure(self.processes[p].tenure);
        self.processes[p].tenure += 1; // answers of before are nobody's
        self.processes[p].leaving = Some(entries);
        self.feed(p, Event::TenureEnded(tenure));
        self.hand_back(p);
    }

    fn hand_back(&mut self, p: usize) {
        let tenure = self.processes[p].tenure;
        let rest = self.processes[p].leaving.as_mut().expect("it leaves");
        if rest.is_empty() {
            return self.end_process(p);
        }
        let entries = rest.drain(..rest.len().min(BATCH_MAX)).collect();
        self.met.given_back += 1;
        let call = Call::HandBack;
        self.soon(self.delay_ms, SqsEvent::CallArrived { process: p, tenure, call, entries });
    }
}

//! One process of `lanekeeper ingest`: intake, outbox, and what is between them.

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use lanekeeper_core::publish::intake::{
    BodyHash, ClientLimits, Intake, IntakeLimits, LineAnswer, NotAdmitted, Offer, RequestId, UpdateName,
    Withdrawn,
};
use lanekeeper_core::publish::outbox::{
    NotConfirmedReason, Outbox, OutboxLimits, PublishResult, Refusal, SubmissionId,
};
use lanekeeper_core::publish::outgoing::{Outgoing, ShortText};
use lanekeeper_core::schedule::Schedule;
use lanekeeper_core::tick::Tick;
use lanekeeper_core::update::RecordKey;

use super::broker::Publish;
use super::judge::{HttpReply, Response, SubmissionEnd};
use super::{Carried, DoorsEvent, MILLISECOND, World};
use crate::rng::Rng;

const BYTES: usize = 20;

/// Names a submission in the whole world.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Tag {
    pub(super) door: usize,
    pub(super) life: u64,
    pub(super) submission: u64,
}

enum Order {
    Submit(SubmissionId, Carried),
    Withdraw(Withdrawn),
}

pub(super) struct Door {
    pub(super) life: u64,
    pub(super) is_alive: bool,
    is_stopping: bool,
    pub(super) connection: Option<usize>,
    pub(super) limits: IntakeLimits,
    pub(super) intake: Intake,
    pub(super) outbox: Outbox,
    orders: VecDeque<Order>,
    /// When the next `Due` and the next `Driver` come, if any is planned.
    due: Option<Tick>,
    is_driver_planned: bool,
    submitted: HashMap<SubmissionId, Carried>,
    /// Published and not answered, by record.
    unconfirmed: HashMap<RecordKey, SubmissionId>,
    requests: HashMap<RequestId, usize>,
}

impl Door {
    pub(super) fn new(rng: &mut Rng) -> Self {
        let pending_max = rng.index(12) + 3;
        let limits = IntakeLimits {
            pending_max,
            pending_bytes_max: (rng.index(12) + 3) * BYTES,
            pending_per_record_max: rng.index(3) + 3,
            remember: Duration::from_millis(rng.pick(&[0, 100, 2_000])),
            remembered_max: rng.index(40) + 1,
            clients: vec![ClientLimits { pending_max: 2 * pending_max, rate_max: None }],
        };
        Self {
            life: 0,
            is_alive: false,
            is_stopping: false,
            connection: None,
            intake: Intake::new(limits.clone()),
            outbox: outbox(pending_max),
            limits,
            orders: VecDeque::new(),
            due: None,
            is_driver_planned: false,
            submitted: HashMap::new(),
            unconfirmed: HashMap::new(),
            requests: HashMap::new(),
        }
    }
}

impl Door {
    pub(super) fn plan_is_due(&mut self) {
        self.is_driver_planned = false;
    }
}

fn outbox(held_max: usize) -> Outbox {
    let limits = OutboxLimits {
        in_flight_max: 2.min(held_max),
        held_max,
        held_bytes_max: usize::MAX,
        give_up_after: None,
        abandoned_max: 0,
    };
    Outbox::new(limits, Schedule::new(vec![Duration::from_millis(10), Duration::from_millis(80)], 0.5))
}

fn line(carried: Carried) -> Offer {
    let mut name = [0; 16];
    name[0] = u8::try_from(carried.record).expect("few records");
    name[1] = u8::try_from(carried.sequence).expect("few updates");
    Offer {
        name: UpdateName(name),
        body_hash: BodyHash([u8::from(carried.is_impostor); 16]),
        record_key: RecordKey::new(format!("record-{}", carried.record)).expect("it is short"),
        bytes: BYTES,
    }
}

/// The time of publishing names the submission.
fn outgoing(carried: Carried, submission_id: SubmissionId) -> Outgoing {
    Outgoing {
        record_key: line(carried).record_key,
        id: ShortText::new(carried.sequence.to_string()).expect("it is short"),
        update_type: None,
        content_type: None,
        content_encoding: None,
        published_at: submission_id.0,
        headers: Vec::new(),
        body: Bytes::from_static(if carried.is_impostor { b"other" } else { b"body" }),
    }
}

impl World {
    pub(super) fn reach(&mut self, request: usize, door: usize) {
        let is_gone = !self.doors[door].is_alive;
        if is_gone || self.doors[door].is_stopping {
            // It was not read by anybody.
            let reply = if is_gone { HttpReply::CutOff } else { HttpReply::Refused };
            return self.reply(request, reply);
        }
        if !self.requests[request].is_open {
            return;
        }
        let lines: Vec<Offer> = self.requests[request].carried.iter().copied().map(line).collect();
        let deadline = self.now.after(self.confirm_timeout);
        let now = self.now;
        match self.doors[door].intake.admit(0, &lines, now, deadline) {
            Err(NotAdmitted::IdReused { .. }) => self.reply(request, HttpReply::IdReused),
            Err(_) => self.reply(request, HttpReply::Refused),
            Ok(admitted) => {
                self.requests[request].deadline = Some(deadline);
                let carried = self.requests[request].carried.clone();
                let own = &mut self.doors[door];
                own.requests.insert(admitted.request_id, request);
                for (index, submission_id) in admitted.submit {
                    own.submitted.insert(submission_id, carried[index]);
                    own.orders.push_back(Order::Submit(submission_id, carried[index]));
                }
                self.after(door);
            }
        }
    }

    /// Whoever sent it waits no longer, and its door sees that.
    pub(super) fn hang_up(&mut self, request: usize, door: usize) {
        let own = &mut self.doors[door];
        let Some(request_id) = own.requests.iter().find(|(_, known)| **known == request).map(|(id, _)| *id)
        else {
            return;
        };
        own.requests.remove(&request_id);
        let withdrawn = own.intake.hung_up(request_id);
        self.withdraw(door, withdrawn);
    }

    fn withdraw(&mut self, door: usize, withdrawn: Withdrawn) {
        if !withdrawn.is_empty() {
            self.doors[door].orders.push_back(Order::Withdraw(withdrawn));
        }
        self.after(door);
    }

    /// Tells what there is to tell, and plans what comes next.
    fn after(&mut self, door: usize) {
        let now = self.now;
        while let Some((request_id, answers)) = self.doors[door].intake.next_answer() {
            let request = self.doors[door].requests.remove(&request_id).expect("each is answered once");
            let carried = self.requests[request].carried.clone();
            for (carried, answer) in carried.iter().zip(&answers) {
                let is_there = self.broker.queue.contains(carried);
                let says_so = matches!(answer, LineAnswer::Accepted | LineAnswer::Known);
                assert!(
                    is_there || !says_so,
                    "judge (confirmed): {carried:?} is {answer:?}, and is not in the queue"
                );
            }
            self.reply(request, HttpReply::OfLines(answers));
        }
        let own = &mut self.doors[door];
        let life = own.life;
        let due = [own.intake.next_deadline(), own.outbox.next_deadline()].into_iter().flatten().min();
        let is_earlier = |due: &Tick| own.due.is_none_or(|planned| *due < planned);
        let due = due.filter(is_earlier);
        own.due = due.or(own.due);
        let drives = !own.orders.is_empty() && !own.is_driver_planned;
        own.is_driver_planned |= drives;
        if drives {
            let micros = self.rng.below(MILLISECOND);
            self.at(micros, DoorsEvent::Driver { door, life });
        }
        if let Some(due) = due {
            let micros = u64::try_from(due.since(now).as_micros()).expect("small");
            self.at(micros, DoorsEvent::Due { door, life });
        }
    }

    fn reply(&mut self, request: usize, reply: HttpReply) {
        // It is answered here; its sender hears of it later.
        if let HttpReply::OfLines(_) = reply {
            self.requests[request].deadline = None;
        }
        let micros = self.rng.below(2 * MILLISECOND);
        self.at(micros, DoorsEvent::HttpReply { request, reply });
    }

    pub(super) fn due(&mut self, door: usize) {
        let now = self.now;
        self.doors[door].due = None;
        let withdrawn = self.doors[door].intake.wake(now);
        self.withdraw(door, withdrawn);
        // The publisher may have other things to do first.
        if self.doors[door].orders.is_empty() || self.rng.chance(500) {
            self.drive(door);
        }
    }

    /// What `Publisher::run` does between two waits.
    pub(super) fn drive(&mut self, door: usize) {
        let now = self.now;
        // One order at a time, and now and then several.
        let count = self.rng.index(3) + 1;
        for _ in 0..count {
            let Some(order) = self.doors[door].orders.pop_front() else { break };
            let own = &mut self.doors[door];
            match order {
                Order::Submit(submission_id, carried) => {
                    own.outbox.push(submission_id, Arc::new(outgoing(carried, submission_id)));
                }
                Order::Withdraw(withdrawn) => {
                    for submission_id in own.outbox.withdraw(&withdrawn) {
                        let tag = Tag { door, life: own.life, submission: submission_id.0 };
                        self.judge.verdict(tag, SubmissionEnd::NotAgain);
                        own.intake.in_flight(submission_id);
                    }
                }
            }
        }
        self.doors[door].outbox.wake(now);
        self.receipts(door);
        while let Some(connection) = self.doors[door].connection {
            let own = &mut self.doors[door];
            let Some(in_flight) = own.outbox.publish_next() else { break };
            let submission_id = SubmissionId(in_flight.outgoing.published_at);
            let tag = Tag { door, life: own.life, submission: submission_id.0 };
            let carried = own.submitted[&submission_id];
            self.judge.published(tag, in_flight.again);
            let record_key = in_flight.outgoing.record_key.clone();
            let other = self.doors[door].unconfirmed.insert(record_key.clone(), submission_id);
            assert!(other.is_none(), "judge (one unconfirmed): {tag:?} is published beside {other:?}");
            self.send(Publish { connection, record_key, id: in_flight.id, tag, carried });
        }
        self.receipts(door);
        self.after(door);
    }

    fn receipts(&mut self, door: usize) {
        let now = self.now;
        while let Some(receipt) = self.doors[door].outbox.next_receipt() {
            let tag = Tag { door, life: self.doors[door].life, submission: receipt.submission_id.0 };
            let verdict = match receipt.result {
                PublishResult::NotConfirmed(NotConfirmedReason::NotPublished) => SubmissionEnd::NotThere,
                PublishResult::NotConfirmed(_) | PublishResult::Confirmed => SubmissionEnd::NotAgain,
            };
            self.judge.verdict(tag, verdict);
            self.doors[door].intake.receipt(receipt, now);
        }
    }

    pub(super) fn answered(&mut self, door: usize, publish: &Publish, refusal: Option<Refusal>) {
        let now = self.now;
        if self.doors[door].connection == Some(publish.connection) {
            self.doors[door].unconfirmed.remove(&publish.record_key);
        }
        let outbox = &mut self.doors[door].outbox;
        match refusal {
            None => outbox.confirmed(&publish.record_key, publish.id),
            Some(refusal) => outbox.refused(&publish.record_key, publish.id, refusal, now),
        }
        self.drive(door);
    }

    pub(super) fn down(&mut self, door: usize, connection: usize) {
        if self.doors[door].connection != Some(connection) {
            return;
        }
        self.sever(door);
        self.doors[door].unconfirmed.clear();
        self.doors[door].outbox.disconnected();
        let outage = if self.rng.chance(300) { 1000 } else { 50 };
        let micros = self.rng.below(outage * MILLISECOND);
        let life = self.doors[door].life;
        self.at(micros, DoorsEvent::Up { door, life });
        self.drive(door);
    }

    pub(super) fn up(&mut self, door: usize) {
        self.doors[door].connection = Some(self.broker.connect());
        self.drive(door);
    }

    pub(super) fn crash(&mut self, door: usize) {
        if !self.doors[door].is_alive {
            return;
        }
        self.sever(door);
        self.gone(door);
    }

    /// Its clients see their connections end.
    fn gone(&mut self, door: usize) {
        self.doors[door].is_alive = false;
        let mut requests: Vec<usize> =
            self.doors[door].requests.drain().map(|(_, request)| request).collect();
        requests.sort_unstable();
        for request in requests {
            self.requests[request].deadline = None;
            self.reply(request, HttpReply::CutOff);
        }
        let micros = self.rng.below(100 * MILLISECOND);
        self.at(micros, DoorsEvent::Starts { door });
    }

    pub(super) fn start(&mut self, door: usize) {
        let own = &mut self.doors[door];
        if own.is_alive {
            return;
        }
        own.life += 1;
        (own.is_alive, own.is_stopping) = (true, false);
        own.intake = Intake::new(own.limits.clone());
        own.outbox = outbox(own.limits.pending_max);
        own.orders.clear();
        (own.due, own.is_driver_planned) = (None, false);
        own.submitted.clear();
        own.unconfirmed.clear();
        self.up(door);
    }

    /// SIGTERM, and the time for what waits is over.
    pub(super) fn stop(&mut self, door: usize) {
        if !self.doors[door].is_alive || self.doors[door].is_stopping {
            return;
        }
        self.doors[door].is_stopping = true;
        let withdrawn = self.doors[door].intake.wake(Tick::from_micros(u64::MAX));
        self.withdraw(door, withdrawn);
        let life = self.doors[door].life;
        self.at(20 * MILLISECOND, DoorsEvent::Ends { door, life });
    }

    pub(super) fn end(&mut self, door: usize) {
        let orders: BTreeSet<u64> = self.doors[door].requests.keys().map(|id| id.0).collect();
        assert!(orders.is_empty(), "judge (stop): requests {orders:?} have no answer");
        self.doors[door].outbox.end();
        self.receipts(door);
        self.sever(door);
        self.gone(door);
    }

    pub(super) fn deliver(&mut self, request: usize, reply: HttpReply) {
        let sent = &self.requests[request];
        if !sent.is_open {
            return;
        }
        let sender = sent.sender;
        let carried = sent.carried.clone();
        let response = Response::from(reply);
        self.respond(request, &response);
        if !carried[0].is_impostor {
            self.go_on(sender, request, &response);
        }
    }
}

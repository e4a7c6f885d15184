//! One process: what the real shells do around a partition, in short. Notes, claims and words of the end go into the stream,
//! and what is read there goes to [`Tenures`] and the partition.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use lanekeeper_core::delivery_count::DeliveryCountWatch;
use lanekeeper_core::message::{AttemptId, DeliveryTag, Effect, Event, Tenure, TenureNumber};
use lanekeeper_core::outcome::{Cause, Failure, Outcome};
use lanekeeper_core::ownership::OwnershipState;
use lanekeeper_core::partition::Partition;
use lanekeeper_core::routes::TargetId;
use lanekeeper_core::tenures::{Tenures, Terms};
use lanekeeper_core::tick::Tick;
use lanekeeper_core::update::{Update, UpdateId};

use super::ending::{Leaving, Owed};
use super::event::ClusterEvent;
use super::judge::fault;
use super::queue::Delivery;
use super::stream::Message;
use super::{WAITS, World};
use crate::waits::Attempts;

#[derive(Debug)]
pub struct Process {
    pub name: String,
    /// Its node is on the smaller side of a split.
    pub minor: bool,
    pub alive: bool,
    pub stalled_until: Tick,
    pub terms: Terms,
    pub core: Partition,
    pub tenures: Tenures,
    /// When it read each message of the stream.
    pub read_at: Vec<Tick>,
    pub reader_dead: bool,
    notes: BTreeMap<u64, Tick>,
    notes_sent: u64,
    pub lease_until: Tick,
    pub channel: Option<Channel>,
    tenures_begun: u64,
    claims: u64,
    pub claim: Option<OpenClaim>,
    pub owed: Vec<Owed>,
    pub in_flight: BTreeSet<usize>,
    attempted: BTreeSet<usize>,
    /// The latest attempts of updates.
    pub attempts: Attempts,
    /// Until when what came again waits for requests of owners before, as the partition was told.
    pub told_to_wait_until: Option<Tick>,
    wake_at: Option<Tick>,
    pub delivery_at: Tick,
    /// Until what a split held back has come, nothing that follows on the channel does.
    pub held_back_until: Tick,
    pub ack_at: Tick,
    pub leaving: Option<Leaving>,
    ids_made: u32,
}

#[derive(Debug)]
pub struct Channel {
    pub number: u64,
    pub tenure: Tenure,
    watch: DeliveryCountWatch,
    /// What is not settled.
    pub held: BTreeMap<u64, Delivery>,
    /// What of it came when the partition was not ours, or the lease was over, and has not been looked at since.
    pub unclaimed: BTreeSet<u64>,
}

/// The claim of the present tenure.
#[derive(Debug)]
pub struct OpenClaim {
    count: u64,
    read: u64,
    pub number: Option<u64>,
}

impl Process {
    pub fn new(name: String, minor: bool, terms: Terms, core: Partition) -> Self {
        Self {
            tenures: Tenures::new(name.clone(), terms),
            name,
            minor,
            alive: true,
            stalled_until: Tick::ZERO,
            terms,
            core,
            read_at: Vec::new(),
            reader_dead: false,
            notes: BTreeMap::new(),
            notes_sent: 0,
            lease_until: Tick::ZERO,
            channel: None,
            tenures_begun: 0,
            claims: 0,
            claim: None,
            owed: Vec::new(),
            in_flight: BTreeSet::new(),
            attempted: BTreeSet::new(),
            attempts: Attempts::new(WAITS),
            told_to_wait_until: None,
            wake_at: None,
            delivery_at: Tick::ZERO,
            held_back_until: Tick::ZERO,
            ack_at: Tick::ZERO,
            leaving: None,
            ids_made: 0,
        }
    }
}

impl Process {
    /// The partition looks at what came, if it may send.
    fn take_in(&mut self, now: Tick) {
        if let Some(channel) = &mut self.channel
            && self.claim.as_ref().is_some_and(|claim| claim.number.is_some())
            && now <= self.lease_until
        {
            channel.unclaimed.clear();
        }
    }
}

impl World {
    pub fn attach(&mut self, p: usize) {
        if self.processes[p].channel.is_some() {
            return;
        }
        if self.is_cut_off(p) {
            return self.soon(20, ClusterEvent::Attach { process: p });
        }
        let number = self.queue.attach();
        self.channels.insert(number, p);
        let process = &mut self.processes[p];
        process.tenures_begun += 1;
        let tenure = Tenure(process.tenures_begun);
        let watch = DeliveryCountWatch::default();
        let (held, unclaimed) = (BTreeMap::new(), BTreeSet::new());
        process.channel = Some(Channel { number, tenure, watch, held, unclaimed });
        self.note(p, format_args!("attaches, channel {number}"));
        self.feed(p, Event::TenureBegan(tenure));
        self.hand_over();
    }

    pub fn deliver(&mut self, p: usize, delivery: Delivery) {
        let Delivery { channel: number, tag, update, count } = delivery;
        let process = &mut self.processes[p];
        let Some(channel) = process.channel.as_mut().filter(|channel| channel.number == number) else {
            return;
        };
        let tenure = channel.tenure;
        if channel.watch.delivered(count, || update as u64) {
            self.met.void_deliveries += 1;
            self.note(p, format_args!("holds what the broker took back"));
            return self.feed(p, Event::DeliveriesVoid(tenure));
        }
        // What is held was taken back, and its next owner has settled what would show it by its count.
        if channel.held.len() == self.window {
            return self.lose_channel(p);
        }
        channel.held.insert(tag, delivery);
        channel.unclaimed.insert(tag);
        process.take_in(self.now);
        process.ids_made += 1;
        let made = UpdateId::made(format!("{}-{}", process.name, process.ids_made));
        let id = if self.with_id[update] { UpdateId::published(format!("u{update}")) } else { made };
        let update_sent = Arc::new(Update {
            record_key: self.keys[self.record_of[update]].clone(),
            id,
            target: TargetId(0),
            update_type: None,
            version: None,
            content_type: None,
            content_encoding: None,
            if_match: None,
            published_at: Some(update as u64),
            headers: Vec::new(),
            body: Bytes::copy_from_slice(&(update as u64).to_le_bytes()),
        });
        let record = self.record_of[update];
        self.note(p, format_args!("gets #{update} of r{record}, count {count}"));
        let (delivery, redelivered) = (DeliveryTag(tag), count > 0);
        self.feed(p, Event::Received { tenure, delivery, redelivered, update: update_sent });
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

    pub(super) fn follow_up(&mut self, p: usize) {
        while let Some(effect) = self.processes[p].core.poll_effect() {
            match effect {
                Effect::Attempt { attempt, number, tenure, update, .. } => {
                    self.send(p, (attempt, number), tenure, &update);
                }
                Effect::Claim { .. } => self.claim(p),
                Effect::ClaimEnded { .. } => {
                    let rest = self.rest(p);
                    if let Some(OpenClaim { number: Some(number), .. }) = self.processes[p].claim.take() {
                        self.met.let_go += 1;
                        self.publish(p, Message::Ended { number, rest });
                    }
                }
                Effect::Yield { .. } => self.leave(p, false, self.now.after(Duration::from_secs(3600))),
                Effect::Abandon { .. } => {
                    self.met.abandoned += 1;
                    self.lose_channel(p);
                }
                Effect::Record { tenure, holder, update, .. } => {
                    let record_key = update.map(|update| update.record_key.clone());
                    let recorded = Event::Recorded { tenure, holder, record_key };
                    self.processes[p].core.handle(self.now, recorded);
                }
                Effect::Settle { delivery, .. } => {
                    let channel =
                        self.processes[p].channel.as_mut().expect("only its deliveries are settled");
                    let (number, tag) = (channel.number, delivery.0);
                    channel.held.remove(&tag).expect("it is held");
                    channel.watch.settles();
                    let at = self.ack_time(p);
                    self.at(at, ClusterEvent::Ack { process: p, channel: number, tag });
                }
                Effect::AskProbe(_) | Effect::ReturnProbe(_) => unreachable!("no target is shut"),
                Effect::AskPermits { .. } | Effect::WithdrawPermits(_) | Effect::ReturnPermits { .. } => {
                    unreachable!("no target is paced")
                }
            }
        }
        self.go_on_leaving(p);
        self.judge_rest(p);
        if let Some(deadline) = self.processes[p].core.next_deadline()
            && self.processes[p].wake_at.is_none_or(|at| deadline < at)
        {
            self.processes[p].wake_at = Some(deadline);
            self.at(deadline, ClusterEvent::Wake { process: p });
        }
    }

    fn claim(&mut self, p: usize) {
        let process = &mut self.processes[p];
        if process.claim.is_some() {
            fault!("claim", "{} claims again within one tenure", process.name);
        }
        process.claims += 1;
        let (count, read) = (process.claims, process.read_at.len() as u64);
        process.claim = Some(OpenClaim { count, read, number: None });
        self.publish_claim(p, count);
    }

    /// Until it is read back.
    pub fn publish_claim(&mut self, p: usize, count: u64) {
        let process = &self.processes[p];
        if let Some(OpenClaim { read, number: None, .. }) =
            process.claim.as_ref().filter(|of| of.count == count)
        {
            let (name, terms, read) = (process.name.clone(), process.terms, *read);
            self.note(p, format_args!("claims, has read {read}"));
            self.publish(p, Message::Claim { process: name, count, read, terms });
            self.at(self.now.after(Duration::from_millis(150)), ClusterEvent::ClaimDue { process: p, count });
        }
    }

    pub fn publish_note(&mut self, p: usize) {
        let now = self.now;
        let process = &mut self.processes[p];
        let every = process.terms.lease / 4;
        if self.alarm {
            // While nothing can be published, a good lease goes on by what the broker answers.
            if now <= process.lease_until {
                self.soon(5, ClusterEvent::QosAnswered { process: p, at: now });
            }
        } else {
            process.notes_sent += 1;
            process.notes.insert(process.notes_sent, now);
            let number = process.claim.as_ref().and_then(|claim| claim.number);
            let (name, note, terms) = (process.name.clone(), process.notes_sent, process.terms);
            self.publish(p, Message::Note { process: name, note, terms, number });
        }
        if !self.is_over() {
            self.at(now.after(every), ClusterEvent::NoteDue { process: p });
        }
    }

    pub fn renew_lease(&mut self, p: usize, sent_at: Tick) {
        let (now, process) = (self.now, &mut self.processes[p]);
        let until = sent_at.after(process.terms.lease);
        process.lease_until = process.lease_until.max(sent_at.after(process.terms.lease));
        if matches!(process.core.ownership_state(), OwnershipState::Lapsed(_)) && until > now {
            self.met.renewed += 1;
        }
        process.take_in(now);
        self.feed(p, Event::LeaseRenewed { until });
    }

    /// Reads the stream as far as it goes.
    pub fn read(&mut self, p: usize) {
        while self.processes[p].alive
            && let Some(message) = self.stream.read(self.processes[p].read_at.len())
        {
            let offset = self.processes[p].read_at.len() as u64;
            self.processes[p].read_at.push(self.now);
            self.on_message(p, offset, &message);
        }
    }

    fn on_message(&mut self, p: usize, offset: u64, message: &Message) {
        let now = self.now;
        let process = &mut self.processes[p];
        match message {
            Message::Claim { process: of, count, .. } => {
                let claim = message.as_claim(offset).expect("it is one");
                let changed = process.tenures.claimed(now, &claim);
                if *of == process.name {
                    if changed {
                        self.own_claim_read(p, *count);
                    }
                } else if process.tenures.rival() == Some(TenureNumber(offset))
                    && process.claim.as_ref().is_some_and(|claim| claim.number.is_some())
                    && let Some(channel) = &process.channel
                {
                    let tenure = channel.tenure;
                    self.note(p, format_args!("reads the claim of {of} at {offset}"));
                    self.feed(p, Event::ClaimSuperseded(tenure));
                }
            }
            Message::Note { process: of, note, terms, number } => {
                if let Some(number) = number {
                    process.tenures.noted(now, of, TenureNumber(*number), *terms);
                }
                if *of == process.name
                    && let Some(sent_at) = process.notes.remove(note)
                {
                    process.notes.retain(|later, _| later > note);
                    self.renew_lease(p, sent_at);
                }
            }
            Message::Ended { number, rest } => {
                process.tenures.ended(now, TenureNumber(*number), *rest);
                let until = process.tenures.wait_until(now);
                if let Some(channel) = &process.channel
                    && process.claim.as_ref().is_some_and(|claim| claim.number.is_some())
                    && process.core.take_over_wait() != until
                {
                    self.met.waits_ended_early += u32::from(process.core.view().take_over_wait > 0);
                    let tenure = channel.tenure;
                    self.processes[p].told_to_wait_until = until;
                    self.feed(p, Event::TakeOverWait { tenure, until });
                }
                if self.processes[p].leaving.is_some_and(|leaving| leaving.said == Some(*number)) {
                    self.close(p);
                }
            }
        }
    }

    fn own_claim_read(&mut self, p: usize, count: u64) {
        let now = self.now;
        let process = &mut self.processes[p];
        let ours = process.tenures.ours().expect("it was read just now");
        let number = ours.number.0;
        let open = process.claim.as_mut().filter(|claim| claim.count == count && claim.number.is_none());
        let wait_until = process.tenures.wait_until(now);
        match open {
            _ if ours.void => {
                self.met.void_claims += 1;
                self.note(p, format_args!("its claim at {number} is void"));
                if self.processes[p].claim.as_ref().is_some_and(|claim| claim.count == count) {
                    self.processes[p].claim = None;
                    self.lose_channel(p);
                }
            }
            Some(claim) => {
                claim.number = Some(number);
                let tenure = process.channel.as_ref().expect("a claim ends with its channel").tenure;
                self.met.waits += u32::from(wait_until.is_some());
                self.note(p, format_args!("owns it, number {number}, wait until {wait_until:?}"));
                let (number, rival_claim) = (Some(ours.number), ours.rival);
                let process = &mut self.processes[p];
                process.attempts.claimed(rival_claim);
                process.told_to_wait_until = wait_until;
                process.take_in(now);
                self.feed(p, Event::Claimed { tenure, number, rival_claim, wait_until });
            }
            // Its channel is gone, or it was let go, and nothing was sent under it.
            None => {
                let rest = wait_until.map_or(Duration::ZERO, |until| until.since(now));
                self.publish(p, Message::Ended { number, rest });
            }
        }
    }

    fn send(
        &mut self,
        p: usize,
        (attempt, number): (AttemptId, u32),
        tenure: Option<TenureNumber>,
        update: &Update,
    ) {
        let name = usize::try_from(update.published_at.expect("it is its name")).expect("a small number");
        let process = &mut self.processes[p];
        if self.now > process.lease_until {
            fault!("lease", "{} sent #{name} after its lease", process.name);
        }
        let claimed = process.claim.as_ref().and_then(|claim| claim.number);
        let Some(tenure) = tenure.filter(|number| Some(number.0) == claimed) else {
            fault!("tenure, I5", "{} sent #{name} under {tenure:?}, and owns {claimed:?}", process.name);
        };
        process.attempted.insert(name);
        let of_process = process.channel.as_ref().expect("requests leave within a tenure").tenure;
        process.attempts.began(self.now, of_process, name, number);
        let (at_work, process_name) = (process.terms.at_work, process.name.clone());
        let record = self.record_of[name];
        self.note(p, format_args!("sends #{name} of r{record}"));
        self.begin_request(p, (attempt.0, tenure), name, at_work, &process_name);
    }

    /// The process learns how its request ended.
    pub fn request_ended(&mut self, p: usize, request: usize) {
        let (attempt, update, applied) = self.requests[request];
        let process = &mut self.processes[p];
        process.in_flight.remove(&request);
        process.attempts.ended(self.now, update, !applied);
        let record_key = self.keys[self.record_of[update]].clone();
        let failure = Failure { cause: Cause::Timeout, detail: String::new() };
        let outcome =
            if applied { Outcome::Applied } else { Outcome::Retryable { failure, retry_after: None } };
        self.note(p, format_args!("#{update} ended, applied {applied}"));
        self.feed(p, Event::AttemptEnded { attempt: AttemptId(attempt), record_key, outcome });
        self.processes[p].owed.iter_mut().for_each(|owed| {
            owed.requests.remove(&request);
        });
        self.pay_owed(p);
    }

    /// What could start has started: a fresh head at once, one that came again when the promise says so at the latest.
    fn judge_rest(&self, p: usize) {
        let process = &self.processes[p];
        let (Some(channel), Some(OpenClaim { number: Some(number), .. })) =
            (&process.channel, &process.claim)
        else {
            return;
        };
        let ready = matches!(process.core.ownership_state(), OwnershipState::Claimed(_))
            && self.now <= process.lease_until
            && process.leaving.is_none()
            && process.in_flight.len() < self.in_flight_max;
        if !process.alive || !ready {
            return;
        }
        let mut seen: BTreeSet<usize> =
            process.in_flight.iter().map(|request| self.record_of[self.requests[*request].1]).collect();
        for Delivery { update, count, .. } in channel.held.values() {
            let record = self.record_of[*update];
            if !seen.insert(record) || process.attempted.contains(update) {
                if self.in_flight_max == 1 {
                    return;
                }
                continue;
            }
            let wait_max = || self.stream.wait_max(&process.name, *number, &process.read_at);
            if *count == 0 {
                fault!("liveness, fresh", "{} does not send #{update}, which is fresh", process.name);
            } else if self.now > wait_max() {
                fault!("liveness, wait", "{} waits too long with #{update}", process.name);
            }
            if self.in_flight_max == 1 {
                return;
            }
        }
    }
}

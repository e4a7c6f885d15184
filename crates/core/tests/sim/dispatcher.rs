//! A model driver: feeds the core, performs its effects late and interleaved, and acks as the real one does.
//! Here are the doings of one process; `World` holds what outlives it.

use std::collections::HashMap;
use std::sync::Arc;

use bytes::Bytes;
use lanekeeper_core::acks::{AckLimits, Acks};
use lanekeeper_core::breaker::{Breaker, Circuit, HealthSignal};
use lanekeeper_core::message::{AttemptId, DeliveryTag, Event, Holder, Tenure, TenureNumber};
use lanekeeper_core::outcome::Outcome;
use lanekeeper_core::ownership::OwnershipState;
use lanekeeper_core::partition::Partition;
use lanekeeper_core::policy::Malformed;
use lanekeeper_core::routes::TargetId;
use lanekeeper_core::tick::Tick;
use lanekeeper_core::update::{RecordKey, Update, UpdateId};

use crate::broker::Delivery;
use crate::kills::Step;
use crate::ledger::{LedgerWrite, WriteKind, WriteResult};
use crate::setup::{Publication, Setup};
use crate::trace::TraceLine;
use crate::world::{Request, SimEvent, World};

#[derive(Debug)]
pub struct Dispatcher {
    pub process: u32,
    pub partition: Partition,
    pub channel: Option<Channel>,
    /// Which update each delivery of the newest channel is.
    pub names: HashMap<DeliveryTag, usize>,
    pub wake_at: Option<Tick>,
    pub acks_at: Option<Tick>,
    ids_made: u32,
    pub stopping: Option<Stopping>,
    /// The next note is set.
    pub note_set: bool,
    pub note_sent_at: Option<Tick>,
    lapse_traced: bool,
    /// Of each target, and what the partition was told of it last.
    pub breakers: Vec<(Breaker, Circuit)>,
    /// Of each target: the partition was told that it is paused.
    pub paused: Vec<bool>,
}

/// An open channel and the tenure on it, as the dispatcher believes.
#[derive(Debug)]
pub struct Channel {
    pub number: u64,
    pub tenure: Tenure,
    pub acks: Acks,
    pub settled: Vec<usize>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stopping {
    /// Then the process ends, or attaches again.
    Began { stop: bool },
    /// Everything is settled; the channel will be closed.
    Closing { stop: bool },
}

/// A resolution that is being written down.
#[derive(Debug)]
pub struct Writing {
    pub process: u32,
    pub tenure: Tenure,
    pub holder: Holder,
    pub record_key: Option<RecordKey>,
    pub update: usize,
    /// Of the update in this process, counted by the judge.
    pub turn: u32,
    pub dead_letter: bool,
    /// What the ledger is to write; `None`: nothing.
    pub entry: Option<LedgerWrite>,
    pub answer: WriteResult,
    pub done: bool,
}

impl Dispatcher {
    pub fn new(process: u32, setup: &Setup) -> Self {
        Self {
            process,
            partition: Partition::new(setup.limits, Arc::clone(&setup.policy)),
            channel: None,
            names: HashMap::new(),
            wake_at: None,
            acks_at: None,
            ids_made: 0,
            stopping: None,
            note_set: false,
            note_sent_at: None,
            lapse_traced: false,
            breakers: setup.circuits.breakers(),
            paused: vec![false; setup.circuits.targets],
        }
    }

    pub fn update(&mut self, setup: &Setup, update: usize, record: usize) -> Arc<Update> {
        let made = || {
            self.ids_made += 1;
            UpdateId::made(format!("made-{}-{}", self.process, self.ids_made))
        };
        let Publication { repeats, equals, .. } = setup.publications[update];
        let bodies = setup
            .ledger
            .as_ref()
            .map_or(repeats.or(equals).unwrap_or(update), |behaviour| behaviour.contents.bodies[update]);
        Arc::new(Update {
            record_key: setup.record_keys[record].clone(),
            id: setup.publications[update].id.clone().unwrap_or_else(made),
            target: TargetId(setup.publications[update].target),
            update_type: None,
            version: setup.ledger.as_ref().and_then(|behaviour| behaviour.contents.versions[update]),
            content_type: None,
            content_encoding: None,
            if_match: None,
            published_at: Some(equals.unwrap_or(update) as u64),
            headers: Vec::new(),
            body: Bytes::copy_from_slice(&(bodies as u64).to_le_bytes()),
        })
    }
}

fn retry_after_ms(outcome: &Outcome) -> Option<u128> {
    match outcome {
        Outcome::Retryable { retry_after, .. } => retry_after.map(|wait| wait.as_millis()),
        _ => None,
    }
}

impl World {
    pub fn attach(&mut self) {
        // A process reads what is paused before it attaches for the first time.
        self.read_pauses();
        let tenure = Tenure(self.next_tenure());
        let channel = Channel {
            number: self.broker.open(),
            tenure,
            acks: Acks::new(AckLimits::for_prefetch(self.setup.limits.window.get())),
            settled: Vec::new(),
        };
        self.dispatcher.channel = Some(channel);
        self.dispatcher.names.clear();
        self.dispatcher.stopping = None;
        self.trace(TraceLine::TenureBegan { tenure: tenure.0 });
        self.judge.tenure_began(tenure.0);
        self.feed_core(Event::TenureBegan(tenure));
        self.renew_lease(self.now);
        if tenure.0 > 1 && self.rng.chance(self.setup.faults.stale) {
            self.deliver_stale(Tenure(tenure.0 - 1));
        }
    }

    /// The claim of a tenure is read back, perhaps after the tenure has ended. It comes on the connection that consumes:
    /// whoever reads it has read before it that its channel is gone.
    pub fn claimed(&mut self, tenure: u64) {
        if let Some(channel) = self.dispatcher.channel.as_ref().map(|channel| channel.number)
            && !self.broker.is_open(channel)
        {
            self.channel_gone(channel);
        }
        let number = self.next_claim();
        let rival_claim = self.rival_claim;
        if self.ledger_client.is_some() {
            self.write_claim(tenure, number, rival_claim);
        } else {
            self.claim_known(tenure, number, rival_claim);
        }
    }

    pub fn claim_known(&mut self, tenure: u64, number: u64, rival_claim: Option<u64>) {
        self.trace(TraceLine::Claimed { tenure, number, rival_claim });
        self.judge.claimed(self.now, tenure, number, rival_claim);
        let (tenure, number) = (Tenure(tenure), Some(TenureNumber(number)));
        let rival_claim = rival_claim.map(TenureNumber);
        self.feed_core(Event::Claimed { tenure, number, rival_claim, wait_until: None });
    }

    /// The dispatcher learns that its channel is gone, or has closed it.
    pub fn detach(&mut self, number: u64) -> bool {
        if self.dispatcher.channel.as_ref().is_none_or(|channel| channel.number != number) {
            return false;
        }
        let tenure = self.dispatcher.channel.take().expect("checked above").tenure;
        self.trace(TraceLine::TenureEnded { tenure: tenure.0 });
        self.judge.tenure_ended();
        self.feed_core(Event::TenureEnded(tenure));
        self.perform_effects();
        if self.rng.chance(self.setup.faults.stale) {
            self.deliver_stale(tenure);
        }
        true
    }

    /// Changes nothing: the tenure has ended, or another has begun.
    fn deliver_stale(&mut self, tenure: Tenure) {
        let number = self.rng.index(self.setup.publications.len());
        let Some(record) = self.setup.publications[number].record else { return };
        let update = self.dispatcher.update(&self.setup, number, record);
        let delivery = DeliveryTag(self.rng.between(1, 100));
        self.trace(TraceLine::Stale { tenure: tenure.0, update: number });
        self.feed_core(Event::Received { tenure, delivery, redelivered: false, update });
        self.feed_core(Event::TenureEnded(tenure));
    }

    pub fn receive(&mut self, number: u64, Delivery { tag, update, redelivered }: Delivery) {
        let Some(channel) = &mut self.dispatcher.channel else { return };
        if channel.number != number {
            return;
        }
        let (tenure, delivery) = (channel.tenure, DeliveryTag(tag));
        channel.acks.delivered(delivery, self.now);
        self.dispatcher.names.insert(delivery, update);
        self.trace(TraceLine::Delivered { tag, update, redelivered });
        self.judge.received(self.now, update, redelivered);
        if self.dies_after(Step::Received) {
            return;
        }
        let event = match self.setup.publications[update].record {
            None => Event::ReceivedMalformed { tenure, delivery, fault: Malformed::NoRecordKey },
            Some(record) => {
                let update = self.dispatcher.update(&self.setup, update, record);
                Event::Received { tenure, delivery, redelivered, update }
            }
        };
        self.feed_core(event);
    }

    pub fn answer(&mut self, request: usize) {
        let Request { process, sent, outcome, lie, .. } = &self.requests[request];
        if *process != self.dispatcher.process {
            return;
        }
        let (sent, outcome, lie) = (sent.clone(), outcome.clone(), *lie);
        self.apply(request);
        self.trace(TraceLine::AttemptEnded {
            attempt: sent.attempt,
            update: sent.update,
            outcome: outcome.kind(),
            retry_after_ms: retry_after_ms(&outcome),
            lie,
        });
        let target = self.setup.publications[sent.update].target;
        let signal = match HealthSignal::of(&outcome) {
            // As the driver does: whoever has paused the target expects failures.
            signal if signal.is_failure() && self.dispatcher.paused[target] && !sent.probe => {
                HealthSignal::Neutral
            }
            signal => signal,
        };
        self.report(sent.update, signal, sent.probe);
        if self.requests[request].process != self.dispatcher.process {
            return; // killed in the midst of it
        }
        self.judge.attempt_ended(self.now, &sent, &outcome);
        if outcome.was_sent() && self.dies_after(Step::AnswerRead) {
            return;
        }
        let record = self.setup.publications[sent.update].record.expect("malformed updates are never sent");
        let record_key = self.setup.record_keys[record].clone();
        let attempt = AttemptId(sent.attempt);
        if self.rng.chance(self.setup.faults.stale) {
            self.soon(50, SimEvent::Echo { request });
        }
        self.feed_core(Event::AttemptEnded { attempt, record_key, outcome });
    }

    /// Changes nothing: the attempt has ended.
    pub fn echo(&mut self, request: usize) {
        let Request { process, sent, .. } = &self.requests[request];
        if *process == self.dispatcher.process {
            let record =
                self.setup.publications[sent.update].record.expect("malformed updates are never sent");
            let record_key = self.setup.record_keys[record].clone();
            let (attempt, outcome) = (AttemptId(sent.attempt), Outcome::Applied);
            self.trace(TraceLine::Echo { attempt: attempt.0 });
            self.feed_core(Event::AttemptEnded { attempt, record_key, outcome });
        }
    }

    pub fn written(&mut self, writing: usize) {
        let Writing { process, update, dead_letter, turn, tenure, holder, .. } = self.writings[writing];
        self.writings[writing].done = true;
        if process != self.dispatcher.process {
            return;
        }
        if self.ledger_client.is_some() && !self.handle_answer(writing) {
            return;
        }
        if dead_letter && self.writings[writing].entry.is_none() {
            self.trace(TraceLine::DeadLettered { update });
            self.judge.dead_lettered(update);
        }
        self.trace(TraceLine::Recorded { update });
        self.judge.recorded(update, turn);
        let what = self.writings[writing].entry.as_ref().map(|entry| &entry.what);
        let parked = matches!(what, Some(WriteKind::Park { .. } | WriteKind::Repark { .. }));
        self.judge.released_ended(update, holder, tenure.0, parked);
        let record_key = self.writings[writing].record_key.clone();
        self.feed_core(Event::Recorded { tenure, holder, record_key: record_key.clone() });
        if self.rng.chance(self.setup.faults.stale) {
            self.trace(TraceLine::Stale { tenure: tenure.0, update });
            self.feed_core(Event::Recorded { tenure, holder, record_key });
        }
        if self.ledger_client.is_some() {
            self.load_further(holder, update);
        }
    }

    pub fn wake(&mut self) {
        self.dispatcher.wake_at = self.dispatcher.wake_at.filter(|at| *at > self.now);
        self.trace(TraceLine::Woke);
        self.judge.woke(self.now);
        self.dispatcher.partition.wake(self.now);
        self.trace_lapse();
        self.follow_up();
    }

    pub fn acks_are_due(&mut self) {
        self.dispatcher.acks_at = None;
        self.follow_up();
    }

    pub fn request_stop(&mut self, stop: bool) {
        if self.dispatcher.channel.is_some() && self.dispatcher.stopping.is_none() {
            self.dispatcher.stopping = Some(Stopping::Began { stop });
            self.trace(TraceLine::StopRequested);
            self.judge.stop_requested();
            self.feed_core(Event::StopRequested);
        }
    }

    /// The grace after a drain is over. Whether the process ends.
    pub fn close(&mut self, number: u64) -> Option<bool> {
        let Some(Stopping::Closing { stop }) = self.dispatcher.stopping else { return None };
        let channel = self.dispatcher.channel.as_ref().filter(|channel| channel.number == number)?;
        let settled = channel.settled.clone();
        if self.broker.is_open(number) {
            let all = self.broker.acks_on_their_way();
            self.lose_at_broker(all);
            self.judge.drained(&settled);
        }
        self.trace(TraceLine::ChannelClosed);
        self.other_process_may_own();
        self.detach(number);
        Some(stop)
    }

    pub fn feed_core(&mut self, event: Event) {
        self.dispatcher.partition.handle(self.now, event);
        self.core_was_fed();
    }

    /// What the driver does after each event.
    pub fn core_was_fed(&mut self) {
        self.trace_lapse();
        self.follow_up();
    }

    pub fn trace_lapse(&mut self) {
        let lapsed = matches!(self.dispatcher.partition.ownership_state(), OwnershipState::Lapsed(_));
        if lapsed && !self.dispatcher.lapse_traced {
            self.trace(TraceLine::Lapsed);
        }
        self.dispatcher.lapse_traced = lapsed;
    }
}

//! Everything that can happen, when it happens, and to whom.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::time::Duration;

use lanekeeper_core::message::{Holder, TenureNumber};
use lanekeeper_core::outcome::Outcome;
use lanekeeper_core::tick::Tick;
use lanekeeper_core::update::Update;

use crate::broker::Broker;
use crate::dispatcher::{Dispatcher, Writing};
use crate::facts::Sent;
use crate::judge::{Judge, fault};
use crate::kills::Step;
use crate::ledger::Ledger;
use crate::ledger_client::{LedgerEvent, SimLedgerClient};
use crate::ledger_setup::LedgerBehaviour;
use crate::pauses::Pauses;
use crate::rng::Rng;
use crate::setup::Setup;
use crate::target::Target;
use crate::trace::{Trace, TraceLine};
use crate::waits::CausesMet;

/// More happenings than any world needs that comes to rest.
const STEPS_MAX: u32 = 100_000;

const CHANCE_OF_CIRCUITS: u64 = 0x6272_6561_6b65_7273;
const CHANCE_OF_DOUBTS: u64 = 0x0018_ba64_6f75_6274;
const CHANCE_OF_PAUSES: u64 = 0x7061_7573_6573;
const CHANCE_OF_PAUSES_AT_PROBES: u64 = 0x0070_726f_6265_7321;
const CHANCE_OF_REPEATS: u64 = 0x7265_7065_6174;
const CHANCE_OF_QUESTIONS: u64 = 0x0077_6879;
const CHANCE_OF_EQUALS: u64 = 0x6571_7561_6c73;

/// What can happen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum SimEvent {
    Publish {
        update: usize,
    },
    /// The oldest delivery on its way reaches the dispatcher.
    Delivery {
        channel: u64,
    },
    /// The oldest ack on its way reaches the broker.
    Ack {
        channel: u64,
    },
    /// The target applies a request.
    Request {
        request: usize,
    },
    /// Its answer, or the fault of its connection, reaches the dispatcher.
    WriteResult {
        request: usize,
    },
    /// The dispatcher hears once more of an attempt that has ended, and hears another ending.
    Echo {
        request: usize,
    },
    Written {
        writing: usize,
    },
    Wake {
        process: u32,
    },
    AcksDue {
        process: u32,
    },
    /// A lazy driver takes the effects that it left.
    Effects {
        process: u32,
    },
    /// The dispatcher learns that its channel is gone.
    ChannelGone {
        process: u32,
        channel: u64,
    },
    Attach {
        process: u32,
    },
    /// The claim of a tenure is read back.
    Claimed {
        process: u32,
        tenure: u64,
    },
    /// Another process's claim is read.
    ClaimSuperseded {
        process: u32,
        tenure: u64,
    },
    /// The process publishes a note.
    NoteSent {
        process: u32,
        channel: u64,
    },
    /// And reads it back.
    NoteReadBack {
        process: u32,
        channel: u64,
        at: Tick,
    },
    /// The broker has not heard the process.
    DroppedBySilence {
        process: u32,
    },
    Close {
        process: u32,
        channel: u64,
    },
    /// The driver hears that a breaker has changed.
    BreakersChanged {
        process: u32,
    },
    /// The probe of another partition ends.
    ProbeElsewhere {
        process: u32,
        target: usize,
    },
    /// The process learns which targets are paused.
    PausesRead,
    /// Something with the ledger.
    Ledger(LedgerEvent),
}

/// Seeds from here on stand for worlds with a ledger: the world of the seed without it, and what the ledger changes.
pub const WITH_LEDGER: u64 = 1 << 32;

/// A request to the target. It outlives the process that sent it.
#[derive(Debug)]
pub struct Request {
    pub process: u32,
    pub sent: Sent,
    pub holder: Holder,
    /// What the ledger knew that makes it needless, or its silence.
    pub found: Option<Outcome>,
    /// When the ledger was asked.
    pub asked_at: Tick,
    pub outcome: Outcome,
    pub applies: bool,
    pub lie: bool,
    /// It never arrived, or has been applied.
    pub over: bool,
}

#[derive(Debug)]
pub struct World {
    pub setup: Setup,
    pub rng: Rng,
    /// Inquiries of people take nothing of the other.
    pub chance_of_questions: Rng,
    pub causes: CausesMet,
    pub now: Tick,
    /// By time, then by lot: what happens at one moment happens in any order.
    agenda: BinaryHeap<Reverse<(Tick, u64, SimEvent)>>,
    pub broker: Broker,
    delivery_at: Tick,
    ack_at: Tick,
    pub target: Target,
    pub requests: Vec<Request>,
    pub writings: Vec<Writing>,
    pub dispatcher: Dispatcher,
    pub ledger_client: Option<SimLedgerClient>,
    /// The process dies at the next such step.
    pub aimed_at: Option<Step>,
    tenures: u64,
    claims: u64,
    /// The newest claim of another process.
    pub rival_claim: Option<u64>,
    pub stalled_until: Tick,
    pub judge: Judge,
    trace: Trace,
}

impl World {
    pub fn new(seed: u64) -> Self {
        let seed_of_plain = seed % WITH_LEDGER;
        let mut rng = Rng::new(seed_of_plain);
        let mut setup = Setup::new(&mut rng, &mut Rng::new(seed_of_plain ^ CHANCE_OF_CIRCUITS));
        if seed >= WITH_LEDGER {
            setup.add_repeats(&mut Rng::new(seed_of_plain ^ CHANCE_OF_REPEATS));
            setup.ledger = Some(LedgerBehaviour::new(&mut rng, &mut setup));
        } else {
            setup.add_equals(&mut Rng::new(seed_of_plain ^ CHANCE_OF_EQUALS));
        }
        let chance_of_pauses = Rng::new(seed ^ CHANCE_OF_PAUSES);
        let chance_of_probes = Rng::new(seed ^ CHANCE_OF_PAUSES_AT_PROBES);
        setup.pauses = Pauses::new(chance_of_pauses, chance_of_probes, setup.circuits.targets, setup.calm_at);
        let ledger_client = setup.ledger.as_ref().map(|behaviour| {
            SimLedgerClient::new(Ledger::new(setup.record_keys.len(), behaviour.contents.clone()))
        });
        Self {
            rng,
            chance_of_questions: Rng::new(seed ^ CHANCE_OF_QUESTIONS),
            causes: CausesMet::default(),
            now: Tick::ZERO,
            agenda: BinaryHeap::new(),
            broker: Broker::new(setup.limits.window.get()),
            delivery_at: Tick::ZERO,
            ack_at: Tick::ZERO,
            target: Target::new(Rng::new(seed ^ CHANCE_OF_DOUBTS), setup.record_keys.len()),
            requests: Vec::new(),
            writings: Vec::new(),
            dispatcher: Dispatcher::new(1, &setup),
            ledger_client,
            aimed_at: None,
            tenures: 0,
            claims: 0,
            rival_claim: None,
            stalled_until: Tick::ZERO,
            judge: Judge::new(&setup),
            trace: Trace::default(),
            setup,
        }
    }

    /// Runs until nothing happens any more.
    ///
    /// # Panics
    /// Where a rule is broken.
    pub fn run(&mut self) {
        self.at(self.setup.publications[0].at, SimEvent::Publish { update: 0 });
        self.soon(self.setup.delays.attach, SimEvent::Attach { process: 1 });
        self.start_ledger();
        self.start_pauses();
        let mut steps = 0;
        while let Some(Reverse((at, _, event))) = self.agenda.pop() {
            steps += 1;
            if steps > STEPS_MAX {
                fault!("liveness", "no rest after {STEPS_MAX} steps");
            }
            self.now = at.max(self.now);
            if self.is_stalled(event) {
                self.at(self.stalled_until, event);
                continue;
            }
            self.inject_fault();
            self.aim();
            self.handle_event(event);
        }
        self.judge.end();
        self.judge_rest();
    }

    pub fn trace_so_far(&self) -> &Trace {
        &self.trace
    }

    fn handle_event(&mut self, event: SimEvent) {
        let process = self.dispatcher.process;
        match event {
            SimEvent::Publish { update } => {
                self.trace(TraceLine::Published { update, record: self.setup.publications[update].record });
                self.broker.publish(update);
                self.hand_over();
                if let Some(next) = self.setup.publications.get(update + 1) {
                    self.at(next.at, SimEvent::Publish { update: update + 1 });
                }
            }
            SimEvent::Delivery { channel } => {
                if let Some(delivery) = self.broker.arrive(channel) {
                    self.receive(channel, delivery);
                }
            }
            SimEvent::Ack { channel } => {
                let acked = self.broker.take_ack(channel);
                self.acked(acked);
                self.hand_over();
            }
            SimEvent::Request { request } => self.apply(request),
            SimEvent::WriteResult { request } => self.answer(request),
            SimEvent::Echo { request } => self.echo(request),
            SimEvent::Written { writing } => self.written(writing),
            SimEvent::Ledger(event) => self.handle_ledger_event(event),
            SimEvent::Wake { process: of } if of == process => self.wake(),
            SimEvent::AcksDue { process: of } if of == process => self.acks_are_due(),
            SimEvent::Effects { process: of } if of == process => self.follow_up(),
            SimEvent::ChannelGone { process: of, channel } if of == process => self.channel_gone(channel),
            SimEvent::Attach { process: of } if of == process => {
                self.attach();
                self.hand_over();
            }
            SimEvent::Claimed { process: of, tenure } if of == process => self.claimed(tenure),
            SimEvent::ClaimSuperseded { process: of, tenure } if of == process => {
                self.claim_superseded(tenure);
            }
            SimEvent::NoteSent { process: of, channel } if of == process => self.send_note(channel),
            SimEvent::NoteReadBack { process: of, channel, at } if of == process => {
                self.note_read_back(channel, at);
            }
            SimEvent::DroppedBySilence { process: of } if of == process => self.dropped_by_silence(),
            SimEvent::Close { process: of, channel } if of == process => match self.close(channel) {
                Some(true) => self.end_process(),
                Some(false) => self.soon(self.setup.delays.attach, SimEvent::Attach { process }),
                None => {}
            },
            SimEvent::BreakersChanged { process: of } if of == process => self.on_breaker_change(),
            SimEvent::ProbeElsewhere { process: of, target } if of == process => {
                self.probe_elsewhere_ended(target);
            }
            SimEvent::PausesRead => self.read_pauses(),
            // What a dead process was waiting for.
            SimEvent::Wake { .. }
            | SimEvent::AcksDue { .. }
            | SimEvent::Effects { .. }
            | SimEvent::ChannelGone { .. }
            | SimEvent::Attach { .. }
            | SimEvent::Claimed { .. }
            | SimEvent::ClaimSuperseded { .. }
            | SimEvent::NoteSent { .. }
            | SimEvent::NoteReadBack { .. }
            | SimEvent::DroppedBySilence { .. }
            | SimEvent::Close { .. }
            | SimEvent::BreakersChanged { .. }
            | SimEvent::ProbeElsewhere { .. } => {}
        }
    }

    /// The dispatcher learns of it, and tries to come back.
    pub fn channel_gone(&mut self, channel: u64) {
        let process = self.dispatcher.process;
        if self.detach(channel) {
            self.soon(self.setup.delays.attach, SimEvent::Attach { process });
        }
    }

    /// The broker loses the channel. Answers its number, if there was one.
    pub fn lose_at_broker(&mut self, acks_done: usize) -> Option<u64> {
        let (lost, number) = self.broker.lose(acks_done)?;
        self.trace(TraceLine::ChannelLost { acks_lost: lost.acks_lost });
        self.acked(lost.acked);
        Some(number)
    }

    pub fn acked(&mut self, updates: Vec<usize>) {
        for update in updates {
            self.trace(TraceLine::Acked { update });
            self.judge.acked(update);
            self.judge_safe(update);
        }
    }

    fn hand_over(&mut self) {
        let Some((channel, count)) = self.broker.hand_over() else { return };
        for _ in 0..count {
            let delay = Duration::from_millis(self.rng.between(0, self.setup.delays.delivery));
            self.delivery_at = self.delivery_at.max(self.now.after(delay));
            self.at(self.delivery_at, SimEvent::Delivery { channel });
        }
    }

    pub fn ack_travels(&mut self, channel: u64) {
        let delay = Duration::from_millis(self.rng.between(0, self.setup.delays.ack));
        self.ack_at = self.ack_at.max(self.now.after(delay));
        self.at(self.ack_at, SimEvent::Ack { channel });
    }

    /// An attempt begins: with a ledger this is asked first, else the request leaves at once.
    pub fn send(
        &mut self,
        (attempt, number, probe): (u64, u32, bool),
        tenure: Option<TenureNumber>,
        holder: Holder,
        update: &Update,
    ) {
        let (process, name) = (self.dispatcher.process, self.name_of(holder, update));
        let record = self.setup.publications[name].record.expect("malformed updates are never sent");
        self.trace(TraceLine::Attempt { process, attempt, number, update: name, record, probe });
        let under = tenure.map(|TenureNumber(number)| number);
        if self.ledger_client.is_none() {
            self.judge.sent_under(self.now, name, under);
        }
        let sent = Sent {
            under: under.unwrap_or_default(),
            ..self.judge.sent(self.now, name, (attempt, number, probe), holder, update.id.clone())
        };
        let request = self.requests.len();
        let (outcome, found) = (Outcome::Withheld, None);
        let (applies, lie, over, asked_at) = (false, false, true, self.now);
        self.requests.push(Request { process, sent, holder, found, asked_at, outcome, applies, lie, over });
        match &self.setup.ledger {
            None => self.leave(request, record),
            Some(behaviour) => self.soon(behaviour.lookup, SimEvent::Ledger(LedgerEvent::Lookup { request })),
        }
    }

    /// A request leaves for the target.
    pub fn leave(&mut self, request: usize, record: usize) {
        let target = self.setup.publications[self.requests[request].sent.update].target;
        let response = self.target.decide(&mut self.rng, &self.setup, record, target, self.now);
        let of = &mut self.requests[request];
        of.lie = response.applies && response.outcome != Outcome::Applied;
        (of.outcome, of.applies, of.over) = (response.outcome, response.applies, false);
        if response.applies {
            self.at(self.now.after(response.arrives_after), SimEvent::Request { request });
        }
        self.at(self.now.after(response.ends_after), SimEvent::WriteResult { request });
    }

    /// It arrives and is applied, once; by the time of its answer it has.
    pub fn apply(&mut self, request: usize) {
        let Request { process, sent, over, applies, .. } = &mut self.requests[request];
        if std::mem::replace(over, true) || !*applies {
            return;
        }
        // Of a process that has died, or of an owner that another had followed.
        let stray = *process != self.dispatcher.process || Some(sent.under) < self.rival_claim;
        let (process, attempt, update) = (*process, sent.attempt, sent.update);
        self.trace(TraceLine::Applied { process, attempt, update, stray });
        self.judge_order_of_applying(update);
        self.judge.applied(update, stray);
    }

    pub fn next_claim(&mut self) -> u64 {
        self.claims += 1;
        self.claims
    }

    pub fn next_tenure(&mut self) -> u64 {
        self.tenures += 1;
        self.tenures
    }

    /// The name of an update: that of its delivery, or where the ledger holds it, what it was published at.
    pub fn name_of(&self, holder: Holder, update: &Update) -> usize {
        match holder {
            Holder::Broker(tag) => self.dispatcher.names[&tag],
            Holder::Ledger(_) => {
                let named = update.published_at.expect("an update is named by its time");
                usize::try_from(named).expect("a small number")
            }
        }
    }

    pub fn late(&mut self) -> Duration {
        let late = if self.rng.chance(300) { self.rng.between(0, self.setup.delays.timer_late) } else { 0 };
        Duration::from_millis(late)
    }

    pub fn soon(&mut self, within_ms: u64, event: SimEvent) {
        let delay = Duration::from_millis(self.rng.between(0, within_ms));
        self.at(self.now.after(delay), event);
    }

    pub fn at(&mut self, at: Tick, event: SimEvent) {
        let lot = self.rng.next();
        self.agenda.push(Reverse((at, lot, event)));
    }

    pub fn trace(&mut self, line: TraceLine) {
        self.trace.add(self.now, line);
    }
}

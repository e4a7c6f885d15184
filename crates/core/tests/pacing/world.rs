//! Processes with a backlog that send to one target, in virtual time.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};
use std::time::Duration;

use lanekeeper_core::pacing::share::{Claim, OtherNote, ShareNote};
use lanekeeper_core::pacing::{Asker, Pacer, PacerLimits, Quota, Refusal, Reply, RequestEnd};
use lanekeeper_core::tick::Tick;
use lanekeeper_core::update::RecordKey;

use super::targets::Target;

pub const SECOND: u64 = 1_000_000;
/// Records of all processes.
const RECORDS: usize = 100;
/// Pairs of partition and target in each process.
const ASKERS: usize = 4;
/// A record that is refused alone waits so long.
const RECORD_WAIT: u64 = SECOND;
const NOTE_INTERVAL: u64 = SECOND;
const NOTE_DELAY: u64 = 200_000;
/// A timer of tokio fires at whole milliseconds.
const TIMER: u64 = 1000;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Setup {
    pub processes: usize,
    pub latency: u64,
    pub limits: PacerLimits,
    /// Processes publish notes and divide the limits.
    pub shares: bool,
    pub seconds: u64,
}

#[derive(Debug)]
struct Process {
    pacer: Pacer,
    /// Records that wait for permits, by asker.
    waiting: Vec<VecDeque<usize>>,
    claim: Claim,
    wake_at: Option<u64>,
    read: usize,
}

#[derive(Clone, Copy, Debug)]
struct Request {
    process: usize,
    record: usize,
    began: u64,
    permit: bool,
}

#[derive(Clone, Copy, Debug)]
enum Event {
    Arrives(Request),
    Ends(Request, Reply, Quota),
    Ready { process: usize, record: usize },
    Wake(usize),
    Note(usize),
    Read(usize),
}

#[derive(Clone, Copy, Debug)]
pub struct Arrival {
    pub at: u64,
    pub record: usize,
    pub reply: Reply,
}

#[derive(Debug)]
pub struct World {
    now: u64,
    number: u64,
    random: u64,
    lots: u64,
    events: BinaryHeap<Reverse<(u64, u64, usize)>>,
    stored: Vec<Event>,
    free: Vec<usize>,
    setup: Setup,
    pub target: Target,
    processes: Vec<Process>,
    keys: Vec<RecordKey>,
    /// The stream of notes: author, how far it had read, the note.
    notes: Vec<(usize, usize, u64, ShareNote)>,
    pub arrivals: Vec<Arrival>,
    /// Whom each refusal meant, with the record.
    pub refusals: Vec<(usize, Refusal)>,
}

impl World {
    pub fn new(setup: Setup, target: Target) -> Self {
        let process = || Process {
            pacer: Pacer::new(setup.limits),
            waiting: vec![VecDeque::new(); ASKERS],
            claim: Claim::default(),
            wake_at: None,
            read: 0,
        };
        let mut world = Self {
            now: 0,
            number: 0,
            random: 0x9e37_79b9_7f4a_7c15,
            lots: 0xbf58_476d_1ce4_e5b9,
            events: BinaryHeap::new(),
            stored: Vec::new(),
            free: Vec::new(),
            setup,
            target,
            processes: (0..setup.processes).map(|_| process()).collect(),
            keys: (0..RECORDS).map(|record| RecordKey::new(format!("record-{record}")).unwrap()).collect(),
            notes: Vec::new(),
            arrivals: Vec::new(),
            refusals: Vec::new(),
        };
        for record in 0..RECORDS {
            world.at(record as u64, Event::Ready { process: record % setup.processes, record });
        }
        if setup.shares {
            for process in 0..setup.processes {
                let now = world.tick();
                let share = world.processes[process].claim.in_use();
                world.processes[process].pacer.set_share(now, share);
                world.at(process as u64 * 300_000, Event::Note(process));
            }
        }
        world
    }

    fn tick(&self) -> Tick {
        Tick::from_micros(self.now)
    }

    /// From 0 to `below`.
    fn random(&mut self, below: u64) -> u64 {
        next(&mut self.random) % below.max(1)
    }

    /// From 0 to below 1, with numbers of its own: the others do not depend on how often it is asked.
    fn lot(&mut self) -> f64 {
        (next(&mut self.lots) >> 11) as f64 / (1_u64 << 53) as f64
    }

    fn at(&mut self, at: u64, event: Event) {
        let slot = self.free.pop().unwrap_or_else(|| {
            self.stored.push(event);
            self.stored.len() - 1
        });
        self.stored[slot] = event;
        self.events.push(Reverse((at, self.number, slot)));
        self.number += 1;
    }

    /// Half of the latency, and a fifth more or less.
    fn way(&mut self) -> u64 {
        let half = self.setup.latency / 2;
        half * 4 / 5 + self.random(half * 2 / 5)
    }

    pub fn run(&mut self) {
        while let Some(Reverse((at, _, slot))) = self.events.pop() {
            if at > self.setup.seconds * SECOND {
                return;
            }
            self.now = at;
            self.free.push(slot);
            self.handle(self.stored[slot]);
        }
    }

    fn handle(&mut self, event: Event) {
        match event {
            Event::Arrives(request) => {
                let lot = self.lot();
                let (reply, quota, longer) = self.target.answer(self.now, request.record, lot);
                self.arrivals.push(Arrival { at: self.now, record: request.record, reply });
                let way = self.way() + longer;
                self.at(self.now + way, Event::Ends(request, reply, quota));
            }
            Event::Ends(request, reply, quota) => {
                let now = self.tick();
                let process = &mut self.processes[request.process];
                let end = RequestEnd {
                    record_key: &self.keys[request.record],
                    began: Tick::from_micros(request.began),
                    permit: request.permit,
                    reply,
                    quota,
                };
                let refusal = process.pacer.ended(now, &end);
                if refusal != Refusal::None {
                    self.refusals.push((request.record, refusal));
                }
                let waits = refusal == Refusal::OfRecord || reply == Reply::Other;
                let wait = if waits { RECORD_WAIT } else { 0 };
                let ready = Event::Ready { process: request.process, record: request.record };
                self.at(self.now + wait, ready);
                self.grant(request.process);
            }
            Event::Ready { process, record } => {
                let pacer = &mut self.processes[process].pacer;
                if pacer.is_in_force() {
                    let asker = record / self.setup.processes % ASKERS;
                    pacer.ask(Asker(asker as u64), 1);
                    self.processes[process].waiting[asker].push_back(record);
                    self.grant(process);
                } else {
                    self.begin(process, record, false);
                }
            }
            Event::Wake(process) => {
                if self.processes[process].wake_at == Some(self.now) {
                    self.processes[process].wake_at = None;
                    self.grant(process);
                }
            }
            Event::Note(process) => {
                let now = self.tick();
                let author = &mut self.processes[process];
                let demand = author.pacer.demand(now);
                let note = author.claim.note(demand);
                let read = author.read;
                self.notes.push((process, read, author.claim.number(), note));
                self.at(self.now + NOTE_INTERVAL, Event::Note(process));
                for reader in 0..self.setup.processes {
                    let delay = NOTE_DELAY + self.random(NOTE_DELAY);
                    self.at(self.now + delay, Event::Read(reader));
                }
            }
            Event::Read(process) => self.read(process),
        }
    }

    /// All notes so far.
    fn read(&mut self, process: usize) {
        let now = self.tick();
        let reader = &mut self.processes[process];
        reader.read = self.notes.len();
        let number = reader.claim.number();
        let first =
            self.notes.iter().position(|(author, _, claim, _)| *author == process && *claim == number);
        let newest = |other: usize| self.notes.iter().rev().find(|(author, ..)| *author == other);
        let others: Vec<OtherNote> = (0..self.setup.processes)
            .filter(|other| *other != process)
            .filter_map(newest)
            .map(|(_, read, _, note)| OtherNote {
                note: *note,
                seen: first.is_some_and(|first| *read > first),
            })
            .collect();
        if others.len() + 1 == self.setup.processes {
            let demand = reader.pacer.demand(now);
            let share = reader.claim.update(demand, &others);
            reader.pacer.set_share(now, share);
        }
        let in_use: u32 = self.processes.iter().map(|process| process.claim.in_use().millionths()).sum();
        assert!(in_use <= 1_000_000, "{in_use} millionths in use");
        self.grant(process);
    }

    fn grant(&mut self, process: usize) {
        let now = self.tick();
        for (asker, requests) in self.processes[process].pacer.grant(now) {
            for _ in 0..requests {
                let waiting = &mut self.processes[process].waiting[usize::try_from(asker.0).unwrap()];
                let record = waiting.pop_front().expect("granted what was asked for");
                self.begin(process, record, true);
            }
        }
        if let Some(next) = self.processes[process].pacer.next_grant_at() {
            let at = next.micros().max(self.now + 1).next_multiple_of(TIMER);
            if self.processes[process].wake_at.is_none_or(|wake_at| at < wake_at) {
                self.processes[process].wake_at = Some(at);
                self.at(at, Event::Wake(process));
            }
        }
    }

    fn begin(&mut self, process: usize, record: usize, permit: bool) {
        let way = self.way();
        self.at(self.now + way, Event::Arrives(Request { process, record, began: self.now, permit }));
    }

    /// Requests that arrived from second `from` to `until`: accepted ones and refused ones.
    pub fn counts(&self, from: u64, until: u64) -> (usize, usize) {
        let within = |arrival: &&Arrival| (from * SECOND..until * SECOND).contains(&arrival.at);
        let all = self.arrivals.iter().filter(within).count();
        let accepted =
            self.arrivals.iter().filter(within).filter(|arrival| arrival.reply == Reply::Applied).count();
        (accepted, all - accepted)
    }

    /// The most requests of those that pass, within any `time`.
    pub fn most_within(&self, time: Duration, pass: impl Fn(&Arrival) -> bool) -> usize {
        let mut window = VecDeque::new();
        let mut most = 0;
        for arrival in self.arrivals.iter().filter(|arrival| pass(arrival)) {
            window.push_back(arrival.at);
            while window.front().is_some_and(|at| Duration::from_micros(arrival.at - at) >= time) {
                window.pop_front();
            }
            most = most.max(window.len());
        }
        most
    }
}

/// xorshift64 (Marsaglia 2003).
fn next(state: &mut u64) -> u64 {
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    *state
}

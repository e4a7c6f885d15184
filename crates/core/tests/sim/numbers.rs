//! The numbers of tenures while the stream of members is deleted and declared again, with clocks that differ, processes that
//! notice it late, a layout document that lags behind and a ledger that is kept or not. All around the real [`Numbering`] and
//! [`Tenures`].
//!
//! `LANEKEEPER_SIM_NUMBERS=100000 cargo test --test sim numbers` runs more seeds.

use std::collections::BTreeMap;

use lanekeeper_core::message::TenureNumber;
use lanekeeper_core::numbering::{Numbering, Sighting};
use lanekeeper_core::tenures::{Claim, Tenures, Terms};
use lanekeeper_core::tick::Tick;

use crate::rng::Rng;
use crate::runner::number_from_env;

const SEEDS: u64 = 5_000;
const STEPS: u32 = 300;
/// Of several layouts, between which records move.
const PARTITIONS: usize = 2;
/// By how many seconds a clock can be wrong, either way.
const SKEW: u64 = 3;
const START: u64 = 1_796_000_000;

#[derive(Clone, Debug)]
struct Message {
    process: usize,
    epoch: u64,
    read: Option<u64>,
    /// The partition, and the count of the process's claims; `None`: a note.
    claim: Option<(usize, u64)>,
    /// What its process knew of the ledger by then; not in the message.
    floor: Option<TenureNumber>,
}

struct Process {
    alive: bool,
    clock_ahead: u64,
    numbering: Numbering,
    tenures: [Tenures; PARTITIONS],
    /// Which stream it reads, and how far.
    stream: u32,
    position: usize,
    caught_up: bool,
    claims: u64,
    /// Its claim that has not come back.
    awaits: Option<(usize, u64)>,
}

struct World {
    rng: Rng,
    now: u64,
    stream: Vec<Message>,
    /// Counts the streams.
    streams: u32,
    document: u64,
    ledger: Option<TenureNumber>,
    has_ledger: bool,
    processes: Vec<Process>,
    /// The numbers under which anybody owned a partition, by stream and offset of the claim.
    owned: BTreeMap<(u32, usize), TenureNumber>,
    /// Whether a claim counts, by stream and offset, as the first reader of all before it has found.
    counts: BTreeMap<(u32, usize), bool>,
    tenures: u32,
    fenced: u32,
    trace: Vec<String>,
}

impl World {
    fn new(seed: u64) -> Self {
        let mut rng = Rng::new(seed ^ 0x006e_756d_6265_7273);
        let has_ledger = rng.chance(500);
        Self {
            rng,
            now: START,
            stream: Vec::new(),
            streams: 0,
            document: 0,
            ledger: None,
            has_ledger,
            processes: Vec::new(),
            owned: BTreeMap::new(),
            counts: BTreeMap::new(),
            tenures: 0,
            fenced: 0,
            trace: Vec::new(),
        }
    }

    fn start(&mut self) {
        let name = format!("p{}", self.processes.len());
        self.processes.push(Process {
            alive: true,
            clock_ahead: self.rng.between(0, 2 * SKEW),
            numbering: Numbering::new(self.document, self.ledger),
            tenures: std::array::from_fn(|_| Tenures::new(name.clone(), Terms::default())),
            stream: self.streams,
            position: 0,
            caught_up: false,
            claims: 0,
            awaits: None,
        });
        self.publish(self.processes.len() - 1, None);
    }

    /// Also a process that has not noticed that it is another stream.
    fn publish(&mut self, p: usize, claim: Option<(usize, u64)>) {
        let process = &self.processes[p];
        let read = process.caught_up.then_some(process.position as u64);
        let floor = self.ledger;
        let message = Message { process: p, epoch: process.numbering.epoch(), read, claim, floor };
        self.trace.push(format!("stream {} at {}: {message:?}", self.streams, self.stream.len()));
        self.stream.push(message);
    }

    fn begin_epoch(&mut self, p: usize) {
        let process = &mut self.processes[p];
        let seconds = self.now + process.clock_ahead - SKEW;
        let epoch = process.numbering.begin_epoch(self.document, seconds);
        self.trace.push(format!("p{p} begins epoch {epoch}"));
    }

    /// As far as it comes.
    fn read_some(&mut self, p: usize) {
        self.begin_to_read(p);
        let until = self.rng.between(self.processes[p].position as u64, self.stream.len() as u64);
        self.read_until(p, until);
    }

    fn begin_to_read(&mut self, p: usize) {
        if self.processes[p].stream != self.streams {
            let process = &mut self.processes[p];
            (process.stream, process.position, process.awaits) = (self.streams, 0, None);
            process.tenures.iter_mut().for_each(|tenures| tenures.recreated(Tick::ZERO));
            process.numbering.begin_stream();
            self.begin_epoch(p);
        }
    }

    fn read_until(&mut self, p: usize, until: u64) {
        while (self.processes[p].position as u64) < until {
            let offset = self.processes[p].position;
            self.processes[p].position += 1;
            self.read_message(p, offset);
        }
    }

    fn read_message(&mut self, p: usize, offset: usize) {
        let message = self.stream[offset].clone();
        let process = &mut self.processes[p];
        let place = offset as u64;
        process.numbering.read(Sighting {
            offset: place,
            epoch: message.epoch,
            read: message.read,
            knows_stream: message.read.is_some(),
        });
        let is_ours = message.process == p;
        if is_ours && message.claim.is_none() {
            if let Some(floor) = message.floor {
                process.numbering.raise_floor(floor);
            }
            let another = process.numbering.is_another(place);
            process.caught_up = true;
            if another {
                self.begin_epoch(p);
            }
        } else if process.caught_up && process.numbering.is_another(place + 1) {
            self.begin_epoch(p);
        }
        let Some((partition, count)) = message.claim else { return };
        let process = &mut self.processes[p];
        let tenures = &mut process.tenures[partition];
        let of = format!("p{}", message.process);
        let outdated = message.epoch < process.numbering.epoch_read();
        let (read, epoch) = (message.read, message.epoch);
        let claim =
            Claim { offset: place, epoch, outdated, process: &of, count, read, terms: None, over: None };
        tenures.claimed(Tick::ZERO, &claim);
        let number = TenureNumber::at(epoch, place);
        let counts = if is_ours {
            !tenures.ours().expect("it was read just now").void
        } else {
            tenures.rival() == Some(number)
        };
        let agreed = *self.counts.entry((self.streams, offset)).or_insert(counts);
        assert_eq!(
            counts, agreed,
            "judge: p{p} and another reader disagree on the claim of {of} at {offset}"
        );
        if is_ours && process.awaits == Some((partition, count)) {
            process.awaits = None;
            if counts {
                self.owned(p, offset, number);
            }
        }
    }

    fn owned(&mut self, p: usize, offset: usize, number: TenureNumber) {
        self.trace.push(format!("p{p} owns it, number {}", number.0));
        if self.ledger.is_some_and(|highest| highest >= number) {
            self.fenced += 1;
            return;
        }
        let place = (self.streams, offset);
        let before = self.owned.range(..place).next_back().map(|(_, number)| *number);
        let after = self.owned.range(place..).next().map(|(_, number)| *number);
        assert!(
            before.is_none_or(|before| before < number) && after.is_none_or(|after| number < after),
            "judge (fence): p{p} owns it under {number:?}, between {before:?} and {after:?}"
        );
        self.owned.insert(place, number);
        self.tenures += 1;
        if self.has_ledger {
            self.ledger = self.ledger.max(Some(number));
        }
    }

    /// Some of what knows numbers is lost. Without a ledger, a document that lags behind is not enough: then the clocks have
    /// moved on by more than they differ.
    fn lose(&mut self) {
        let virtual_host = self.rng.chance(300);
        if virtual_host {
            self.processes.iter_mut().for_each(|process| process.alive = false);
        }
        let newest = self.processes.iter().map(|process| process.numbering.epoch()).max().unwrap_or(0);
        if !self.has_ledger && (virtual_host || self.document < newest) {
            self.now = self.now.max(newest + 1) + 2 * SKEW;
        }
        if self.has_ledger && self.rng.chance(300) {
            self.now -= 50; // another machine, and its clock
        }
        if virtual_host {
            self.document = 0;
        }
        self.stream.clear();
        self.streams += 1;
        self.trace.push(format!("the stream is lost, virtual host {virtual_host}"));
    }

    fn claim(&mut self, p: usize) {
        self.processes[p].claims += 1;
        let count = self.processes[p].claims;
        let claim = Some((self.rng.index(PARTITIONS), count));
        self.processes[p].awaits = claim;
        self.publish(p, claim);
    }

    /// Whoever is left can own the partition soon, whatever was lost: nobody is fenced for long.
    fn end(&mut self) {
        if self.rng.chance(500) {
            self.lose();
        }
        if !self.processes.iter().any(|process| process.alive) {
            self.start();
        }
        let p = self.processes.iter().position(|process| process.alive).expect("one was started");
        let before = self.tenures;
        for _ in 0..3 {
            self.begin_to_read(p);
            self.publish(p, None);
            self.read_until(p, self.stream.len() as u64);
            self.claim(p);
            self.read_until(p, self.stream.len() as u64);
        }
        assert!(self.tenures > before, "judge (liveness): p{p} cannot own it");
    }

    fn step(&mut self) {
        let alive: Vec<usize> = (0..self.processes.len()).filter(|p| self.processes[*p].alive).collect();
        let one = (!alive.is_empty()).then(|| alive[self.rng.index(alive.len().max(1))]);
        match (self.rng.below(100), one) {
            (0..6, _) if alive.len() < 4 => self.start(),
            (6..10, Some(p)) => self.processes[p].alive = false,
            (10..13, _) => self.lose(),
            (13..20, Some(p)) => self.document = self.document.max(self.processes[p].numbering.epoch()),
            (20..30, _) => self.now += self.rng.below(2),
            (30..45, Some(p)) => self.publish(p, None),
            (45..60, Some(p)) if self.processes[p].caught_up => self.claim(p),
            (60.., Some(p)) => self.read_some(p),
            _ => {}
        }
    }
}

#[test]
fn numbers_of_tenures_grow_whatever_is_lost() {
    let seeds = number_from_env("LANEKEEPER_SIM_NUMBERS").unwrap_or(SEEDS);
    let (mut tenures, mut streams, mut fenced) = (0, 0, 0);
    for seed in 0..seeds {
        let mut world = World::new(seed);
        let run = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            (0..STEPS).for_each(|_| world.step());
            world.end();
        }));
        let tail = &world.trace[world.trace.len().saturating_sub(40)..];
        assert!(run.is_ok(), "judge: seed {seed}\n{}", tail.join("\n"));
        tenures += world.tenures;
        streams += world.streams;
        fenced += world.fenced;
    }
    println!("{seeds} worlds: {tenures} tenures in {streams} streams, {fenced} claims fenced by the ledger");
    assert!(u64::from(tenures) > seeds * 4 && u64::from(streams) > seeds * 2, "{tenures} {streams}");
    assert!(u64::from(fenced) > seeds / 100, "{fenced}");
}

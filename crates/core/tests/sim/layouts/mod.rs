//! Layouts that change in a hostile world: the pure decisions of `core::change` and `core::drain` with the real partition
//! core in every driver, two processes, an operator; and what goes wrong: stragglers, lost channels with their acks,
//! crashes of anybody between any two small steps.
//!
//! `LANEKEEPER_SIM_LAYOUTS=10000` runs more seeds, `LANEKEEPER_SIM_LAYOUT=7` one of them with its trace.

mod actor;
mod broker;
mod driver;
mod judge;

use std::cell::{Cell, RefCell};
use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap, VecDeque};
use std::fmt;
use std::panic::{self, AssertUnwindSafe};
use std::sync::Arc;
use std::time::Duration;

use lanekeeper_core::change::{Layouts, Wish};
use lanekeeper_core::drain::STRAGGLERS_MAX;
use lanekeeper_core::former::Former;
use lanekeeper_core::layout::{Layout, LayoutNumber, PartitionNumber, Shape};
use lanekeeper_core::message::{AttemptId, Holder, Tenure, TenureNumber};
use lanekeeper_core::partition::{Limits, Partition};
use lanekeeper_core::policy::{FailurePolicy, Policy};
use lanekeeper_core::schedule::Schedule;
use lanekeeper_core::tick::Tick;
use lanekeeper_core::update::RecordKey;
use lanekeeper_core::witness::witnesses;

use self::actor::{Actor, Small, taken_apart};
use self::broker::{Broker, Delivery, Item, Seat};
use self::driver::{Driver, Leaving, ReadBack};
use self::judge::{Judge, fault};
use crate::rng::Rng;
use crate::runner::number_from_env;

const SEEDS: u64 = 1_000;
const STEPS_MAX: u32 = 400_000;
const MILLI: u64 = 1_000;
/// The operator among the actors; processes are counted from 1.
const OPERATOR: u32 = 0;
const PROCESSES: u32 = 2;
/// As `source::steward`.
const PATIENCE_MS: u64 = 2_000;
const LOCK_RETRY_MS: u64 = 250;

/// What can happen.
#[derive(Clone, Copy, Debug)]
enum Happening {
    Publish {
        update: usize,
    },
    Arrive {
        seat: Seat,
        item: Item,
    },
    Delivery {
        seat: Seat,
        delivery: Delivery,
    },
    Ack {
        seat: Seat,
        channel: u64,
    },
    Attach {
        process: u32,
        seat: Seat,
    },
    ClaimArrived {
        process: u32,
        seat: Seat,
        tenure: Tenure,
        claim: u64,
    },
    Claimed {
        process: u32,
        seat: Seat,
        tenure: Tenure,
        read_back: ReadBack,
    },
    /// A driver hears what is not drained of the layout before.
    Former {
        process: u32,
        seat: Seat,
    },
    Answered {
        process: u32,
        seat: Seat,
        attempt: AttemptId,
        fails: bool,
    },
    Recorded {
        process: u32,
        seat: Seat,
        tenure: Tenure,
        holder: Holder,
        update: usize,
    },
    Wake {
        process: u32,
        seat: Seat,
    },
    Close {
        process: u32,
        seat: Seat,
        channel: u64,
    },
    /// A process reads the next document.
    Document {
        process: u32,
    },
    /// A driver of it has ended.
    Heed {
        process: u32,
    },
    /// It puts markers into the queues of the layout that drains.
    Markers {
        process: u32,
        layout: Layout,
    },
    /// Somebody who changes layouts goes on.
    Act {
        actor: u32,
        life: u32,
    },
    /// The operator wants another shape.
    Apply {
        shape: Shape,
    },
    Start {
        process: u32,
    },
    Strike,
}

struct World {
    rng: Rng,
    now: Tick,
    agenda: BinaryHeap<Reverse<(Tick, u64, usize)>>,
    happenings: Vec<Option<Happening>>,
    broker: Broker,
    stream: Vec<Layouts>,
    lock: Option<u32>,
    processes: BTreeMap<u32, Process>,
    /// Each start makes a process of another number; the actors of dead ones are gone.
    processes_made: u32,
    operator: Actor,
    publications: Vec<Publication>,
    keys: Vec<RecordKey>,
    judge: Judge,
    trace: Vec<String>,
    delivery_at: Tick,
    ack_at: Tick,
    tenures: u64,
    claims: u64,
    claimed_by: BTreeMap<Seat, BTreeMap<u32, TenureNumber>>,
    calm_at: Tick,
    strikes: u32,
    met: Met,
    // Manners of this world.
    failures: u64,
    in_flight_max: usize,
    latency: u64,
    ack_delay: u64,
    claim_delay: u64,
    straggle: u64,
    prefetch: u16,
    crashes_of_actors: u64,
}

/// What has happened, so that a quiet world can be told from a hostile one.
#[derive(Clone, Copy, Debug, Default)]
struct Met {
    changes: u32,
    crashes: u32,
    actor_crashes: u32,
    undone: u32,
    stragglers: u32,
    channels_lost: u32,
    finished_by_others: u32,
    /// Attempts from the layout in force while the one before drains.
    early: u32,
    /// Deliveries that wait for their record's former partition.
    awaited: u32,
    /// Worlds in which that cannot be computed.
    shifted: u32,
}

#[derive(Debug)]
struct Process {
    /// How far it has read the stream.
    known: usize,
    crews: BTreeMap<LayoutNumber, Crew>,
    drivers: BTreeMap<Seat, Driver>,
    steward: Actor,
}

#[derive(Debug)]
struct Crew {
    marks: bool,
    /// What is not drained of the layout before.
    former: Former,
}

#[derive(Debug)]
struct Publication {
    record: usize,
}

impl World {
    fn new(seed: u64) -> Self {
        let mut rng = Rng::new(seed ^ 0x6c61_796f_7574);
        let records = rng.pick(&[1, 3, 8]);
        let keys: Vec<RecordKey> = (0..records)
            .map(|record| RecordKey::new(format!("record-{record}")).expect("a record key"))
            .collect();
        let count = rng.pick(&[10, 40, 120]);
        let last = 20_000 * MILLI;
        let publications: Vec<Publication> =
            (0..count).map(|_| Publication { record: rng.index(records) }).collect();
        let mut moments: Vec<u64> = (0..count).map(|_| rng.between(0, last)).collect();
        moments.sort_unstable();
        let first = Shape { partitions: rng.pick(&[1, 2, 4]), prefetch: 16 }.numbered(LayoutNumber(1));
        let mut world = Self {
            broker: Broker::default(),
            stream: vec![Layouts::first(first, Vec::new())],
            now: Tick::ZERO,
            agenda: BinaryHeap::new(),
            happenings: Vec::new(),
            lock: None,
            processes: BTreeMap::new(),
            processes_made: 0,
            operator: Actor::default(),
            publications,
            keys,
            judge: Judge::default(),
            trace: Vec::new(),
            delivery_at: Tick::ZERO,
            ack_at: Tick::ZERO,
            tenures: 0,
            claims: 0,
            claimed_by: BTreeMap::new(),
            calm_at: Tick::from_micros(last + rng.between(0, 5_000) * MILLI),
            strikes: u32::try_from(rng.between(0, 12)).expect("few"),
            met: Met::default(),
            failures: rng.pick(&[0, 100, 400]),
            in_flight_max: rng.pick(&[1, 4, 4, 4]),
            latency: rng.pick(&[5, 50, 400]),
            ack_delay: rng.pick(&[0, 20, 400, 1_500]),
            claim_delay: rng.pick(&[20, 20, 8_000]),
            straggle: rng.pick(&[0, 125, 1_900]),
            prefetch: rng.pick(&[1, 4, 16]),
            crashes_of_actors: rng.pick(&[0, 20, 100]),
            rng,
        };
        let first = Layout { prefetch: world.prefetch, ..first };
        let mut recorded = witnesses(first.partitions);
        if world.rng.chance(150) {
            // A broker that puts keys elsewhere; its witnesses show it, or there are none.
            world.met.shifted += u32::from(first.partitions > 1);
            world.broker.shifted.insert(first.number, 1);
            let shown = world.rng.chance(500);
            for witness in &mut recorded {
                witness.partition.0 = (witness.partition.0 + 1) % first.partitions;
            }
            recorded.retain(|_| shown);
        }
        world.stream = vec![Layouts::first(first, recorded)];
        world.broker.bind_first(first);
        world.judge.number_given(first.number);
        for (update, at) in moments.into_iter().enumerate() {
            world.at(Tick::from_micros(at), Happening::Publish { update });
        }
        let changes = world.rng.between(1, 4);
        for _ in 0..changes {
            let at = world.rng.between(0, last);
            let partitions = world.rng.pick(&[1, 2, 3, 6]);
            let shape = Shape { partitions, prefetch: world.prefetch };
            world.at(Tick::from_micros(at), Happening::Apply { shape });
        }
        for _ in 0..world.strikes {
            let at = world.rng.between(0, world.calm_at.micros());
            world.at(Tick::from_micros(at), Happening::Strike);
        }
        for _ in 0..PROCESSES {
            world.start_soon();
        }
        world
    }

    fn at(&mut self, at: Tick, happening: Happening) {
        let lot = self.rng.next();
        self.agenda.push(Reverse((at.max(self.now), lot, self.happenings.len())));
        self.happenings.push(Some(happening));
    }

    fn soon(&mut self, within_ms: u64, happening: Happening) {
        let delay = Duration::from_micros(self.rng.between(0, within_ms * MILLI));
        self.at(self.now.after(delay), happening);
    }

    fn note(&mut self, words: fmt::Arguments<'_>) {
        let line = format!("{:>12} {words}", self.now.micros());
        self.trace.push(line);
    }

    fn driver(&mut self, process: u32, seat: Seat) -> Option<&mut Driver> {
        self.processes.get_mut(&process)?.drivers.get_mut(&seat)
    }

    fn process_of(&self, seat: Seat, channel: u64) -> Option<u32> {
        let open = |driver: &Driver| driver.tenure.as_ref().is_some_and(|open| open.channel == channel);
        let mut with = self.processes.iter();
        with.find(|(_, process)| process.drivers.get(&seat).is_some_and(open)).map(|(number, _)| *number)
    }

    fn last(&self) -> &Layouts {
        self.stream.last().expect("there is a first one")
    }

    fn run(&mut self) {
        let mut steps = 0;
        while let Some(Reverse((at, _, place))) = self.agenda.pop() {
            steps += 1;
            if steps > STEPS_MAX {
                fault!("liveness", "no rest after {STEPS_MAX} steps");
            }
            self.now = at;
            let happening = self.happenings[place].take().expect("it happens once");
            self.happen(happening);
        }
        self.judge.at_rest();
        let last = self.last();
        if last.changing.is_some() || !last.draining.is_empty() {
            fault!("liveness", "the layouts come to no end: {last:?}");
        }
        if self.broker.has_ways() != (1, 0) {
            fault!("one way", "in the end there are {:?}", self.broker.has_ways());
        }
        let (in_force, queues) = (last.in_force, &self.broker.queues);
        if queues.keys().any(|(layout, _)| *layout != in_force.number)
            || queues.len() != usize::from(in_force.partitions)
        {
            fault!("remove", "in the end there are the queues {:?}", queues.keys());
        }
    }

    fn happen(&mut self, happening: Happening) {
        match happening {
            Happening::Publish { update } => self.publish(update),
            Happening::Arrive { seat, item } => {
                if !self.broker.arrive(seat, item)
                    && let Item::Update(update) = item
                {
                    self.judge.lost(update);
                }
                self.hand_over(seat);
            }
            Happening::Delivery { seat, delivery } => self.deliver(seat, delivery),
            Happening::Ack { seat, channel } => {
                self.broker.take_ack(seat, channel);
                self.hand_over(seat);
            }
            Happening::Attach { process, seat } => {
                if self.driver(process, seat).is_some_and(|driver| driver.tenure.is_none()) {
                    self.attach(process, seat);
                }
            }
            Happening::ClaimArrived { process, seat, tenure, claim } => {
                self.claim_arrived(process, seat, tenure, claim);
            }
            Happening::Claimed { process, seat, tenure, read_back } => {
                self.claimed(process, seat, tenure, read_back);
            }
            Happening::Former { process, seat } => self.hear_former(process, seat),
            Happening::Heed { process } => self.heed(process),
            Happening::Answered { process, seat, attempt, fails } => {
                self.answered(process, seat, attempt, fails);
            }
            Happening::Recorded { process, seat, tenure, holder, update } => {
                self.recorded(process, seat, tenure, holder, update);
            }
            Happening::Wake { process, seat } => self.wake(process, seat),
            Happening::Close { process, seat, channel } => self.close(process, seat, channel),
            Happening::Document { process } => self.read(process),
            Happening::Markers { process, layout } => self.mark(process, layout),
            Happening::Act { actor, life } => self.act(actor, life),
            Happening::Apply { shape } => {
                self.operator.wish = Wish { shape: Some(shape), remove: true, ..Wish::default() };
                self.set_actor(OPERATOR, 100);
            }
            Happening::Start { process } => self.start(process),
            Happening::Strike => self.strike(),
        }
    }

    fn publish(&mut self, update: usize) {
        let record = self.publications[update].record;
        let seats = self.broker.route(self.keys[record].as_str().as_bytes());
        self.note(format_args!("#{update} of record {record} goes to {seats:?}"));
        self.judge.published(update, record, &seats);
        let straggles = self.rng.chance(300);
        let delay = if straggles { self.rng.between(0, self.straggle) } else { 0 };
        self.met.stragglers += u32::from(delay > 500);
        let arrival = self.broker.arrival(seats[0], self.now, Duration::from_millis(delay));
        self.at(arrival, Happening::Arrive { seat: seats[0], item: Item::Update(update) });
    }

    // What a process does with documents: as `runtime::supervisor`, `runtime::crews` and `runtime::crew`.

    fn start_soon(&mut self) {
        self.processes_made += 1;
        let process = self.processes_made;
        self.soon(1_000, Happening::Start { process });
    }

    fn start(&mut self, process: u32) {
        let known = self.stream.len() - 1;
        let (crews, drivers, steward) = Default::default();
        let started = Process { known, crews, drivers, steward };
        self.processes.insert(process, started);
        self.heed(process);
        self.set_actor(process, PATIENCE_MS);
    }

    fn read(&mut self, process: u32) {
        let newest = self.stream.len() - 1;
        let Some(reader) = self.processes.get_mut(&process).filter(|reader| reader.known < newest) else {
            return;
        };
        reader.known += 1;
        if reader.known < newest {
            self.soon(200, Happening::Document { process });
        }
        self.heed(process);
        self.set_actor(process, PATIENCE_MS);
    }

    pub fn heed(&mut self, process: u32) {
        let Some(reader) = self.processes.get(&process) else { return };
        let at_work = self.stream[reader.known].at_work();
        let of = |number: &LayoutNumber| at_work.iter().find(|of| of.layout.number == *number);
        let is_over = |seat: &Seat| of(&seat.0).is_none_or(|of| !of.partitions.contains(&seat.1));
        let over: Vec<Seat> = reader.drivers.keys().filter(|seat| is_over(seat)).copied().collect();
        for seat in over {
            self.leave(process, seat, Leaving::Stop);
        }
        let Some(reader) = self.processes.get_mut(&process) else { return };
        let drivers = &reader.drivers;
        reader.crews.retain(|number, _| of(number).is_some() || drivers.keys().any(|seat| seat.0 == *number));
        let is_clear = reader.crews.keys().all(|number| of(number).is_some());
        for at_work in &at_work {
            let layout = at_work.layout;
            let reader = self.processes.get_mut(&process).expect("it lives");
            let here: BTreeSet<PartitionNumber> =
                reader.drivers.keys().filter(|seat| seat.0 < layout.number).map(|seat| seat.1).collect();
            if is_clear && !reader.crews.contains_key(&layout.number) {
                let former = at_work.former.clone().with(here.iter().copied());
                for partition in &at_work.partitions {
                    let limits = Limits {
                        in_flight_max: self.in_flight_max.try_into().expect("not zero"),
                        window: usize::from(layout.prefetch).try_into().expect("not zero"),
                        silence_max: Duration::from_secs(3_600),
                    };
                    let partition_of_core = Partition::new(limits, policy()).behind(former.clone());
                    let seat = (layout.number, *partition);
                    reader.drivers.insert(seat, Driver::new(layout, partition_of_core));
                }
                reader.crews.insert(layout.number, Crew { marks: false, former });
                for partition in &at_work.partitions {
                    self.soon(50, Happening::Attach { process, seat: (layout.number, *partition) });
                }
            }
            let reader = self.processes.get_mut(&process).expect("it lives");
            let Some(crew) = reader.crews.get_mut(&layout.number) else { continue };
            let marks = at_work.draining && !std::mem::replace(&mut crew.marks, true);
            let drained = crew.former.narrow(&at_work.former, |partition| here.contains(&partition));
            if marks {
                self.at(self.now.after(STRAGGLERS_MAX), Happening::Markers { process, layout });
            }
            if !drained.is_empty() {
                self.note(format_args!("P{process} {:?} hears that {drained:?} are drained", layout.number));
                for partition in layout.partitions() {
                    self.soon(10, Happening::Former { process, seat: (layout.number, partition) });
                }
            }
        }
    }

    fn mark(&mut self, process: u32, layout: Layout) {
        if !self.processes.contains_key(&process) {
            return;
        }
        for partition in layout.partitions() {
            let seat = (layout.number, partition);
            if self.broker.queues.contains_key(&seat) {
                self.soon(20, Happening::Arrive { seat, item: Item::Marker });
            }
        }
    }

    // Whoever changes layouts: as `source::steward` and `cli::topology::apply`.

    fn actor(&mut self, actor: u32) -> Option<&mut Actor> {
        if actor == OPERATOR {
            return Some(&mut self.operator);
        }
        self.processes.get_mut(&actor).map(|process| &mut process.steward)
    }

    pub fn set_actor(&mut self, actor: u32, within_ms: u64) {
        let Some(of) = self.actor(actor) else { return };
        if !std::mem::replace(&mut of.is_set, true) {
            let life = of.life;
            self.soon(within_ms, Happening::Act { actor, life });
        }
    }

    fn act(&mut self, actor: u32, life: u32) {
        let Some(of) = self.actor(actor).filter(|of| of.life == life) else { return };
        of.is_set = false;
        if self.now < self.calm_at && self.rng.chance(self.crashes_of_actors) {
            return self.actor_dies(actor);
        }
        let of = self.actor(actor).expect("looked at above");
        if let Some(small) = of.under_way.as_mut().and_then(VecDeque::pop_front) {
            self.take(actor, small);
            return self.set_actor(actor, 200);
        }
        let (wish, holds) = (of.wish.clone(), of.under_way.is_some());
        let known = self.processes.get(&actor).map_or(self.stream.len() - 1, |reader| reader.known);
        let of_steward = Wish { remove: true, ..wish.clone() };
        let wish = if actor == OPERATOR { wish } else { of_steward };
        if !holds {
            if self.stream[known].next_step(&wish).is_none() {
                // The operator waits for what drains; a steward for the next document.
                let waits = actor == OPERATOR
                    && wish.shape.is_some_and(|shape| self.last().in_force.shape() != shape);
                if waits {
                    self.set_actor(actor, 1_000);
                }
                return;
            }
            if self.lock.is_some_and(|holder| holder != actor) {
                return self.set_actor(actor, LOCK_RETRY_MS);
            }
            self.lock = Some(actor);
        }
        // Under the lock: the last document counts.
        let layouts = self.last().clone();
        match layouts.next_step(&wish) {
            None => {
                self.note(format_args!("actor {actor} gives up the lock"));
                self.lock = None;
                let of = self.actor(actor).expect("it lives");
                of.under_way = None;
                of.wish.begun = None;
                of.wish.drained.retain(|report| layouts.with_drained(&[*report]).is_some());
                self.set_actor(actor, 1_000);
            }
            Some(step) => {
                self.note(format_args!("actor {actor} takes {step:?}"));
                let small = taken_apart(&layouts, &step, &wish);
                let begun = matches!(step, lanekeeper_core::change::Step::Begin(_));
                let of = self.actor(actor).expect("it lives");
                of.under_way = Some(small);
                if begun {
                    of.wish.begun = Some(LayoutNumber(layouts.number_max + 1));
                } else if layouts.changing.is_some() && wish.begun.is_none() {
                    self.met.finished_by_others += 1;
                }
                self.set_actor(actor, 200);
            }
        }
    }

    fn take(&mut self, actor: u32, small: Small) {
        match small {
            Small::Write(layouts) => {
                if let Some(changing) = &layouts.changing
                    && self.last().changing.is_none()
                {
                    self.judge.number_given(changing.to.number);
                }
                self.met.changes += u32::from(layouts.in_force != self.last().in_force);
                self.stream.push(layouts);
                let readers: Vec<u32> = self.processes.keys().copied().collect();
                for process in readers {
                    self.soon(200, Happening::Document { process });
                }
            }
            Small::Declare(layout) => self.broker.declare(layout),
            Small::Route(step, from, to) => self.broker.route_step(step, from, to),
            Small::Delete(layout) => {
                self.met.undone += 1;
                self.broker.delete(layout);
            }
            Small::Remove(seat) => {
                let Some(queue) = self.broker.queues.get(&seat) else { return };
                if queue.is_used() {
                    self.lock = None;
                    self.actor(actor).expect("it lives").under_way = None;
                } else if queue.updates() > 0 {
                    fault!("drained", "{seat:?} is to be removed and holds {} updates", queue.updates());
                } else {
                    self.broker.queues.remove(&seat);
                }
            }
            Small::RemoveExchange(layout) => self.broker.delete(layout),
        }
    }

    // What goes wrong.

    fn actor_dies(&mut self, actor: u32) {
        self.met.actor_crashes += 1;
        if actor == OPERATOR {
            self.note(format_args!("the operator's apply is killed"));
            if self.lock == Some(OPERATOR) {
                self.lock = None;
            }
            let wish = Wish { begun: None, ..self.operator.wish.clone() };
            self.operator.dies();
            // Sometimes nobody calls it again.
            if self.rng.chance(700) {
                self.operator.wish = wish;
                self.set_actor(OPERATOR, 5_000);
            }
            self.all_look();
        } else {
            self.crash(actor);
        }
    }

    fn crash(&mut self, process: u32) {
        self.met.crashes += 1;
        self.note(format_args!("process {process} dies"));
        let Some(dead) = self.processes.remove(&process) else { return };
        for (seat, driver) in dead.drivers {
            for (update, decided) in driver.in_flight.values() {
                if decided.is_none() {
                    self.judge.cut(*update);
                }
            }
            if let Some(open) = driver.tenure {
                let lost = self.rng.index(self.broker.acks_on_their_way(seat, open.channel) + 1);
                self.broker.lose(seat, open.channel, lost);
                self.hand_over(seat);
            }
        }
        if self.lock == Some(process) {
            self.lock = None;
        }
        self.start_soon();
        self.all_look();
    }

    /// A dispatcher looks whether there is something to bring to an end, now and then.
    fn all_look(&mut self) {
        let all: Vec<u32> = self.processes.keys().copied().collect();
        for process in all {
            self.set_actor(process, PATIENCE_MS);
        }
    }

    fn strike(&mut self) {
        let all: Vec<u32> = self.processes.keys().copied().collect();
        if all.is_empty() {
            return;
        }
        let process = self.rng.pick(&all);
        if self.rng.chance(300) {
            return self.crash(process);
        }
        let seats: Vec<Seat> = self.processes[&process].drivers.keys().copied().collect();
        if !seats.is_empty() {
            self.met.channels_lost += 1;
            let seat = self.rng.pick(&seats);
            self.lose_channel(process, seat);
        }
    }
}

fn policy() -> Arc<Policy> {
    Arc::new(Policy {
        schedule: Schedule::new(vec![Duration::from_millis(20), Duration::from_millis(300)], 0.0),
        attempts_max: None,
        elapsed_max: None,
        retry_after_max: Duration::from_secs(1),
        rejected: FailurePolicy::Block,
        exhausted: FailurePolicy::Block,
        conflict: FailurePolicy::Block,
    })
}

thread_local! {
    static RUNNING: Cell<bool> = const { Cell::new(false) };
    static FOUND_BY: RefCell<String> = const { RefCell::new(String::new()) };
}

/// Runs one world. What it met, or what was found, with its trace.
fn run(seed: u64) -> Result<(Met, Vec<String>), (String, Vec<String>)> {
    let mut world = World::new(seed);
    RUNNING.set(true);
    let ended = panic::catch_unwind(AssertUnwindSafe(|| world.run()));
    RUNNING.set(false);
    match ended {
        Ok(()) => Ok((world.met, world.trace)),
        Err(_) => Err((FOUND_BY.take(), world.trace)),
    }
}

fn catch_panics() {
    let usual = panic::take_hook();
    panic::set_hook(Box::new(move |info| {
        if RUNNING.get() {
            let payload = info.payload();
            let text = payload.downcast_ref::<String>().map(String::as_str);
            let message = text.or_else(|| payload.downcast_ref().copied()).unwrap_or("a panic without words");
            let at = info.location().map_or_else(String::new, |at| format!("{}:{}: ", at.file(), at.line()));
            let is_judge = message.starts_with("judge") || message.starts_with("broker");
            FOUND_BY.set(if is_judge { message.to_owned() } else { format!("{at}{message}") });
        } else {
            usual(info);
        }
    }));
}

#[test]
fn layouts_change_in_every_world_and_the_promise_is_kept() {
    catch_panics();
    if let Some(seed) = number_from_env("LANEKEEPER_SIM_LAYOUT") {
        let (told, trace) = match run(seed) {
            Ok((met, trace)) => (format!("{met:?}"), trace),
            Err((found, trace)) => (format!("found by {found}"), trace),
        };
        println!("{}\n{told}", trace.join("\n"));
        return;
    }
    let seeds = number_from_env("LANEKEEPER_SIM_LAYOUTS").unwrap_or(SEEDS);
    let mut all = Met::default();
    for seed in 0..seeds {
        match run(seed) {
            Ok((met, _)) => all.add(met),
            Err((found, trace)) => {
                let tail = &trace[trace.len().saturating_sub(40)..];
                panic!(
                    "the last lines of layouts seed {seed}:\n{}\n\
                     simulation: seed {seed}, number {}, found by {found}\n\
                     repeat with: LANEKEEPER_SIM_LAYOUT={seed} cargo test --test sim -- --nocapture layouts_change",
                    tail.join("\n"),
                    seed + 1
                );
            }
        }
    }
    println!("of {seeds} worlds: {all:?}");
    let Met { changes, crashes, actor_crashes, undone, stragglers, channels_lost, .. } = all;
    let Met { finished_by_others, early, awaited, shifted, .. } = all;
    // A quiet world proves nothing.
    for (what, times) in [
        ("changes", changes),
        ("crashes of processes", crashes),
        ("crashes in the middle of a change", actor_crashes),
        ("changes undone", undone),
        ("stragglers", stragglers),
        ("channels lost", channels_lost),
        ("changes brought to an end by others", finished_by_others),
        ("attempts beside a layout that drains", early),
        ("deliveries that waited for their former partition", awaited),
        ("worlds in which that cannot be computed", shifted),
    ] {
        assert!(u64::from(times) * 20 >= seeds, "{what}: {times} in {seeds} worlds only");
    }
}

impl Met {
    fn add(&mut self, other: Self) {
        self.changes += other.changes;
        self.crashes += other.crashes;
        self.actor_crashes += other.actor_crashes;
        self.undone += other.undone;
        self.stragglers += other.stragglers;
        self.channels_lost += other.channels_lost;
        self.finished_by_others += other.finished_by_others;
        self.early += other.early;
        self.awaited += other.awaited;
        self.shifted += other.shifted;
    }
}

//! A world of its own: doors that take updates by HTTP and publish them, a broker whose connections break, and senders that
//! wait for each answer, hang up, send again by another door, and now and then use an id for another body.
//!
//! `sender` is who sends, `door` one process of `lanekeeper ingest`, `broker` connections and the queue, `judge` the rules.

mod broker;
mod door;
mod judge;
mod sender;

use std::collections::BTreeMap;
use std::time::Duration;

use lanekeeper_core::tick::Tick;

use self::broker::{Broker, Confirmation, Publish};
use self::door::Door;
use self::judge::{DoorsJudge, HttpReply, Response};
use self::sender::Sender;
use crate::rng::Rng;
use crate::runner::{found_by, number_from_env};

const SEEDS: u64 = 2000;
/// Nothing goes wrong any more.
const QUIET: Duration = Duration::from_secs(3);
/// Everything is accepted by then, or never will be.
const LAST: Duration = Duration::from_secs(60);
/// More than any world needs.
const EVENTS_MAX: u64 = 300_000;
/// An answer comes at most so long after the request's deadline.
const LATE_MAX: Duration = Duration::from_millis(50);
const MILLISECOND: u64 = 1_000;

/// What a request carries: an update of a record, and if the body is another one than that of its sender.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
struct Carried {
    record: usize,
    sequence: usize,
    is_impostor: bool,
}

#[derive(Debug)]
enum DoorsEvent {
    Acts { sender: usize },
    Reaches { request: usize, door: usize },
    TimedOut { request: usize, door: usize },
    HttpReply { request: usize, reply: HttpReply },
    Driver { door: usize, life: u64 },
    Due { door: usize, life: u64 },
    Taken(Publish),
    BrokerAnswered(Confirmation),
    Breaks { door: usize },
    Down { door: usize, life: u64, connection: usize },
    Up { door: usize, life: u64 },
    Crash { door: usize },
    Stops { door: usize },
    Ends { door: usize, life: u64 },
    Starts { door: usize },
}

/// A request, from the first to the last.
#[derive(Debug)]
struct Sent {
    sender: usize,
    carried: Vec<Carried>,
    deadline: Option<Tick>,
    is_open: bool,
}

struct World {
    rng: Rng,
    now: Tick,
    events: BTreeMap<(Tick, u64), DoorsEvent>,
    events_made: u64,
    doors: Vec<Door>,
    senders: Vec<Sender>,
    requests: Vec<Sent>,
    broker: Broker,
    judge: DoorsJudge,
    confirm_timeout: Duration,
    hedges: bool,
    impostors: bool,
    trace: Vec<String>,
}

impl World {
    fn new(seed: u64) -> Self {
        let mut rng = Rng::new(seed);
        let records = rng.index(6) + 2;
        let updates = rng.index(12) + 4;
        let confirm_timeout = Duration::from_millis(rng.between(50, 400));
        let is_prompt = rng.chance(500);
        let hedges = rng.chance(250);
        let count = rng.index(3) + 1;
        let doors = (0..count).map(|_| Door::new(&mut rng)).collect();
        let mut world = Self {
            doors,
            senders: (0..records).map(|_| Sender::new(updates)).collect(),
            broker: Broker::new(&mut rng, is_prompt),
            judge: DoorsJudge::new(records, is_prompt && !hedges),
            impostors: rng.chance(300),
            confirm_timeout,
            hedges,
            now: Tick::ZERO,
            events: BTreeMap::new(),
            events_made: 0,
            requests: Vec::new(),
            trace: Vec::new(),
            rng,
        };
        for door in 0..count {
            world.at(0, DoorsEvent::Starts { door });
        }
        for sender in 0..records {
            let micros = world.rng.below(20 * MILLISECOND);
            world.at(micros, DoorsEvent::Acts { sender });
        }
        let quiet = u64::try_from(QUIET.as_micros()).expect("small");
        for _ in 0..world.rng.below(25) {
            let door = world.rng.index(count);
            let event = match world.rng.below(10) {
                0 | 1 => DoorsEvent::Crash { door },
                2 => DoorsEvent::Stops { door },
                _ => DoorsEvent::Breaks { door },
            };
            let micros = world.rng.below(quiet);
            world.at(micros, event);
        }
        world
    }

    fn at(&mut self, micros: u64, event: DoorsEvent) {
        let tick = self.now.after(Duration::from_micros(micros));
        self.events_made += 1;
        self.events.insert((tick, self.events_made), event);
    }

    fn is_quiet(&self) -> bool {
        self.now >= Tick::ZERO.after(QUIET)
    }

    fn run(&mut self) {
        while let Some(((tick, _), event)) = self.events.pop_first() {
            assert!(
                tick <= Tick::ZERO.after(LAST),
                "judge (liveness): not everything is accepted by {tick:?}"
            );
            assert!(self.events_made < EVENTS_MAX, "judge (liveness): it goes in circles at {tick:?}");
            self.now = tick;
            self.trace.push(format!("{:>9} {event:?}", tick.micros()));
            self.handle(event);
            for door in &self.doors {
                DoorsJudge::bounds(door);
            }
            self.check_deadlines();
        }
        let done = self.senders.iter().all(Sender::is_done);
        assert!(done, "judge (liveness): a sender waits for ever");
        for sender in 0..self.senders.len() {
            self.judge.ended(sender, &self.senders[sender]);
        }
    }

    fn handle(&mut self, event: DoorsEvent) {
        match event {
            DoorsEvent::Acts { sender } => self.act(sender),
            DoorsEvent::Reaches { request, door } => self.reach(request, door),
            DoorsEvent::TimedOut { request, door } => self.time_out(request, door),
            DoorsEvent::HttpReply { request, reply } => self.deliver(request, reply),
            DoorsEvent::Driver { door, life } if self.lives(door, life) => {
                self.doors[door].plan_is_due();
                self.drive(door);
            }
            DoorsEvent::Due { door, life } if self.lives(door, life) => self.due(door),
            DoorsEvent::Taken(publish) => self.take(publish),
            DoorsEvent::BrokerAnswered(answered) => self.broker_answers(&answered),
            DoorsEvent::Breaks { door } => self.break_connection(door),
            DoorsEvent::Down { door, life, connection } if self.lives(door, life) => {
                self.down(door, connection);
            }
            DoorsEvent::Up { door, life } if self.lives(door, life) => self.up(door),
            DoorsEvent::Crash { door } => self.crash(door),
            DoorsEvent::Stops { door } => self.stop(door),
            DoorsEvent::Ends { door, life } if self.lives(door, life) => self.end(door),
            DoorsEvent::Starts { door } => self.start(door),
            DoorsEvent::Driver { .. }
            | DoorsEvent::Due { .. }
            | DoorsEvent::Down { .. }
            | DoorsEvent::Up { .. }
            | DoorsEvent::Ends { .. } => {}
        }
    }

    fn lives(&self, door: usize, life: u64) -> bool {
        self.doors[door].life == life && self.doors[door].is_alive
    }

    fn check_deadlines(&self) {
        for (number, request) in self.requests.iter().enumerate().rev().take(40) {
            let late = |deadline: Tick| request.is_open && deadline.after(LATE_MAX) < self.now;
            assert!(!request.deadline.is_some_and(late), "judge (deadline): request {number} has no answer");
        }
    }

    fn respond(&mut self, request: usize, response: &Response) {
        let sent = &mut self.requests[request];
        if sent.is_open {
            sent.is_open = false;
            self.judge.response(&sent.carried, response, &self.broker.queue);
        }
    }
}

#[test]
fn doors_keep_the_order_and_say_what_is_true() {
    if let Some(seed) = number_from_env("LANEKEEPER_SIM_DOOR") {
        let mut world = World::new(seed);
        let found = found_by(|| world.run());
        println!("{}\n{found:?}", world.trace.join("\n"));
        return;
    }
    let seeds = number_from_env("LANEKEEPER_SIM_DOORS").unwrap_or(SEEDS);
    let mut counts: BTreeMap<&'static str, u64> = BTreeMap::new();
    for seed in 0..seeds {
        let mut world = World::new(seed);
        if let Some(found) = found_by(|| world.run()) {
            let tail = &world.trace[world.trace.len().saturating_sub(80)..];
            panic!(
                "the last lines of doors seed {seed}:\n{}\nsimulation: seed {seed}, number {}, found by {found}\n\
                 repeat with: LANEKEEPER_SIM_DOOR={seed} cargo test --test sim -- --nocapture doors_keep",
                tail.join("\n"),
                seed + 1
            );
        }
        for (name, count) in &world.judge.counts {
            *counts.entry(name).or_default() += count;
        }
    }
    println!("{seeds} worlds: {counts:?}");
    for name in [
        "accepted",
        "known",
        "not accepted",
        "unknown",
        "hung up",
        "cut off",
        "id reused",
        "refused",
        "again",
    ] {
        let count = counts.get(name).copied().unwrap_or_default();
        assert!(count > seeds / 10, "a quiet world: {count} {name}");
    }
}

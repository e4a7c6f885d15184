//! Layouts that change in a hostile world: the pure decisions of `core::change` and `core::drain` with the real partition
//! core in every driver, two processes, an operator; and what goes wrong: stragglers, lost channels with their acks,
//! crashes of anybody between any two small steps.
//!
//! Roles: `broker` the exchanges and queues, `process` a process, `driver` one partition in it, `ending` how its channels end,
//! `actor` whoever changes layouts, `event` what can happen, `faults` what goes wrong, `judge` the rules, `why` asks
//! what records wait for, `hardships` what the worlds must have met.
//!
//! `LANEKEEPER_SIM_LAYOUTS=10000` runs more seeds, `LANEKEEPER_SIM_LAYOUT=7` one of them with its trace.

mod actor;
mod broker;
mod driver;
mod ending;
mod event;
mod faults;
mod hardships;
mod judge;
mod process;
mod why;

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use lanekeeper_core::change::{Desired, Layouts};
use lanekeeper_core::layout::{Layout, LayoutNumber, PartitionNumber, Shape};
use lanekeeper_core::message::TenureNumber;
use lanekeeper_core::policy::{FailurePolicies, FailurePolicy, Policy};
use lanekeeper_core::schedule::Schedule;
use lanekeeper_core::tick::Tick;
use lanekeeper_core::update::RecordKey;
use lanekeeper_core::witness::witnesses;

use self::actor::Actor;
use self::broker::{Broker, Item, PartitionKey};
use self::driver::Driver;
use self::event::LayoutEvent;
use self::hardships::HardshipCounts;
use self::judge::{Judge, fault};
use self::process::Process;
use crate::rng::Rng;
use crate::runner::{found_by, number_from_env};
use crate::waits::CausesMet;

const SEEDS: u64 = 1_000;
const STEPS_MAX: u32 = 400_000;
const MILLI: u64 = 1_000;
/// The operator among the actors; processes are counted from 1.
const OPERATOR: u32 = 0;
const PROCESSES: u32 = 2;
/// As `source::reconciler`.
const PATIENCE_MS: u64 = 2_000;
const LOCK_RETRY_MS: u64 = 250;
/// Between attempts, in milliseconds.
const WAITS: [u64; 2] = [20, 300];

struct World {
    rng: Rng,
    /// Questions take no chance from the world.
    chance_of_questions: Rng,
    causes: CausesMet,
    now: Tick,
    agenda: BinaryHeap<Reverse<(Tick, u64, usize)>>,
    events: Vec<Option<LayoutEvent>>,
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
    claimed_by: BTreeMap<PartitionKey, BTreeMap<u32, TenureNumber>>,
    calm_at: Tick,
    fault_count: u32,
    met: HardshipCounts,
    // Manners of this world.
    failures: u64,
    in_flight_max: usize,
    latency: u64,
    ack_delay: u64,
    claim_delay: u64,
    late_publish: u64,
    prefetch: u16,
    crashes_of_actors: u64,
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
        // One after the other: updates are named in the order in which they are published.
        for next in 1..count {
            moments[next] = moments[next].max(moments[next - 1] + 1);
        }
        let first = Shape { partitions: rng.pick(&[1, 2, 4]), prefetch: 16 }.numbered(LayoutNumber(1));
        let mut world = Self {
            chance_of_questions: Rng::new(seed ^ 0x0077_6879),
            causes: CausesMet::default(),
            broker: Broker::default(),
            stream: vec![Layouts::first(first, Vec::new())],
            now: Tick::ZERO,
            agenda: BinaryHeap::new(),
            events: Vec::new(),
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
            fault_count: u32::try_from(rng.between(0, 12)).expect("few"),
            met: HardshipCounts::default(),
            failures: rng.pick(&[0, 100, 400]),
            in_flight_max: rng.pick(&[1, 4, 4, 4]),
            latency: rng.pick(&[5, 50, 400]),
            ack_delay: rng.pick(&[0, 20, 400, 1_500]),
            claim_delay: rng.pick(&[20, 20, 8_000]),
            late_publish: rng.pick(&[0, 125, 1_900]),
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
            world.at(Tick::from_micros(at), LayoutEvent::Publish { update });
        }
        let changes = world.rng.between(1, 4);
        for _ in 0..changes {
            let at = world.rng.between(0, last);
            let partitions = world.rng.pick(&[1, 2, 3, 6]);
            let shape = Shape { partitions, prefetch: world.prefetch };
            world.at(Tick::from_micros(at), LayoutEvent::Apply { shape });
        }
        for _ in 0..world.fault_count {
            let at = world.rng.between(0, world.calm_at.micros());
            world.at(Tick::from_micros(at), LayoutEvent::InjectFault);
        }
        for _ in 0..PROCESSES {
            world.start_soon();
        }
        world
    }

    fn at(&mut self, at: Tick, event: LayoutEvent) {
        let lot = self.rng.next();
        self.agenda.push(Reverse((at.max(self.now), lot, self.events.len())));
        self.events.push(Some(event));
    }

    fn soon(&mut self, within_ms: u64, event: LayoutEvent) {
        let delay = Duration::from_micros(self.rng.between(0, within_ms * MILLI));
        self.at(self.now.after(delay), event);
    }

    fn note(&mut self, words: fmt::Arguments<'_>) {
        let line = format!("{:>12} {words}", self.now.micros());
        self.trace.push(line);
    }

    fn driver(&mut self, process: u32, partition_key: PartitionKey) -> Option<&mut Driver> {
        self.processes.get_mut(&process)?.drivers.get_mut(&partition_key)
    }

    fn process_of(&self, partition_key: PartitionKey, channel: u64) -> Option<u32> {
        let open = |driver: &Driver| driver.tenure.as_ref().is_some_and(|open| open.channel == channel);
        let mut with = self.processes.iter();
        with.find(|(_, process)| process.drivers.get(&partition_key).is_some_and(open))
            .map(|(number, _)| *number)
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
            let event = self.events[place].take().expect("it happens once");
            self.handle_event(event);
            self.ask_why();
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

    fn handle_event(&mut self, event: LayoutEvent) {
        match event {
            LayoutEvent::Publish { update } => self.publish(update),
            LayoutEvent::Arrive { partition_key, item } => {
                if !self.broker.arrive(partition_key, item)
                    && let Item::Update(update) = item
                {
                    self.judge.lost(update);
                }
                self.hand_over(partition_key);
            }
            LayoutEvent::Delivery { partition_key, delivery } => self.deliver(partition_key, delivery),
            LayoutEvent::Ack { partition_key, channel } => {
                self.broker.take_ack(partition_key, channel);
                self.hand_over(partition_key);
            }
            LayoutEvent::Attach { process, partition_key } => {
                if self.driver(process, partition_key).is_some_and(|driver| driver.tenure.is_none()) {
                    self.attach(process, partition_key);
                }
            }
            LayoutEvent::ClaimArrived { process, partition_key, tenure, claim } => {
                self.claim_arrived(process, partition_key, tenure, claim);
            }
            LayoutEvent::Claimed { process, partition_key, tenure, read_back } => {
                self.claimed(process, partition_key, tenure, read_back);
            }
            LayoutEvent::PreviousDrained { process, partition_key } => {
                self.on_previous_drained(process, partition_key);
            }
            LayoutEvent::Observe { process } => self.observe(process),
            LayoutEvent::Answered { process, partition_key, attempt, fails } => {
                self.answered(process, partition_key, attempt, fails);
            }
            LayoutEvent::Recorded { process, partition_key, tenure, holder, update } => {
                self.recorded(process, partition_key, tenure, holder, update);
            }
            LayoutEvent::Wake { process, partition_key } => self.wake(process, partition_key),
            LayoutEvent::Close { process, partition_key, channel } => {
                self.close(process, partition_key, channel);
            }
            LayoutEvent::Document { process } => self.read(process),
            LayoutEvent::Markers { process, layout } => self.mark(process, layout),
            LayoutEvent::Act { actor, life } => self.act(actor, life),
            LayoutEvent::Apply { shape } => {
                self.operator.desired = Desired { shape: Some(shape), remove: true, ..Desired::default() };
                self.set_actor(OPERATOR, 100);
            }
            LayoutEvent::Start { process } => self.start(process),
            LayoutEvent::InjectFault => self.inject_fault(),
        }
    }

    fn publish(&mut self, update: usize) {
        let record = self.publications[update].record;
        let partition_keys = self.broker.route(self.keys[record].as_str().as_bytes());
        self.note(format_args!("#{update} of record {record} goes to {partition_keys:?}"));
        self.judge.published(update, record, &partition_keys);
        let mut partition_key = partition_keys[0];
        if let Some(elsewhere) = self.elsewhere(update, partition_key) {
            self.note(format_args!("somebody puts #{update} into {elsewhere:?}"));
            self.judge.misplaced(update);
            self.met.misplaced += 1;
            partition_key = elsewhere;
        }
        let is_late = self.rng.chance(300);
        let delay = if is_late { self.rng.between(0, self.late_publish) } else { 0 };
        self.met.late_publishes += u32::from(delay > 500);
        let arrival = self.broker.arrival(partition_key, self.now, Duration::from_millis(delay));
        self.at(arrival, LayoutEvent::Arrive { partition_key, item: Item::Update(update) });
    }

    /// A foreign binding, or a person, puts some updates into another queue of the layout. Nobody can tell that if the broker
    /// routes otherwise than computed.
    fn elsewhere(&self, update: usize, (layout, partition): PartitionKey) -> Option<PartitionKey> {
        let partitions = self.broker.partitions.get(&layout).copied().filter(|partitions| *partitions > 1)?;
        let is_computed = !self.broker.shifted.contains_key(&layout);
        let other = PartitionNumber((partition.0 + 1) % partitions);
        (is_computed && update % 11 == 7).then_some((layout, other))
    }
}

fn policy() -> Arc<Policy> {
    Arc::new(Policy {
        schedule: Schedule::new(WAITS.map(Duration::from_millis).to_vec(), 0.0),
        attempts_max: None,
        elapsed_max: None,
        retry_after_max: Duration::from_secs(1),
        failure: FailurePolicies::all(FailurePolicy::Block),
        failure_of_targets: Vec::new(),
    })
}

/// Runs one world to its end; or what was found, with the trace.
fn run(seed: u64) -> Result<World, (String, Vec<String>)> {
    let mut world = World::new(seed);
    match found_by(|| world.run()) {
        None => Ok(world),
        Some(found) => Err((found, world.trace)),
    }
}

#[test]
fn layouts_change_in_every_world_and_the_promise_is_kept() {
    if let Some(seed) = number_from_env("LANEKEEPER_SIM_LAYOUT") {
        let (summary, trace) = match run(seed) {
            Ok(world) => (format!("{:?}", world.met), world.trace),
            Err((found, trace)) => (format!("found by {found}"), trace),
        };
        println!("{}\n{summary}", trace.join("\n"));
        return;
    }
    let seeds = number_from_env("LANEKEEPER_SIM_LAYOUTS").unwrap_or(SEEDS);
    let (mut all, mut causes) = (HardshipCounts::default(), CausesMet::default());
    for seed in 0..seeds {
        match run(seed) {
            Ok(world) => {
                all.add(world.met);
                causes.add(&world.causes);
            }
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
    // A quiet world proves nothing.
    for (what, times) in all.named() {
        assert!(u64::from(times) * 20 >= seeds, "{what}: {times} in {seeds} worlds only");
    }
    println!("asked: {causes:?}");
    causes.check(&["claim", "in_flight", "previous_layout", "recording", "retry", "strict"], seeds / 2);
    causes.check(&["room"], seeds / 50);
}

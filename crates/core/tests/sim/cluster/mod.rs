//! Several processes on a cluster that is split and healed: leases, notes, claims, take-overs and their waits, around the
//! real partition and the real knowledge of tenures.
//!
//! Roles: `queue` the quorum queue with its single active consumer, `stream` the stream of members, `process` a process,
//! `ending` how its tenures end, `event` what can happen, `faults` what goes wrong, `judge` the rules, `why` asks what
//! records wait for, `hardships` what the worlds must have met.
//!
//! `LANEKEEPER_SIM_CLUSTERS=100000 cargo test --test sim cluster` runs more seeds;
//! `LANEKEEPER_SIM_CLUSTER=7 cargo test --test sim -- --nocapture cluster` runs one and shows its trace.

mod ending;
mod event;
mod faults;
mod hardships;
mod judge;
mod process;
mod queue;
mod stream;
mod why;

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};
use std::fmt;
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::time::Duration;

use lanekeeper_core::message::TenureNumber;
use lanekeeper_core::partition::{Limits, Partition};
use lanekeeper_core::policy::{FailurePolicies, FailurePolicy, Policy};
use lanekeeper_core::schedule::Schedule;
use lanekeeper_core::tenures::Terms;
use lanekeeper_core::tick::Tick;
use lanekeeper_core::update::RecordKey;

use self::event::ClusterEvent;
use self::hardships::HardshipCounts;
use self::judge::{Judge, fault};
use self::process::Process;
use self::queue::Queue;
use self::stream::{Message, Stream};
use crate::rng::Rng;
use crate::runner::{found_by, number_from_env};
use crate::waits::CausesMet;

const SEEDS: u64 = 2_000;
const STEPS_MAX: u32 = 100_000;
const MILLI: u64 = 1000;
/// Between attempts, in milliseconds.
const WAITS: [u64; 2] = [5, 40];

struct World {
    rng: Rng,
    /// Questions take no chance from the world.
    chance_of_questions: Rng,
    causes: CausesMet,
    now: Tick,
    agenda: BinaryHeap<Reverse<(Tick, usize)>>,
    events: Vec<Option<ClusterEvent>>,
    queue: Queue,
    /// Whose each channel is.
    channels: BTreeMap<u64, usize>,
    stream: Stream,
    processes: Vec<Process>,
    in_flight_max: usize,
    window: usize,
    policy: Arc<Policy>,
    keys: Vec<RecordKey>,
    record_of: Vec<usize>,
    with_id: Vec<bool>,
    /// Attempt, update, and if it is applied.
    requests: Vec<(u64, usize, bool)>,
    /// When each request is at work no longer, whatever its target does.
    timeouts: Vec<Tick>,
    under_way: usize,
    judge: Judge,
    split: bool,
    suspected_after: Duration,
    /// What would cross the cut.
    held_back: Vec<ClusterEvent>,
    appends_after: Tick,
    alarm: bool,
    blocked: Vec<(usize, Message)>,
    stream_delay: u64,
    failures: u64,
    met: HardshipCounts,
    trace: Vec<String>,
}

impl World {
    fn new(seed: u64) -> Self {
        let mut rng = Rng::new(seed ^ 0x0063_6c75_7374_6572);
        let records = rng.index(6) + 1;
        let updates = rng.index(40) + 2;
        let last = rng.pick(&[0, 400, 1500]) * MILLI;
        let record_of: Vec<usize> = (0..updates).map(|_| rng.index(records)).collect();
        let without_ids = rng.pick(&[0, 0, 300]);
        let window = rng.pick(&[1, 3, 8, 50]);
        let mut world = Self {
            chance_of_questions: Rng::new(seed ^ 0x0077_6879),
            causes: CausesMet::default(),
            now: Tick::ZERO,
            agenda: BinaryHeap::new(),
            events: Vec::new(),
            queue: Queue::new(window),
            channels: BTreeMap::new(),
            stream: Stream::default(),
            processes: Vec::new(),
            in_flight_max: rng.pick(&[1, 2, 8]),
            window,
            policy: policy(),
            keys: (0..records).map(|record| RecordKey::new(format!("r{record}")).unwrap()).collect(),
            with_id: (0..updates).map(|_| !rng.chance(without_ids)).collect(),
            judge: Judge::new(records, &record_of),
            record_of,
            requests: Vec::new(),
            timeouts: Vec::new(),
            under_way: 0,
            split: false,
            suspected_after: Duration::from_millis(rng.pick(&[10, 60, 200])),
            held_back: Vec::new(),
            appends_after: Tick::ZERO,
            alarm: false,
            blocked: Vec::new(),
            stream_delay: rng.pick(&[1, 8, 30]),
            failures: rng.pick(&[0, 100, 400]),
            met: HardshipCounts::default(),
            trace: Vec::new(),
            rng,
        };
        let mut moments: Vec<u64> = (0..updates).map(|_| world.rng.between(0, last)).collect();
        moments.sort_unstable();
        for (update, at) in moments.into_iter().enumerate() {
            world.at(Tick::from_micros(at), ClusterEvent::Publish { update });
        }
        for number in 0..world.rng.between(1, 4) {
            let minor = world.rng.chance(if number == 0 { 600 } else { 300 });
            world.soon(20, ClusterEvent::Start { minor });
        }
        world.plan_faults(last.max(300 * MILLI));
        world.plan_misplaced(seed, last.max(300 * MILLI));
        world
    }

    fn at(&mut self, at: Tick, event: ClusterEvent) {
        self.agenda.push(Reverse((at.max(self.now), self.events.len())));
        self.events.push(Some(event));
    }

    fn soon(&mut self, within_ms: u64, event: ClusterEvent) {
        let delay = Duration::from_micros(self.rng.between(0, within_ms * MILLI));
        self.at(self.now.after(delay), event);
    }

    fn note(&mut self, p: usize, words: fmt::Arguments<'_>) {
        let line = format!("{:>12} {} {words}", self.now.micros(), self.processes[p].name);
        self.trace.push(line);
    }

    fn is_cut_off(&self, p: usize) -> bool {
        self.split && self.processes[p].minor
    }

    /// Everything is done: what repeats ends.
    fn is_over(&self) -> bool {
        self.judge.all_gone() && self.under_way == 0
    }

    /// Acks of one channel arrive in order.
    fn ack_time(&mut self, p: usize) -> Tick {
        let delay = Duration::from_micros(self.rng.between(0, 5 * MILLI));
        let at = self.processes[p].ack_at.max(self.now.after(delay));
        self.processes[p].ack_at = at;
        at
    }

    fn hand_over(&mut self) {
        for delivery in self.queue.hand_over() {
            let Some(process) = self.channels.get(&delivery.channel).copied() else { continue };
            let delay = Duration::from_micros(self.rng.between(0, 5 * MILLI));
            let at = self.processes[process].delivery_at.max(self.now.after(delay));
            self.processes[process].delivery_at = at;
            self.at(at, ClusterEvent::Delivery { process, delivery });
        }
    }

    fn publish(&mut self, p: usize, message: Message) {
        if self.alarm {
            self.blocked.push((p, message));
        } else {
            self.soon(self.stream_delay, ClusterEvent::Append { process: p, message });
        }
    }

    fn append(&mut self, message: Message) {
        if !matches!(message, Message::Note { .. }) {
            self.trace.push(format!(
                "{:>12} stream {}: {message:?}",
                self.now.micros(),
                self.stream.length()
            ));
        }
        self.stream.append(message);
        for process in 0..self.processes.len() {
            if self.processes[process].alive {
                self.soon(self.stream_delay, ClusterEvent::Read { process });
            }
        }
    }

    fn begin_request(
        &mut self,
        p: usize,
        (attempt, tenure): (u64, TenureNumber),
        update: usize,
        timeout: Duration,
        name: &str,
    ) {
        let most = u64::try_from(timeout.as_micros()).expect("some seconds");
        let takes = if self.rng.chance(200) { most } else { self.rng.between(1, most) };
        let end = self.now.after(Duration::from_micros(takes));
        self.judge.sent(self.now, name, tenure, update, end);
        let applied = !self.rng.chance(self.failures);
        let request = self.requests.len();
        self.requests.push((attempt, update, applied));
        self.timeouts.push(self.now.after(timeout));
        self.under_way += 1;
        self.processes[p].in_flight.insert(request);
        if applied || self.rng.chance(300) {
            let applied_at = self.rng.between(self.now.micros(), end.micros());
            self.at(Tick::from_micros(applied_at), ClusterEvent::RequestApplied { request });
        }
        self.at(end, ClusterEvent::RequestEnded { process: p, request });
    }

    fn run(&mut self) {
        let mut steps = 0;
        while let Some(Reverse((at, place))) = self.agenda.pop() {
            steps += 1;
            if steps > STEPS_MAX {
                fault!("liveness", "no rest after {STEPS_MAX} steps");
            }
            self.now = at.max(self.now);
            let event = self.events[place].take().expect("each happens once");
            if let Some(p) = event.runs() {
                let process = &self.processes[p];
                if self.now < process.stalled_until {
                    self.at(process.stalled_until, event);
                    continue;
                }
                if !process.alive {
                    if let ClusterEvent::RequestEnded { .. } = event {
                        self.under_way -= 1;
                    }
                    continue;
                }
            }
            if let Some(p) = event.crosses()
                && self.is_cut_off(p)
            {
                self.held_back.push(event);
                continue;
            }
            self.handle_event(event);
            self.ask_why();
        }
        self.judge.end();
    }

    fn handle_event(&mut self, event: ClusterEvent) {
        match event {
            ClusterEvent::Publish { update } => {
                self.queue.publish(update);
                self.hand_over();
            }
            ClusterEvent::Delivery { process, .. } if self.now < self.processes[process].held_back_until => {
                self.at(self.processes[process].held_back_until, event);
            }
            ClusterEvent::Delivery { process, delivery } => {
                if self.queue.holds(delivery.channel, delivery.tag) {
                    self.deliver(process, delivery);
                }
            }
            ClusterEvent::Ack { channel, tag, .. } => {
                if let Some(update) = self.queue.ack(channel, tag) {
                    self.judge.acked(update);
                }
                self.hand_over();
            }
            ClusterEvent::ChannelClosed { channel, .. } => {
                self.queue.close(channel);
                self.hand_over();
            }
            ClusterEvent::ChannelLost { process, channel } => {
                if self.processes[process].channel.as_ref().is_some_and(|of| of.number == channel) {
                    self.lose_channel(process);
                }
            }
            ClusterEvent::Start { minor } => self.start(minor),
            ClusterEvent::Attach { process } => self.attach(process),
            ClusterEvent::Wake { process } => self.wake(process),
            ClusterEvent::NoteDue { process } => self.publish_note(process),
            ClusterEvent::ClaimDue { process, count } => self.publish_claim(process, count),
            ClusterEvent::LeaveDue { process } => self.go_on_leaving(process),
            ClusterEvent::QosAnswered { process, at } => {
                if self.alarm {
                    self.renew_lease(process, at);
                }
            }
            ClusterEvent::Append { message, .. } => {
                if self.now < self.appends_after {
                    // The stream has no leader yet.
                    self.at(self.appends_after, ClusterEvent::Append { process: 0, message });
                } else {
                    self.append(message);
                }
            }
            ClusterEvent::Read { process } => {
                if !self.processes[process].reader_dead {
                    self.read(process);
                }
            }
            ClusterEvent::ReaderReopened { process } => {
                if !self.is_cut_off(process) {
                    self.processes[process].reader_dead = false;
                    self.read(process);
                }
            }
            ClusterEvent::RequestApplied { request } => self.judge.applied(self.requests[request].1),
            ClusterEvent::RequestEnded { process, request } => {
                self.under_way -= 1;
                self.request_ended(process, request);
            }
            ClusterEvent::Split { lasts } => self.begin_split(lasts),
            ClusterEvent::Suspected => self.suspect(),
            ClusterEvent::Heal => self.heal(),
            ClusterEvent::Alarm { lasts } => {
                self.met.alarms += 1;
                self.alarm = true;
                self.at(self.now.after(lasts), ClusterEvent::AlarmEnds);
            }
            ClusterEvent::AlarmEnds => {
                self.alarm = false;
                for (process, message) in std::mem::take(&mut self.blocked) {
                    self.publish(process, message);
                }
            }
            ClusterEvent::Misplace => self.misplace(),
            ClusterEvent::Fault => self.inject_fault(),
        }
    }

    /// A process starts, and reads the stream from its beginning.
    fn start(&mut self, minor: bool) {
        let p = self.processes.len();
        let name = format!("p{p}");
        let terms = Terms {
            lease: Duration::from_millis(self.rng.pick(&[40, 100, 200])),
            at_work: Duration::from_millis(self.rng.pick(&[5, 30, 150, 600])),
        };
        let limits = Limits {
            in_flight_max: NonZeroUsize::new(self.in_flight_max).expect("at least one"),
            window: NonZeroUsize::new(self.window).expect("at least one"),
        };
        let core = Partition::new(limits, Arc::clone(&self.policy));
        self.processes.push(Process::new(name, minor, terms, core));
        self.note(p, format_args!("starts, minor {minor}, {terms:?}"));
        if self.is_cut_off(p) {
            self.processes[p].reader_dead = true;
        } else {
            self.read(p);
        }
        self.at(self.now, ClusterEvent::NoteDue { process: p });
        self.soon(30, ClusterEvent::Attach { process: p });
    }
}

fn policy() -> Arc<Policy> {
    Arc::new(Policy {
        schedule: Schedule::new(WAITS.map(Duration::from_millis).to_vec(), 0.0),
        attempts_max: None,
        elapsed_max: None,
        retry_after_max: Duration::ZERO,
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
fn one_process_at_a_time_owns_a_partition_of_a_cluster_in_every_world() {
    if let Some(seed) = number_from_env("LANEKEEPER_SIM_CLUSTER") {
        let (summary, trace) = match run(seed) {
            Ok(world) => (format!("{:?}", world.met), world.trace),
            Err((found, trace)) => (format!("found by {found}"), trace),
        };
        println!("{}\n{summary}", trace.join("\n"));
        return;
    }
    let seeds = number_from_env("LANEKEEPER_SIM_CLUSTERS").unwrap_or(SEEDS);
    let (mut all, mut causes) = (HardshipCounts::default(), CausesMet::default());
    for seed in 0..seeds {
        match run(seed) {
            Ok(world) => {
                all.add(world.met);
                causes.add(&world.causes);
            }
            Err((found, trace)) => {
                let tail = &trace[trace.len().saturating_sub(60)..];
                panic!(
                    "the last lines of cluster seed {seed}:\n{}\n\
                     simulation: seed {seed}, number {}, found by {found}\n\
                     repeat with: LANEKEEPER_SIM_CLUSTER={seed} cargo test --test sim -- --nocapture cluster",
                    tail.join("\n"),
                    seed + 1
                );
            }
        }
    }
    println!("of {seeds} worlds: {all:?}");
    // A quiet world proves nothing.
    for (what, times) in all.named() {
        assert!(u64::from(times) * 50 >= seeds, "{what}: {times} in {seeds} worlds only");
    }
    println!("asked: {causes:?}");
    causes.check(&["claim", "in_flight", "lease_lapsed", "retry", "room", "strict", "take_over"], seeds / 2);
    causes.check(&["earlier_attempt", "hand_back"], seeds / 100);
}

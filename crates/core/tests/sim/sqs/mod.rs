//! Several processes on one SQS FIFO queue: requests without an answer, processes that stand still for longer than a
//! visibility timeout, kills and stops, around the real partition and the real rules of message groups.
//!
//! Roles: `queue` SQS, `process` a process, `judge` the rules.
//!
//! `LANEKEEPER_SIM_SQS_WORLDS=100000 cargo test --test sim sqs` runs more seeds;
//! `LANEKEEPER_SIM_SQS=7 cargo test --test sim -- --nocapture sqs` runs one and shows its trace.

mod judge;
mod process;
mod queue;

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::fmt;
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::time::Duration;

use lanekeeper_core::message::AttemptId;
use lanekeeper_core::message_groups::{Entry, EntryAnswer, GroupLimits, MessageGroups, Receive, ReceiveId};
use lanekeeper_core::partition::{Limits, Partition};
use lanekeeper_core::policy::{FailurePolicies, FailurePolicy, Policy};
use lanekeeper_core::schedule::Schedule;
use lanekeeper_core::tick::Tick;
use lanekeeper_core::update::RecordKey;

use self::judge::{Judge, fault};
use self::process::Process;
use self::queue::{Handed, Queue};
use crate::rng::Rng;
use crate::runner::{found_by, number_from_env};

const SEEDS: u64 = 4_000;
const STEPS_MAX: u32 = 200_000;
const MILLI: u64 = 1000;
/// Between attempts, in milliseconds.
const WAITS: [u64; 2] = [5, 40];
/// A client gives up a call after this.
const CALL_TIMEOUT: Duration = Duration::from_millis(60);

/// A batch request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Call {
    Delete,
    Renew,
    HandBack,
}

/// What can happen. `tenure`: whose it was when it began.
#[derive(Debug)]
enum SqsEvent {
    Publish { update: usize },
    Start,
    PollDue { process: usize, tenure: u64 },
    ReceiveArrived { process: usize, tenure: u64, receive: Receive },
    ReceiveEnded { process: usize, tenure: u64, id: ReceiveId, handed: Vec<Handed> },
    CallArrived { process: usize, tenure: u64, call: Call, entries: Vec<Entry> },
    CallEnded { process: usize, tenure: u64, call: Call, entries: Vec<Entry>, answers: Vec<EntryAnswer> },
    GroupsDue { process: usize, tenure: u64 },
    Wake { process: usize },
    StopDue { process: usize },
    RequestApplied { request: usize },
    RequestEnded { process: usize, request: usize },
    Fault,
}

impl SqsEvent {
    /// Which process has to run for it, and in which tenure.
    fn runs(&self) -> Option<(usize, Option<u64>)> {
        match self {
            Self::PollDue { process, tenure }
            | Self::ReceiveEnded { process, tenure, .. }
            | Self::CallEnded { process, tenure, .. }
            | Self::GroupsDue { process, tenure } => Some((*process, Some(*tenure))),
            Self::Wake { process } | Self::StopDue { process } | Self::RequestEnded { process, .. } => {
                Some((*process, None))
            }
            _ => None,
        }
    }
}

/// What the worlds met: a quiet world proves nothing.
#[derive(Clone, Copy, Debug, Default)]
struct HardshipCounts {
    receives_lost: u32,
    calls_lost: u32,
    answers_lost: u32,
    stalls: u32,
    kills: u32,
    stops: u32,
    given_back: u32,
    renewed: u32,
    handles_refused: u32,
    came_again: u32,
    leases_over: u32,
}

impl HardshipCounts {
    fn fields(&mut self) -> [(&'static str, &mut u32); 11] {
        [
            ("messages that nobody learnt of", &mut self.receives_lost),
            ("calls that did not arrive", &mut self.calls_lost),
            ("answers that did not arrive", &mut self.answers_lost),
            ("processes that stood still", &mut self.stalls),
            ("kills", &mut self.kills),
            ("stops", &mut self.stops),
            ("calls that gave something back", &mut self.given_back),
            ("visibility timeouts that were granted anew", &mut self.renewed),
            ("receipt handles that were refused", &mut self.handles_refused),
            ("messages that came again", &mut self.came_again),
            ("leases that were over", &mut self.leases_over),
        ]
    }

    fn add(&mut self, mut other: Self) {
        for ((_, all), (_, times)) in self.fields().into_iter().zip(other.fields()) {
            *all += *times;
        }
    }
}

struct World {
    rng: Rng,
    now: Tick,
    agenda: BinaryHeap<Reverse<(Tick, usize)>>,
    events: Vec<Option<SqsEvent>>,
    queue: Queue,
    processes: Vec<Process>,
    limits: GroupLimits,
    in_flight_max: usize,
    /// How long a request can be at work.
    timeout: Duration,
    policy: Arc<Policy>,
    keys: Vec<RecordKey>,
    record_of: Vec<usize>,
    /// Attempt, update, and if it is applied.
    requests: Vec<(AttemptId, usize, bool)>,
    under_way: usize,
    judge: Judge,
    delay_ms: u64,
    /// Of a thousand requests to SQS, or answers, so many get lost.
    lost: u64,
    failures: u64,
    met: HardshipCounts,
    trace: Vec<String>,
}

impl World {
    fn new(seed: u64) -> Self {
        let mut rng = Rng::new(seed ^ 0x0073_7173);
        let records = rng.index(6) + 1;
        let updates = rng.index(60) + 2;
        let last = rng.pick(&[0, 400, 1500]) * MILLI;
        let record_of: Vec<usize> = (0..updates).map(|_| rng.index(records)).collect();
        let timeout = Duration::from_millis(rng.pick(&[10, 40, 100]));
        let margin = Duration::from_millis(20);
        let limits = GroupLimits {
            visibility_timeout: (timeout + margin) * 3,
            at_work_max: timeout + margin,
            window: rng.pick(&[1, 5, 12, 50]),
        };
        let mut world = Self {
            now: Tick::ZERO,
            agenda: BinaryHeap::new(),
            events: Vec::new(),
            queue: Queue::new(records, rng.chance(250)),
            processes: Vec::new(),
            limits,
            in_flight_max: rng.pick(&[2, 8, 32]),
            timeout,
            policy: policy(),
            keys: (0..records).map(|record| RecordKey::new(format!("r{record}")).unwrap()).collect(),
            judge: Judge::new(records, &record_of),
            record_of,
            requests: Vec::new(),
            under_way: 0,
            delay_ms: rng.pick(&[1, 5, 15]),
            lost: rng.pick(&[0, 30, 100]),
            failures: rng.pick(&[0, 100, 400]),
            met: HardshipCounts::default(),
            trace: Vec::new(),
            rng,
        };
        let mut moments: Vec<u64> = (0..updates).map(|_| world.rng.between(0, last)).collect();
        moments.sort_unstable();
        for (update, at) in moments.into_iter().enumerate() {
            world.at(Tick::from_micros(at), SqsEvent::Publish { update });
        }
        for _ in 0..world.rng.between(1, 3) {
            world.soon(20, SqsEvent::Start);
        }
        for _ in 0..world.rng.pick(&[0, 3, 10]) {
            let at = Tick::from_micros(world.rng.between(0, last + 500 * MILLI));
            world.at(at, SqsEvent::Fault);
        }
        world
    }

    fn at(&mut self, at: Tick, event: SqsEvent) {
        self.agenda.push(Reverse((at.max(self.now), self.events.len())));
        self.events.push(Some(event));
    }

    fn soon(&mut self, within_ms: u64, event: SqsEvent) {
        let delay = Duration::from_micros(self.rng.between(0, within_ms * MILLI));
        self.at(self.now.after(delay), event);
    }

    fn note(&mut self, p: usize, words: fmt::Arguments<'_>) {
        self.trace.push(format!("{:>12} {} {words}", self.now.micros(), self.processes[p].name));
    }

    /// Everything is done: what repeats ends.
    fn is_over(&self) -> bool {
        self.judge.all_gone() && self.under_way == 0
    }

    fn begin_request(&mut self, p: usize, attempt: AttemptId, update: usize) {
        let most = u64::try_from(self.timeout.as_micros()).expect("some seconds");
        let takes = if self.rng.chance(200) { most } else { self.rng.between(1, most) };
        let end = self.now.after(Duration::from_micros(takes));
        let name = self.processes[p].name.clone();
        self.judge.sent(self.now, &name, update, end);
        let applied = !self.rng.chance(self.failures);
        let request = self.requests.len();
        self.requests.push((attempt, update, applied));
        self.under_way += 1;
        self.processes[p].in_flight.insert(request);
        if applied || self.rng.chance(300) {
            let applied_at = self.rng.between(self.now.micros(), end.micros());
            self.at(Tick::from_micros(applied_at), SqsEvent::RequestApplied { request });
        }
        self.at(end, SqsEvent::RequestEnded { process: p, request });
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
            if let Some((p, tenure)) = event.runs() {
                let process = &self.processes[p];
                if self.now < process.stalled_until {
                    self.at(process.stalled_until, event);
                    continue;
                }
                if !process.alive {
                    if let SqsEvent::RequestEnded { .. } = event {
                        self.under_way -= 1;
                    }
                    continue;
                }
                if tenure.is_some_and(|tenure| tenure != process.tenure) {
                    continue;
                }
            }
            self.handle_event(event);
        }
        self.judge.end();
    }

    fn handle_event(&mut self, event: SqsEvent) {
        match event {
            SqsEvent::Publish { update } => self.queue.publish(self.record_of[update], update),
            SqsEvent::Start => self.start(),
            SqsEvent::PollDue { process, .. } => self.poll(process),
            SqsEvent::ReceiveArrived { process, tenure, receive: Receive { id, messages_max } } => {
                let (now, timeout) = (self.now, self.limits.visibility_timeout);
                let mut handed = Vec::new();
                if !self.rng.chance(self.lost) {
                    handed = self.queue.receive(now, messages_max, timeout, &mut self.rng);
                    if self.rng.chance(self.lost) && !handed.is_empty() {
                        self.met.receives_lost += 1;
                        handed.clear();
                    }
                }
                self.soon(self.delay_ms, SqsEvent::ReceiveEnded { process, tenure, id, handed });
            }
            SqsEvent::ReceiveEnded { process, id, handed, .. } => self.receive_ended(process, id, &handed),
            SqsEvent::CallArrived { process, tenure, call, entries } => {
                let arrives = !self.rng.chance(self.lost);
                let is_answered = arrives && !self.rng.chance(self.lost);
                self.met.calls_lost += u32::from(!arrives);
                self.met.answers_lost += u32::from(arrives && !is_answered);
                let mut answers = vec![EntryAnswer::Unknown; entries.len()];
                for (entry, answer) in entries.iter().zip(&mut answers).filter(|_| arrives) {
                    let said = self.perform(call, entry);
                    // An entry of a batch can fail alone.
                    if is_answered && !self.rng.chance(self.lost / 4) {
                        *answer = said;
                    }
                }
                let ended = SqsEvent::CallEnded { process, tenure, call, entries, answers };
                let delay = Duration::from_micros(self.rng.between(0, self.delay_ms * MILLI));
                self.at(self.now.after(if is_answered { delay } else { CALL_TIMEOUT }), ended);
            }
            SqsEvent::CallEnded { process, call, entries, answers, .. } => {
                self.call_ended(process, call, &entries, &answers);
            }
            SqsEvent::GroupsDue { process, .. } => self.send_due(process),
            SqsEvent::Wake { process } => self.wake(process),
            SqsEvent::StopDue { process } => self.go_on_leaving(process),
            SqsEvent::RequestApplied { request } => self.judge.applied(self.requests[request].1),
            SqsEvent::RequestEnded { process, request } => {
                self.under_way -= 1;
                self.request_ended(process, request);
            }
            SqsEvent::Fault => self.inject_fault(),
        }
    }

    fn perform(&mut self, call: Call, entry: &Entry) -> EntryAnswer {
        let receipt = entry.receipt_handle.0.parse().expect("a number");
        match call {
            Call::Delete => {
                let (answer, gone) = self.queue.delete(self.now, receipt);
                if let Some(update) = gone {
                    self.trace.push(format!("{:>12} #{update} is deleted", self.now.micros()));
                    self.judge.deleted(update);
                }
                answer
            }
            Call::Renew => self.queue.change_visibility(self.now, receipt, self.limits.visibility_timeout),
            Call::HandBack => self.queue.change_visibility(self.now, receipt, Duration::ZERO),
        }
    }

    fn inject_fault(&mut self) {
        let alive: Vec<usize> = (0..self.processes.len()).filter(|p| self.processes[*p].alive).collect();
        if alive.is_empty() {
            return;
        }
        let p = self.rng.pick(&alive);
        match self.rng.below(6) {
            0..2 => {
                self.met.kills += 1;
                self.note(p, format_args!("is killed"));
                self.end_process(p);
            }
            2 => {
                let within = Duration::from_millis(self.rng.pick(&[0, 20, 500]));
                self.stop(p, within);
            }
            _ => {
                self.met.stalls += 1;
                let most =
                    u64::try_from((self.limits.visibility_timeout * 3).as_micros()).expect("some seconds");
                let lasts = Duration::from_micros(self.rng.between(MILLI, most));
                self.note(p, format_args!("stands still for {lasts:?}"));
                self.processes[p].stalled_until = self.now.after(lasts);
            }
        }
    }

    /// Its requests stay at work.
    fn end_process(&mut self, p: usize) {
        self.processes[p].alive = false;
        self.soon(100, SqsEvent::Start);
    }

    fn start(&mut self) {
        let p = self.processes.len();
        let limits = Limits {
            in_flight_max: NonZeroUsize::new(self.in_flight_max).expect("at least one"),
            window: NonZeroUsize::new(self.limits.window).expect("at least one"),
        };
        let core = Partition::new(limits, Arc::clone(&self.policy));
        let groups = MessageGroups::new(self.limits);
        self.processes.push(Process::new(format!("p{p}"), core, groups));
        self.attach(p);
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
fn records_keep_their_order_on_an_sqs_fifo_queue_in_every_world() {
    if let Some(seed) = number_from_env("LANEKEEPER_SIM_SQS") {
        let (summary, trace) = match run(seed) {
            Ok(world) => (format!("{:?}", world.met), world.trace),
            Err((found, trace)) => (format!("found by {found}"), trace),
        };
        println!("{}\n{summary}", trace.join("\n"));
        return;
    }
    let seeds = number_from_env("LANEKEEPER_SIM_SQS_WORLDS").unwrap_or(SEEDS);
    let mut all = HardshipCounts::default();
    for seed in 0..seeds {
        match run(seed) {
            Ok(world) => all.add(world.met),
            Err((found, trace)) => {
                let tail = &trace[trace.len().saturating_sub(60)..];
                panic!(
                    "the last lines of SQS seed {seed}:\n{}\n\
                     simulation: seed {seed}, number {}, found by {found}\n\
                     repeat with: LANEKEEPER_SIM_SQS={seed} cargo test --test sim -- --nocapture sqs",
                    tail.join("\n"),
                    seed + 1
                );
            }
        }
    }
    println!("of {seeds} worlds: {all:?}");
    for (what, times) in all.fields() {
        assert!(u64::from(*times) * 50 >= seeds, "{what}: {times} in {seeds} worlds only");
    }
}

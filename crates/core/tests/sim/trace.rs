//! What happened, in order: shown when a world fails, hashed to tell that equal seeds give equal traces (I8).

use std::hash::{DefaultHasher, Hash, Hasher};

use lanekeeper_core::outcome::OutcomeKind;
use lanekeeper_core::tick::Tick;

use crate::kills::Step;

/// One line. Updates are named by their place in the queue's history: `#7` is the eighth publishing.
#[derive(Clone, Copy, Debug, Hash)]
pub enum TraceLine {
    Published {
        update: usize,
        record: Option<usize>,
    },
    Delivered {
        tag: u64,
        update: usize,
        redelivered: bool,
    },
    Attempt {
        process: u32,
        attempt: u64,
        number: u32,
        update: usize,
        record: usize,
        probe: bool,
    },
    Applied {
        process: u32,
        attempt: u64,
        update: usize,
        stray: bool,
    },
    AttemptEnded {
        attempt: u64,
        update: usize,
        outcome: OutcomeKind,
        retry_after_ms: Option<u128>,
        lie: bool,
    },
    /// An end of an attempt that has ended already.
    Echo {
        attempt: u64,
    },
    /// Something of a tenure that has ended.
    Stale {
        tenure: u64,
        update: usize,
    },
    Record {
        update: usize,
        resolution: &'static str,
    },
    DeadLettered {
        update: usize,
    },
    Recorded {
        update: usize,
    },
    Settle {
        update: usize,
        tag: u64,
    },
    AckSent {
        tag: u64,
        multiple: bool,
        lost: bool,
    },
    Acked {
        update: usize,
    },
    Woke,
    StopRequested,
    Drained,
    ChannelLost {
        acks_lost: usize,
    },
    ChannelClosed,
    TenureBegan {
        tenure: u64,
    },
    Claimed {
        tenure: u64,
        number: u64,
        rival_claim: Option<u64>,
    },
    OtherProcessClaimed {
        number: u64,
        applied: usize,
        acked: usize,
    },
    Stalled {
        lasts_ms: u128,
    },
    /// The dispatcher starts nothing, since it has not heard the broker.
    Lapsed,
    ClaimSuperseded {
        tenure: u64,
    },
    Abandoned,
    Preempted {
        held_too_long: bool,
    },
    Yielded {
        reason: &'static str,
    },
    TenureEnded {
        tenure: u64,
    },
    TargetShut {
        target: usize,
        probing: bool,
    },
    TargetOpened {
        target: usize,
    },
    TargetPaused {
        target: usize,
    },
    TargetResumed {
        target: usize,
    },
    RecordPaused {
        record: usize,
    },
    RecordResumed {
        record: usize,
    },
    ProbeAsked {
        target: usize,
        granted: bool,
    },
    ProbeReturned {
        target: usize,
    },
    Crashed {
        process: u32,
    },
    /// At this step: the crash follows.
    Killed {
        after: Step,
    },
    /// What the ledger knows makes a request needless or wrong.
    LookedUp {
        update: usize,
        found: &'static str,
    },
    /// What was asked of the ledger allows a request.
    Left {
        update: usize,
        parked: bool,
    },
    Committed {
        entries: usize,
        failed: bool,
        landed: bool,
    },
    /// The process died during a commit.
    CommitAborted {
        entries: usize,
        landed: bool,
    },
    Parked {
        update: usize,
        behind: bool,
    },
    Reparked {
        update: usize,
        of_pause: bool,
    },
    /// The record was no longer parked.
    NotRecorded {
        update: usize,
    },
    /// A newer tenure has written.
    Fenced {
        update: usize,
    },
    ClaimFenced {
        number: u64,
    },
    Released {
        record: usize,
        updates: usize,
    },
    OwnershipHint,
    ReleaseAsked {
        record: usize,
    },
    Discarded {
        record: usize,
        updates: usize,
    },
}

#[derive(Debug, Default)]
pub struct Trace {
    lines: Vec<(Tick, TraceLine)>,
}

impl Trace {
    pub fn add(&mut self, now: Tick, line: TraceLine) {
        self.lines.push((now, line));
    }

    /// The same for equal traces.
    pub fn hash(&self) -> u64 {
        let mut hasher = DefaultHasher::new();
        self.lines.hash(&mut hasher);
        hasher.finish()
    }

    pub fn lines(&self) -> impl Iterator<Item = &TraceLine> {
        self.lines.iter().map(|(_, line)| line)
    }

    /// The last `count` lines, for a person.
    pub fn tail(&self, count: usize) -> String {
        let from = self.lines.len().saturating_sub(count);
        let line = |(now, line): &(Tick, TraceLine)| {
            format!("{:>7}.{:03} ms  {line:?}\n", now.micros() / 1000, now.micros() % 1000)
        };
        self.lines[from..].iter().map(line).collect()
    }
}

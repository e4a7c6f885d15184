//! What processes answer, and what commands, pages and the API show. All times are milliseconds since 1970-01-01 UTC, by the
//! wall clock of the process that answers.

use serde::{Deserialize, Serialize};

use super::doors::ReportedDoor;
use lanekeeper_core::why::WaitCause;

/// Why something waits, since when, and what ends the wait.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct WaitReport {
    /// The cause, with its code and figures.
    pub cause: WaitCause,
    /// The cause in one sentence.
    pub sentence: String,
    /// What ends the wait; empty if nothing waits.
    pub ends: String,
    /// Since when; `None`: that is not known.
    pub since_ms: Option<i64>,
    /// When it ends, if that is known.
    pub ends_at_ms: Option<i64>,
    /// The wait may not end before a person does something.
    pub needs_person: bool,
}

/// How one process is.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ProcessReport {
    /// `instance.name`.
    pub instance: String,
    /// Another one at each start.
    pub process: String,
    /// Of Lanekeeper.
    pub version: String,
    /// When it started to dispatch with its present config.
    pub started_at_ms: i64,
    /// When it answered.
    pub answered_at_ms: i64,
    /// Why `/readyz` does not answer 200; `None`: it does.
    pub unready: Option<String>,
    /// The partitions that it consumes, or is about to.
    pub partitions: Vec<PartitionReport>,
    /// Its targets, in the order of the config.
    pub targets: Vec<TargetReport>,
    /// Its ledger; `None`: it has none.
    pub ledger: Option<LedgerReport>,
    /// The doors that it has heard of.
    #[serde(default)]
    pub doors: Vec<ReportedDoor>,
}

/// What one process knows of one partition.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PartitionReport {
    /// Its layout.
    pub layout: u32,
    /// Its number.
    pub partition: u16,
    /// The process consumes its queue.
    pub attached: bool,
    /// The process owns it, as far as it knows: the broker has delivered something to it.
    pub owns: bool,
    /// The state of the claim: unclaimed, claiming, claimed, lapsed or lost.
    pub ownership: String,
    /// The number of the tenure.
    pub tenure: Option<u64>,
    /// Updates that are held of the broker.
    pub held: usize,
    /// How many can be: the prefetch of the layout.
    pub window: usize,
    /// Attempts that can be out: `dispatch.in_flight_max`.
    pub in_flight_max: usize,
    /// Parked updates that were released and are here.
    pub released: usize,
    /// Records with an update here.
    pub records: usize,
    /// Records that wait for room: `in_flight_max` attempts are out.
    pub ready: usize,
    /// Attempts out.
    pub in_flight: usize,
    /// Records that wait for their next attempt.
    pub waiting: usize,
    /// Records that wait for a target that is shut or paused.
    pub target_shut: usize,
    /// Records that wait for a permit of their target.
    pub limited: usize,
    /// Records that wait until no request of an earlier owner can be at work.
    pub take_over_wait: usize,
    /// Records that wait for their previous partition.
    pub previous_layout: usize,
    /// Resolutions that are being written down.
    pub recording: usize,
    /// When the update that is held longest was handed over.
    pub oldest_received_at_ms: Option<i64>,
    /// What the record of that update waits for.
    pub oldest_wait: Option<WaitReport>,
}

/// What one process knows of one target.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TargetReport {
    /// Its name.
    pub name: String,
    /// Whether attempts are made.
    pub state: TargetState,
    /// Since when it is in that state, unless that is open.
    pub since_ms: Option<i64>,
    /// By whom it is paused, and why, if it is.
    pub paused: Option<String>,
    /// When the next probe of a shut target may leave; `None` also while it is paused.
    pub probe_at_ms: Option<i64>,
    /// How the newest failed attempt failed, without record key.
    pub last_failure: Option<String>,
    /// When that was.
    pub last_failure_ms: Option<i64>,
    /// Requests need permits, since a limit is known.
    pub paced: bool,
    /// Requests per second that are allowed to this process, by the lowest limit; `None`: no limit of that kind.
    pub rate: Option<f64>,
    /// Which limit keeps requests back now.
    pub limit: Option<String>,
    /// When the next permit is there, if requests wait for one.
    pub permit_at_ms: Option<i64>,
    /// Requests that wait for a permit.
    pub waiting_for_permit: usize,
    /// Attempts that ended in the last minute.
    pub attempts_per_minute: u64,
    /// Those of them that were applied.
    pub applied_per_minute: u64,
    /// Median and 99th percentile of how long they took, in milliseconds.
    pub latency_ms: Option<(f64, f64)>,
}

/// Whether attempts are made at a target.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TargetState {
    /// They are.
    Open,
    /// It failed for all records: single probes are made.
    Shut,
    /// A person has paused it.
    Paused,
}

/// What one process knows of its ledger.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LedgerReport {
    /// "sqlite" or "postgres".
    pub kind: String,
    /// What is parked; `None`: it could not be counted in the last minute.
    pub parked: Option<ParkedReport>,
}

/// How much is parked.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ParkedReport {
    /// When it was counted.
    pub counted_at_ms: i64,
    /// Records that wait for a person.
    pub records: u64,
    /// Records that were released, and whose updates are on their way.
    pub releasing: u64,
    /// Updates of all of them.
    pub updates: u64,
    /// Records that wait for a person, by the layout and the number of the partition that parked them. Without those that have
    /// none.
    pub partitions: Vec<(u32, u16, u64)>,
}

/// A record that waits, as the owner of its partition knows it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LaneReport {
    /// Its key. Only who may read gets it.
    pub record_key: String,
    /// Its layout.
    pub layout: u32,
    /// Its partition.
    pub partition: u16,
    /// What it waits for.
    pub wait: WaitReport,
    /// The id of its oldest update here.
    pub update_id: String,
    /// The type of that update.
    pub update_type: Option<String>,
    /// The target of that update.
    pub target: String,
    /// When that update came here; `None`: its claim is not confirmed.
    pub received_at_ms: Option<i64>,
    /// When it was published, by the publisher's clock, in seconds since 1970.
    pub published_at: Option<u64>,
    /// It was parked, and a person has released it.
    pub released: bool,
    /// The broker has delivered it before.
    pub redelivered: bool,
    /// Attempts begun.
    pub attempts: u32,
    /// Updates of the record behind it that are held here.
    pub behind: usize,
    /// The latest attempts that failed, oldest first.
    pub past_attempts: Vec<AttemptReport>,
}

/// An attempt that has failed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AttemptReport {
    /// Its number, from 1.
    pub number: u32,
    /// When it began.
    pub began_ms: i64,
    /// How long it took, in milliseconds.
    pub took_ms: u64,
    /// retryable, refused, rejected, conflict or withheld.
    pub outcome: String,
    /// The HTTP status, if there was an answer.
    pub status: Option<u16>,
    /// What failed, and the first line of the answer.
    pub failure: String,
}

/// What a process answers to a question about a record.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RecordAnswer {
    /// `instance.name`.
    pub instance: String,
    /// The process.
    pub process: String,
    /// The record, where the process holds updates of it: in one partition, or in one of each layout.
    pub lanes: Vec<LaneReport>,
    /// Partitions of the process that did not say in time if they hold the record.
    #[serde(default)]
    pub unanswered: usize,
    /// The records that keep it waiting, if it waits for room in this process.
    pub holders: Vec<LaneReport>,
    /// The state of the partitions that the question names.
    pub partitions: Vec<PartitionReport>,
}

/// What a process answers to a question about a partition.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PartitionAnswer {
    /// `instance.name`.
    pub instance: String,
    /// The process.
    pub process: String,
    /// Its state; `None`: the process does not have it.
    pub partition: Option<PartitionReport>,
    /// Its records, those first whose oldest update came first.
    pub lanes: Vec<LaneReport>,
}

/// What a process answers to a question about a target.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TargetAnswer {
    /// `instance.name`.
    pub instance: String,
    /// The process.
    pub process: String,
    /// Its state; `None`: the process does not have it.
    pub target: Option<TargetReport>,
    /// What it did in the last hour, oldest first, in steps of ten seconds; steps in which nothing ended are missing.
    pub steps: Vec<StepReport>,
}

/// What a target did in ten seconds.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct StepReport {
    /// When they began.
    pub at_ms: i64,
    /// Requests that ended.
    pub attempts: u32,
    /// Those that were applied.
    pub applied: u32,
    /// Those that the target refused: for now (429), or because of who we are.
    pub refused: u32,
    /// Median and 99th percentile of how long they took, in milliseconds.
    pub latency_ms: Option<(f64, f64)>,
}

/// An answer of a process.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "about")]
pub enum Answer {
    /// To [`super::question::InspectionQuery::Status`].
    Status(ProcessReport),
    /// To [`super::question::InspectionQuery::Record`].
    Record(RecordAnswer),
    /// To [`super::question::InspectionQuery::Partition`].
    Partition(PartitionAnswer),
    /// To [`super::question::InspectionQuery::Target`].
    Target(TargetAnswer),
}

impl Answer {
    /// `instance.name` of the process that answers.
    #[must_use]
    pub fn instance(&self) -> &str {
        match self {
            Self::Status(report) => &report.instance,
            Self::Record(answer) => &answer.instance,
            Self::Partition(answer) => &answer.instance,
            Self::Target(answer) => &answer.instance,
        }
    }

    /// The process that answers.
    #[must_use]
    pub fn process(&self) -> &str {
        match self {
            Self::Status(report) => &report.process,
            Self::Record(answer) => &answer.process,
            Self::Partition(answer) => &answer.process,
            Self::Target(answer) => &answer.process,
        }
    }
}

/// How the whole is: what `lanekeeper status` and the overview show.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ClusterReport {
    /// `updates.exchange`.
    pub exchange: String,
    /// When it was made.
    pub at_ms: i64,
    /// If a person must act, and on what.
    pub verdict: Verdict,
    /// The processes that answered, by `instance.name`.
    pub processes: Vec<ProcessReport>,
    /// `instance.name` of the processes that did not answer in time, though they were alive within the last half minute.
    pub silent: Vec<String>,
    /// Why nobody, or not everybody, could be asked.
    pub fault: Option<String>,
    /// The layouts, draining ones first.
    pub layouts: Vec<LayoutReport>,
    /// Partitions of all layouts.
    pub partitions: Vec<PartitionRow>,
    /// Targets, put together from all processes.
    pub targets: Vec<TargetRow>,
    /// The ledger, as the first process that has one knows it.
    pub ledger: Option<LedgerReport>,
    /// The doors, by `instance.name`, as the dispatchers have heard them.
    #[serde(default)]
    pub doors: Vec<ReportedDoor>,
}

/// The line on top.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Verdict {
    /// A person must act.
    pub must_act: bool,
    /// What is wrong, worst first; each in one sentence that says what to do.
    pub reasons: Vec<String>,
}

/// A layout.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LayoutReport {
    /// Its number.
    pub layout: u32,
    /// Its partitions.
    pub partitions: u16,
    /// Its prefetch.
    pub prefetch: u16,
    /// It drains, since then, in seconds since 1970.
    pub draining_since: Option<u64>,
    /// Partitions of it that are drained.
    pub drained: usize,
    /// A change to it is under way: begun by whom.
    pub being_made_by: Option<String>,
}

/// A partition, put together from the broker and the answers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PartitionRow {
    /// Its layout.
    pub layout: u32,
    /// Its number.
    pub partition: u16,
    /// Updates that are ready in its queue; `None`: the queue does not exist.
    pub ready: Option<u32>,
    /// Consumers of its queue.
    pub consumers: u32,
    /// It is drained.
    pub drained: bool,
    /// Its layout is not dispatched before the one before it is drained.
    #[serde(default)]
    pub pending: bool,
    /// `instance.name` of the owner; `None`: nobody has answered that it is.
    pub owner: Option<String>,
    /// `instance.name` of the process that owns it by its last note, and has not answered.
    #[serde(default)]
    pub owner_silent: Option<String>,
    /// What the owner answered, or, without one, a process that stands by.
    pub state: Option<PartitionReport>,
    /// Parked records of it that the owner's ledger has; `None`: not known.
    pub parked: Option<u64>,
}

impl PartitionRow {
    /// What is known of it; `None` also if its owner has not answered: who stands by knows nothing of what waits.
    #[must_use]
    pub fn known_state(&self) -> Option<&PartitionReport> {
        self.state.as_ref().filter(|_| self.owner.is_some() || self.owner_silent.is_none())
    }

    /// Takes in what a process says of it. The owner's word counts, and of two owners, that of the newer tenure.
    pub fn take_state(&mut self, instance: &str, state: Option<PartitionReport>) {
        let Some(state) = state else { return };
        let rank = |state: &PartitionReport| (state.owns, state.tenure, state.attached);
        if self.state.as_ref().is_none_or(|known| rank(known) < rank(&state)) {
            self.owner = state.owns.then(|| instance.to_owned());
            self.state = Some(state);
        }
    }
}

/// A target, put together from all processes.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TargetRow {
    /// Its name.
    pub name: String,
    /// The state in which most processes have it worst: paused, then shut, then open.
    pub state: TargetState,
    /// By process: `instance.name` and what it knows.
    pub by_process: Vec<(String, TargetReport)>,
}

/// What a record waits for: what `lanekeeper why` and the record's page show.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RecordReport {
    /// Its key.
    pub record_key: String,
    /// When it was asked.
    pub at_ms: i64,
    /// What it waits for.
    pub wait: WaitReport,
    /// Its partition in each layout that can hold updates of it, as (layout, partition); empty if partitions cannot be
    /// computed.
    pub places: Vec<(u32, u16)>,
    /// `instance.name` of the owner of its partition in the current layout.
    pub owner: Option<String>,
    /// What its owners hold of it, oldest layout first.
    pub lanes: Vec<LaneReport>,
    /// The records that keep it waiting, if it waits for room.
    pub holders: Vec<LaneReport>,
    /// The rows of its partitions.
    pub partitions: Vec<PartitionRow>,
    /// What the ledger knows of it; `None`: there is no ledger, or it did not answer (see `ledger_fault`).
    pub ledger: Option<RecordLedgerReport>,
    /// Why the ledger could not be asked.
    pub ledger_fault: Option<String>,
    /// `instance.name` of the processes that did not answer in time.
    pub silent: Vec<String>,
    /// Why nobody, or not everybody, could be asked.
    pub fault: Option<String>,
}

/// What the ledger knows of a record.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RecordLedgerReport {
    /// The highest `record-version` that was applied.
    pub version: Option<i64>,
    /// The last `ETag` that the target gave.
    pub etag: Option<String>,
    /// The id of the update that was applied last, if that is known.
    pub last_id: Option<String>,
    /// A person has paused it: by whom, and why.
    pub paused: Option<String>,
    /// Since when it is paused.
    pub paused_since_ms: Option<i64>,
    /// How many of its updates are parked.
    pub parked_updates: u64,
    /// It is parked or being released; `None`: neither.
    pub parked_state: Option<String>,
    /// The id of the oldest parked update.
    pub head_id: Option<String>,
    /// Why it was last parked.
    pub reason: Option<String>,
    /// When it was last parked.
    pub since_ms: Option<i64>,
}

//! What the judge keeps of each update and each record.

use lanekeeper_core::outcome::Outcome;
use lanekeeper_core::tick::Tick;
use lanekeeper_core::update::UpdateId;

use crate::setup::Setup;

/// What is known of one update.
#[derive(Debug)]
pub struct Facts {
    pub record: Option<usize>,
    pub target: usize,
    pub id: Option<UpdateId>,
    /// Another publishing of the same update.
    pub twin: Option<usize>,
    /// It was first applied, by whomever.
    pub applied: bool,
    /// It was applied by a request of a process that lived.
    pub applied_in_life: bool,
    pub dead_lettered: bool,
    /// It left the queue.
    pub gone: bool,
    /// The tenure in which it was settled last.
    pub settled_in: u64,
    /// Some process was told that it is applied, or wrote it down as dead-lettered.
    pub resolved: bool,
    pub here: Here,
}

/// What this process did with an update in its present turn. A new turn begins when it is sent once more, known to be
/// resolved; without an id of the publisher, when it is handed over once more.
#[derive(Debug, Default)]
pub struct Here {
    pub turn: u32,
    /// The step at which its resolution was known.
    pub resolved_at: Option<u64>,
    pub sent_at: u64,
    pub attempts: u32,
    /// Failed attempts that count: its target was not shut when they ended.
    pub failures: u32,
    pub first_sent_at: Option<Tick>,
    pub ended_at: Tick,
    pub earliest: Tick,
    pub last: Option<Outcome>,
}

#[derive(Debug, Default)]
pub struct RecordFacts {
    pub updates: Vec<usize>,
    /// The attempt that is in flight, and of which update.
    pub out: Option<(u64, usize)>,
    /// The update without an id whose resolution is being written down, and of which of its turns.
    pub recording: Option<(usize, u32)>,
    /// Released updates that are here, oldest first, and the head of the lane when they came.
    pub released: Vec<usize>,
    pub head_at_release: Option<usize>,
    pub last_applied: Option<usize>,
}

impl RecordFacts {
    /// Nothing of it is under way.
    pub fn is_free(&self) -> bool {
        self.out.is_none() && self.recording.is_none()
    }
}

/// A request as it was sent.
#[derive(Clone, Debug)]
pub struct Sent {
    pub attempt: u64,
    pub number: u32,
    /// Its target was shut.
    pub probe: bool,
    pub update: usize,
    pub id: UpdateId,
    /// Counts the turns of this update in this process.
    pub turn: u32,
    /// The number of the claim.
    pub under: u64,
}

/// Of a world in which nothing has happened.
pub fn facts_of(setup: &Setup) -> (Vec<Facts>, Vec<RecordFacts>) {
    let facts = setup.publications.iter().map(|publication| Facts {
        record: publication.record,
        target: publication.target,
        id: publication.id.clone(),
        twin: publication.repeats,
        applied: false,
        applied_in_life: false,
        dead_lettered: false,
        gone: false,
        settled_in: 0,
        resolved: false,
        here: Here::default(),
    });
    let mut updates: Vec<Facts> = facts.collect();
    let mut records: Vec<RecordFacts> = setup.record_keys.iter().map(|_| RecordFacts::default()).collect();
    for (update, publication) in setup.publications.iter().enumerate() {
        if let Some(record) = publication.record {
            records[record].updates.push(update);
        }
        if let Some(first) = publication.repeats {
            updates[first].twin = Some(update);
        }
    }
    (updates, records)
}

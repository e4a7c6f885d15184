//! A model of the ledger, as dispatchers and operators of all processes see it: what was resolved, what is parked, and
//! which tenure is the highest. What is in here is on disk.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use lanekeeper_core::message::{Holder, ParkedSeq};
use lanekeeper_core::outcome::Known;
use lanekeeper_core::tick::Tick;
use lanekeeper_core::update::{IdOrigin, Update, UpdateId};

use crate::judge::fault;
use crate::ledger_setup::Contents;

/// One thing to write.
#[derive(Clone, Debug)]
pub struct LedgerWrite {
    /// Of the claim; what is older than the highest is fenced.
    pub number: u64,
    pub record: usize,
    pub update: usize,
    pub id: UpdateId,
    pub what: WriteKind,
}

#[derive(Clone, Debug)]
pub enum WriteKind {
    Applied {
        parked: Option<ParkedSeq>,
    },
    Resolved {
        parked: Option<ParkedSeq>,
    },
    Park {
        update: Arc<Update>,
        reused: bool,
        only_behind: bool,
    },
    /// `of_pause`: since the record is paused.
    Repark {
        seq: ParkedSeq,
        reused: bool,
        of_pause: bool,
    },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum WriteResult {
    Done,
    NotParked,
    Fenced,
}

#[derive(Debug)]
pub struct ParkedRecord {
    pub releasing: bool,
    /// It is parked since a person has paused the record: whoever resumes it releases it.
    pub of_pause: bool,
    /// Oldest first.
    pub updates: VecDeque<ParkedUpdate>,
}

#[derive(Clone, Debug)]
pub struct ParkedUpdate {
    pub seq: ParkedSeq,
    pub name: usize,
    pub update: Arc<Update>,
    /// Its id belongs to another: it can only be discarded.
    pub reused: bool,
}

#[derive(Debug)]
pub struct Ledger {
    contents: Contents,
    highest: u64,
    /// By id: the record, and what the update says.
    resolved: HashMap<(usize, UpdateId), usize>,
    /// Of each record: the highest version that was applied.
    versions: Vec<Option<i64>>,
    parked: Vec<Option<ParkedRecord>>,
    /// Of each record: since when a person has it paused.
    paused: Vec<Option<Tick>>,
    seqs: i64,
    /// Of each publication: its turn has ended.
    done: Vec<bool>,
}

impl Ledger {
    pub fn new(records: usize, contents: Contents) -> Self {
        Self {
            highest: 0,
            resolved: HashMap::new(),
            versions: vec![None; records],
            parked: (0..records).map(|_| None).collect(),
            paused: vec![None; records],
            seqs: 0,
            done: vec![false; contents.bodies.len()],
            contents,
        }
    }

    pub fn claim(&mut self, number: u64) -> WriteResult {
        if number < self.highest {
            return WriteResult::Fenced;
        }
        self.highest = number;
        WriteResult::Done
    }

    /// What is known of an update that is about to be sent.
    pub fn lookup(&self, record: usize, name: usize, id: &UpdateId, holder: Holder) -> Option<Known> {
        match self.resolved.get(&(record, id.clone())) {
            Some(body) if *body == self.contents.bodies[name] => return Some(Known::Resolved),
            Some(_) => return Some(Known::IdReused),
            None => {}
        }
        if self.is_paused(record) {
            return Some(Known::RecordPaused);
        }
        if self.parked[record].is_some() && matches!(holder, Holder::Broker(_)) {
            return Some(Known::RecordParked);
        }
        let version = self.contents.versions[name];
        (version.is_some() && self.versions[record] >= version).then_some(Known::Superseded)
    }

    pub fn write(&mut self, entry: &LedgerWrite) -> WriteResult {
        if self.claim(entry.number) == WriteResult::Fenced {
            return WriteResult::Fenced;
        }
        let LedgerWrite { record, update: name, id, what, .. } = entry;
        match what {
            WriteKind::Applied { parked } => {
                self.versions[*record] = self.versions[*record].max(self.contents.versions[*name]);
                self.resolve(*record, *name, id);
                self.leave(*record, *parked);
            }
            WriteKind::Resolved { parked } => {
                self.resolve(*record, *name, id);
                self.leave(*record, *parked);
            }
            WriteKind::Park { update, reused, only_behind } => {
                return self.park(*record, *name, (update, *reused), *only_behind);
            }
            WriteKind::Repark { of_pause: true, .. } if !self.is_paused(*record) => {
                return WriteResult::NotParked;
            }
            WriteKind::Repark { seq, reused, of_pause } => {
                if let Some(parked) = &mut self.parked[*record]
                    && let Some(head) = parked.updates.iter_mut().find(|parked| parked.seq == *seq)
                {
                    head.reused = *reused;
                    (parked.releasing, parked.of_pause) = (false, *of_pause);
                }
            }
        }
        WriteResult::Done
    }

    fn resolve(&mut self, record: usize, name: usize, id: &UpdateId) {
        self.done[name] = true;
        if id.origin() == IdOrigin::Publisher {
            self.resolved.entry((record, id.clone())).or_insert(self.contents.bodies[name]);
        }
    }

    fn leave(&mut self, record: usize, seq: Option<ParkedSeq>) {
        let (Some(seq), Some(parked)) = (seq, &mut self.parked[record]) else { return };
        parked.updates.retain(|parked| parked.seq != seq);
        if parked.updates.is_empty() {
            self.parked[record] = None;
        }
    }

    fn park(
        &mut self,
        record: usize,
        name: usize,
        (update, reused): (&Arc<Update>, bool),
        only_behind: bool,
    ) -> WriteResult {
        let of_pause = only_behind && self.is_paused(record);
        if only_behind && self.parked[record].is_none() && !of_pause {
            return WriteResult::NotParked;
        }
        let bodies = self.contents.bodies[name];
        let same = |parked: &ParkedUpdate| {
            parked.update.id == update.id && self.contents.bodies[parked.name] == bodies
        };
        let there = self.parked[record].iter().flat_map(|parked| &parked.updates).any(same);
        if there || self.resolved.get(&(record, update.id.clone())) == Some(&bodies) {
            return WriteResult::Done;
        }
        self.seqs += 1;
        let parked = ParkedUpdate { seq: ParkedSeq(self.seqs), name, update: Arc::clone(update), reused };
        self.parked[record]
            .get_or_insert_with(|| ParkedRecord { releasing: false, of_pause, updates: VecDeque::new() })
            .updates
            .push_back(parked);
        WriteResult::Done
    }

    /// An operator lets the parked updates of a record go out. Whether there are any that wait for it.
    pub fn release(&mut self, record: usize) -> bool {
        if self.is_paused(record) {
            return false;
        }
        match &mut self.parked[record] {
            Some(parked) => !std::mem::replace(&mut parked.releasing, true),
            None => false,
        }
    }

    pub fn is_paused(&self, record: usize) -> bool {
        self.paused[record].is_some()
    }

    /// An operator pauses a record. A release that is under way ends with its next head: one may be in flight.
    pub fn pause(&mut self, record: usize, now: Tick) {
        self.paused[record] = Some(now);
    }

    /// What was parked for the pause goes out.
    pub fn resume(&mut self, record: usize) {
        self.paused[record] = None;
        if let Some(parked) = self.parked[record].as_mut().filter(|parked| parked.of_pause) {
            parked.releasing = true;
        }
    }

    /// An operator drops the first parked updates of a record; not where they may be on their way. How many.
    pub fn discard(&mut self, record: usize, first: usize) -> usize {
        let Some(parked) = self.parked[record].as_mut().filter(|parked| !parked.releasing) else { return 0 };
        let dropped: Vec<ParkedUpdate> = parked.updates.drain(..first.min(parked.updates.len())).collect();
        if parked.updates.is_empty() {
            self.parked[record] = None;
        }
        for ParkedUpdate { name, update, .. } in &dropped {
            self.resolve(record, *name, &update.id);
        }
        dropped.len()
    }

    /// Records whose parked updates are to go out.
    pub fn releasing(&self) -> Vec<usize> {
        let releasing = |record: &usize| self.parked[*record].as_ref().is_some_and(|parked| parked.releasing);
        (0..self.parked.len()).filter(releasing).collect()
    }

    pub fn parked(&self, record: usize) -> Option<&ParkedRecord> {
        self.parked[record].as_ref()
    }

    /// The oldest parked updates of a record.
    pub fn oldest(&self, record: usize, most: usize) -> Vec<ParkedUpdate> {
        self.parked[record].iter().flat_map(|parked| &parked.updates).take(most).cloned().collect()
    }

    /// Its turn has ended, or that of another publishing of it.
    pub fn is_done(&self, name: usize) -> bool {
        self.same(name).any(|name| self.done[name])
    }

    /// It waits for a person or for its turn, or another publishing of it does.
    pub fn is_parked(&self, name: usize) -> bool {
        let parked = || self.parked.iter().flatten().flat_map(|record| &record.updates);
        self.same(name).any(|name| parked().any(|parked| parked.name == name))
    }

    /// All publishings of an update.
    fn same(&self, name: usize) -> impl Iterator<Item = usize> {
        let bodies = &self.contents.bodies;
        (0..bodies.len()).filter(move |other| bodies[*other] == bodies[name])
    }

    /// Nothing waits.
    pub fn is_empty(&self) -> bool {
        self.parked.iter().all(Option::is_none)
    }

    /// What an attempt of the present owner must find, told from what is on disk.
    pub fn judge_sending(
        &self,
        earlier: &[usize],
        name: usize,
        record: usize,
        (holder, asked_at): (Holder, Tick),
        known: bool,
    ) {
        if self.paused[record].is_some_and(|since| since < asked_at) {
            fault!("pause", "#{name} was sent, and its record was paused when the ledger was asked");
        }
        if let Some(before) = earlier.iter().find(|before| !self.is_done(**before)) {
            fault!("order, I2", "#{name} was sent, and the turn of #{before} of its record is not over");
        }
        if known && self.is_done(name) {
            fault!("exactly once", "#{name} was sent again, though the ledger knows it");
        }
        let Holder::Ledger(seq) = holder else { return };
        let parked = self.parked[record].as_ref();
        if parked.and_then(|parked| parked.updates.front()).is_none_or(|head| head.seq != seq) {
            fault!("order, I2", "#{name} was sent as a parked update, and is not the head of its record");
        }
        if parked.is_some_and(|parked| !parked.releasing) {
            fault!("release", "#{name} was sent, and nobody has released it");
        }
    }
}

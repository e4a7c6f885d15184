//! What must hold while layouts change, judged by what the target sees and where publishes go.

use std::collections::{BTreeMap, BTreeSet};

use lanekeeper_core::layout::LayoutNumber;
use lanekeeper_core::message::TenureNumber;

use super::broker::PartitionKey;

/// What is known of each update.
#[derive(Clone, Debug, Default)]
struct UpdateFacts {
    record: usize,
    applied: bool,
    /// Somebody has put it into the queue of another partition: it is dead-lettered.
    misplaced: bool,
    /// In which queues it is or was.
    partition_keys: BTreeSet<PartitionKey>,
    in_flight: u32,
}

#[derive(Debug, Default)]
pub struct Judge {
    updates: Vec<UpdateFacts>,
    numbers: BTreeSet<LayoutNumber>,
    /// The newest number that a request of each record carried.
    tenures: BTreeMap<usize, TenureNumber>,
    pub repeated: u32,
}

macro_rules! fault {
    ($rule:literal, $($words:tt)*) => {
        panic!("judge ({}): {}", $rule, format!($($words)*))
    };
}
pub(super) use fault;

impl Judge {
    pub fn published(&mut self, update: usize, record: usize, partition_keys: &[PartitionKey]) {
        assert_eq!(update, self.updates.len(), "updates are published in the order of their names");
        if partition_keys.len() != 1 {
            fault!("one way", "#{update} goes to {partition_keys:?}");
        }
        let partition_keys = partition_keys.iter().copied().collect();
        self.updates.push(UpdateFacts { record, partition_keys, ..UpdateFacts::default() });
    }

    /// What was published last goes into the queue of another partition than its record's.
    pub fn misplaced(&mut self, update: usize) {
        self.updates[update].misplaced = true;
    }

    pub fn number_given(&mut self, number: LayoutNumber) {
        if !self.numbers.insert(number) {
            fault!("numbers", "layout {} is made twice", number.0);
        }
    }

    fn of_record(&self, record: usize) -> impl Iterator<Item = (usize, &UpdateFacts)> {
        self.updates.iter().enumerate().filter(move |(_, known)| known.record == record && !known.misplaced)
    }

    /// An attempt leaves.
    pub fn attempted(&mut self, update: usize, partition_key: PartitionKey, tenure: Option<TenureNumber>) {
        let UpdateFacts { record, partition_keys, misplaced, .. } = &self.updates[update];
        if *misplaced {
            fault!("place, I13", "#{update} is attempted from {partition_key:?}, where somebody has put it");
        }
        if !partition_keys.contains(&partition_key) {
            fault!("place", "#{update} is attempted from {partition_key:?}, it was in {partition_keys:?}");
        }
        let record = *record;
        if let Some((older, _)) =
            self.of_record(record).find(|(other, known)| *other < update && !known.applied)
        {
            fault!("order", "#{update} is attempted before #{older} is applied");
        }
        if let Some((other, _)) = self.of_record(record).find(|(_, known)| known.in_flight > 0) {
            fault!("one at a time", "#{update} is attempted while #{other} is in flight");
        }
        let newer = self.of_record(record).find(|(other, known)| {
            *other > update
                && known.applied
                && known.partition_keys.iter().all(|(layout, _)| *layout != partition_key.0)
        });
        if let Some((newer, _)) = newer {
            fault!("drained", "#{update} comes again after #{newer} of a later layout was applied");
        }
        let tenure = tenure.expect("nothing keeps claims from being published here");
        if let Some(before) = self.tenures.insert(record, tenure).filter(|before| *before > tenure) {
            fault!("fence, I10", "#{update} is attempted under {tenure:?} after {before:?}");
        }
        self.repeated += u32::from(self.updates[update].applied);
        self.updates[update].in_flight += 1;
    }

    pub fn ended(&mut self, update: usize, applied: bool) {
        self.updates[update].in_flight -= 1;
        self.updates[update].applied |= applied;
    }

    /// Its process died: the request never arrives.
    pub fn aborted(&mut self, update: usize) {
        self.updates[update].in_flight -= 1;
    }

    pub fn settled(&self, update: usize) {
        if !self.updates[update].applied && !self.updates[update].misplaced {
            fault!("settle", "#{update} is settled and was not applied");
        }
    }

    pub fn lost(&self, update: usize) {
        let record = self.updates[update].record;
        fault!("lost", "#{update} of record {record} has no queue to arrive in");
    }

    pub fn at_rest(&self) {
        if let Some(update) = self.updates.iter().position(|known| !known.applied && !known.misplaced) {
            fault!("liveness", "#{update} is never applied");
        }
    }
}

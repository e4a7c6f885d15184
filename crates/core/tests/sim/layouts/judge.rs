//! What must hold while layouts change, judged by what the target sees and where publishes go.

use std::collections::{BTreeMap, BTreeSet};

use lanekeeper_core::layout::LayoutNumber;
use lanekeeper_core::message::TenureNumber;

use super::broker::Seat;

/// What is known of each update.
#[derive(Clone, Debug, Default)]
struct Known {
    record: usize,
    applied: bool,
    /// In which queues it is or was.
    seats: BTreeSet<Seat>,
    in_flight: u32,
}

#[derive(Debug, Default)]
pub struct Judge {
    updates: Vec<Known>,
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
    pub fn published(&mut self, update: usize, record: usize, seats: &[Seat]) {
        assert_eq!(update, self.updates.len(), "updates are published in the order of their names");
        if seats.len() != 1 {
            fault!("one way", "#{update} goes to {seats:?}");
        }
        let seats = seats.iter().copied().collect();
        self.updates.push(Known { record, seats, ..Known::default() });
    }

    pub fn number_given(&mut self, number: LayoutNumber) {
        if !self.numbers.insert(number) {
            fault!("numbers", "layout {} is made twice", number.0);
        }
    }

    fn of_record(&self, record: usize) -> impl Iterator<Item = (usize, &Known)> {
        self.updates.iter().enumerate().filter(move |(_, known)| known.record == record)
    }

    /// An attempt leaves.
    pub fn attempted(&mut self, update: usize, seat: Seat, tenure: Option<TenureNumber>) {
        let Known { record, seats, .. } = &self.updates[update];
        if !seats.contains(&seat) {
            fault!("place", "#{update} is attempted from {seat:?}, it was in {seats:?}");
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
            *other > update && known.applied && known.seats.iter().all(|(layout, _)| *layout != seat.0)
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
    pub fn cut(&mut self, update: usize) {
        self.updates[update].in_flight -= 1;
    }

    pub fn settled(&self, update: usize) {
        if !self.updates[update].applied {
            fault!("settle", "#{update} is settled and was not applied");
        }
    }

    pub fn lost(&self, update: usize) {
        let record = self.updates[update].record;
        fault!("lost", "#{update} of record {record} has no queue to arrive in");
    }

    pub fn at_rest(&self) {
        if let Some(update) = self.updates.iter().position(|known| !known.applied) {
            fault!("liveness", "#{update} is never applied");
        }
    }
}

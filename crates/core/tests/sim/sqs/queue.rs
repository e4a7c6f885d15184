//! A model of an SQS FIFO queue, as AWS describes it. A message in flight keeps back what stands behind it in its message
//! group; in `strict` worlds the whole group, as some read the documentation.

use std::collections::VecDeque;
use std::time::Duration;

use lanekeeper_core::message_groups::EntryAnswer;
use lanekeeper_core::tick::Tick;

use crate::rng::Rng;

#[derive(Debug)]
struct Stored {
    update: usize,
    visible_from: Tick,
    /// Of the latest delivery; 0: there was none.
    receipt: u64,
    receives: u32,
}

/// A message as it is handed over.
#[derive(Clone, Copy, Debug)]
pub struct Handed {
    pub update: usize,
    pub receipt: u64,
    /// `ApproximateReceiveCount`.
    pub receives: u32,
}

#[derive(Debug)]
pub struct Queue {
    strict: bool,
    groups: Vec<VecDeque<Stored>>,
    receipts: u64,
    /// Receipt handles of messages that were deleted by them.
    deleted: Vec<u64>,
}

impl Queue {
    pub fn new(groups: usize, strict: bool) -> Self {
        Self {
            strict,
            groups: (0..groups).map(|_| VecDeque::new()).collect(),
            receipts: 0,
            deleted: Vec::new(),
        }
    }

    pub fn publish(&mut self, group: usize, update: usize) {
        self.groups[group].push_back(Stored { update, visible_from: Tick::ZERO, receipt: 0, receives: 0 });
    }

    /// Fills up from one group before it goes to the next.
    pub fn receive(&mut self, now: Tick, most: usize, timeout: Duration, rng: &mut Rng) -> Vec<Handed> {
        let first = rng.index(self.groups.len());
        let mut handed = Vec::new();
        for place in 0..self.groups.len() {
            let place = (first + place) % self.groups.len();
            let group = &mut self.groups[place];
            if self.strict && group.iter().any(|stored| stored.visible_from > now) {
                continue;
            }
            for stored in group.iter_mut().take_while(|stored| stored.visible_from <= now) {
                if handed.len() == most {
                    return handed;
                }
                self.receipts += 1;
                stored.receipt = self.receipts;
                stored.receives += 1;
                stored.visible_from = now.after(timeout);
                let Stored { update, receipt, receives, .. } = *stored;
                handed.push(Handed { update, receipt, receives });
            }
        }
        handed
    }

    /// Where the message is that is in flight by this receipt handle.
    fn in_flight(&self, now: Tick, receipt: u64) -> Option<(usize, usize)> {
        let of_group = |group: &VecDeque<Stored>| {
            group.iter().position(|stored| stored.receipt == receipt && stored.visible_from > now)
        };
        self.groups.iter().enumerate().find_map(|(group, stored)| Some((group, of_group(stored)?)))
    }

    /// Returns the update that is gone, if it was there.
    pub fn delete(&mut self, now: Tick, receipt: u64) -> (EntryAnswer, Option<usize>) {
        if self.deleted.contains(&receipt) {
            return (EntryAnswer::Done, None);
        }
        let Some((group, place)) = self.in_flight(now, receipt) else {
            return (EntryAnswer::Refused, None);
        };
        self.deleted.push(receipt);
        let gone = self.groups[group].remove(place).expect("it was found there");
        (EntryAnswer::Done, Some(gone.update))
    }

    pub fn change_visibility(&mut self, now: Tick, receipt: u64, timeout: Duration) -> EntryAnswer {
        let Some((group, place)) = self.in_flight(now, receipt) else {
            return EntryAnswer::Refused;
        };
        self.groups[group][place].visible_from = now.after(timeout);
        EntryAnswer::Done
    }
}

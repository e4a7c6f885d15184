//! A person asks what the records of all partitions wait for, at random moments.

use std::collections::BTreeMap;

use lanekeeper_core::message::{Holder, Tenure, TenureNumber};
use lanekeeper_core::phash2::partition_of;
use lanekeeper_core::previous_layout::PreviousLayout;
use lanekeeper_core::why::WaitCause;

use super::broker::PartitionKey;
use super::driver::{Driver, OpenTenure};
use super::{WAITS, World};
use crate::waits::{Attempts, Known, MaySend, UnderWay, judge_lists};

/// Of a thousand moments, in so many somebody asks.
const ASKED: u64 = 50;

/// What a driver was told and has done, as far as its records wait for that.
#[derive(Debug)]
pub struct Waits {
    /// What is not drained of the layout before.
    pub previous: PreviousLayout,
    pub attempts: Attempts,
    /// Resolutions that are being written down.
    writing: Vec<((Tenure, Holder), usize)>,
}

impl Waits {
    pub fn new(previous: PreviousLayout) -> Self {
        Self { previous, attempts: Attempts::new(WAITS), writing: Vec::new() }
    }

    pub fn writes(&mut self, writing: (Tenure, Holder), update: usize) {
        self.writing.push((writing, update));
    }

    pub fn written(&mut self, writing: (Tenure, Holder)) {
        self.writing.retain(|(of, _)| *of != writing);
    }

    pub fn claimed(&mut self, rival_claim: Option<TenureNumber>) {
        if self.attempts.claimed(rival_claim) {
            self.writing.clear();
        }
    }
}

impl World {
    /// The question changes nothing.
    pub fn ask_why(&mut self) {
        if !self.chance_of_questions.chance(ASKED) {
            return;
        }
        for (process, of) in &self.processes {
            for (partition_key, driver) in &of.drivers {
                let causes = self.ask_driver(*process, *partition_key, driver);
                self.causes.count_all(&causes);
            }
        }
    }

    fn ask_driver(&self, process: u32, partition_key: PartitionKey, driver: &Driver) -> Vec<WaitCause> {
        let now = self.now;
        let ask = |record: usize| driver.partition.explain(now, |key| *key == self.keys[record]);
        let record_of = |update: usize| self.publications[update].record;
        let none = BTreeMap::new();
        let held = driver.tenure.as_ref().map_or(&none, |open| &open.held);
        let taken_in = held.values().filter(|held| held.taken_in).map(|held| held.update);
        let first = taken_in.clone().next().and_then(|update| ask(record_of(update)));
        let mut said = Vec::new();
        for record in 0..self.keys.len() {
            let explained = ask(record);
            let updates: Vec<usize> =
                held.values().map(|held| held.update).filter(|update| record_of(*update) == record).collect();
            let (Some(head), Some(open)) = (updates.first(), &driver.tenure) else {
                assert_eq!(
                    explained, None,
                    "judge (why): P{process} {partition_key:?} holds nothing of {record}"
                );
                continue;
            };
            let place = taken_in.clone().position(|update| update == *head);
            let known = Known {
                name: format!("P{process} {partition_key:?}, record {record}"),
                updates: updates.len(),
                in_lane: place.is_some(),
                before: if self.in_flight_max == 1 { place.unwrap_or_default() } else { 0 },
                ..self.known(driver, open, *head)
            };
            known.judge(now, explained.as_ref(), first.as_ref().map(|first| &first.cause));
            let oldest = held.values().position(|held| held.update == *head).unwrap_or_default();
            said.extend(explained.map(|explained| (oldest, explained)));
        }
        let causes = said.iter().map(|(_, explained)| explained.cause.clone()).collect();
        judge_lists(&format!("P{process} {partition_key:?}"), &driver.partition, now, said);
        causes
    }

    fn known(&self, driver: &Driver, open: &OpenTenure, head: usize) -> Known {
        let waits = &driver.waits;
        let record = self.publications[head].record;
        let of_record = |update: &usize| self.publications[*update].record == record;
        let out = driver.in_flight.values().map(|(update, _)| *update).find(of_record);
        let written = waits.writing.iter().find(|(_, update)| of_record(update));
        let last = waits.attempts.last(head);
        let previous = partition_of(self.keys[record].as_str().as_bytes(), waits.previous.partitions.max(1));
        let may_send = match driver.leaving {
            Some(_) => MaySend::Stopping,
            None if open.claimed => MaySend::Yes,
            None => MaySend::Unclaimed,
        };
        Known {
            name: String::new(),
            head,
            updates: 0,
            in_lane: true,
            before: 0,
            tenure: open.tenure,
            may_send,
            out: out.map(|update| UnderWay {
                of_head: update == head,
                in_this_tenure: last.is_some_and(|last| last.tenure == open.tenure),
            }),
            written: written.map(|((tenure, _), update)| UnderWay {
                of_head: *update == head,
                in_this_tenure: *tenure == open.tenure,
            }),
            previous: waits.previous.undrained.contains(&previous).then_some(previous.0),
            last,
            is_due: driver.partition.next_deadline().is_some_and(|due| due <= self.now),
            may_be_forgotten: waits.attempts.has_lapsed(),
            take_over: None,
            paced: false,
            in_flight: driver.in_flight.len(),
            in_flight_max: self.in_flight_max,
        }
    }
}

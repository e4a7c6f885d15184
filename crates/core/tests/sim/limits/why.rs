//! A person asks what all records of a partition wait for, at random moments.

use std::collections::BTreeMap;
use std::time::Duration;

use lanekeeper_core::outcome::Outcome;
use lanekeeper_core::why::WaitCause;

use super::{Lanes, RETRY_AFTER_MAX, WAIT_FIRST, WAIT_MAX, World};
use crate::rng::Rng;
use crate::waits::{AttemptEnd, CausesMet, Known, LastAttempt, MaySend, UnderWay, judge_lists, judge_order};

/// Of a thousand moments, in so many somebody asks.
const ASKED: u64 = 50;

#[derive(Debug)]
pub struct Questions {
    /// They take no chance from the world.
    rng: Rng,
    pub met: CausesMet,
    /// Of each update: its latest attempt, and how many were answered 429 or 503 and count.
    attempts: Vec<(Option<LastAttempt>, u32)>,
}

impl Questions {
    pub fn new(seed: u64, updates: usize) -> Self {
        let attempts = vec![(None, 0); updates];
        Self { rng: Rng::new(seed ^ 0x0077_6879), met: CausesMet::default(), attempts }
    }
}

impl World {
    /// An attempt left.
    pub fn note_attempt(&mut self, partition: usize, update: usize, number: u32) {
        let tenure = self.partitions[partition].tenure.expect("requests leave within a tenure");
        let last = LastAttempt { number, began: self.now, tenure, ended: None };
        self.questions.attempts[update].0 = Some(last);
    }

    /// It ended so, as the partition was told.
    pub fn note_end(&mut self, update: usize, outcome: &Outcome) {
        let (last, failures) = &mut self.questions.attempts[update];
        let (wait, asked) = match outcome {
            Outcome::Retryable { retry_after, .. } => {
                *failures += 1;
                let wait = if *failures == 1 { WAIT_FIRST } else { WAIT_MAX };
                (wait, retry_after.unwrap_or_default().min(RETRY_AFTER_MAX))
            }
            Outcome::Refused(_) | Outcome::RefusedAlone { .. } => (WAIT_MAX, Duration::ZERO),
            _ => (Duration::ZERO, Duration::ZERO),
        };
        let refused = matches!(outcome, Outcome::Refused(_) | Outcome::RefusedAlone { .. });
        let (from, until) = (self.now.after(wait), self.now.after(wait.max(asked)));
        last.as_mut().expect("it was sent").ended = Some(AttemptEnd { refused, from, until });
    }

    /// The question changes nothing.
    pub fn ask_why(&mut self) {
        for partition in 0..self.partitions.len() {
            if self.questions.rng.chance(ASKED) {
                self.ask_why_of(partition);
            }
        }
    }

    fn ask_why_of(&mut self, partition: usize) {
        let (now, lanes) = (self.now, &self.partitions[partition]);
        // Of each record, oldest first: the place of its oldest update, and its updates.
        let mut held: BTreeMap<u64, (usize, Vec<usize>)> = BTreeMap::new();
        for (place, update) in lanes.held.values().enumerate() {
            held.entry(self.judge.record_of(*update)).or_insert((place, Vec::new())).1.push(*update);
        }
        let ask = |record: u64| {
            let key = format!("r{record}");
            lanes.core.explain(now, |of| of.as_str() == key)
        };
        let oldest = lanes.held.values().next().and_then(|update| ask(self.judge.record_of(*update)));
        let (mut limited, mut in_room, mut said) = (Vec::new(), Vec::new(), Vec::new());
        for record in 0..self.records {
            let explained = ask(record);
            let Some((place, updates)) = held.get(&record) else {
                assert_eq!(explained, None, "judge (why): p{partition} holds nothing of r{record}");
                continue;
            };
            let known = self.known(lanes, (partition, record), *place, updates);
            known.judge(now, explained.as_ref(), oldest.as_ref().map(|oldest| &oldest.cause));
            let Some(explained) = explained else { continue };
            self.questions.met.count_all([&explained.cause]);
            let untouched = self.questions.attempts[updates[0]].0.is_none();
            match explained.cause {
                WaitCause::Limit { before } => limited.push((before, untouched.then_some(*place))),
                WaitCause::Room { before, .. } => in_room.push((before, untouched.then_some(*place))),
                _ => {}
            }
            said.push((*place, explained));
        }
        judge_lists(&format!("p{partition}"), &lanes.core, now, said);
        // Each waits for a permit that was asked for.
        let (asked, waits) = (lanes.asked, limited.len());
        let is_one_lane = lanes.limits.in_flight_max.get() == 1;
        assert!(
            waits == asked,
            "judge (why): {waits} records of p{partition} are said to wait for a permit, and {asked} are asked for"
        );
        for (of, mut said) in [("a permit", limited), ("room", in_room)] {
            said.sort_unstable();
            let name = format!("p{partition}, for {of}");
            judge_order(&name, said.iter().map(|(before, _)| *before).collect());
            let came: Vec<usize> = said.iter().filter_map(|(_, place)| *place).collect();
            assert!(
                is_one_lane || came.is_sorted(),
                "judge (why): {name}: they came in this order: {came:?}, {said:?}"
            );
        }
    }

    fn known(
        &self,
        lanes: &Lanes,
        (partition, record): (usize, u64),
        place: usize,
        updates: &[usize],
    ) -> Known {
        let (head, tenure) = (updates[0], lanes.tenure.expect("updates are held within a tenure"));
        let (last, _) = self.questions.attempts[head];
        let out = last
            .filter(|last| last.ended.is_none())
            .map(|last| UnderWay { of_head: true, in_this_tenure: last.tenure == tenure });
        let in_flight_max = lanes.limits.in_flight_max.get();
        Known {
            name: format!("p{partition}, r{record}"),
            head,
            updates: updates.len(),
            in_lane: true,
            before: if in_flight_max == 1 { place } else { 0 },
            tenure,
            may_send: MaySend::Yes,
            out,
            written: None,
            previous: None,
            last,
            is_due: false,
            may_be_forgotten: false,
            take_over: None,
            paced: lanes.paced,
            in_flight: lanes.out,
            in_flight_max,
        }
    }
}

//! Who is next (I9): lanes that are certainly ready, in the order in which they became so.
//!
//! After a lost channel the judge cannot know what the dispatcher remembers of a returned update, so a lane counts
//! again only when it holds a new one, or its head was sent once more.

use std::collections::{BTreeMap, VecDeque};

use lanekeeper::core::tick::Tick;

use crate::judge::fault;

#[derive(Debug)]
pub struct Fairness {
    lanes: Vec<Lane>,
    /// Whether the judge sees each effect as soon as it is decided.
    pub exact: bool,
}

#[derive(Debug, Default)]
struct Lane {
    /// Received and not yet settled; and whether it was certainly never here before.
    held: VecDeque<(usize, bool)>,
    head: Head,
}

#[derive(Clone, Copy, Debug, Default, PartialEq)]
enum Head {
    /// Not known, or not ready.
    #[default]
    Other,
    /// Since then: step, and deadline where it had one.
    Ready(u64, Tick),
    /// It was ready so, and was next while its target was shut.
    HeldBack(u64, Tick),
    Waits(Tick),
}

impl Fairness {
    pub fn new(records: usize, exact: bool) -> Self {
        Self { lanes: (0..records).map(|_| Lane::default()).collect(), exact }
    }

    pub fn forget(&mut self) {
        self.lanes.iter_mut().for_each(|lane| *lane = Lane::default());
    }

    /// `free`: no attempt of an earlier tenure bars the record.
    pub fn received(&mut self, record: usize, update: usize, new: bool, free: bool, step: u64) {
        let lane = &mut self.lanes[record];
        lane.held.push_back((update, new && self.exact));
        if lane.held.len() == 1 {
            lane.enter_head(free, step);
        }
    }

    pub fn settled(&mut self, record: usize, update: usize, free: bool, step: u64) {
        let lane = &mut self.lanes[record];
        let head = lane.held.pop_front().map(|(head, _)| head);
        if head != Some(update) {
            fault!("order, I2", "#{update} was settled before {head:?}, which came earlier");
        }
        lane.enter_head(free, step);
    }

    /// Its head was sent and failed: ready at the first waking from then on, if that is certain.
    pub fn waits(&mut self, record: usize, update: usize, until: Option<Tick>) {
        let lane = &mut self.lanes[record];
        let is_head = lane.held.front().is_some_and(|(head, _)| *head == update);
        lane.head = match until {
            Some(until) if is_head && self.exact => Head::Waits(until),
            _ => Head::Other,
        };
    }

    pub fn resolves(&mut self, record: usize, update: usize) {
        if self.lanes[record].held.front().is_some_and(|(head, _)| *head == update) {
            self.lanes[record].head = Head::Other;
        }
    }

    pub fn woke(&mut self, now: Tick, step: u64) {
        for lane in &mut self.lanes {
            if let Head::Waits(until) = lane.head
                && until <= now
            {
                lane.head = Head::Ready(step, until);
            }
        }
    }

    /// `granted_at`: of a probe, the step at which it was granted. `of`: whether another update has the same target, and
    /// whether its target is shut.
    pub fn sent(
        &mut self,
        record: usize,
        update: usize,
        granted_at: Option<u64>,
        of: impl Fn(usize) -> (bool, bool),
    ) {
        let head = self.lanes[record].head_update();
        if head != Some(update) {
            fault!("order, I2", "#{update} was sent, and {head:?} is the head of its lane");
        }
        let turn = match (granted_at, self.lanes[record].head) {
            // It came to the end of what was ready then: all before it had their turn.
            (Some(step), head) => {
                if let Head::Ready(step, until) | Head::HeldBack(step, until) = head {
                    self.is_first_held_back((step, until), |other| of(other).0);
                }
                Some((step, Tick::ZERO))
            }
            (None, Head::Ready(step, until)) => Some((step, until)),
            (None, Head::HeldBack(..) | Head::Other | Head::Waits(_)) => None,
        };
        for lane in &mut self.lanes {
            let (Head::Ready(step, until), Some(other)) = (lane.head, lane.head_update()) else { continue };
            match (turn, of(other)) {
                (Some(turn), (_, true)) if (step, until) < turn => lane.head = Head::HeldBack(step, until),
                (None, (_, true)) => lane.head = Head::Other,
                (Some(turn), (_, false)) if (step, until) < turn => {
                    fault!("fair, I9", "#{update} was sent before #{other}, which was ready earlier");
                }
                (Some(_) | None, _) => {}
            }
        }
        self.lanes[record].head = Head::Other;
    }

    /// A probe is of the lane that has waited for its target for longest.
    fn is_first_held_back(&self, turn: (u64, Tick), same_target: impl Fn(usize) -> bool) {
        for lane in &self.lanes {
            if let (Head::HeldBack(step, until), Some(other)) = (lane.head, lane.head_update())
                && (step, until) < turn
                && same_target(other)
            {
                fault!(
                    "fair, I9",
                    "a probe was made before #{other}, which has waited for its target for longer"
                );
            }
        }
    }

    /// A permit is free: lanes that are ready and whose target is shut have been found to be so.
    pub fn hold_back(&mut self, is_shut: impl Fn(usize) -> bool) {
        for lane in &mut self.lanes {
            if let (Head::Ready(step, until), Some(update)) = (lane.head, lane.head_update())
                && is_shut(update)
            {
                lane.head = Head::HeldBack(step, until);
            }
        }
    }

    /// Lanes that were held back are ready anew, in the order in which they were before.
    pub fn opened(&mut self, step: u64, is_of_target: impl Fn(usize) -> bool) {
        let mut held_back: BTreeMap<(u64, Tick), Vec<&mut Lane>> = BTreeMap::new();
        for lane in &mut self.lanes {
            if let (Head::HeldBack(step, until), Some(update)) = (lane.head, lane.head_update())
                && is_of_target(update)
            {
                held_back.entry((step, until)).or_default().push(lane);
            }
        }
        for (lanes, place) in held_back.into_values().zip(0..) {
            for lane in lanes {
                lane.head = Head::Ready(step, Tick::from_micros(place));
            }
        }
    }

    /// An update that is certainly ready, if there is one.
    pub fn ready(&self) -> Option<usize> {
        let ready = self.lanes.iter().find(|lane| matches!(lane.head, Head::Ready(..)))?;
        ready.held.front().map(|(head, _)| *head)
    }
}

impl Lane {
    fn head_update(&self) -> Option<usize> {
        self.held.front().map(|(head, _)| *head)
    }

    fn enter_head(&mut self, free: bool, step: u64) {
        self.head = match self.held.front() {
            Some((_, true)) if free => Head::Ready(step, Tick::ZERO),
            _ => Head::Other,
        };
    }
}

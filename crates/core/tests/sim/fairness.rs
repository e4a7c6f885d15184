//! Who is next (I9): of the lanes that are certainly ready, the one whose head came first; a head that was ready before
//! counts as having come when it became ready again.
//!
//! After a lost channel the judge cannot know what the dispatcher remembers of a returned update, so a lane counts
//! again only when it holds a new one, or its head was sent once more.

use std::collections::VecDeque;

use lanekeeper_core::tick::Tick;

use crate::judge::fault;

#[derive(Debug)]
pub struct Fairness {
    lanes: Vec<Lane>,
    /// Whether the judge sees each effect as soon as it is decided.
    pub exact: bool,
}

#[derive(Debug, Default)]
struct Lane {
    held: VecDeque<FairnessEntry>,
    head: Head,
}

/// Received and not yet settled.
#[derive(Debug)]
struct FairnessEntry {
    update: usize,
    /// Nothing can be known of it from before.
    new: bool,
    /// The step in which it came.
    came: u64,
}

/// Step, and deadline where it had one.
type FairPosition = (u64, Tick);

#[derive(Clone, Copy, Debug, Default, PartialEq)]
enum Head {
    /// Not known, or not ready.
    #[default]
    Other,
    Ready(FairPosition),
    /// It was ready so, and was next while its target was shut: since this step.
    HeldBack(FairPosition, u64),
    Waits(Tick),
}

impl Fairness {
    pub fn new(records: usize, exact: bool) -> Self {
        Self { lanes: (0..records).map(|_| Lane::default()).collect(), exact }
    }

    pub fn forget(&mut self) {
        self.lanes.iter_mut().for_each(|lane| *lane = Lane::default());
    }

    /// `new`: nothing is known of it from before. `free`: nothing of an earlier tenure blocks the record.
    pub fn received(&mut self, record: usize, update: usize, new: bool, free: bool, step: u64) {
        let lane = &mut self.lanes[record];
        lane.held.push_back(FairnessEntry { update, new: new && self.exact, came: step });
        if lane.held.len() == 1 {
            lane.enter_head(free);
        }
    }

    pub fn settled(&mut self, record: usize, update: usize, free: bool) {
        let lane = &mut self.lanes[record];
        let head = lane.held.pop_front().map(|held| held.update);
        if head != Some(update) {
            fault!("order, I2", "#{update} was settled before {head:?}, which came earlier");
        }
        lane.enter_head(free);
    }

    /// Its head was sent and failed: ready at the first waking from then on, if that is certain.
    pub fn waits(&mut self, record: usize, update: usize, until: Option<Tick>) {
        let lane = &mut self.lanes[record];
        let is_head = lane.head_update() == Some(update);
        lane.head = match until {
            Some(until) if is_head && self.exact => Head::Waits(until),
            _ => Head::Other,
        };
    }

    pub fn resolves(&mut self, record: usize, update: usize) {
        if self.lanes[record].head_update() == Some(update) {
            self.lanes[record].head = Head::Other;
        }
    }

    pub fn woke(&mut self, now: Tick, step: u64) {
        for lane in &mut self.lanes {
            if let Head::Waits(until) = lane.head
                && until <= now
            {
                lane.head = Head::Ready((step, until));
            }
        }
    }

    /// `probe`: its target is shut, and this asks whether it works again, as was granted in this step. `of`: whether another
    /// update has the same target, and whether its target is shut.
    pub fn sent(
        &mut self,
        record: usize,
        update: usize,
        step: u64,
        probe: Option<u64>,
        of: impl Fn(usize) -> (bool, bool),
    ) {
        let head = self.lanes[record].head_update();
        if head != Some(update) {
            fault!("order, I2", "#{update} was sent, and {head:?} is the head of its lane");
        }
        let position = match self.lanes[record].head {
            Head::Ready(position) | Head::HeldBack(position, _) if let Some(granted) = probe => {
                self.is_first_held_back(update, position, granted, |other| of(other).0);
                Some(position)
            }
            Head::Ready(position) => Some(position),
            Head::HeldBack(..) | Head::Other | Head::Waits(_) => None,
        };
        for lane in &mut self.lanes {
            let (Head::Ready(before), Some(other)) = (lane.head, lane.head_update()) else { continue };
            match (position, of(other)) {
                (Some(position), (_, true)) if before < position => lane.head = Head::HeldBack(before, step),
                (None, (_, true)) => lane.head = Head::Other,
                (Some(position), (_, false)) if before < position => {
                    fault!("fair, I9", "#{update} was sent before #{other}, which came earlier");
                }
                (Some(_) | None, _) => {}
            }
        }
        self.lanes[record].head = Head::Other;
    }

    /// A probe is of the lane that waited for its target when it was granted, and whose turn is first.
    fn is_first_held_back(
        &self,
        update: usize,
        position: FairPosition,
        granted: u64,
        same_target: impl Fn(usize) -> bool,
    ) {
        for lane in &self.lanes {
            if let (Head::HeldBack(before, since), Some(other)) = (lane.head, lane.head_update())
                && before < position
                && since < granted
                && same_target(other)
            {
                fault!("fair, I9", "#{update} was sent as a probe before #{other}, which came earlier");
            }
        }
    }

    /// A permit is free: lanes that are ready and whose target is shut have been found to be so.
    pub fn hold_back(&mut self, step: u64, is_shut: impl Fn(usize) -> bool) {
        for lane in &mut self.lanes {
            if let (Head::Ready(position), Some(update)) = (lane.head, lane.head_update())
                && is_shut(update)
            {
                lane.head = Head::HeldBack(position, step);
            }
        }
    }

    /// Lanes that were held back are ready again, each with its turn.
    pub fn opened(&mut self, is_of_target: impl Fn(usize) -> bool) {
        for lane in &mut self.lanes {
            if let (Head::HeldBack(position, _), Some(update)) = (lane.head, lane.head_update())
                && is_of_target(update)
            {
                lane.head = Head::Ready(position);
            }
        }
    }

    /// The oldest update of a record that the broker has handed over and that is not settled.
    pub fn head(&self, record: usize) -> Option<usize> {
        self.lanes[record].head_update()
    }

    /// An update that is certainly ready, if there is one.
    pub fn ready(&self) -> Option<usize> {
        let ready = self.lanes.iter().find(|lane| matches!(lane.head, Head::Ready(..)))?;
        ready.head_update()
    }
}

impl Lane {
    fn head_update(&self) -> Option<usize> {
        self.held.front().map(|held| held.update)
    }

    fn enter_head(&mut self, free: bool) {
        self.head = match self.held.front() {
            Some(FairnessEntry { new: true, came, .. }) if free => Head::Ready((*came, Tick::ZERO)),
            _ => Head::Other,
        };
    }
}

//! Whoever changes layouts: the operator's `apply`, and the steward of each dispatcher. One small step at a time, and
//! each of them may be the last before a crash.

use std::collections::VecDeque;

use lanekeeper_core::change::{Layouts, ROUTE, RouteStep, Step, Wish};
use lanekeeper_core::layout::Layout;
use lanekeeper_core::witness::witnesses;

use super::broker::Seat;

/// What cannot be taken apart.
#[derive(Clone, Debug)]
pub enum Small {
    Write(Layouts),
    Declare(Layout),
    Route(RouteStep, Layout, Layout),
    Delete(Layout),
    /// Of a drained layout: swept, and deleted if nobody consumes it.
    Remove(Seat),
    RemoveExchange(Layout),
}

#[derive(Debug, Default)]
pub struct Actor {
    pub wish: Wish,
    /// It holds the lock, and this is what it does next.
    pub under_way: Option<VecDeque<Small>>,
    /// An event for it is set.
    pub is_set: bool,
    /// Counts its lives.
    pub life: u32,
}

impl Actor {
    pub fn dies(&mut self) {
        let life = self.life + 1;
        *self = Self { life, ..Self::default() };
    }
}

/// The small steps of a step, and what the document says after them.
pub fn taken_apart(layouts: &Layouts, step: &Step, wish: &Wish) -> VecDeque<Small> {
    let all = match step {
        Step::Begin(shape) => vec![Small::Write(layouts.begun(*shape, "somebody", 0))],
        Step::Prepare(layout) => {
            vec![Small::Declare(*layout), Small::Write(layouts.prepared(witnesses(layout.partitions)))]
        }
        Step::Switch { from, to } => {
            let route = ROUTE.iter().map(|step| Small::Route(*step, *from, *to));
            [Small::Declare(*to)]
                .into_iter()
                .chain(route)
                .chain([Small::Write(layouts.switched(0))])
                .collect()
        }
        Step::Undo(layout) => vec![Small::Delete(*layout), Small::Write(layouts.undone())],
        Step::Record => {
            vec![Small::Write(layouts.with_drained(&wish.drained).expect("it is the next step"))]
        }
        Step::Remove(draining) => {
            let layout = draining.layout;
            let queues = layout.partitions().map(|partition| Small::Remove((layout.number, partition)));
            let after = [Small::RemoveExchange(layout), Small::Write(layouts.removed(layout.number))];
            queues.chain(after).collect()
        }
    };
    all.into()
}

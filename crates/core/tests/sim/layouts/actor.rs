//! Whoever changes layouts: the operator's `apply`, and the steward of each dispatcher. One small step at a time, and
//! each of them may be the last before a crash.

use std::collections::VecDeque;

use lanekeeper_core::change::{Desired, Layouts, ROUTE, RouteStep, Step};
use lanekeeper_core::layout::Layout;
use lanekeeper_core::witness::witnesses;

use super::broker::PartitionKey;

/// What cannot be taken apart.
#[derive(Clone, Debug)]
pub enum ActorStep {
    Write(Layouts),
    Declare(Layout),
    Route(RouteStep, Layout, Layout),
    Delete(Layout),
    /// Of a drained layout: swept, and deleted if nobody consumes it.
    Remove(PartitionKey),
    RemoveExchange(Layout),
}

#[derive(Debug, Default)]
pub struct Actor {
    pub desired: Desired,
    /// It holds the lock, and this is what it does next.
    pub under_way: Option<VecDeque<ActorStep>>,
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
pub fn taken_apart(layouts: &Layouts, step: &Step, desired: &Desired) -> VecDeque<ActorStep> {
    let all = match step {
        Step::Begin(shape) => vec![ActorStep::Write(layouts.begun(*shape, "somebody", 0))],
        Step::Prepare(layout) => {
            vec![
                ActorStep::Declare(*layout),
                ActorStep::Write(layouts.prepared(witnesses(layout.partitions))),
            ]
        }
        Step::Switch { from, to } => {
            let route = ROUTE.iter().map(|step| ActorStep::Route(*step, *from, *to));
            [ActorStep::Declare(*to)]
                .into_iter()
                .chain(route)
                .chain([ActorStep::Write(layouts.switched(0))])
                .collect()
        }
        Step::Undo(layout) => vec![ActorStep::Delete(*layout), ActorStep::Write(layouts.undone())],
        Step::Record => {
            vec![ActorStep::Write(layouts.with_drained(&desired.drained).expect("it is the next step"))]
        }
        Step::Remove(draining) => {
            let layout = draining.layout;
            let queues = layout.partitions().map(|partition| ActorStep::Remove((layout.number, partition)));
            let after = [ActorStep::RemoveExchange(layout), ActorStep::Write(layouts.removed(layout.number))];
            queues.chain(after).collect()
        }
    };
    all.into()
}

//! Whoever changes layouts: the operator's `apply`, and the steward of each dispatcher. One small step at a time, and
//! each of them may be the last before a crash.

use std::collections::VecDeque;

use lanekeeper_core::change::{Desired, Layouts, ROUTE, RouteStep, Step};
use lanekeeper_core::layout::{Layout, LayoutNumber};
use lanekeeper_core::witness::witnesses;

use super::broker::PartitionKey;
use super::event::LayoutEvent;
use super::judge::fault;
use super::{LOCK_RETRY_MS, OPERATOR, World};

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

impl World {
    fn actor(&mut self, actor: u32) -> Option<&mut Actor> {
        if actor == OPERATOR {
            return Some(&mut self.operator);
        }
        self.processes.get_mut(&actor).map(|process| &mut process.reconciler)
    }

    pub fn set_actor(&mut self, actor: u32, within_ms: u64) {
        let Some(of) = self.actor(actor) else { return };
        if !std::mem::replace(&mut of.is_set, true) {
            let life = of.life;
            self.soon(within_ms, LayoutEvent::Act { actor, life });
        }
    }

    pub fn act(&mut self, actor: u32, life: u32) {
        let Some(of) = self.actor(actor).filter(|of| of.life == life) else { return };
        of.is_set = false;
        if self.now < self.calm_at && self.rng.chance(self.crashes_of_actors) {
            return self.actor_dies(actor);
        }
        let of = self.actor(actor).expect("looked at above");
        if let Some(small) = of.under_way.as_mut().and_then(VecDeque::pop_front) {
            self.take(actor, small);
            return self.set_actor(actor, 200);
        }
        let (desired, holds) = (of.desired.clone(), of.under_way.is_some());
        let known = self.processes.get(&actor).map_or(self.stream.len() - 1, |reader| reader.known);
        let of_reconciler = Desired { remove: true, ..desired.clone() };
        let desired = if actor == OPERATOR { desired } else { of_reconciler };
        if !holds {
            if self.stream[known].next_step(&desired).is_none() {
                // The operator waits for what drains; a steward for the next document.
                let waits = actor == OPERATOR
                    && desired.shape.is_some_and(|shape| self.last().in_force.shape() != shape);
                if waits {
                    self.set_actor(actor, 1_000);
                }
                return;
            }
            if self.lock.is_some_and(|holder| holder != actor) {
                return self.set_actor(actor, LOCK_RETRY_MS);
            }
            self.lock = Some(actor);
        }
        // Under the lock: the last document counts.
        let layouts = self.last().clone();
        match layouts.next_step(&desired) {
            None => {
                self.note(format_args!("actor {actor} gives up the lock"));
                self.lock = None;
                let of = self.actor(actor).expect("it lives");
                of.under_way = None;
                of.desired.begun = None;
                of.desired.drained.retain(|report| layouts.with_drained(&[*report]).is_some());
                self.set_actor(actor, 1_000);
            }
            Some(step) => {
                self.note(format_args!("actor {actor} takes {step:?}"));
                let small = taken_apart(&layouts, &step, &desired);
                let begun = matches!(step, Step::Begin(_));
                let of = self.actor(actor).expect("it lives");
                of.under_way = Some(small);
                if begun {
                    of.desired.begun = Some(LayoutNumber(layouts.number_max + 1));
                } else if layouts.changing.is_some() && desired.begun.is_none() {
                    self.met.finished_by_others += 1;
                }
                self.set_actor(actor, 200);
            }
        }
    }

    fn take(&mut self, actor: u32, small: ActorStep) {
        match small {
            ActorStep::Write(layouts) => {
                if let Some(changing) = &layouts.changing
                    && self.last().changing.is_none()
                {
                    self.judge.number_given(changing.to.number);
                }
                self.met.changes += u32::from(layouts.in_force != self.last().in_force);
                self.stream.push(layouts);
                let readers: Vec<u32> = self.processes.keys().copied().collect();
                for process in readers {
                    self.soon(200, LayoutEvent::Document { process });
                }
            }
            ActorStep::Declare(layout) => self.broker.declare(layout),
            ActorStep::Route(step, from, to) => self.broker.route_step(step, from, to),
            ActorStep::Delete(layout) => {
                self.met.undone += 1;
                self.broker.delete(layout);
            }
            ActorStep::Remove(partition_key) => {
                let Some(queue) = self.broker.queues.get(&partition_key) else { return };
                if queue.is_used() {
                    self.lock = None;
                    self.actor(actor).expect("it lives").under_way = None;
                } else if queue.updates() > 0 {
                    fault!(
                        "drained",
                        "{partition_key:?} is to be removed and holds {} updates",
                        queue.updates()
                    );
                } else {
                    self.broker.queues.remove(&partition_key);
                }
            }
            ActorStep::RemoveExchange(layout) => self.broker.delete(layout),
        }
    }
}

//! `topology plan`: what `apply` would do.

use std::fmt;

use super::format::{format_danger, format_time};
use super::snapshot::{LayoutSnapshot, TopologySnapshot};
use crate::config::Config;
use crate::doctor::change::{Danger, Weight};
use lanekeeper_broker::Names;
use lanekeeper_core::change::{Changing, Layouts};
use lanekeeper_core::layout::{Layout, LayoutNumber, Shape};

/// What would be done, and what could go wrong.
pub struct Plan {
    names: Names,
    wanted: Shape,
    /// `None`: the exchange has no layout yet.
    current: Option<Layout>,
    backlog: Backlog,
    /// A record waits for one partition of the current layout to drain, not for all of them.
    by_partition: bool,
    /// The layout to come; `None`: the current one is as the config says.
    next: Option<Layout>,
    changing: Option<Changing>,
    /// Layouts that are draining.
    draining: Vec<(Layout, Backlog)>,
    /// Queues that do not exist.
    missing: Vec<String>,
    dangers: Vec<Danger>,
}

/// The updates of a layout that are not settled.
#[derive(Clone, Copy, Default)]
struct Backlog {
    /// In its queues.
    ready: u64,
    /// Held by owners, as far as they have answered.
    held: usize,
    /// Partitions whose owner has not answered.
    unanswered: usize,
}

impl Backlog {
    fn of(layout_snapshot: &LayoutSnapshot) -> Self {
        Self {
            ready: layout_snapshot.ready(),
            held: layout_snapshot.held(),
            unanswered: layout_snapshot.unanswered().count(),
        }
    }
}

impl fmt::Display for Backlog {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} updates wait and {} are held by dispatchers", self.ready, self.held)?;
        match self.unanswered {
            0 => Ok(()),
            many => write!(f, " (the owners of {many} partitions did not answer)"),
        }
    }
}

impl Plan {
    /// From what there is to what the config says.
    pub fn of(snapshot: &TopologySnapshot, config: &Config, dangers: Vec<Danger>) -> Self {
        let wanted = config.layout_shape();
        let layouts = snapshot.document.as_ref().map(|document| &document.layouts);
        let next = layouts.filter(|layouts| layouts.in_force.shape() != wanted).map(|layouts| {
            let highest = layouts.number_max.max(layouts.in_force.number.0);
            wanted.numbered(LayoutNumber(highest + 1))
        });
        let missing = snapshot.layouts.iter().flat_map(|layout_snapshot| {
            layout_snapshot
                .missing()
                .map(|partition| snapshot.names.partition(layout_snapshot.layout.number, partition))
        });
        let draining = snapshot.layouts.iter().filter(|layout_snapshot| layout_snapshot.draining.is_some());
        let current = snapshot.layouts.iter().find(|layout_snapshot| layout_snapshot.draining.is_none());
        Self {
            names: snapshot.names.clone(),
            wanted,
            current: layouts.map(|layouts| layouts.in_force),
            backlog: current.map(Backlog::of).unwrap_or_default(),
            by_partition: layouts.is_some_and(Layouts::are_keys_computed),
            next,
            changing: layouts.and_then(|layouts| layouts.changing.clone()),
            draining: draining
                .map(|layout_snapshot| (layout_snapshot.layout, Backlog::of(layout_snapshot)))
                .collect(),
            missing: missing.collect(),
            dangers,
        }
    }

    /// Whether there is nothing to do.
    pub fn is_empty(&self) -> bool {
        self.current.is_some() && self.next.is_none() && self.changing.is_none() && self.draining.is_empty()
    }

    fn steps(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(changing) = &self.changing {
            let then = if changing.witnesses.is_some() { "finish" } else { "undo" };
            writeln!(
                f,
                "  ! {then:<8} the change to layout {} that {} began at {} and did not finish",
                changing.to.number.0,
                changing.by,
                format_time(changing.since)
            )?;
        }
        for (layout, backlog) in &self.draining {
            writeln!(
                f,
                "  . drain    layout {}, left over from an earlier change: {backlog}",
                layout.number.0
            )?;
            writeln!(f, "  - delete   {} and its queues", self.names.layout(layout.number))?;
        }
        let (Some(from), Some(to)) = (self.current, self.next) else { return Ok(()) };
        let (old, new) = (self.names.layout(from.number), self.names.layout(to.number));
        writeln!(
            f,
            "  + declare  {new} and its queues: {} partitions, prefetch {}",
            to.partitions, to.prefetch
        )?;
        writeln!(
            f,
            "  ~ switch   {} from {old} to {new}, through {}",
            self.names.ingress(),
            self.names.handoff()
        )?;
        writeln!(
            f,
            "  . drain    {old}: {}; new updates of a record wait until {}",
            self.backlog,
            if self.by_partition { "its old partition is empty" } else { "all old partitions are empty" }
        )?;
        writeln!(f, "  - delete   {old} and its queues")
    }
}

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some(current) = self.current else {
            let exchange = self.names.public();
            return writeln!(
                f,
                "exchange {exchange} has no layout yet; the first `lanekeeper run` creates it"
            );
        };
        let format_shape =
            |shape: Shape| format!("{} partitions, prefetch {}", shape.partitions, shape.prefetch);
        writeln!(f, "current layout:    {} (layout {})", format_shape(current.shape()), current.number.0)?;
        writeln!(f, "the config wants:  {}", format_shape(self.wanted))?;
        if self.is_empty() {
            writeln!(f, "\nNothing to do.")?;
        } else {
            let refuses = |danger: &Danger| matches!(danger.weight, Weight::Forbids | Weight::Unseen);
            let refuses = self.dangers.iter().any(refuses);
            let steps = if refuses {
                "would take these steps, and refuses to while something blocks the change"
            } else {
                "will take these steps"
            };
            writeln!(f, "\n`lanekeeper topology apply` {steps}:")?;
            self.steps(f)?;
        }
        for queue in &self.missing {
            writeln!(
                f,
                "\nthe queue {queue} does not exist: somebody deleted it, the updates in it are lost, and updates published since \
                 then are in other partitions. Stop the dispatchers, find out from the publishers what was lost, then start \
                 the dispatchers again"
            )?;
        }
        for danger in &self.dangers {
            writeln!(f, "\n{}", format_danger(danger))?;
        }
        if !self.dangers.is_empty() {
            writeln!(f, "\nSee `lanekeeper doctor` for what to do.")?;
        }
        Ok(())
    }
}

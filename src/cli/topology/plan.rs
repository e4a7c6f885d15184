//! `topology plan`: what `apply` would do.

use std::fmt;

use super::show::format_time;
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
    in_force: Option<Layout>,
    waiting: Waiting,
    /// Records of the layout in force need not wait for all of its partitions.
    by_partition: bool,
    /// The layout to come; `None`: the one in force is as the config says.
    next: Option<Layout>,
    changing: Option<Changing>,
    /// Layouts that drain, with how much waits in them.
    draining: Vec<(Layout, Waiting)>,
    missing: Vec<String>,
    dangers: Vec<Danger>,
}

/// What is in the queues of a layout.
#[derive(Clone, Copy, Default)]
struct Waiting {
    ready: u64,
    held: usize,
    /// Partitions whose owner has not told what it holds.
    unanswered: usize,
}

impl Waiting {
    fn of(layout_snapshot: &LayoutSnapshot) -> Self {
        Self {
            ready: layout_snapshot.ready(),
            held: layout_snapshot.held(),
            unanswered: layout_snapshot.unanswered().count(),
        }
    }
}

impl fmt::Display for Waiting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} updates wait and {} are held by dispatchers", self.ready, self.held)?;
        match self.unanswered {
            0 => Ok(()),
            many => write!(f, " (and what is held of {many} partitions is not known)"),
        }
    }
}

/// One danger, in a line.
pub fn format_danger(danger: &Danger) -> String {
    let weight = match danger.weight {
        Weight::Forbids => "in the way",
        Weight::Risks | Weight::Warns => "could go wrong",
    };
    let Danger { finding, .. } = danger;
    format!("{weight} ({}): {}; {}", finding.code, finding.what, finding.cost)
}

/// What the config asks for.
pub fn wanted(config: &Config) -> Shape {
    Shape { partitions: config.updates.partitions.get(), prefetch: config.dispatch.prefetch.get() }
}

impl Plan {
    /// From what there is to what the config says.
    pub fn of(snapshot: &TopologySnapshot, config: &Config, dangers: Vec<Danger>) -> Self {
        let wanted = wanted(config);
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
        let in_force = snapshot.layouts.iter().find(|layout_snapshot| layout_snapshot.draining.is_none());
        Self {
            names: snapshot.names.clone(),
            wanted,
            in_force: layouts.map(|layouts| layouts.in_force),
            waiting: in_force.map(Waiting::of).unwrap_or_default(),
            by_partition: layouts.is_some_and(Layouts::are_keys_computed),
            next,
            changing: layouts.and_then(|layouts| layouts.changing.clone()),
            draining: draining
                .map(|layout_snapshot| (layout_snapshot.layout, Waiting::of(layout_snapshot)))
                .collect(),
            missing: missing.collect(),
            dangers,
        }
    }

    /// Whether there is nothing to do.
    pub fn is_empty(&self) -> bool {
        self.in_force.is_some() && self.next.is_none() && self.changing.is_none() && self.draining.is_empty()
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
        for (layout, waiting) in &self.draining {
            writeln!(
                f,
                "  . drain    layout {}, which a change before has left: {waiting}",
                layout.number.0
            )?;
            writeln!(f, "  - delete   {} and its queues", self.names.layout(layout.number))?;
        }
        let (Some(from), Some(to)) = (self.in_force, self.next) else { return Ok(()) };
        let (old, new) = (self.names.layout(from.number), self.names.layout(to.number));
        writeln!(
            f,
            "  + declare  {new} and its queues: {} partitions, prefetch {}",
            to.partitions, to.prefetch
        )?;
        writeln!(
            f,
            "  ~ switch   {} from {old} to {new}, by way of {}",
            self.names.ingress(),
            self.names.handoff()
        )?;
        writeln!(
            f,
            "  . drain    {old}: {} in its {} partitions; a record goes on in the new ones when {}",
            self.waiting,
            from.partitions,
            if self.by_partition { "the one that it was in is empty" } else { "all of them are empty" }
        )?;
        writeln!(f, "  - delete   {old} and its queues")
    }
}

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some(in_force) = self.in_force else {
            return writeln!(
                f,
                "There is no layout of the exchange {} yet: the first `lanekeeper run` makes it.",
                self.names.public()
            );
        };
        let format_shape =
            |shape: Shape| format!("{} partitions, prefetch {}", shape.partitions, shape.prefetch);
        writeln!(f, "layout in force:   {} (layout {})", format_shape(in_force.shape()), in_force.number.0)?;
        writeln!(f, "the config wants:  {}", format_shape(self.wanted))?;
        if self.is_empty() {
            writeln!(f, "\nNothing to do.")?;
        } else {
            let refuses = self.dangers.iter().any(|danger| danger.weight == Weight::Forbids);
            let will = if refuses { "would, and refuses to while something is in the way" } else { "will" };
            writeln!(f, "\n`lanekeeper topology apply` {will}:")?;
            self.steps(f)?;
        }
        for queue in &self.missing {
            writeln!(
                f,
                "\nthe queue {queue} is not there: it was deleted, what it held is lost, and what was published since is \
                 in other partitions. Stop the dispatchers, see what the publishers know of it, start them again"
            )?;
        }
        for danger in &self.dangers {
            writeln!(f, "\n{}", format_danger(danger))?;
        }
        if !self.dangers.is_empty() {
            writeln!(f, "\n`lanekeeper doctor` has the remedies.")?;
        }
        Ok(())
    }
}

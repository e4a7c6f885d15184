//! The layouts of an exchange, and the steps from one layout to the next.
//!
//! [`Layouts`] is the state that all processes agree on; a process changes it only while it holds the lock. Every change
//! is a method of it, and [`Layouts::next_step`] says which one is next, also after a process died between two steps.
//! docs/decisions/012 says why the steps come in this order.

use std::collections::BTreeSet;

use super::layout::{Layout, LayoutNumber, PartitionNumber, Shape};
use super::placement::Placement;
use super::previous_layout::PreviousLayout;
use super::witness::Witness;

/// The layouts of one exchange.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Layouts {
    /// The layout that publishes go to. While a change is under way it may be the next one already.
    pub in_force: Layout,
    /// Where keys go in it. Empty if a version made it that knew no witnesses.
    #[serde(default)]
    pub witnesses: Vec<Witness>,
    /// Layouts that publishes went to before and that still hold updates, oldest first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub draining: Vec<Draining>,
    /// The change that has begun and has not ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub changing: Option<Changing>,
    /// The highest number that a layout or a change ever had; it is never given again. 0: as in `in_force`.
    #[serde(default)]
    pub number_max: u32,
}

/// A layout that nothing is published to any more.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Draining {
    /// Which.
    #[serde(flatten)]
    pub layout: Layout,
    /// Where keys went in it.
    pub witnesses: Vec<Witness>,
    /// Partitions that hold nothing more: whatever was in them is settled.
    pub drained: BTreeSet<PartitionNumber>,
    /// When it began to drain, in seconds since 1970-01-01 UTC, for people.
    pub since: u64,
}

impl Draining {
    /// Returns true if none of its partitions holds updates.
    #[must_use]
    pub fn is_drained(&self) -> bool {
        self.drained.len() == usize::from(self.layout.partitions)
    }

    /// The partitions of it that may hold updates.
    fn undrained(&self) -> BTreeSet<PartitionNumber> {
        self.layout.partitions().filter(|partition| !self.drained.contains(partition)).collect()
    }

    /// It as the partitions see it that wait for it. `None` if the partition of a record cannot be computed: a witness was
    /// seen elsewhere, or there are no witnesses.
    fn previous(&self) -> Option<PreviousLayout> {
        let placement = Placement::of(self.layout, &self.witnesses);
        placement
            .is_computed()
            .then(|| PreviousLayout { partitions: self.layout.partitions, undrained: self.undrained() })
    }
}

/// A change under way.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Changing {
    /// To which layout.
    #[serde(flatten)]
    pub to: Layout,
    /// Where keys go in it. `None`: its queues may be missing, and nothing is bound to it; what was begun can be undone.
    /// Otherwise the way into it may be open, and there is only forward.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub witnesses: Option<Vec<Witness>>,
    /// Who began it: the instance's name.
    pub by: String,
    /// When, in seconds since 1970-01-01 UTC.
    pub since: u64,
}

/// What the holder of the lock wants to reach. A change that others began is finished or undone in any case.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Desired {
    /// Partitions that were found drained.
    pub drained: Vec<(LayoutNumber, PartitionNumber)>,
    /// The shape that the current layout is to have.
    pub shape: Option<Shape>,
    /// The change that was begun under this very lock: it is not undone.
    pub begun: Option<LayoutNumber>,
    /// Objects of drained layouts are to be deleted.
    pub remove: bool,
}

/// What is to be done next under the lock.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// Nothing is bound to it yet: delete its objects, then write [`Layouts::undone`].
    Undo(Layout),
    /// Declare it and see where its keys go, then write [`Layouts::prepared`].
    Prepare(Layout),
    /// Open the way into `to` and close that into `from` by [`ROUTE`], then write [`Layouts::switched`].
    Switch {
        /// The current layout.
        from: Layout,
        /// The next one.
        to: Layout,
    },
    /// Write [`Layouts::with_drained`].
    Record,
    /// Delete its objects, then write [`Layouts::removed`].
    Remove(Draining),
    /// Write [`Layouts::begun`].
    Begin(Shape),
}

/// The bindings that are changed, in this order. At every point between them there is exactly one way for a publish: the
/// alternate exchange (handoff) takes what finds no binding at the ingress, and nothing else. Each may be done again.
pub const ROUTE: [RouteStep; 4] =
    [RouteStep::BindHandoff, RouteStep::UnbindOld, RouteStep::BindNew, RouteStep::UnbindHandoff];

/// One binding, made or removed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RouteStep {
    /// The handoff leads to the new layout. Nothing takes it yet.
    BindHandoff,
    /// The ingress leads nowhere: publishes go by the handoff to the new layout.
    UnbindOld,
    /// The ingress leads to the new layout; the handoff gets nothing more.
    BindNew,
    /// The handoff leads nowhere, as before.
    UnbindHandoff,
}

/// One layout that is dispatched from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ActiveLayout {
    /// Which.
    pub layout: Layout,
    /// Where its keys go, or went.
    pub witnesses: Vec<Witness>,
    /// The partitions of it that may hold updates.
    pub partitions: BTreeSet<PartitionNumber>,
    /// Nothing is published to it any more: markers show where it ends.
    pub draining: bool,
    /// Where its records were before, with what is not drained of that: records from there wait.
    pub previous: PreviousLayout,
}

impl Layouts {
    /// Of a new exchange.
    #[must_use]
    pub fn first(layout: Layout, witnesses: Vec<Witness>) -> Self {
        let number_max = layout.number.0;
        Self { in_force: layout, witnesses, draining: Vec::new(), changing: None, number_max }
    }

    /// The next step of a process that holds the lock and wants this. `None`: there is nothing to do, or an old layout
    /// must drain first.
    #[must_use]
    pub fn next_step(&self, desired: &Desired) -> Option<Step> {
        if let Some(changing) = &self.changing {
            return Some(match &changing.witnesses {
                Some(_) => Step::Switch { from: self.in_force, to: changing.to },
                None if desired.begun == Some(changing.to.number) => Step::Prepare(changing.to),
                None => Step::Undo(changing.to),
            });
        }
        if self.with_drained(&desired.drained).is_some() {
            return Some(Step::Record);
        }
        if let Some(oldest) = self.draining.first().filter(|oldest| desired.remove && oldest.is_drained()) {
            return Some(Step::Remove(oldest.clone()));
        }
        // One change at a time: its cost and its duration can be forecast.
        let shape = desired.shape.filter(|shape| self.in_force.shape() != *shape && self.draining.is_empty());
        shape.map(Step::Begin)
    }

    /// Returns true if partitions of the next layout can each wait for single partitions of the current one.
    #[must_use]
    pub fn are_keys_computed(&self) -> bool {
        Placement::of(self.in_force, &self.witnesses).is_computed()
    }

    /// Returns true if an earlier layout may still hold updates.
    #[must_use]
    pub fn drains(&self) -> bool {
        self.draining.iter().any(|draining| !draining.is_drained())
    }

    /// The layouts that are dispatched from, so that an update is attempted only after every older one of its record: the
    /// oldest layout that may hold updates and, if no other one drains, the current layout, whose records wait for their
    /// previous partitions. If these cannot be computed, all of the old layout is drained first.
    #[must_use]
    pub fn active_layouts(&self) -> Vec<ActiveLayout> {
        let in_force = |previous| ActiveLayout {
            layout: self.in_force,
            witnesses: self.witnesses.clone(),
            partitions: self.in_force.partitions().collect(),
            draining: false,
            previous,
        };
        let mut undrained = self.draining.iter().filter(|draining| !draining.is_drained());
        let Some(oldest) = undrained.next() else { return vec![in_force(PreviousLayout::default())] };
        let previous = oldest.previous().filter(|_| undrained.next().is_none());
        let oldest = ActiveLayout {
            layout: oldest.layout,
            witnesses: oldest.witnesses.clone(),
            partitions: oldest.undrained(),
            draining: true,
            previous: PreviousLayout::default(),
        };
        [oldest].into_iter().chain(previous.map(in_force)).collect()
    }

    /// A change to such a layout has begun.
    #[must_use]
    pub fn begun(&self, shape: Shape, by: &str, since: u64) -> Self {
        assert!(self.changing.is_none(), "one change at a time");
        let number = self.number_max.max(self.in_force.number.0) + 1;
        let to = shape.numbered(LayoutNumber(number));
        let changing = Changing { to, witnesses: None, by: by.to_owned(), since };
        Self { changing: Some(changing), number_max: number, ..self.clone() }
    }

    /// Its queues are there, and its keys go there.
    #[must_use]
    pub fn prepared(&self, witnesses: Vec<Witness>) -> Self {
        let changing = self.changing.clone().expect("a change is under way");
        assert!(changing.witnesses.is_none(), "a layout is prepared once");
        let changing = Changing { witnesses: Some(witnesses), ..changing };
        Self { changing: Some(changing), ..self.clone() }
    }

    /// All publishes go to the new layout; what it replaces drains.
    #[must_use]
    pub fn switched(&self, since: u64) -> Self {
        let Changing { to, witnesses, .. } = self.changing.clone().expect("a change is under way");
        let witnesses = witnesses.expect("only a layout that is prepared is switched to");
        let old = Draining {
            layout: self.in_force,
            witnesses: self.witnesses.clone(),
            drained: BTreeSet::new(),
            since,
        };
        let draining = self.draining.iter().cloned().chain([old]).collect();
        Self { in_force: to, witnesses, draining, changing: None, number_max: self.number_max }
    }

    /// The change was undone; its number is not given again.
    #[must_use]
    pub fn undone(&self) -> Self {
        let changing = self.changing.as_ref().expect("a change is under way");
        assert!(changing.witnesses.is_none(), "the way into a layout that is prepared may be open");
        Self { changing: None, ..self.clone() }
    }

    /// These partitions hold nothing more. `None` if all of that was known. Layouts that do not drain are skipped.
    #[must_use]
    pub fn with_drained(&self, drained: &[(LayoutNumber, PartitionNumber)]) -> Option<Self> {
        let mut after = self.clone();
        let mut changed = false;
        for (number, partition) in drained {
            let of = after.draining.iter_mut().find(|draining| draining.layout.number == *number);
            if let Some(of) = of.filter(|of| partition.0 < of.layout.partitions) {
                changed |= of.drained.insert(*partition);
            }
        }
        changed.then_some(after)
    }

    /// No object of it is left.
    #[must_use]
    pub fn removed(&self, number: LayoutNumber) -> Self {
        let (gone, draining): (Vec<_>, Vec<_>) =
            self.draining.iter().cloned().partition(|draining| draining.layout.number == number);
        assert!(gone.iter().all(Draining::is_drained), "only what is drained is removed");
        Self { draining, ..self.clone() }
    }

    /// What makes these layouts invalid, in words.
    #[must_use]
    pub fn unfit(&self) -> Option<String> {
        let changing = self
            .changing
            .iter()
            .map(|changing| ("changing", changing.to, changing.witnesses.as_deref().unwrap_or_default()));
        let draining = self.draining.iter();
        let draining = draining.map(|of| ("draining", of.layout, of.witnesses.as_slice()));
        let all = [("in_force", self.in_force, self.witnesses.as_slice())];
        let mut all = all.into_iter().chain(draining).chain(changing);
        let unfit = all.find_map(|(place, layout, witnesses)| {
            let unfit = layout.unfit().map(|what| format!("{place}.{what}"));
            let stray = || witnesses.iter().find(|witness| witness.partition.0 >= layout.partitions);
            unfit.or_else(|| {
                let Witness { key, partition } = stray()?;
                let partitions = layout.partitions;
                Some(format!("the witness {key} is in {partition}, which is no partition of {partitions}"))
            })
        });
        unfit.or_else(|| {
            let stray = |of: &&Draining| of.drained.iter().any(|drained| drained.0 >= of.layout.partitions);
            let of = self.draining.iter().find(stray)?;
            Some(format!("a partition of layout {} is drained that it has not", of.layout.number.0))
        })
    }
}

#[cfg(test)]
mod tests;

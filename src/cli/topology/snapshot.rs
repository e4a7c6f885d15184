//! What there is, as `show`, `plan` and `apply` look at it: the document, the queues, and what owners answer.

use std::collections::BTreeMap;

use crate::config::Config;
use lanekeeper_broker::{
    Address, Depth, LayoutDocument, Names, Operator, PartitionStatus, SourceError, StatusAnswer,
};
use lanekeeper_core::change::Draining;
use lanekeeper_core::layout::{Layout, PartitionNumber};

/// The layouts, and what is in their queues.
pub struct TopologySnapshot {
    pub names: Names,
    /// `None`: there is none yet.
    pub document: Option<LayoutDocument>,
    /// Of each layout that is in force or drains, oldest first.
    pub layouts: Vec<LayoutSnapshot>,
    /// Why owners could not be asked, or could not answer; `None`: nothing is known against it.
    pub unasked: Option<String>,
}

/// A layout and its queues.
pub struct LayoutSnapshot {
    pub layout: Layout,
    /// `None`: it is in force.
    pub draining: Option<Draining>,
    /// `None`: the queue is not there.
    pub depths: BTreeMap<PartitionNumber, Option<Depth>>,
    /// What its owners have answered.
    pub answers: BTreeMap<PartitionNumber, StatusAnswer>,
}

impl TopologySnapshot {
    /// Looks over AMQP alone.
    pub async fn look(config: &Config) -> Result<Self, SourceError> {
        let names = Names::new(&config.updates.exchange);
        let address = Address::new(&config.broker.connection)?;
        let operator = Operator::connect(&address, names.clone(), &config.instance).await?;
        let looked = Self::look_as(&operator, names).await;
        operator.close().await;
        looked
    }

    async fn look_as(operator: &Operator, names: Names) -> Result<Self, SourceError> {
        let document = operator.document().await?;
        let mut snapshot = Self { names, document, layouts: Vec::new(), unasked: None };
        let Some(layouts) = snapshot.document.as_ref().map(|document| &document.layouts) else {
            return Ok(snapshot);
        };
        let draining = layouts.draining.iter().map(|draining| (draining.layout, Some(draining.clone())));
        for (layout, draining) in draining.chain([(layouts.in_force, None)]) {
            let depths = operator.depths(layout).await?;
            snapshot.layouts.push(LayoutSnapshot { layout, draining, depths, answers: BTreeMap::new() });
        }
        // Last of all: under an alarm the broker hears nothing more on a connection that publishes.
        let owned = snapshot.layouts.iter().flat_map(|layout_snapshot| {
            layout_snapshot
                .owned()
                .map(|partition| (layout_snapshot.layout.number, partition))
                .collect::<Vec<_>>()
        });
        let answers = operator.ask(owned.collect()).await;
        snapshot.unasked = answers.fault;
        for ((layout, partition), answer) in answers.of {
            if let Some(layout_snapshot) =
                snapshot.layouts.iter_mut().find(|layout_snapshot| layout_snapshot.layout.number == layout)
            {
                layout_snapshot.answers.insert(partition, answer);
            }
        }
        Ok(snapshot)
    }
}

impl LayoutSnapshot {
    /// Updates in its queues that nobody holds. What is left in a partition that is drained are markers.
    pub fn ready(&self) -> u64 {
        let is_drained =
            |partition| self.draining.as_ref().is_some_and(|draining| draining.drained.contains(partition));
        let depths = self.depths.iter().filter(|(partition, _)| !is_drained(partition));
        depths.filter_map(|(_, depth)| *depth).map(|depth| u64::from(depth.ready)).sum()
    }

    /// Updates that its owners hold, as far as they have answered.
    pub fn held(&self) -> usize {
        self.answers.values().map(|answer| answer.status.updates).sum()
    }

    /// Partitions that somebody consumes.
    pub fn owned(&self) -> impl Iterator<Item = PartitionNumber> {
        let consumed = |depth: &Option<Depth>| depth.is_some_and(|depth| depth.consumers > 0);
        self.depths.iter().filter(move |(_, depth)| consumed(depth)).map(|(partition, _)| *partition)
    }

    /// Partitions that somebody consumes, of which nobody has told anything.
    pub fn unanswered(&self) -> impl Iterator<Item = PartitionNumber> {
        self.owned().filter(|partition| !self.answers.contains_key(partition))
    }

    /// What owners say that they hold.
    pub fn statuses(&self) -> BTreeMap<PartitionNumber, PartitionStatus> {
        self.answers.iter().map(|(partition, answer)| (*partition, answer.status.clone())).collect()
    }

    /// Queues that are not there. Those of a layout that is removed at this moment are not missed.
    pub fn missing(&self) -> impl Iterator<Item = PartitionNumber> {
        let removed = self.draining.as_ref().is_some_and(Draining::is_drained);
        let missing = self.depths.iter().filter(move |(_, depth)| depth.is_none() && !removed);
        missing.map(|(partition, _)| *partition)
    }
}

//! The topology as `show` and `plan` see it: the layout document, the queues, and what the owners answer.

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
    /// `None`: the exchange has no layout yet.
    pub document: Option<LayoutDocument>,
    /// Each layout that is draining, oldest first, then the current one.
    pub layouts: Vec<LayoutSnapshot>,
    /// Why owners could not be asked or could not answer; `None`: no reason is known.
    pub unasked: Option<String>,
}

/// A layout and its queues.
pub struct LayoutSnapshot {
    pub layout: Layout,
    /// `None`: it is the current layout.
    pub draining: Option<Draining>,
    /// `None`: the queue does not exist.
    pub depths: BTreeMap<PartitionNumber, Option<Depth>>,
    /// What its owners have answered.
    pub answers: BTreeMap<PartitionNumber, StatusAnswer>,
}

impl TopologySnapshot {
    /// Takes one over AMQP alone.
    ///
    /// # Errors
    /// The broker cannot be reached, refuses us, or does not answer.
    pub async fn take(config: &Config) -> Result<Self, SourceError> {
        let names = Names::new(&config.updates.exchange);
        let address = Address::new(&config.broker.connection)?;
        let operator = Operator::connect(&address, names.clone(), &config.instance).await?;
        let looked = Self::read(&operator, names).await;
        operator.close().await;
        looked
    }

    async fn read(operator: &Operator, names: Names) -> Result<Self, SourceError> {
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
        // Last: during an alarm the broker reads nothing more from a connection that has published.
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
    /// Updates in its queues that no consumer holds. Messages in a drained partition are markers, not updates.
    pub fn ready(&self) -> u64 {
        let is_drained =
            |partition| self.draining.as_ref().is_some_and(|draining| draining.drained.contains(partition));
        let depths = self.depths.iter().filter(|(partition, _)| !is_drained(partition));
        depths.filter_map(|(_, depth)| *depth).map(|depth| u64::from(depth.ready)).sum()
    }

    /// Updates that its owners hold, if they have answered.
    pub fn held(&self) -> usize {
        self.answers.values().map(|answer| answer.status.updates).sum()
    }

    /// Partitions with a consumer.
    pub fn owned(&self) -> impl Iterator<Item = PartitionNumber> {
        let consumed = |depth: &Option<Depth>| depth.is_some_and(|depth| depth.consumers > 0);
        self.depths.iter().filter(move |(_, depth)| consumed(depth)).map(|(partition, _)| *partition)
    }

    /// Partitions with a consumer that has not answered.
    pub fn unanswered(&self) -> impl Iterator<Item = PartitionNumber> {
        self.owned().filter(|partition| !self.answers.contains_key(partition))
    }

    /// What its owners answered.
    pub fn statuses(&self) -> BTreeMap<PartitionNumber, PartitionStatus> {
        self.answers.iter().map(|(partition, answer)| (*partition, answer.status.clone())).collect()
    }

    /// Partitions whose queue does not exist, unless the layout is just being deleted.
    pub fn missing(&self) -> impl Iterator<Item = PartitionNumber> {
        let removed = self.draining.as_ref().is_some_and(Draining::is_drained);
        let missing = self.depths.iter().filter(move |(_, depth)| depth.is_none() && !removed);
        missing.map(|(partition, _)| *partition)
    }
}

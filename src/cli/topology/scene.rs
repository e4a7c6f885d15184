//! What there is, as `show`, `plan` and `apply` look at it.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::config::Config;
use crate::core::change::Draining;
use crate::core::layout::{Layout, PartitionNumber};
use crate::doctor::{QueueUse, queue_uses};
use crate::source::{Address, Depth, Holding, LayoutDocument, Names, Operator, SourceError};

/// Owners tell what they hold every two seconds.
const LISTENING: Duration = Duration::from_millis(2_500);

/// The layouts, and what is in their queues.
pub struct Scene {
    pub names: Names,
    /// `None`: there is none yet.
    pub document: Option<LayoutDocument>,
    /// Of each layout that is in force or drains, oldest first.
    pub layouts: Vec<Seen>,
    /// Why owners and unsettled updates are not known.
    pub unseen: Option<String>,
}

/// A layout and its queues.
pub struct Seen {
    pub layout: Layout,
    /// `None`: it is in force.
    pub draining: Option<Draining>,
    /// `None`: the queue is not there.
    pub depths: BTreeMap<PartitionNumber, Option<Depth>>,
    /// What the management API tells besides, by queue.
    pub uses: BTreeMap<String, QueueUse>,
    /// What owners say that they hold, where it drains.
    pub holdings: BTreeMap<PartitionNumber, Holding>,
}

impl Scene {
    /// Looks over AMQP and, for what that does not tell, at the management API.
    pub async fn look(config: &Config) -> Result<Self, SourceError> {
        let names = Names::new(&config.updates.exchange);
        let address = Address::new(&config.broker)?;
        let operator = Operator::connect(&address, names.clone(), &config.instance).await?;
        let looked = Self::look_as(&operator, config, names).await;
        operator.close().await;
        looked
    }

    async fn look_as(operator: &Operator, config: &Config, names: Names) -> Result<Self, SourceError> {
        let document = operator.document().await?;
        let mut scene = Self { names, document, layouts: Vec::new(), unseen: None };
        let Some(layouts) = scene.document.as_ref().map(|document| &document.layouts) else {
            return Ok(scene);
        };
        let draining = layouts.draining.iter().map(|draining| (draining.layout, Some(draining.clone())));
        for (layout, draining) in draining.chain([(layouts.in_force, None)]) {
            let depths = operator.depths(layout).await?;
            let queues = layout.partitions().map(|partition| scene.names.partition(layout.number, partition));
            let uses = match queue_uses(&config.broker.management(), queues.collect()).await {
                Ok(uses) => uses,
                Err(fault) => {
                    scene.unseen = Some(fault);
                    BTreeMap::new()
                }
            };
            let drains = draining.as_ref().is_some_and(|draining| !draining.is_drained());
            let holdings = if drains { operator.holdings(layout, LISTENING).await? } else { BTreeMap::new() };
            scene.layouts.push(Seen { layout, draining, depths, uses, holdings });
        }
        Ok(scene)
    }
}

impl Seen {
    /// Updates in its queues that nobody holds.
    pub fn ready(&self) -> u64 {
        self.depths.values().flatten().map(|depth| u64::from(depth.ready)).sum()
    }

    /// Queues that are not there. Those of a layout that is removed at this moment are not missed.
    pub fn missing(&self) -> impl Iterator<Item = PartitionNumber> {
        let removed = self.draining.as_ref().is_some_and(Draining::is_drained);
        let missing = self.depths.iter().filter(move |(_, depth)| depth.is_none() && !removed);
        missing.map(|(partition, _)| *partition)
    }
}

//! The layouts, as the command line looks at them and changes them: one connection, one question after another.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use lapin::Connection;
use tokio::time::timeout;

use super::change::{Tended, look, tend};
use super::document::{self, From, LayoutDocument};
use super::error::SourceError;
use super::follower::read_document;
use super::inspection::Depth;
use super::link::Address;
use super::names::Names;
use super::question::{Answers, ask};
use super::roster::{Holding, parse};
use super::topology::{close, open};
use lanekeeper_core::change::{Step, Wish};
use lanekeeper_core::layout::{Layout, LayoutNumber, PartitionNumber};

/// A lock that is held for longer than this is not that of a dispatcher that only tells what it has drained.
const LOCK_PATIENCE: Duration = Duration::from_secs(10);
const LOCK_POLL: Duration = Duration::from_millis(100);
const CLOSE_TIMEOUT: Duration = Duration::from_secs(1);

/// A connection for an operator.
#[derive(Debug)]
pub struct Operator {
    connection: Connection,
    names: Names,
    instance: String,
}

impl Operator {
    /// Connects once.
    ///
    /// # Errors
    /// As [`Address::connect`].
    pub async fn connect(address: &Address, names: Names, instance: &str) -> Result<Self, SourceError> {
        let connection = address.connect(&format!("lanekeeper {instance} topology")).await?;
        Ok(Self { connection, names, instance: instance.to_owned() })
    }

    /// The last document; `None`: there is none yet.
    ///
    /// # Errors
    /// It cannot be read.
    pub async fn document(&self) -> Result<Option<LayoutDocument>, SourceError> {
        read_document(&self.connection, &self.names).await
    }

    /// What is in the queues of a layout; `None`: the queue is not there.
    ///
    /// # Errors
    /// The broker does not tell.
    pub async fn depths(
        &self,
        layout: Layout,
    ) -> Result<BTreeMap<PartitionNumber, Option<Depth>>, SourceError> {
        let mut depths = BTreeMap::new();
        for partition in layout.partitions() {
            let queue = self.names.partition(layout.number, partition);
            let depth = match look(&self.connection, &self.names, &queue).await {
                Ok((ready, consumers)) => Some(Depth { ready, consumers }),
                Err(SourceError::Missing { .. }) => None,
                Err(fault) => return Err(fault),
            };
            depths.insert(partition, depth);
        }
        Ok(depths)
    }

    /// What owners say that they hold of a layout that drains, as they tell it in so much time: the newest of each
    /// partition. They tell it every two seconds; a standby holds nothing.
    ///
    /// # Errors
    /// The stream cannot be read.
    pub async fn holdings(
        &self,
        layout: Layout,
        patience: Duration,
    ) -> Result<BTreeMap<PartitionNumber, Holding>, SourceError> {
        let channel = open(&self.connection).await?;
        let mut consumer = document::consume(&channel, &self.names.members(), From::Next).await?;
        let mut holdings: BTreeMap<PartitionNumber, Holding> = BTreeMap::new();
        let until = tokio::time::Instant::now() + patience;
        while let Ok(delivery) = tokio::time::timeout_at(until, document::next(&mut consumer)).await {
            let Some(note) = parse(&delivery?.data).filter(|note| note.layout == layout.number.0) else {
                continue;
            };
            if let Some(holding) = note.holding.filter(|holding| holding.updates > 0) {
                holdings.insert(PartitionNumber(note.partition), holding);
            }
        }
        close(channel).await;
        Ok(holdings)
    }

    /// Asks what is held of these partitions, which have an owner. Done once all have answered, after
    /// [`ANSWER_PATIENCE`](super::ANSWER_PATIENCE) in any case. Under an alarm of the broker this operator is of no more
    /// use.
    pub async fn ask(&self, awaited: BTreeSet<(LayoutNumber, PartitionNumber)>) -> Answers {
        ask(&self.connection, &self.names, &self.instance, awaited).await
    }

    /// Follows a wish as far as can be now. `hear` is told of each step before it is taken. Waits for a lock that is held
    /// for a moment.
    ///
    /// # Errors
    /// [`SourceError::Locked`], [`SourceError::NoLayout`], and what else can go wrong: the change is then finished or
    /// undone by the next one who looks. This operator is of no more use.
    pub async fn tend(
        &self,
        wish: Wish,
        hear: &mut (impl FnMut(&Step, &LayoutDocument) + Send),
    ) -> Result<Tended, SourceError> {
        let until = tokio::time::Instant::now() + LOCK_PATIENCE;
        loop {
            match tend(&self.connection, &self.names, &self.instance, wish.clone(), hear).await {
                Err(SourceError::Locked { .. }) if tokio::time::Instant::now() < until => {
                    tokio::time::sleep(LOCK_POLL).await;
                }
                tended => return tended,
            }
        }
    }

    /// Closes the connection, and with it gives up the lock if something went wrong under it.
    pub async fn close(self) {
        let _ = timeout(CLOSE_TIMEOUT, self.connection.close(200, "done".into())).await;
    }
}

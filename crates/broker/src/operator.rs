//! The layouts, as the command line looks at them and changes them: one connection, one question after another.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::connection::Connection;
use tokio::time::timeout;

use super::change::{Reconciled, look, reconcile};
use super::connection::Address;
use super::document::{self, LayoutDocument, StreamOffset};
use super::error::SourceError;
use super::follower::read_document;
use super::inspection::Depth;
use super::member_message::{PartitionStatus, parse};
use super::names::Names;
use super::status_query::{StatusAnswers, ask};
use super::topology::{close, open};
use lanekeeper_core::change::{Desired, Step};
use lanekeeper_core::layout::{Layout, LayoutNumber, PartitionNumber};

/// A lock that is held for longer than this is not that of a dispatcher that only tells what it has drained.
const LOCK_TIMEOUT: Duration = Duration::from_secs(10);
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
    pub async fn statuses(
        &self,
        layout: Layout,
        within: Duration,
    ) -> Result<BTreeMap<PartitionNumber, PartitionStatus>, SourceError> {
        let channel = open(&self.connection).await?;
        let mut consumer = document::consume(&channel, &self.names.members(), StreamOffset::Next).await?;
        let mut statuses: BTreeMap<PartitionNumber, PartitionStatus> = BTreeMap::new();
        let until = tokio::time::Instant::now() + within;
        while let Ok(delivery) = tokio::time::timeout_at(until, document::next(&mut consumer)).await {
            let Some(message) = parse(&delivery?.data).filter(|message| message.layout == layout.number.0)
            else {
                continue;
            };
            if let Some(status) = message.status.filter(|status| status.updates > 0) {
                statuses.insert(PartitionNumber(message.partition), status);
            }
        }
        close(channel).await;
        Ok(statuses)
    }

    /// Asks what is held of these partitions, which have an owner. Done once all have answered, after
    /// [`STATUS_TIMEOUT`](super::STATUS_TIMEOUT) in any case. Under an alarm of the broker this operator is of no more
    /// use.
    pub async fn ask(&self, awaited: BTreeSet<(LayoutNumber, PartitionNumber)>) -> StatusAnswers {
        ask(&self.connection, &self.names, &self.instance, awaited).await
    }

    /// Follows a wish as far as can be now. `on_step` is told of each step before it is taken. Waits for a lock that is held
    /// for a moment.
    ///
    /// # Errors
    /// [`SourceError::Locked`], [`SourceError::NoLayout`], and what else can go wrong: the change is then finished or
    /// undone by the next one who looks. This operator is of no more use.
    pub async fn reconcile(
        &self,
        desired: Desired,
        on_step: &mut (impl FnMut(&Step, &LayoutDocument) + Send),
    ) -> Result<Reconciled, SourceError> {
        let until = tokio::time::Instant::now() + LOCK_TIMEOUT;
        loop {
            match reconcile(&self.connection, &self.names, &self.instance, desired.clone(), on_step).await {
                Err(SourceError::Locked { .. }) if tokio::time::Instant::now() < until => {
                    tokio::time::sleep(LOCK_POLL).await;
                }
                reconciled => return reconciled,
            }
        }
    }

    /// Closes the connection, and with it gives up the lock if something went wrong under it.
    pub async fn close(self) {
        let _ = timeout(CLOSE_TIMEOUT, self.connection.close(200, "normal shutdown".into())).await;
    }
}

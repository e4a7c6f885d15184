//! The layouts, as the command line reads and changes them: one connection, one request after another.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use tokio::time::timeout;

use super::beliefs::PublishedBelief;
use super::channel::stream_reader::StreamOffset;
use super::connection::{Address, Connection};
use super::error::SourceError;
use super::membership::{
    ANSWER_BYTES_MAX, Inquired, PartitionStatus, READING, SeenProcess, StatusAnswers, ask, believe, inquire,
    last_seen, parse,
};
use super::names::Names;
use super::topology::document_stream::read_if_there;
use super::topology::session::{Depth, TopologySession};
use super::topology::{Adopted, LayoutDocument, Reconciled, adopt, reconcile};
use lanekeeper_core::change::{Desired, Step};
use lanekeeper_core::layout::{Layout, LayoutNumber, PartitionNumber};

/// A dispatcher that records what it has drained holds the lock for less than this.
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
        let address = address.reading_bodies(ANSWER_BYTES_MAX);
        let connection = address.connect(&format!("lanekeeper {instance} topology")).await?;
        Ok(Self { connection, names, instance: instance.to_owned() })
    }

    /// The last document; `None`: there is none yet.
    ///
    /// # Errors
    /// It cannot be read.
    pub async fn document(&self) -> Result<Option<LayoutDocument>, SourceError> {
        read_if_there(&self.session()).await
    }

    fn session(&self) -> TopologySession<'_> {
        TopologySession::new(&self.connection, &self.names, &self.instance)
    }

    /// What is in the queues of a layout; `None`: the queue is not there.
    ///
    /// # Errors
    /// The broker refuses to say.
    pub async fn depths(
        &self,
        layout: Layout,
    ) -> Result<BTreeMap<PartitionNumber, Option<Depth>>, SourceError> {
        let (mut session, mut depths) = (self.session(), BTreeMap::new());
        for partition in layout.partitions() {
            let queue = self.names.partition(layout.number, partition);
            let depth = match session.queue_depth(&queue).await {
                Ok(depth) => Some(depth),
                Err(SourceError::Missing { .. }) => None,
                Err(fault) => return Err(fault),
            };
            depths.insert(partition, depth);
        }
        session.close().await;
        Ok(depths)
    }

    /// What owners publish within this time of what they hold of a layout that drains: the newest of each partition. They
    /// publish it every two seconds; a standby holds nothing.
    ///
    /// # Errors
    /// The stream cannot be read.
    pub async fn statuses(
        &self,
        layout: Layout,
        within: Duration,
    ) -> Result<BTreeMap<PartitionNumber, PartitionStatus>, SourceError> {
        let session = self.session();
        let mut reader = session.read_stream(&self.names.members(), StreamOffset::Next, READING).await?;
        let mut statuses: BTreeMap<PartitionNumber, PartitionStatus> = BTreeMap::new();
        let until = tokio::time::Instant::now() + within;
        while let Ok(delivery) = tokio::time::timeout_at(until, reader.next()).await {
            let Some(message) = parse(&delivery?.data).filter(|message| message.layout == layout.number.0)
            else {
                continue;
            };
            if let Some(status) = message.status.filter(|status| status.updates > 0) {
                statuses.insert(PartitionNumber(message.partition), status);
            }
        }
        reader.close().await;
        Ok(statuses)
    }

    /// Asks what is held of these partitions, which have an owner. Returns once all have answered, after
    /// [`STATUS_TIMEOUT`](super::STATUS_TIMEOUT) in any case. Under an alarm of the broker this operator is of no more
    /// use.
    pub async fn ask(&self, awaited: BTreeSet<(LayoutNumber, PartitionNumber)>) -> StatusAnswers {
        ask(&self.connection, &self.names, &self.instance, awaited).await
    }

    /// Puts a question to all processes. Returns once each that is alive has answered, at the latest at `until`. `process_of`
    /// reads from an answer which process it is of.
    pub async fn inquire(
        &self,
        text: &str,
        until: tokio::time::Instant,
        process_of: impl Fn(&[u8]) -> Option<String> + Send,
    ) -> Inquired {
        inquire(&self.connection, &self.names, &self.instance, text, until, process_of).await
    }

    /// Who was alive when the broker took publishes for the last time, by process, and if all that shows it was read. Takes two
    /// seconds at most.
    ///
    /// # Errors
    /// The stream of members cannot be read.
    pub async fn last_seen(&self) -> Result<(BTreeMap<String, SeenProcess>, bool), SourceError> {
        last_seen(&self.session(), &self.names).await
    }

    /// Returns true if the connection is up.
    #[must_use]
    pub fn is_connected(&self) -> bool {
        self.connection.status().connected()
    }

    /// Publishes to all processes that rejections of the target of this name are its own word, until so many seconds since 1970.
    /// Returns once it is confirmed.
    ///
    /// # Errors
    /// [`SourceError::NoLayout`], and what else can go wrong: it was published or not.
    pub async fn believe(&self, target: &str, until: u64) -> Result<(), SourceError> {
        let belief = PublishedBelief { target: target.to_owned(), until };
        believe(&self.connection, &self.names, &self.instance, belief).await
    }

    /// Brings the layouts as near to what is desired as can be now. Calls `on_step` before each step. Waits up to ten seconds
    /// for the lock.
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

    /// Writes a layout document for the one layout that the broker has, with this prefetch.
    ///
    /// # Errors
    /// [`SourceError::Locked`], and what else can go wrong. This operator is of no more use.
    pub async fn adopt(&self, prefetch: u16) -> Result<Adopted, SourceError> {
        adopt(&self.connection, &self.names, &self.instance, prefetch).await
    }

    /// Closes the connection, and with it gives up the lock if something went wrong under it.
    pub async fn close(self) {
        self.connection.cut_if_blocked();
        let _ = timeout(CLOSE_TIMEOUT, self.connection.close(200, "normal shutdown".into())).await;
    }
}

impl Drop for Operator {
    fn drop(&mut self) {
        self.connection.cut_if_blocked();
    }
}

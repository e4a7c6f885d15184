//! The ledger on one database: four connections, two of them with a batcher.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tokio::sync::Mutex;
use tokio::time::timeout;
use uuid::Uuid;

use super::super::database::{Options, bytes, options};
use super::super::lock::Locks;
use super::connection_slot::{ANSWER_MAX, ConnectionSlot};
use super::lookup::lookup;
use super::write::{Bounds, Write, commit};
use super::{binding, parked, upkeep};
use crate::batcher::Batcher;
use crate::binding::{BoundTopology, LedgerBinding};
use crate::config::LedgerConfig;
use crate::entry::{Entry, LookupResult, ParkedSeq, Query, Recorded};
use crate::error::LedgerError;
use crate::ledger::Ledger;
use crate::parked::{LedgerStats, ParkedRecord, ParkedUpdate, ReleasedRecord};
use crate::postgres::RecordLock;
use crate::prune::Pruning;
use lanekeeper_core::layout::{LayoutNumber, PartitionNumber};
use lanekeeper_core::message::TenureNumber;
use lanekeeper_core::update::RecordKey;

/// The ledger on one database.
#[derive(Debug)]
pub struct SqlStore {
    lookups: Batcher<Query, LookupResult>,
    entries: Batcher<Write, Recorded>,
    pub(super) connections: Arc<Connections>,
    locks: Locks,
    config: LedgerConfig,
    identity: Uuid,
    pruning: Mutex<[Pruning; 2]>,
}

/// The connections.
#[derive(Debug)]
pub(super) struct Connections {
    /// For `lookup`.
    lookups: ConnectionSlot,
    /// For everything that writes: SQLite allows one writer, so all writes of this process use one connection.
    pub writes: ConnectionSlot,
    /// For what else dispatchers read.
    pub reads: ConnectionSlot,
    /// For what people read. Not opened before.
    pub operators: ConnectionSlot,
    options: Options,
    commits: AtomicU64,
    entries: AtomicU64,
}

impl SqlStore {
    /// Opens the ledger, creates it if it does not exist, and migrates its schema.
    ///
    /// # Errors
    /// It cannot be opened, or a later version of the program has migrated it.
    pub async fn open(config: LedgerConfig) -> Result<Self, LedgerError> {
        let options: Options = options(&config)?;
        let slot = || ConnectionSlot::new(options.clone());
        let connections = Connections {
            lookups: slot(),
            writes: slot(),
            reads: slot(),
            operators: slot(),
            options: options.clone(),
            commits: AtomicU64::new(0),
            entries: AtomicU64::new(0),
        };
        let mut lease = connections.writes.acquire().await?;
        let result = timeout(ANSWER_MAX, upkeep::migrate(&mut lease.connection)).await;
        let identity = lease.release(result)?;

        let connections = Arc::new(connections);
        let lookups = {
            let connections = Arc::clone(&connections);
            let work = move |queries: Arc<[Query]>| {
                let connections = Arc::clone(&connections);
                async move { connections.lookup(&queries).await }
            };
            Batcher::start(|_| 0, work)
        };
        let entries = {
            let (connections, bounds) = (Arc::clone(&connections), Bounds::of(&config));
            let work = move |writes: Arc<[Write]>| {
                let connections = Arc::clone(&connections);
                async move { connections.commit(&writes, bounds).await }
            };
            Batcher::start(Write::bytes, work)
        };
        let locks = Locks::new(options, &config);
        Ok(Self { lookups, entries, connections, locks, config, identity, pruning: Mutex::default() })
    }

    /// See [`crate::AnyLedger::change_users`].
    ///
    /// # Errors
    /// The URLs are not of this kind of database.
    pub fn change_users(&self, config: &LedgerConfig) -> Result<(), LedgerError> {
        self.connections.options.change_users(config)
    }

    /// Waits until the ledger cannot be used any more, whatever is tried again, and says why.
    pub async fn unusable(&self) -> LedgerError {
        self.connections.options.unusable().await
    }

    /// Returns which exchange the ledger belongs to.
    ///
    /// # Errors
    /// See [`crate::AnyLedger::binding`].
    pub async fn binding(&self) -> Result<LedgerBinding, LedgerError> {
        let mut lease = self.connections.reads.acquire_checked().await?;
        let result = timeout(ANSWER_MAX, binding::binding(&mut lease.connection)).await;
        lease.release(result)
    }

    /// The ledger belongs to this exchange from now on.
    ///
    /// # Errors
    /// See [`crate::AnyLedger::bind`].
    pub async fn bind(
        &self,
        before: Option<Uuid>,
        topology: &BoundTopology,
        mark: Uuid,
        known: Option<Uuid>,
    ) -> Result<bool, LedgerError> {
        let mut lease = self.connections.writes.acquire().await?;
        let work = binding::bind(&mut lease.connection, before, topology, mark, known);
        let result = timeout(ANSWER_MAX, work).await;
        lease.release(result)
    }

    /// A dispatcher of this exchange uses the ledger, or has stopped.
    ///
    /// # Errors
    /// See [`crate::AnyLedger::set_used`].
    pub async fn set_used(&self, topology: Uuid, used: bool) -> Result<(), LedgerError> {
        let mut lease = self.connections.writes.acquire().await?;
        let result = timeout(ANSWER_MAX, binding::set_used(&mut lease.connection, topology, used)).await;
        lease.release(result)
    }
}

impl Connections {
    async fn lookup(&self, queries: &[Query]) -> Result<Vec<LookupResult>, LedgerError> {
        let mut lease = self.lookups.acquire().await?;
        let result = timeout(ANSWER_MAX, lookup(&mut lease.connection, queries)).await;
        lease.release(result)
    }

    async fn commit(&self, writes: &[Write], bounds: Bounds) -> Result<Vec<Recorded>, LedgerError> {
        let mut lease = self.writes.acquire().await?;
        let result = timeout(ANSWER_MAX, commit(&mut lease.connection, writes, bounds)).await;
        let answers = lease.release(result)?;
        self.commits.fetch_add(1, Ordering::Relaxed);
        self.entries.fetch_add(writes.len() as u64, Ordering::Relaxed);
        Ok(answers)
    }
}

impl Ledger for SqlStore {
    async fn lookup(&self, query: Query) -> Result<LookupResult, LedgerError> {
        self.lookups.call(query).await
    }

    async fn claim(
        &self,
        layout: LayoutNumber,
        partition: PartitionNumber,
        tenure: TenureNumber,
    ) -> Result<Recorded, LedgerError> {
        self.entries.call(Write::Claim(layout, partition, tenure)).await
    }

    async fn record(&self, entry: Entry) -> Result<Recorded, LedgerError> {
        self.entries.call(Write::Entry(Box::new(entry))).await
    }

    async fn lock(&self, query: Query) -> Result<(LookupResult, RecordLock), LedgerError> {
        self.locks.lock(query).await
    }

    async fn released(
        &self,
        after: Option<&ReleasedRecord>,
        limit: u32,
    ) -> Result<Vec<ReleasedRecord>, LedgerError> {
        let mut lease = self.connections.reads.acquire_checked().await?;
        let result = timeout(ANSWER_MAX, parked::released(&mut lease.connection, after, limit)).await;
        lease.release(result)
    }

    async fn parked_updates(
        &self,
        record_key: &RecordKey,
        after: Option<ParkedSeq>,
        limit: u32,
    ) -> Result<Vec<ParkedUpdate>, LedgerError> {
        let mut lease = self.connections.reads.acquire_checked().await?;
        let work = parked::updates(&mut lease.connection, record_key, after, limit);
        let result = timeout(ANSWER_MAX, work).await;
        lease.release(result)
    }

    async fn parked_record(&self, record_key: &RecordKey) -> Result<Option<ParkedRecord>, LedgerError> {
        let mut lease = self.connections.reads.acquire_checked().await?;
        let result = timeout(ANSWER_MAX, parked::record(&mut lease.connection, record_key)).await;
        lease.release(result)
    }

    async fn forget_layouts(&self, above: LayoutNumber) -> Result<u64, LedgerError> {
        let mut lease = self.connections.writes.acquire().await?;
        let result = timeout(ANSWER_MAX, parked::forget_layouts(&mut lease.connection, above)).await;
        lease.release(result)
    }

    async fn prune(&self) -> Result<u64, LedgerError> {
        let mut lease = self.connections.writes.acquire().await?;
        let mut pruning = self.pruning.lock().await;
        let work = upkeep::prune(&mut lease.connection, self.config.retention, &mut pruning);
        let result = timeout(ANSWER_MAX, work).await;
        lease.release(result)
    }

    async fn stats(&self) -> Result<LedgerStats, LedgerError> {
        let mut lease = self.connections.reads.acquire_checked().await?;
        let work = async {
            let counted = upkeep::stats(&mut lease.connection).await?;
            Ok::<_, LedgerError>((counted, bytes(&mut lease.connection, &self.config).await?))
        };
        let result = timeout(ANSWER_MAX, work).await;
        let (counted, bytes) = lease.release(result)?;
        let commits = self.connections.commits.load(Ordering::Relaxed);
        let entries = self.connections.entries.load(Ordering::Relaxed);
        Ok(LedgerStats { bytes, commits, entries, ..counted })
    }

    fn identity(&self) -> Uuid {
        self.identity
    }
}

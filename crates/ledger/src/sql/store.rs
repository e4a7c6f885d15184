//! The ledger on one database: three connections, two of which are shared in batches.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tokio::time::timeout;
use uuid::Uuid;

use super::line::{ANSWER_MAX, Line};
use super::write::{Write, commit};
use super::{Locks, Options, bytes, consult, options, parked, upkeep};
use crate::config::LedgerConfig;
use crate::gather::Gather;
use crate::{
    Discarded, Entry, Finding, Grounds, Ledger, LedgerError, LedgerStats, ParkedRecord, ParkedSeq,
    ParkedUpdate, Query, RecordLock, Recorded, ReleasedRecord, Selection,
};
use lanekeeper_core::layout::{LayoutNumber, PartitionNumber};
use lanekeeper_core::message::TenureNumber;
use lanekeeper_core::update::RecordKey;

/// The ledger on one database.
#[derive(Debug)]
pub struct Store {
    consultations: Gather<Query, Finding>,
    entries: Gather<Write, Recorded>,
    lines: Arc<Lines>,
    locks: Locks,
    config: LedgerConfig,
    identity: Uuid,
}

/// The connections.
#[derive(Debug)]
struct Lines {
    /// For `consult`.
    consultations: Line,
    /// For everything that writes: SQLite has one writer, and here all wait in line.
    writes: Line,
    /// For everything else that reads.
    reads: Line,
    commits: AtomicU64,
    entries: AtomicU64,
}

impl Store {
    /// Opens the ledger, makes it where it is missing, and brings its schema up to date.
    ///
    /// # Errors
    /// It cannot be opened, or was changed by a later version of the program.
    pub async fn open(config: LedgerConfig) -> Result<Self, LedgerError> {
        let options: Options = options(&config)?;
        let line = || Line::new(options.clone());
        let lines = Lines {
            consultations: line(),
            writes: line(),
            reads: line(),
            commits: AtomicU64::new(0),
            entries: AtomicU64::new(0),
        };
        let mut held = lines.writes.hold().await?;
        let result = timeout(ANSWER_MAX, upkeep::migrate(&mut held.connection)).await;
        let identity = held.give_back(result)?;

        let lines = Arc::new(lines);
        let consultations = {
            let lines = Arc::clone(&lines);
            let work = move |queries: Arc<[Query]>| {
                let lines = Arc::clone(&lines);
                async move { lines.consult(&queries).await }
            };
            Gather::start(|_| 0, work)
        };
        let entries = {
            let (lines, parked_max) = (Arc::clone(&lines), config.parked_max);
            let work = move |writes: Arc<[Write]>| {
                let lines = Arc::clone(&lines);
                async move { lines.commit(&writes, parked_max).await }
            };
            Gather::start(Write::bytes, work)
        };
        let locks = Locks::new(options, &config);
        Ok(Self { consultations, entries, lines, locks, config, identity })
    }
}

impl Lines {
    async fn consult(&self, queries: &[Query]) -> Result<Vec<Finding>, LedgerError> {
        let mut held = self.consultations.hold().await?;
        let result = timeout(ANSWER_MAX, consult(&mut held.connection, queries)).await;
        held.give_back(result)
    }

    async fn commit(&self, writes: &[Write], parked_max: u64) -> Result<Vec<Recorded>, LedgerError> {
        let mut held = self.writes.hold().await?;
        let result = timeout(ANSWER_MAX, commit(&mut held.connection, writes, parked_max)).await;
        let answers = held.give_back(result)?;
        self.commits.fetch_add(1, Ordering::Relaxed);
        self.entries.fetch_add(writes.len() as u64, Ordering::Relaxed);
        Ok(answers)
    }
}

impl Ledger for Store {
    async fn consult(&self, query: Query) -> Result<Finding, LedgerError> {
        self.consultations.call(query).await
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

    async fn lock(&self, query: Query) -> Result<(Finding, RecordLock), LedgerError> {
        self.locks.lock(query).await
    }

    async fn released(&self, limit: u32) -> Result<Vec<ReleasedRecord>, LedgerError> {
        let mut held = self.lines.reads.hold().await?;
        let result = timeout(ANSWER_MAX, parked::released(&mut held.connection, limit)).await;
        held.give_back(result)
    }

    async fn parked_updates(
        &self,
        record_key: &RecordKey,
        after: Option<ParkedSeq>,
        limit: u32,
    ) -> Result<Vec<ParkedUpdate>, LedgerError> {
        let mut held = self.lines.reads.hold().await?;
        let work = parked::updates(&mut held.connection, record_key, after, limit);
        let result = timeout(ANSWER_MAX, work).await;
        held.give_back(result)
    }

    async fn parked_records(
        &self,
        after: Option<&RecordKey>,
        limit: u32,
    ) -> Result<Vec<ParkedRecord>, LedgerError> {
        let mut held = self.lines.reads.hold().await?;
        let result = timeout(ANSWER_MAX, parked::records(&mut held.connection, after, limit)).await;
        held.give_back(result)
    }

    async fn parked_record(&self, record_key: &RecordKey) -> Result<Option<ParkedRecord>, LedgerError> {
        let mut held = self.lines.reads.hold().await?;
        let result = timeout(ANSWER_MAX, parked::record(&mut held.connection, record_key)).await;
        held.give_back(result)
    }

    async fn release(&self, selection: &Selection) -> Result<u64, LedgerError> {
        let mut held = self.lines.writes.hold().await?;
        let result = timeout(ANSWER_MAX, parked::release(&mut held.connection, selection)).await;
        held.give_back(result)
    }

    async fn discard(
        &self,
        record_key: &RecordKey,
        head: Option<u32>,
        grounds: &Grounds,
    ) -> Result<Discarded, LedgerError> {
        let mut line = self.lines.writes.hold().await?;
        let work = parked::discard(&mut line.connection, record_key, head, grounds);
        let result = timeout(ANSWER_MAX, work).await;
        line.give_back(result)
    }

    async fn prune(&self) -> Result<u64, LedgerError> {
        let mut held = self.lines.writes.hold().await?;
        let work = upkeep::prune(&mut held.connection, self.config.retention);
        let result = timeout(ANSWER_MAX, work).await;
        held.give_back(result)
    }

    async fn stats(&self) -> Result<LedgerStats, LedgerError> {
        let mut held = self.lines.reads.hold().await?;
        let work = async {
            let counted = upkeep::stats(&mut held.connection).await?;
            Ok::<_, LedgerError>((counted, bytes(&mut held.connection, &self.config).await?))
        };
        let result = timeout(ANSWER_MAX, work).await;
        let (counted, bytes) = held.give_back(result)?;
        let commits = self.lines.commits.load(Ordering::Relaxed);
        let entries = self.lines.entries.load(Ordering::Relaxed);
        Ok(LedgerStats { bytes, commits, entries, ..counted })
    }

    fn identity(&self) -> Uuid {
        self.identity
    }
}

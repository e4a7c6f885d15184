//! Either database behind one type.

use uuid::Uuid;

use super::binding::{BoundTopology, LedgerBinding};
use super::changes::{Change, ChangeFilter, ChangeSeq};
use super::entry::{Entry, LookupResult, ParkedSeq, Query, Recorded};
use super::error::LedgerError;
use super::history::{IdHistory, RecordState};
use super::ledger::Ledger;
use super::operations::Operations;
use super::parked::{
    Discarded, LedgerStats, OperatorReason, ParkedCounts, ParkedRecord, ParkedUpdate, Released,
    ReleasedRecord, Selection,
};
use super::pauses::{Paused, PausedRecord, PausedTarget, Resumed};
use super::postgres::{PostgresLedger, RecordLock};
use super::search::{FoundParked, ParkedCursor, ParkedFilter};
use super::sqlite::SqliteLedger;
use crate::config::{LedgerConfig, LedgerPlace};
use lanekeeper_core::layout::{LayoutNumber, PartitionNumber};
use lanekeeper_core::message::TenureNumber;
use lanekeeper_core::update::RecordKey;

/// The ledger that the config names.
#[derive(Debug)]
pub enum AnyLedger {
    /// An SQLite file.
    Sqlite(SqliteLedger),
    /// A PostgreSQL server.
    Postgres(PostgresLedger),
}

/// Calls the ledger of either database.
macro_rules! either {
    ($self:ident.$call:ident($($argument:ident),*)) => {
        match $self {
            Self::Sqlite(ledger) => ledger.$call($($argument),*).await,
            Self::Postgres(ledger) => ledger.$call($($argument),*).await,
        }
    };
}

impl AnyLedger {
    /// Opens the ledger, creates it if it does not exist, and migrates its schema.
    ///
    /// # Errors
    /// It cannot be opened, or a later version of the program has migrated it.
    pub async fn open(config: LedgerConfig) -> Result<Self, LedgerError> {
        match config.place {
            LedgerPlace::Sqlite(_) => SqliteLedger::open(config).await.map(Self::Sqlite),
            LedgerPlace::Postgres(_) => PostgresLedger::open(config).await.map(Self::Postgres),
        }
    }

    /// From now on, sessions are opened with the users and the passwords that this config has. Otherwise it must have the same
    /// `place` as before. A file has neither.
    ///
    /// # Errors
    /// It has a place of another kind.
    pub fn change_users(&self, config: &LedgerConfig) -> Result<(), LedgerError> {
        match self {
            Self::Sqlite(ledger) => ledger.change_users(config),
            Self::Postgres(ledger) => ledger.change_users(config),
        }
    }

    /// Waits until the ledger cannot be used any more, whatever is tried again, and says why.
    pub async fn unusable(&self) -> LedgerError {
        either!(self.unusable())
    }

    /// Returns which exchange the ledger belongs to.
    ///
    /// # Errors
    /// The database does not answer, or the ledger is damaged.
    pub async fn binding(&self) -> Result<LedgerBinding, LedgerError> {
        either!(self.binding())
    }

    /// The ledger belongs to this exchange from now on. When it has returned true, the mark is the newest one; `known`, that of
    /// the layout document, is kept as well. False: it belongs to another exchange than `before` by now, and nothing was written.
    ///
    /// # Errors
    /// The database does not answer; nothing or all was written.
    pub async fn bind(
        &self,
        before: Option<Uuid>,
        topology: &BoundTopology,
        mark: Uuid,
        known: Option<Uuid>,
    ) -> Result<bool, LedgerError> {
        either!(self.bind(before, topology, mark, known))
    }

    /// A dispatcher of this exchange uses the ledger now, or has stopped. Changes nothing if the ledger is another exchange's.
    ///
    /// # Errors
    /// The database does not answer.
    pub async fn set_used(&self, topology: Uuid, used: bool) -> Result<(), LedgerError> {
        either!(self.set_used(topology, used))
    }
}

impl Ledger for AnyLedger {
    async fn lookup(&self, query: Query) -> Result<LookupResult, LedgerError> {
        either!(self.lookup(query))
    }

    async fn claim(
        &self,
        layout: LayoutNumber,
        partition: PartitionNumber,
        tenure: TenureNumber,
    ) -> Result<Recorded, LedgerError> {
        either!(self.claim(layout, partition, tenure))
    }

    async fn record(&self, entry: Entry) -> Result<Recorded, LedgerError> {
        either!(self.record(entry))
    }

    async fn lock(&self, query: Query) -> Result<(LookupResult, RecordLock), LedgerError> {
        either!(self.lock(query))
    }

    async fn released(
        &self,
        after: Option<&ReleasedRecord>,
        limit: u32,
    ) -> Result<Vec<ReleasedRecord>, LedgerError> {
        either!(self.released(after, limit))
    }

    async fn parked_updates(
        &self,
        record_key: &RecordKey,
        after: Option<ParkedSeq>,
        limit: u32,
    ) -> Result<Vec<ParkedUpdate>, LedgerError> {
        either!(self.parked_updates(record_key, after, limit))
    }

    async fn parked_record(&self, record_key: &RecordKey) -> Result<Option<ParkedRecord>, LedgerError> {
        either!(self.parked_record(record_key))
    }

    async fn forget_layouts(&self, above: LayoutNumber) -> Result<u64, LedgerError> {
        either!(self.forget_layouts(above))
    }

    async fn prune(&self) -> Result<u64, LedgerError> {
        either!(self.prune())
    }

    async fn stats(&self) -> Result<LedgerStats, LedgerError> {
        either!(self.stats())
    }

    fn identity(&self) -> Uuid {
        match self {
            Self::Sqlite(ledger) => ledger.identity(),
            Self::Postgres(ledger) => ledger.identity(),
        }
    }
}

impl Operations for AnyLedger {
    async fn parked_records(
        &self,
        after: Option<&RecordKey>,
        limit: u32,
    ) -> Result<Vec<ParkedRecord>, LedgerError> {
        either!(self.parked_records(after, limit))
    }

    async fn find_parked(
        &self,
        filter: &ParkedFilter,
        after: Option<&ParkedCursor>,
        limit: u32,
    ) -> Result<FoundParked, LedgerError> {
        either!(self.find_parked(filter, after, limit))
    }

    async fn release(
        &self,
        selection: &Selection,
        operator_reason: &OperatorReason,
    ) -> Result<Released, LedgerError> {
        either!(self.release(selection, operator_reason))
    }

    async fn discard(
        &self,
        record_key: &RecordKey,
        head: Option<u32>,
        operator_reason: &OperatorReason,
    ) -> Result<Discarded, LedgerError> {
        either!(self.discard(record_key, head, operator_reason))
    }

    async fn pause_record(
        &self,
        record_key: &RecordKey,
        operator_reason: &OperatorReason,
    ) -> Result<Paused, LedgerError> {
        either!(self.pause_record(record_key, operator_reason))
    }

    async fn resume_record(
        &self,
        record_key: &RecordKey,
        operator_reason: &OperatorReason,
    ) -> Result<Resumed, LedgerError> {
        either!(self.resume_record(record_key, operator_reason))
    }

    async fn paused_records(
        &self,
        after: Option<&RecordKey>,
        limit: u32,
    ) -> Result<Vec<PausedRecord>, LedgerError> {
        either!(self.paused_records(after, limit))
    }

    async fn parked_counts(&self) -> Result<ParkedCounts, LedgerError> {
        either!(self.parked_counts())
    }

    async fn poll_paused_targets(&self) -> Result<Vec<PausedTarget>, LedgerError> {
        either!(self.poll_paused_targets())
    }

    async fn paused_targets(&self) -> Result<Vec<PausedTarget>, LedgerError> {
        either!(self.paused_targets())
    }

    async fn pause_target(
        &self,
        name: &str,
        operator_reason: &OperatorReason,
    ) -> Result<Paused, LedgerError> {
        either!(self.pause_target(name, operator_reason))
    }

    async fn resume_target(&self, name: &str, operator_reason: &OperatorReason) -> Result<bool, LedgerError> {
        either!(self.resume_target(name, operator_reason))
    }

    async fn forget_version(
        &self,
        record_key: &RecordKey,
        operator_reason: &OperatorReason,
    ) -> Result<Option<i64>, LedgerError> {
        either!(self.forget_version(record_key, operator_reason))
    }

    async fn changes(
        &self,
        filter: &ChangeFilter,
        before: Option<ChangeSeq>,
        limit: u32,
    ) -> Result<Vec<Change>, LedgerError> {
        either!(self.changes(filter, before, limit))
    }

    async fn lookup_id(
        &self,
        update_id: &str,
        record_key: Option<&RecordKey>,
        limit: u32,
    ) -> Result<IdHistory, LedgerError> {
        either!(self.lookup_id(update_id, record_key, limit))
    }

    async fn record_state(&self, record_key: &RecordKey) -> Result<RecordState, LedgerError> {
        either!(self.record_state(record_key))
    }
}

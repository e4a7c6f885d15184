//! The durable record of what was applied and what is parked.
//!
//! One trait, two databases: an embedded SQLite file for one host, PostgreSQL for several. What differs between them is
//! in `sqlite` and `postgres`; statements that are the same in both stand once, in `sql`.

mod any;
mod batcher;
mod config;
mod entry;
mod error;
mod parked;
mod postgres;
mod prune;
mod rows;
mod sqlite;
mod stored;

pub use any::AnyLedger;
pub use config::{LedgerConfig, LedgerPlace};
pub use entry::{
    Entry, EntryKind, Fingerprint, IdStatus, LookupResult, ParkKind, ParkedSeq, Query, Recorded, ResolvedAs,
    StoredParkReason,
};
pub use error::LedgerError;
pub use parked::{
    Discarded, LedgerStats, OperatorReason, ParkedRecord, ParkedState, ParkedUpdate, ReleasedRecord,
    Selection,
};
pub use postgres::{PostgresLedger, RecordLock};
pub use prune::keep_pruned;
pub use sqlite::SqliteLedger;
pub use stored::StoredUpdate;
use uuid::Uuid;

use lanekeeper_core::layout::{LayoutNumber, PartitionNumber};
use lanekeeper_core::message::TenureNumber;
use lanekeeper_core::update::RecordKey;

/// Remembers across crashes, restarts and processes. All calls may be made by many at once.
///
/// Every wait is bounded. A call that failed has written nothing or, where the connection was lost during the commit,
/// perhaps all: writing the same entry again is always right. Later calls work again by themselves as soon as the
/// database does.
pub trait Ledger: Send + Sync + 'static {
    /// What is known before an attempt. Calls that come together share a round trip.
    fn lookup(&self, query: Query) -> impl Future<Output = Result<LookupResult, LedgerError>> + Send;

    /// Makes this the highest tenure of the partition. When it has returned `Done`, no write of an older tenure lands
    /// any more; `Fenced`: a newer one has written. To be called before the first consultation of a tenure.
    fn claim(
        &self,
        layout: LayoutNumber,
        partition: PartitionNumber,
        tenure: TenureNumber,
    ) -> impl Future<Output = Result<Recorded, LedgerError>> + Send;

    /// Writes an entry. When it has returned, the entry is committed to disk, or refused as the answer says. Entries
    /// that come together share a commit; those of one record must come one after another.
    fn record(&self, entry: Entry) -> impl Future<Output = Result<Recorded, LedgerError>> + Send;

    /// As `lookup`, and holds the record's row until the lock has recorded or is dropped: no other process can hold
    /// it meanwhile. PostgreSQL only.
    fn lock(
        &self,
        query: Query,
    ) -> impl Future<Output = Result<(LookupResult, RecordLock), LedgerError>> + Send;

    /// Records whose parked updates are to go out, at most `limit`, those released first at the front. Cheap when there
    /// are none.
    fn released(&self, limit: u32) -> impl Future<Output = Result<Vec<ReleasedRecord>, LedgerError>> + Send;

    /// Parked updates of a record after a place, oldest first, at most `limit`.
    fn parked_updates(
        &self,
        record_key: &RecordKey,
        after: Option<ParkedSeq>,
        limit: u32,
    ) -> impl Future<Output = Result<Vec<ParkedUpdate>, LedgerError>> + Send;

    /// Parked records in the order of their keys, after a key, at most `limit`.
    fn parked_records(
        &self,
        after: Option<&RecordKey>,
        limit: u32,
    ) -> impl Future<Output = Result<Vec<ParkedRecord>, LedgerError>> + Send;

    /// One parked record; `None`: it is not parked.
    fn parked_record(
        &self,
        record_key: &RecordKey,
    ) -> impl Future<Output = Result<Option<ParkedRecord>, LedgerError>> + Send;

    /// Marks parked records for going out, and says how many it has marked. Those that are on their way already do
    /// not count.
    fn release(&self, selection: &Selection) -> impl Future<Output = Result<u64, LedgerError>> + Send;

    /// Drops the first `head` parked updates of a record, or all of them. What was dropped, by whom and why stays in
    /// the audit table; the ids are known from now on.
    fn discard(
        &self,
        record_key: &RecordKey,
        head: Option<u32>,
        operator_reason: &OperatorReason,
    ) -> impl Future<Output = Result<Discarded, LedgerError>> + Send;

    /// Forgets one chunk of the ids that are older than the retention, and says how many; 0: there are no more.
    fn prune(&self) -> impl Future<Output = Result<u64, LedgerError>> + Send;

    /// How large it is. Counts rows: to be asked now and then, not often.
    fn stats(&self) -> impl Future<Output = Result<LedgerStats, LedgerError>> + Send;

    /// Made with the ledger, the same in every process that has it open.
    fn identity(&self) -> Uuid;
}

//! The trait of a ledger, as dispatchers use it.

use uuid::Uuid;

use super::entry::{Entry, LookupResult, ParkedSeq, Query, Recorded};
use super::error::LedgerError;
use super::parked::{LedgerStats, ParkedRecord, ParkedUpdate, ReleasedRecord};
use super::postgres::RecordLock;
use lanekeeper_core::layout::{LayoutNumber, PartitionNumber};
use lanekeeper_core::message::TenureNumber;
use lanekeeper_core::update::RecordKey;

/// Remembers updates and records across crashes, restarts and processes. Any number of tasks may call it at once. What people
/// ask and change is in [`super::Operations`].
///
/// Every wait is bounded. A call that failed has written nothing, or, if the connection was lost during the commit,
/// perhaps everything; writing the same entry again is always safe. Later calls work again as soon as the database does.
pub trait Ledger: Send + Sync + 'static {
    /// Returns what is known about an update before its attempt. Concurrent calls share a query.
    fn lookup(&self, query: Query) -> impl Future<Output = Result<LookupResult, LedgerError>> + Send;

    /// Makes this the highest tenure of the partition. When it has returned `Done`, no write of an older tenure is
    /// accepted any more; `Fenced`: a newer one has written. Call it before the first lookup of a tenure.
    fn claim(
        &self,
        layout: LayoutNumber,
        partition: PartitionNumber,
        tenure: TenureNumber,
    ) -> impl Future<Output = Result<Recorded, LedgerError>> + Send;

    /// Writes an entry. When it has returned, the entry is committed to disk, or refused as [`Recorded`] says.
    /// Concurrent calls share a commit; entries of one record must be written one after another.
    fn record(&self, entry: Entry) -> impl Future<Output = Result<Recorded, LedgerError>> + Send;

    /// As `lookup`, and locks the record's row until the lock has recorded an entry or is dropped. No other process can
    /// lock the row in that time. PostgreSQL only.
    fn lock(
        &self,
        query: Query,
    ) -> impl Future<Output = Result<(LookupResult, RecordLock), LedgerError>> + Send;

    /// Returns at most `limit` released records, whose parked updates are to be sent, in the order in which they were parked,
    /// from the one behind `after`. Cheap if there are none.
    fn released(
        &self,
        after: Option<&ReleasedRecord>,
        limit: u32,
    ) -> impl Future<Output = Result<Vec<ReleasedRecord>, LedgerError>> + Send;

    /// Returns at most `limit` parked updates of a record, oldest first, from the one behind `after`.
    fn parked_updates(
        &self,
        record_key: &RecordKey,
        after: Option<ParkedSeq>,
        limit: u32,
    ) -> impl Future<Output = Result<Vec<ParkedUpdate>, LedgerError>> + Send;

    /// Returns a parked record; `None`: it is not parked.
    fn parked_record(
        &self,
        record_key: &RecordKey,
    ) -> impl Future<Output = Result<Option<ParkedRecord>, LedgerError>> + Send;

    /// Forgets which partition has parked each record of a layout with a higher number than this: the partition of its key
    /// sends it when it is released. To be called when no layout had a higher number, so that those of which the ledger
    /// knows are of a topology that is gone. Returns how many records that were.
    fn forget_layouts(&self, above: LayoutNumber) -> impl Future<Output = Result<u64, LedgerError>> + Send;

    /// Deletes one chunk of the ids that are older than the retention, and of the oldest changes if there are more than
    /// [`super::CHANGES_MAX`], and returns how many; 0: there are no more.
    fn prune(&self) -> impl Future<Output = Result<u64, LedgerError>> + Send;

    /// Returns the size of the ledger. It counts rows, so call it rarely.
    fn stats(&self) -> impl Future<Output = Result<LedgerStats, LedgerError>> + Send;

    /// Returns the id that the ledger was created with. It is the same in every process.
    fn identity(&self) -> Uuid;
}

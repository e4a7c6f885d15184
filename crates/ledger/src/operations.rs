//! What people ask of the ledger and change in it, by the command line and the pages. Dispatchers use [`super::Ledger`].

use super::changes::{Change, ChangeFilter, ChangeSeq};
use super::error::LedgerError;
use super::history::{IdHistory, RecordState};
use super::parked::{Discarded, OperatorReason, ParkedCounts, ParkedRecord, Released, Selection};
use super::pauses::{Paused, PausedRecord, PausedTarget, Resumed};
use super::search::{FoundParked, ParkedCursor, ParkedFilter};
use lanekeeper_core::update::RecordKey;

/// Looks at records and changes them for people. Any number of tasks may call it at once, in any process that can open the
/// ledger, whether dispatchers run or not.
///
/// Each change is written to the table `ledger_change` in its own transaction, with who, when and why. A call that changed
/// nothing leaves no row there.
pub trait Operations: Send + Sync + 'static {
    /// Returns at most `limit` parked records in the order of their keys, from the one behind `after`.
    fn parked_records(
        &self,
        after: Option<&RecordKey>,
        limit: u32,
    ) -> impl Future<Output = Result<Vec<ParkedRecord>, LedgerError>> + Send;

    /// Returns at most `limit` parked records that the filter lets through, those that were parked last first, from the one
    /// behind `after`. Reads an index by time; a filter that few records pass makes it read more of them, at worst each parked
    /// record once (of which there are `ledger.parked_max` at most). With [`ParkedFilter::takes`], one call looks at
    /// [`super::LOOKED_AT_MAX`] records at most, and can return less than `limit` though there are more: go on from
    /// [`FoundParked::next`].
    fn find_parked(
        &self,
        filter: &ParkedFilter,
        after: Option<&ParkedCursor>,
        limit: u32,
    ) -> impl Future<Output = Result<FoundParked, LedgerError>> + Send;

    /// Releases parked records. Records that were released before do not count, and those that are paused are passed over. To release many at a rate, call it with the
    /// keys that [`Self::find_parked`] returns, some hundred at a time at most: all keys are one transaction.
    fn release(
        &self,
        selection: &Selection,
        operator_reason: &OperatorReason,
    ) -> impl Future<Output = Result<Released, LedgerError>> + Send;

    /// Drops the oldest `head` parked updates of a record; `None`: all of them. The table `ledger_discarded` keeps what was
    /// dropped, by whom and why; the ids count as resolved from then on.
    fn discard(
        &self,
        record_key: &RecordKey,
        head: Option<u32>,
        operator_reason: &OperatorReason,
    ) -> impl Future<Output = Result<Discarded, LedgerError>> + Send;

    /// Pauses a record. When it has returned, no request for it begins any more, and its updates are parked in order as they
    /// come, also if nothing of it was parked before. A request that is out ends; its update is parked instead of tried again.
    /// A release that is under way ends, too. Updates that wait for a shut or paused target, or for their next attempt, are
    /// parked when their turn comes.
    fn pause_record(
        &self,
        record_key: &RecordKey,
        operator_reason: &OperatorReason,
    ) -> impl Future<Output = Result<Paused, LedgerError>> + Send;

    /// Ends the pause of a record, and releases what was parked because of it. If its oldest parked update had failed, the
    /// record stays parked for that, and waits for a release.
    fn resume_record(
        &self,
        record_key: &RecordKey,
        operator_reason: &OperatorReason,
    ) -> impl Future<Output = Result<Resumed, LedgerError>> + Send;

    /// Returns at most `limit` paused records in the order of their keys, from the one behind `after`.
    fn paused_records(
        &self,
        after: Option<&RecordKey>,
        limit: u32,
    ) -> impl Future<Output = Result<Vec<PausedRecord>, LedgerError>> + Send;

    /// Counts what is parked. It counts rows, so call it rarely.
    fn parked_counts(&self) -> impl Future<Output = Result<ParkedCounts, LedgerError>> + Send;

    /// The same as [`Self::paused_targets`] for dispatchers, which ask twice a second: it does not wait for what people search.
    fn poll_paused_targets(&self) -> impl Future<Output = Result<Vec<PausedTarget>, LedgerError>> + Send;

    /// Returns the targets that people have paused, by name; at most [`super::PAUSED_TARGETS_MAX`].
    fn paused_targets(&self) -> impl Future<Output = Result<Vec<PausedTarget>, LedgerError>> + Send;

    /// Pauses the target with this name: within two seconds, all dispatchers that use the ledger start no request at it. The
    /// caller checks that the config has such a target.
    fn pause_target(
        &self,
        name: &str,
        operator_reason: &OperatorReason,
    ) -> impl Future<Output = Result<Paused, LedgerError>> + Send;

    /// Ends the pause of a target. Returns false if it was not paused.
    fn resume_target(
        &self,
        name: &str,
        operator_reason: &OperatorReason,
    ) -> impl Future<Output = Result<bool, LedgerError>> + Send;

    /// Forgets the highest `record-version` that was applied to a record, and returns it: updates with any version are
    /// applied again. `None`: there was none.
    fn forget_version(
        &self,
        record_key: &RecordKey,
        operator_reason: &OperatorReason,
    ) -> impl Future<Output = Result<Option<i64>, LedgerError>> + Send;

    /// Returns at most `limit` changes that people made, the newest first, from the one before `before`. The newest
    /// [`super::CHANGES_MAX`] are kept.
    fn changes(
        &self,
        filter: &ChangeFilter,
        before: Option<ChangeSeq>,
        limit: u32,
    ) -> impl Future<Output = Result<Vec<Change>, LedgerError>> + Send;

    /// Returns what became of the updates that had this id, at most `limit` of them, by record key. The id alone is enough,
    /// since each table has an index by id; `record_key` is for publishers that use an id once for each record. Ids that were
    /// made for a delivery are known only while they are parked, and after a discard.
    fn lookup_id(
        &self,
        update_id: &str,
        record_key: Option<&RecordKey>,
        limit: u32,
    ) -> impl Future<Output = Result<IdHistory, LedgerError>> + Send;

    /// Returns what the ledger knows of a record, read by its key.
    fn record_state(
        &self,
        record_key: &RecordKey,
    ) -> impl Future<Output = Result<RecordState, LedgerError>> + Send;
}

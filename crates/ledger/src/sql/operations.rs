//! What people ask and change.

use tokio::time::timeout;

use super::connection_slot::ANSWER_MAX;
use super::store::SqlStore;
use super::{changes, parked, pauses, search, upkeep};
use crate::changes::{Change, ChangeFilter, ChangeSeq};
use crate::error::LedgerError;
use crate::history::{IdHistory, RecordState};
use crate::operations::Operations;
use crate::parked::{Discarded, OperatorReason, ParkedCounts, ParkedRecord, Released, Selection};
use crate::pauses::{Paused, PausedRecord, PausedTarget, Resumed};
use crate::search::{FoundParked, ParkedCursor, ParkedFilter};
use lanekeeper_core::update::RecordKey;

/// Reads with a connection of its own: a long search is in no dispatcher's way.
macro_rules! read {
    ($self:ident, $work:path $(, $argument:expr)*) => {{
        let mut lease = $self.connections.operators.acquire_checked().await?;
        let result = timeout(ANSWER_MAX, $work(&mut lease.connection $(, $argument)*)).await;
        lease.release(result)
    }};
}

/// Changes something, one after another with all that this process writes.
macro_rules! change {
    ($self:ident, $work:path, $($argument:expr),*) => {{
        let mut lease = $self.connections.writes.acquire().await?;
        let result = timeout(ANSWER_MAX, $work(&mut lease.connection, $($argument),*)).await;
        lease.release(result)
    }};
}

impl Operations for SqlStore {
    async fn parked_records(
        &self,
        after: Option<&RecordKey>,
        limit: u32,
    ) -> Result<Vec<ParkedRecord>, LedgerError> {
        read!(self, parked::records, after, limit)
    }

    async fn find_parked(
        &self,
        filter: &ParkedFilter,
        after: Option<&ParkedCursor>,
        limit: u32,
    ) -> Result<FoundParked, LedgerError> {
        read!(self, search::find_parked, filter, after, limit)
    }

    async fn release(
        &self,
        selection: &Selection,
        operator_reason: &OperatorReason,
    ) -> Result<Released, LedgerError> {
        change!(self, parked::release, selection, operator_reason)
    }

    async fn discard(
        &self,
        record_key: &RecordKey,
        head: Option<u32>,
        operator_reason: &OperatorReason,
    ) -> Result<Discarded, LedgerError> {
        change!(self, parked::discard, record_key, head, operator_reason)
    }

    async fn pause_record(
        &self,
        record_key: &RecordKey,
        operator_reason: &OperatorReason,
    ) -> Result<Paused, LedgerError> {
        change!(self, pauses::pause_record, record_key, operator_reason)
    }

    async fn resume_record(
        &self,
        record_key: &RecordKey,
        operator_reason: &OperatorReason,
    ) -> Result<Resumed, LedgerError> {
        change!(self, pauses::resume_record, record_key, operator_reason)
    }

    async fn paused_records(
        &self,
        after: Option<&RecordKey>,
        limit: u32,
    ) -> Result<Vec<PausedRecord>, LedgerError> {
        read!(self, pauses::paused_records, after, limit)
    }

    async fn parked_counts(&self) -> Result<ParkedCounts, LedgerError> {
        read!(self, parked::counts)
    }

    async fn paused_targets(&self) -> Result<Vec<PausedTarget>, LedgerError> {
        read!(self, pauses::paused_targets)
    }

    async fn poll_paused_targets(&self) -> Result<Vec<PausedTarget>, LedgerError> {
        let mut lease = self.connections.reads.acquire_checked().await?;
        let result = timeout(ANSWER_MAX, pauses::paused_targets(&mut lease.connection)).await;
        lease.release(result)
    }

    async fn pause_target(
        &self,
        name: &str,
        operator_reason: &OperatorReason,
    ) -> Result<Paused, LedgerError> {
        change!(self, pauses::pause_target, name, operator_reason)
    }

    async fn resume_target(&self, name: &str, operator_reason: &OperatorReason) -> Result<bool, LedgerError> {
        change!(self, pauses::resume_target, name, operator_reason)
    }

    async fn forget_version(
        &self,
        record_key: &RecordKey,
        operator_reason: &OperatorReason,
    ) -> Result<Option<i64>, LedgerError> {
        change!(self, upkeep::forget_version, record_key, operator_reason)
    }

    async fn changes(
        &self,
        filter: &ChangeFilter,
        before: Option<ChangeSeq>,
        limit: u32,
    ) -> Result<Vec<Change>, LedgerError> {
        read!(self, changes::changes, filter, before, limit)
    }

    async fn lookup_id(
        &self,
        update_id: &str,
        record_key: Option<&RecordKey>,
        limit: u32,
    ) -> Result<IdHistory, LedgerError> {
        read!(self, search::lookup_id, update_id, record_key, limit)
    }

    async fn record_state(&self, record_key: &RecordKey) -> Result<RecordState, LedgerError> {
        read!(self, search::record_state, record_key)
    }
}

//! What the dispatcher asks of the ledger and writes into it, between the core's words and the ledger's.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;
use tracing::{error, info, warn};

use crate::admin::metrics::LedgerMetrics;
use crate::http::AttemptReceipt;
use lanekeeper_broker::LogOnChange;
use lanekeeper_core::error::error_chain;
use lanekeeper_core::layout::{LayoutNumber, PartitionNumber};
use lanekeeper_core::log_interval::LogInterval;
use lanekeeper_core::message::{Holder, ParkedSeq, TenureNumber};
use lanekeeper_core::outcome::{Cause, Failure, Known};
use lanekeeper_core::policy::{DeadLetterReason, ParkReason, Resolution};
use lanekeeper_core::routes::Routes;
use lanekeeper_core::tick::Tick;
use lanekeeper_core::update::{RecordKey, Update};
use lanekeeper_ledger::{
    Entry, EntryKind, Fingerprint, IdStatus, Ledger, LedgerError, LookupResult, ParkKind, ParkedState,
    ParkedUpdate, Query, RecordLock, Recorded, ResolvedAs, StoredUpdate,
};

/// How long an attempt waits for the ledger at most. It is withheld then, so that others can have its permit.
const LOOKUP_MAX: Duration = Duration::from_secs(5);
/// Between two tries to write.
const RETRY_DELAY: Duration = Duration::from_millis(500);
/// How many parked updates of one record are read together.
const RELEASED_MAX: u32 = 32;

/// Uses the ledger for one partition. Cheap to clone.
#[derive(Debug)]
pub struct LedgerClient<L>(Arc<PartitionLedger<L>>);

#[derive(Debug)]
struct PartitionLedger<L> {
    ledger: Arc<L>,
    /// `ledger.row_lock`.
    row_lock: bool,
    routes: Arc<Routes>,
    metrics: LedgerMetrics,
    layout: LayoutNumber,
    partition: PartitionNumber,
    /// Why the ledger could not be read, and why it could not be written, as last logged.
    logs: [Mutex<LogOnChange<&'static str>>; 2],
    version_jumps: Mutex<LogInterval>,
    begun: Instant,
}

impl<L> Clone for LedgerClient<L> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

/// What the ledger says before an attempt.
#[derive(Debug)]
pub(super) enum Preflight {
    /// Send it, with the record's last `ETag`. With `ledger.row_lock` the record's row is locked until `lock` is dropped.
    Send { etag: Option<String>, lock: Option<RecordLock> },
    /// Send nothing: a request is not needed, or would be wrong.
    Known(Known),
    /// The ledger did not answer in time.
    Silent,
}

/// How the ledger is used. It can often be read when it cannot be written, as on a full disk.
#[derive(Clone, Copy)]
enum Access {
    Read,
    Write,
}

/// A newer owner has written to the ledger: nothing more is written for this tenure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Fenced;

impl<L: Ledger> LedgerClient<L> {
    /// For one partition.
    #[must_use]
    pub fn new(
        (ledger, row_lock): (Arc<L>, bool),
        routes: Arc<Routes>,
        metrics: LedgerMetrics,
        (layout, partition): (LayoutNumber, PartitionNumber),
    ) -> Self {
        let logs = Default::default();
        Self(Arc::new(PartitionLedger {
            ledger,
            row_lock,
            routes,
            metrics,
            layout,
            partition,
            logs,
            version_jumps: Mutex::default(),
            begun: Instant::now(),
        }))
    }

    /// Makes this tenure the newest of the partition: from then on the ledger refuses older ones. Tries until the ledger
    /// answers.
    ///
    /// # Errors
    /// A newer tenure has written.
    pub(super) async fn claim(self, tenure: TenureNumber) -> Result<(), Fenced> {
        loop {
            match self.0.ledger.claim(self.0.layout, self.0.partition, tenure).await {
                Ok(Recorded::Fenced) => return Err(Fenced),
                Ok(_) => return Ok(()),
                Err(fault) => self.log_fault(Access::Write, &fault),
            }
            tokio::time::sleep(RETRY_DELAY).await;
        }
    }

    /// Asks what is known of an update that is about to be sent.
    pub(super) async fn lookup(&self, update: &Update, holder: Holder) -> Preflight {
        let query = Query {
            record_key: update.record_key.clone(),
            id: update.id.clone(),
            fingerprint: Fingerprint::of(&update.body),
        };
        let asking = async {
            if self.0.row_lock {
                // Rows are locked in a transaction that is many times the size of the rest.
                let (lookup_result, lock) = Box::pin(self.0.ledger.lock(query)).await?;
                self.0.metrics.row_lock(lock.waited());
                Ok((lookup_result, Some(lock)))
            } else {
                Ok((self.0.ledger.lookup(query).await?, None))
            }
        };
        let (lookup_result, lock) = match tokio::time::timeout(LOOKUP_MAX, asking).await {
            Ok(Ok(found)) => found,
            Ok(Err(fault)) => {
                self.log_fault(Access::Read, &fault);
                return Preflight::Silent;
            }
            Err(_) => {
                self.log_fault(Access::Read, &LedgerError::TimedOut { seconds: LOOKUP_MAX.as_secs() });
                return Preflight::Silent;
            }
        };
        self.log_recovery(Access::Read);
        self.log_version_jump(lookup_result.version, update);
        match known(&lookup_result, update, holder) {
            Some(known) => Preflight::Known(known),
            None => Preflight::Send { etag: lookup_result.etag, lock },
        }
    }

    /// Writes a resolution down. Tries until the ledger answers; the delivery stays unsettled until then. Returns `Done` also
    /// if there is nothing to write.
    pub(super) async fn write(
        self,
        tenure: Option<TenureNumber>,
        update: Arc<Update>,
        holder: Holder,
        resolution: Resolution,
        (receipt, mut lock): (AttemptReceipt, Option<RecordLock>),
    ) -> Recorded {
        let Some(kind) = entry_of(&update, holder, &resolution, receipt) else { return Recorded::Done };
        let (layout, partition) = (self.0.layout, self.0.partition);
        let entry = Entry { layout, partition, tenure, record_key: update.record_key.clone(), kind };
        loop {
            let writing = match lock.take() {
                Some(lock) => Box::pin(lock.record(entry.clone())).await,
                None => self.0.ledger.record(entry.clone()).await,
            };
            match writing {
                Ok(Recorded::Full) => self.log_full("full"),
                Ok(Recorded::RecordFull) => self.log_full("record_full"),
                Ok(recorded) => {
                    self.log_recovery(Access::Write);
                    return recorded;
                }
                Err(fault) => self.log_fault(Access::Write, &fault),
            }
            tokio::time::sleep(RETRY_DELAY).await;
        }
    }

    /// Reads the oldest parked updates of a released record. If no target takes the first one any more, the record waits for
    /// a person again.
    pub(super) async fn released(self, record_key: RecordKey) -> (RecordKey, Vec<(ParkedSeq, Arc<Update>)>) {
        let parked = match self.parked_and_released(&record_key).await {
            Ok(parked) => parked,
            Err(fault) => {
                self.log_fault(Access::Read, &fault);
                return (record_key, Vec::new());
            }
        };
        let mut updates = Vec::with_capacity(parked.len());
        for parked in parked {
            match self.restored(parked.update) {
                Ok(update) => updates.push((parked.seq, Arc::new(update))),
                Err(update_type) => {
                    if updates.is_empty() {
                        self.no_target(&record_key, parked.seq, &update_type).await;
                    }
                    break;
                }
            }
        }
        (record_key, updates)
    }

    /// Returns nothing if the record is not released, or its head has failed again since.
    async fn parked_and_released(&self, record_key: &RecordKey) -> Result<Vec<ParkedUpdate>, LedgerError> {
        match self.0.ledger.parked_record(record_key).await? {
            Some(record) if record.state == ParkedState::Releasing => {
                self.0.ledger.parked_updates(record_key, None, RELEASED_MAX).await
            }
            Some(_) | None => Ok(Vec::new()),
        }
    }

    fn restored(&self, stored: StoredUpdate) -> Result<Update, String> {
        let Some(target) = self.0.routes.find(stored.update_type.as_deref()) else {
            return Err(stored.update_type.unwrap_or_default());
        };
        Ok(stored.into_update(target))
    }

    async fn no_target(&self, record_key: &RecordKey, seq: ParkedSeq, update_type: &str) {
        let detail =
            format!("no target takes updates of type {update_type:?} any more; see [[target]] types");
        let reason = lanekeeper_ledger::StoredParkReason {
            kind: ParkKind::Rejected,
            status: None,
            detail,
            attempts: 0,
        };
        let entry = Entry {
            layout: self.0.layout,
            partition: self.0.partition,
            tenure: None,
            record_key: record_key.clone(),
            kind: EntryKind::Repark { seq, reason },
        };
        if let Err(fault) = self.0.ledger.record(entry).await {
            self.log_fault(Access::Write, &fault);
        }
    }

    fn log_fault(&self, access: Access, fault: &LedgerError) {
        self.0.metrics.failed(fault.name());
        if self.log(access).is_new(fault.name()) {
            let error = error_chain(fault);
            error!(partition = %self.0.partition, error, "the ledger cannot be used, trying again: until it works, nothing is settled and no attempt starts");
        }
    }

    fn log_full(&self, reason: &'static str) {
        self.0.metrics.failed(reason);
        if !self.log(Access::Write).is_new(reason) {
            return;
        }
        let partition = self.0.partition;
        if reason == "full" {
            error!(%partition, "ledger.parked_max is reached: records that fail are held until parked updates are released or discarded (lanekeeper parked list), or ledger.parked_max is raised");
        } else {
            error!(%partition, "ledger.parked_record_max is reached by a record: its further updates are held until its parked ones are released or discarded (lanekeeper parked list), or ledger.parked_record_max is raised");
        }
    }

    /// One huge version by mistake makes every later update of its record superseded. There is a line at most every minute.
    fn log_version_jump(&self, stored: Option<i64>, update: &Update) {
        let Some(version) = update.version.filter(|version| is_jump(stored, *version)) else { return };
        let updates = {
            let mut log = self.0.version_jumps.lock().unwrap_or_else(PoisonError::into_inner);
            let now = Tick::ZERO.after(self.0.begun.elapsed());
            log.count(now)
        };
        if let Some(updates) = updates {
            let (partition, update_id) = (self.0.partition, update.id.as_str());
            warn!(%partition, update_id, version, stored, updates, "record-version is far above the one before: once it is applied, later updates of the record with lower versions are dropped as superseded; if it is a mistake, `lanekeeper ledger forget-version KEY` makes the record forget it");
        }
    }

    fn log_recovery(&self, access: Access) {
        if self.log(access).cleared() {
            info!(partition = %self.0.partition, "the ledger can be used again");
        }
    }

    fn log(&self, access: Access) -> MutexGuard<'_, LogOnChange<&'static str>> {
        self.0.logs[access as usize].lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Versions up to this are small: counters begin there.
const SMALL_VERSION: i64 = 1_000_000;

/// Returns true if a version is so far above the one before that a mistake is likely: neither counters nor times of day grow
/// to twice their value in one update. Without one before, only a version that is no time in nanoseconds counts as such.
fn is_jump(stored: Option<i64>, version: i64) -> bool {
    match stored {
        Some(stored) => version / 2 >= stored.max(SMALL_VERSION),
        None => version > i64::MAX / 2,
    }
}

/// What makes a request needless or wrong; `None`: it may be sent. That the record is parked does not concern its released
/// updates.
fn known(lookup_result: &LookupResult, update: &Update, holder: Holder) -> Option<Known> {
    match lookup_result.id_status {
        IdStatus::Resolved => return Some(Known::Resolved),
        IdStatus::Reused => return Some(Known::IdReused),
        IdStatus::Unknown => {}
    }
    if lookup_result.paused {
        return Some(Known::RecordPaused);
    }
    if lookup_result.parked && matches!(holder, Holder::Broker(_)) {
        return Some(Known::RecordParked);
    }
    let superseded = update.version.is_some() && lookup_result.version >= update.version;
    superseded.then_some(Known::Superseded)
}

/// What a resolution writes; `None`: the ledger knows it already, or does not need to.
fn entry_of(
    update: &Update,
    holder: Holder,
    resolution: &Resolution,
    receipt: AttemptReceipt,
) -> Option<EntryKind> {
    let (id, fingerprint) = (update.id.clone(), Fingerprint::of(&update.body));
    let parked = match holder {
        Holder::Broker(_) => None,
        Holder::Ledger(seq) => Some(seq),
    };
    let resolved = |resolution| EntryKind::Resolved { id: id.clone(), fingerprint, resolution, parked };
    Some(match (resolution, parked) {
        (Resolution::Applied, _) => EntryKind::Applied {
            id: id.clone(),
            fingerprint,
            version: update.version,
            status: receipt.status,
            etag: receipt.etag,
            parked,
        },
        (Resolution::Duplicate, None) => return None,
        (Resolution::Duplicate | Resolution::Superseded, _) => resolved(ResolvedAs::Superseded),
        (Resolution::DeadLettered(_), _) => resolved(ResolvedAs::DeadLettered),
        (Resolution::Parked(reason), Some(seq)) => EntryKind::Repark { seq, reason: reason_of(reason) },
        (Resolution::Parked(reason), None) => EntryKind::Park {
            update: stored(update),
            reason: reason_of(reason),
            only_behind: *reason == ParkReason::Behind,
        },
    })
}

fn reason_of(reason: &ParkReason) -> lanekeeper_ledger::StoredParkReason {
    let (reason, attempts) = match reason {
        ParkReason::Behind => return lanekeeper_ledger::StoredParkReason::behind(),
        ParkReason::Failed { reason, attempts } => (reason, *attempts),
    };
    let (kind, failure) = match reason {
        DeadLetterReason::Rejected(failure) => (ParkKind::Rejected, Some(failure)),
        DeadLetterReason::Exhausted { failure, .. } => (ParkKind::Exhausted, Some(failure)),
        DeadLetterReason::Conflict(failure) => (ParkKind::Conflict, Some(failure)),
        DeadLetterReason::IdReused | DeadLetterReason::Malformed(_) => (ParkKind::IdReused, None),
    };
    let status = match failure {
        Some(Failure { cause: Cause::Status(status), .. }) => Some(*status),
        _ => None,
    };
    lanekeeper_ledger::StoredParkReason { kind, status, detail: reason.detail(), attempts }
}

fn stored(update: &Update) -> StoredUpdate {
    StoredUpdate {
        record_key: update.record_key.clone(),
        id: update.id.clone(),
        update_type: update.update_type.clone(),
        content_type: update.content_type.clone(),
        content_encoding: update.content_encoding.clone(),
        if_match: update.if_match.clone(),
        version: update.version,
        published_at: update.published_at,
        headers: update.headers.clone(),
        body: update.body.clone(),
    }
}

#[cfg(test)]
mod tests;

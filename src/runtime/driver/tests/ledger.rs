//! A ledger in memory: slow, unreachable or claimed by another process when a test says so.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::sleep;
use uuid::Uuid;

use super::facts::Facts;
use lanekeeper_core::layout::{LayoutNumber, PartitionNumber};
use lanekeeper_core::message::TenureNumber;
use lanekeeper_core::update::{RecordKey, UpdateId};
use lanekeeper_ledger::{
    Entry, EntryKind, Fingerprint, IdStatus, Ledger, LedgerError, LedgerStats, LookupResult, ParkedRecord,
    ParkedSeq, ParkedState, ParkedUpdate, Query, RecordLock, Recorded, ReleasedRecord, StoredParkReason,
    StoredUpdate,
};

const LAYOUT: LayoutNumber = LayoutNumber(1);
const PARTITION: PartitionNumber = PartitionNumber(0);

/// The ledger of one world.
pub(super) struct MemoryLedger {
    facts: Facts,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    newest: Option<TenureNumber>,
    resolved: BTreeMap<(RecordKey, String), Fingerprint>,
    parked: BTreeMap<RecordKey, Parked>,
    seqs: i64,
    /// How this ledger behaves now.
    delay: Duration,
    fails: bool,
}

struct Parked {
    updates: BTreeMap<i64, (StoredUpdate, StoredParkReason)>,
    state: ParkedState,
}

impl State {
    fn resolve(&mut self, record_key: RecordKey, id: &UpdateId, fingerprint: Fingerprint) {
        self.resolved.insert((record_key, id.as_str().to_owned()), fingerprint);
    }

    /// A parked update has had its turn. With the last one its record is no longer parked.
    fn unpark(&mut self, record_key: &RecordKey, seq: Option<ParkedSeq>) {
        if let Some(parked) = self.parked.get_mut(record_key)
            && let Some(ParkedSeq(seq)) = seq
        {
            parked.updates.remove(&seq);
            if parked.updates.is_empty() {
                self.parked.remove(record_key);
            }
        }
    }

    fn park(&mut self, record_key: RecordKey, update: StoredUpdate, reason: StoredParkReason) {
        self.seqs += 1;
        let parked = self.parked.entry(record_key);
        let parked = parked.or_insert(Parked { updates: BTreeMap::new(), state: ParkedState::Parked });
        if !parked.updates.values().any(|(known, _)| known.id == update.id) {
            parked.updates.insert(self.seqs, (update, reason));
        }
    }
}

impl MemoryLedger {
    pub(super) fn new(facts: Facts) -> Self {
        Self { facts, state: Mutex::default() }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn set_delay(&self, delay: Duration) {
        self.state().delay = delay;
    }

    pub(super) fn set_fails(&self, fails: bool) {
        self.state().fails = fails;
    }

    /// Another process has written as this tenure.
    pub(super) fn rival_claims(&self, number: TenureNumber) {
        let newest = &mut self.state().newest;
        *newest = (*newest).max(Some(number));
    }

    /// A person releases all that is parked.
    pub(super) fn release_all(&self) {
        for parked in self.state().parked.values_mut() {
            parked.state = ParkedState::Releasing;
        }
    }

    /// How many updates are parked.
    pub(super) fn parked(&self) -> usize {
        self.state().parked.values().map(|parked| parked.updates.len()).sum()
    }

    async fn answer<A>(&self, answer: impl FnOnce(&mut State) -> A) -> Result<A, LedgerError> {
        let delay = self.state().delay;
        sleep(delay).await;
        let mut state = self.state();
        if state.fails { Err(LedgerError::NoConnection) } else { Ok(answer(&mut state)) }
    }
}

impl Ledger for MemoryLedger {
    async fn lookup(&self, query: Query) -> Result<LookupResult, LedgerError> {
        self.answer(|state| LookupResult {
            id_status: match state.resolved.get(&(query.record_key.clone(), query.id.as_str().to_owned())) {
                None => IdStatus::Unknown,
                Some(known) if *known == query.fingerprint => IdStatus::Resolved,
                Some(_) => IdStatus::Reused,
            },
            parked: state.parked.contains_key(&query.record_key),
            paused: false,
            version: None,
            etag: None,
        })
        .await
    }

    async fn claim(
        &self,
        _: LayoutNumber,
        _: PartitionNumber,
        tenure: TenureNumber,
    ) -> Result<Recorded, LedgerError> {
        self.answer(|state| {
            let is_newest = state.newest.is_none_or(|newest| newest <= tenure);
            state.newest = state.newest.max(Some(tenure));
            if is_newest { Recorded::Done } else { Recorded::Fenced }
        })
        .await
    }

    async fn record(&self, Entry { tenure, record_key, kind, .. }: Entry) -> Result<Recorded, LedgerError> {
        self.answer(|state| {
            if tenure.is_some() && tenure < state.newest {
                return Recorded::Fenced;
            }
            match kind {
                EntryKind::Applied { id, fingerprint, parked, .. }
                | EntryKind::Resolved { id, fingerprint, parked, .. } => {
                    self.facts.written(id.as_str());
                    state.unpark(&record_key, parked);
                    state.resolve(record_key, &id, fingerprint);
                }
                EntryKind::Park { only_behind: true, .. } if !state.parked.contains_key(&record_key) => {
                    return Recorded::NotParked;
                }
                EntryKind::Park { update, reason, .. } => {
                    self.facts.written(update.id.as_str());
                    state.park(record_key, update, reason);
                }
                EntryKind::Repark { .. } => {
                    if let Some(parked) = state.parked.get_mut(&record_key) {
                        parked.state = ParkedState::Parked;
                    }
                }
            }
            Recorded::Done
        })
        .await
    }

    async fn lock(&self, _: Query) -> Result<(LookupResult, RecordLock), LedgerError> {
        Err(LedgerError::NoRowLocks)
    }

    async fn released(&self, _: Option<&ReleasedRecord>, _: u32) -> Result<Vec<ReleasedRecord>, LedgerError> {
        let is_released = |(_, parked): &(&RecordKey, &Parked)| parked.state == ParkedState::Releasing;
        let released = |record_key: &RecordKey| ReleasedRecord {
            record_key: record_key.clone(),
            layout: LAYOUT,
            partition: PARTITION,
            since_ms: 0,
        };
        self.answer(|state| {
            state.parked.iter().filter(is_released).map(|(record_key, _)| released(record_key)).collect()
        })
        .await
    }

    async fn parked_updates(
        &self,
        record_key: &RecordKey,
        after: Option<ParkedSeq>,
        limit: u32,
    ) -> Result<Vec<ParkedUpdate>, LedgerError> {
        let after = after.map_or(i64::MIN, |ParkedSeq(seq)| seq);
        self.answer(|state| {
            let updates = state.parked.get(record_key).into_iter().flat_map(|parked| &parked.updates);
            let updates = updates.filter(|(seq, _)| **seq > after).take(limit as usize);
            let parked = updates.map(|(seq, (update, reason))| ParkedUpdate {
                seq: ParkedSeq(*seq),
                update: update.clone(),
                reason: reason.clone(),
                parked_ms: 0,
            });
            parked.collect()
        })
        .await
    }

    async fn parked_record(&self, record_key: &RecordKey) -> Result<Option<ParkedRecord>, LedgerError> {
        self.answer(|state| {
            let parked = state.parked.get(record_key)?;
            let (_, (head, reason)) = parked.updates.first_key_value()?;
            Some(ParkedRecord {
                record_key: record_key.clone(),
                state: parked.state,
                updates: parked.updates.len() as u64,
                head_id: head.id.as_str().to_owned(),
                head_type: head.update_type.clone(),
                since_ms: 0,
                reason: reason.clone(),
                layout: LAYOUT,
                partition: PARTITION,
                paused: false,
            })
        })
        .await
    }

    async fn forget_layouts(&self, _: LayoutNumber) -> Result<u64, LedgerError> {
        unreachable!("this is done before drivers begin")
    }

    async fn prune(&self) -> Result<u64, LedgerError> {
        Ok(0)
    }

    async fn stats(&self) -> Result<LedgerStats, LedgerError> {
        Ok(LedgerStats::default())
    }

    fn identity(&self) -> Uuid {
        Uuid::nil()
    }
}

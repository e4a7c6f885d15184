//! Whom a refusal means: one record, or the target as a whole.

use std::collections::BTreeMap;
use std::time::Duration;

use super::{Refusal, Tick};

/// Refused records that are remembered (I6).
const RECORDS_MAX: usize = 64;
/// A refusal counts for this time.
const REMEMBERED_FOR: Duration = Duration::from_secs(300);
/// A record is refused alone if it was refused so often in a row,
const IN_A_ROW_MIN: u32 = 3;
/// while so many attempts of others were applied,
const OTHERS_APPLIED_MIN: u64 = 8;
/// and at most one in so many of others' was refused.
const OTHERS_APPLIED_PER_REFUSED: u64 = 4;

/// The records that were refused when they were last attempted.
#[derive(Debug, Default)]
pub(super) struct RefusedRecords {
    /// By a hash of the key. Two records that share one count as one.
    records: BTreeMap<u64, RefusedRecord>,
    /// Attempts of all records so far.
    applied: u64,
    refused: u64,
}

#[derive(Debug)]
struct RefusedRecord {
    last_at: Tick,
    in_a_row: u32,
    /// The counts at the first of these refusals.
    applied_before: u64,
    refused_before: u64,
    /// It was refused alone: it shows nothing about the target.
    alone: bool,
}

impl RefusedRecords {
    pub(super) fn is_empty(&self) -> bool {
        self.records.is_empty()
    }

    /// An attempt of a record was applied; `record` only if there are refused ones.
    pub(super) fn applied(&mut self, record: Option<u64>) {
        self.applied += 1;
        if let Some(record) = record {
            self.records.remove(&record);
        }
    }

    /// An attempt of `record` was refused. `limited`: the target is known to limit requests.
    pub(super) fn refused(&mut self, now: Tick, record: u64, limited: bool) -> Refusal {
        let others = self.records.iter().any(|(other, refused)| {
            *other != record && !refused.alone && now.since(refused.last_at) <= REMEMBERED_FOR
        });
        if self.records.len() == RECORDS_MAX && !self.records.contains_key(&record) {
            let oldest = self.records.iter().min_by_key(|(_, refused)| refused.last_at);
            let oldest = *oldest.expect("there are some").0;
            self.records.remove(&oldest);
        }
        let refused = self.records.entry(record).or_insert(RefusedRecord {
            last_at: now,
            in_a_row: 0,
            applied_before: self.applied,
            refused_before: self.refused,
            alone: false,
        });
        self.refused += 1;
        refused.last_at = now;
        refused.in_a_row = refused.in_a_row.saturating_add(1);
        let others_applied = self.applied - refused.applied_before;
        let others_refused =
            (self.refused - refused.refused_before).saturating_sub(u64::from(refused.in_a_row));
        refused.alone = refused.in_a_row >= IN_A_ROW_MIN
            && others_applied >= OTHERS_APPLIED_MIN
            && others_refused * OTHERS_APPLIED_PER_REFUSED <= others_applied;
        if refused.alone || !(others || limited) { Refusal::OfRecord } else { Refusal::OfTarget }
    }
}

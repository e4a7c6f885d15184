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

/// Refusals of a record after which what came before the older ones of them no longer counts.
const LOOKED_BACK_ON: u32 = 8;

/// The records that were refused when they were last attempted.
#[derive(Debug, Default)]
pub(super) struct RefusedRecords {
    /// By a hash of the key. Two records that share one count as one.
    records: BTreeMap<u64, RefusedRecord>,
    counts: Counts,
}

/// Attempts of all records so far.
#[derive(Clone, Copy, Debug, Default)]
struct Counts {
    applied: u64,
    refused: u64,
}

#[derive(Debug)]
struct RefusedRecord {
    last_at: Tick,
    in_a_row: u32,
    /// How many of these, the latest ones, came without an attempt of another record in between.
    untried: u32,
    /// All attempts that had ended at the latest of these.
    ended_before: u64,
    /// The counts of all records at the first of these refusals, or [`LOOKED_BACK_ON`] to twice as many ago.
    since: Counts,
    /// The counts later, at a refusal with which `since` is replaced by this.
    newer: Counts,
    /// It was refused alone: it shows nothing about the target.
    alone: bool,
}

impl RefusedRecords {
    pub(super) fn is_empty(&self) -> bool {
        self.records.is_empty()
    }

    /// An attempt of a record was applied; `record` only if there are refused ones.
    pub(super) fn applied(&mut self, record: Option<u64>) {
        self.counts.applied += 1;
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
        let before = self.counts;
        self.counts.refused += 1;
        let refused = self.records.entry(record).or_insert(RefusedRecord {
            last_at: now,
            in_a_row: 0,
            untried: 0,
            ended_before: 0,
            since: before,
            newer: before,
            alone: false,
        });
        refused.last_at = now;
        if refused.in_a_row.is_multiple_of(LOOKED_BACK_ON) {
            (refused.since, refused.newer) = (refused.newer, before);
        }
        refused.in_a_row = refused.in_a_row.saturating_add(1);
        let ended = before.applied + before.refused;
        refused.untried = if refused.ended_before == ended { refused.untried + 1 } else { 1 };
        refused.ended_before = ended + 1;
        let others_applied = before.applied - refused.since.applied;
        let own = refused.in_a_row.min(2 * LOOKED_BACK_ON);
        let others_refused = (self.counts.refused - refused.since.refused).saturating_sub(u64::from(own));
        let often = refused.in_a_row >= IN_A_ROW_MIN;
        refused.alone = often
            && others_applied >= OTHERS_APPLIED_MIN
            && others_refused * OTHERS_APPLIED_PER_REFUSED <= others_applied;
        // No other record was tried meanwhile: nothing shows that the target refuses them.
        let untried = refused.untried >= IN_A_ROW_MIN;
        if refused.alone || untried || !(others || limited) { Refusal::OfRecord } else { Refusal::OfTarget }
    }
}

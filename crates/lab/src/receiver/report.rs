//! The report: what the receiver saw of the order.

use std::collections::BTreeMap;
use std::fmt;
use std::ops::AddAssign;

use serde::{Deserialize, Serialize};

use super::limit::RateLimitReport;

/// Counts of one record, or summed over all.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counts {
    /// Writing requests that began.
    pub requests: u64,
    /// Different updates applied.
    pub updates: u64,
    /// Updates applied again: by sequence, else by update id.
    pub duplicates: u64,
    /// Of these duplicates, those of an update that was not the newest applied of its record: a repetition from further
    /// back.
    #[serde(default)]
    pub older_duplicates: u64,
    /// Updates that broke off a repetition: once an older update of a record was applied again, the ones after it have to
    /// follow, in order, up to the newest. Two senders at the same time interleave.
    #[serde(default)]
    pub interleaved: u64,
    /// Updates applied for the first time after one of a higher sequence.
    pub reorders: u64,
    /// Sequences missing below the highest applied.
    pub gaps: u64,
    /// Requests that began while another one of their record was in progress.
    pub overlaps: u64,
    /// Records whose value is not that of the highest sequence applied.
    pub outdated: u64,
    /// Answers with an injected fault (`--fail-…`, `--outage`), also those that hung.
    pub failed: u64,
    /// Answers 429 of the rate limit.
    #[serde(default)]
    pub limited: u64,
    /// Answers 400, 409, 412, 413, 422 and 428.
    pub rejected: u64,
    /// Requests with an idempotency key that was applied before. They were not applied again, whatever the answer was.
    pub replayed: u64,
    /// Requests with a `record-version` at or below the record's: not applied.
    #[serde(default)]
    pub superseded: u64,
    /// Requests of an older tenure that were refused: not applied.
    #[serde(default)]
    pub fenced: u64,
    /// Answers 503 because the store could not be read or written. If the commit failed, it is not known whether the update
    /// was applied, and the other counts can be wrong about it.
    #[serde(default)]
    pub store_failed: u64,
    /// Requests whose sender went away before the answer, or broke off the body. The update may have been applied.
    pub disconnected: u64,
    /// Requests whose path and `lanekeeper-record-key` header named different records.
    pub key_mismatches: u64,
    /// Requests with a lower `lanekeeper-tenure` than an earlier request of their record had: from a former owner.
    #[serde(default)]
    pub older_tenures: u64,
}

impl AddAssign<&Self> for Counts {
    fn add_assign(&mut self, other: &Self) {
        self.requests += other.requests;
        self.updates += other.updates;
        self.duplicates += other.duplicates;
        self.older_duplicates += other.older_duplicates;
        self.interleaved += other.interleaved;
        self.reorders += other.reorders;
        self.gaps += other.gaps;
        self.overlaps += other.overlaps;
        self.outdated += other.outdated;
        self.failed += other.failed;
        self.limited += other.limited;
        self.rejected += other.rejected;
        self.replayed += other.replayed;
        self.superseded += other.superseded;
        self.fenced += other.fenced;
        self.store_failed += other.store_failed;
        self.disconnected += other.disconnected;
        self.key_mismatches += other.key_mismatches;
        self.older_tenures += other.older_tenures;
    }
}

impl Counts {
    /// What must not happen behind Lanekeeper. (Duplicates may: delivery is at least once.)
    pub(super) fn violations(&self) -> u64 {
        self.interleaved + self.reorders + self.gaps + self.overlaps + self.outdated + self.key_mismatches
    }
}

impl fmt::Display for Counts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} updates in {} requests; duplicates {}, reorders {}, gaps {}, overlaps {}, outdated {}; \
             answers failed {}, rejected {}, replayed {}, superseded {}, store failed {}; \
             disconnected {}, of older tenures {}, fenced {}, older duplicates {}, interleaved {}, limited {}",
            self.updates,
            self.requests,
            self.duplicates,
            self.reorders,
            self.gaps,
            self.overlaps,
            self.outdated,
            self.failed,
            self.rejected,
            self.replayed,
            self.superseded,
            self.store_failed,
            self.disconnected,
            self.older_tenures,
            self.fenced,
            self.older_duplicates,
            self.interleaved,
            self.limited,
        )
    }
}

/// `/report`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Report {
    /// Summed over all records.
    #[serde(flatten)]
    pub counts: Counts,
    /// Records seen.
    pub records: u64,
    /// Requests in progress.
    pub in_progress: u64,
    /// From the beginning of the first request to the end of the last, in microseconds.
    #[serde(default)]
    pub span_us: u64,
    /// Of that, the time in which the busiest record had a request in progress. It cannot have more one after another.
    #[serde(default)]
    pub busiest_us: u64,
    /// Delays of the updates that say when they were published; `None`: no update does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub delays: Option<DelayReport>,
    /// What the rate limit did; `None`: there is none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rate_limit: Option<RateLimitReport>,
    /// As many records as were asked for: those with violations first, then by key.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub by_record: BTreeMap<String, RecordReport>,
}

/// From publishing to the whole request here, in microseconds, within 1 %.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DelayReport {
    /// Updates.
    pub count: u64,
    /// Half of them took no longer.
    pub p50_us: u64,
    /// 99 of 100.
    pub p99_us: u64,
    /// 999 of 1000.
    pub p999_us: u64,
}

/// One record in `/report`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RecordReport {
    /// Of this record.
    #[serde(flatten)]
    pub counts: Counts,
    /// Highest sequence applied; zero: no update had one.
    pub highest_sequence: u64,
    /// Sequence of its present value; zero: the value has none.
    pub value_sequence: u64,
    /// How often its value was written; its `ETag` is `"VERSION"`.
    pub version: u64,
    /// The beginning of its present value: the body of the last update applied, or the sum.
    pub value: String,
    /// The first violation of its order.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub first_violation: Option<String>,
}

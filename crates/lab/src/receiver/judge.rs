//! The judge: what was applied to each record, and in what order. It does not know where the records are kept.
//!
//! A request is in progress from [`Judge::begin`] to [`Judge::end`], whatever happens in between. Its update counts as
//! applied at the moment of [`Judge::applied`], even if its sender has gone away or gets a failure for an answer.

use std::collections::HashMap;
use std::time::Duration;

use super::latest::Latest;
use super::report::{Counts, RecordReport};
use super::rules::{Change, Row, WriteOutcome};
use super::sequences::Sequences;
use super::shards::Shards;

/// Bytes of a record's value shown in the report.
const VALUE_BYTES_SHOWN: usize = 1024;

/// A request of a record has begun.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct BegunRequest {
    /// Which request of the record it is, from 1.
    pub(super) number: u64,
    /// Time since the first request of the record.
    pub(super) age: Duration,
}

/// How a request ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    /// With this outcome of its write.
    Written(WriteOutcome),
    /// Answered with an injected fault.
    Failed,
    /// Refused by the rate limit.
    Limited,
    /// Answered 4xx before any check.
    Rejected,
    /// The store could not be read or written.
    StoreFailed,
    /// Its sender went away.
    Disconnected,
}

/// What was seen of a record.
#[derive(Debug, Default)]
struct RecordHistory {
    /// Without `gaps` and `outdated`, which are computed when they are needed.
    counts: Counts,
    in_progress: u64,
    /// The highest tenure of a request.
    tenure: u64,
    first_request: Duration,
    /// When the request in progress began, if there is one.
    began: Duration,
    /// Time with a request in progress, without the request that is in progress now.
    busy: Duration,
    sequences: Sequences,
    /// The last update applied, if it was applied before and is older than the newest.
    repeated: Option<u64>,
    ids: Latest<()>,
    version: u64,
    value_sequence: u64,
    value: Vec<u8>,
    first_violation: Option<String>,
}

/// What was seen of records, by key. One per shard of the receiver.
#[derive(Debug, Default)]
pub(super) struct Judge {
    by_key: HashMap<String, RecordHistory>,
    span: Option<Span>,
}

/// What was seen of all records.
pub(super) type Judges = Shards<Judge>;

/// When requests came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Span {
    /// The first one's beginning.
    pub(super) first: Duration,
    /// The last one's end.
    pub(super) last: Duration,
}

impl Span {
    /// From the earlier beginning to the later end.
    pub(super) fn and(self, other: Self) -> Self {
        Self { first: self.first.min(other.first), last: self.last.max(other.last) }
    }
}

impl Judge {
    /// A request has begun. `named_as` is the record that its header names, and `tenure` its fencing number, if it has
    /// them. `now` is the time since a fixed moment.
    pub(super) fn begin(
        &mut self,
        record_key: &str,
        named_as: Option<&str>,
        tenure: Option<u64>,
        now: Duration,
    ) -> BegunRequest {
        self.span.get_or_insert(Span { first: now, last: now });
        // Not `entry`, which needs an owned key: most requests are of a record that is there.
        if !self.by_key.contains_key(record_key) {
            let first = RecordHistory { first_request: now, ..RecordHistory::default() };
            self.by_key.insert(record_key.to_owned(), first);
        }
        let seen = self.by_key.get_mut(record_key).expect("it is there now");
        seen.counts.requests += 1;
        if seen.in_progress > 0 {
            seen.counts.overlaps += 1;
            let in_progress = seen.in_progress;
            seen.violated(|number| format!("request {number} began while {in_progress} were in progress"));
        }
        if named_as.is_some_and(|named_as| named_as != record_key) {
            seen.counts.key_mismatches += 1;
            seen.violated(|number| format!("request {number} named another record in its header"));
        }
        if tenure.is_some_and(|tenure| tenure < seen.tenure) {
            seen.counts.older_tenures += 1;
        }
        seen.tenure = seen.tenure.max(tenure.unwrap_or_default());
        if seen.in_progress == 0 {
            seen.began = now;
        }
        seen.in_progress += 1;
        BegunRequest { number: seen.counts.requests, age: now.saturating_sub(seen.first_request) }
    }

    /// An update was applied, and `row` is the record after it. `sequence_before` returns the sequence of the value before,
    /// or zero. It is called only if this is the first update that the judge sees of a record that an earlier receiver has
    /// written: everything up to that sequence then counts as applied in order.
    pub(super) fn applied(&mut self, change: &Change, row: &Row, sequence_before: impl FnOnce() -> u64) {
        // A reset can delete the record while the request is in progress.
        let seen = self.by_key.entry(change.record_key.clone()).or_default();
        if seen.version == 0 && row.version > 1 {
            seen.sequences = Sequences::up_to(sequence_before());
        }
        let sequence = change.members.sequence;
        let highest = seen.sequences.highest();
        let repeated = seen.repeated.take();
        let new_id = change.update_id.as_ref().is_none_or(|id| seen.ids.find(id).is_none());
        let new_sequence = sequence.is_none_or(|sequence| seen.sequences.insert(sequence));
        if let Some(id) = change.update_id.as_ref().filter(|_| new_id) {
            seen.ids.remember(id, ());
        }
        if new_id && new_sequence {
            seen.counts.updates += 1;
            if let Some(sequence) = sequence.filter(|sequence| *sequence < highest) {
                seen.counts.reorders += 1;
                seen.violated(|_| format!("sequence {sequence} was applied after {highest}"));
            }
        } else {
            seen.counts.duplicates += 1;
            seen.repeated = sequence.filter(|sequence| *sequence < highest);
            seen.counts.older_duplicates += u64::from(seen.repeated.is_some());
        }
        if let (Some(sequence), Some(repeated)) = (sequence, repeated)
            && sequence > repeated + 1
        {
            seen.counts.interleaved += 1;
            seen.violated(|_| format!("sequence {sequence} was applied after {repeated} was repeated"));
        }
        seen.version = row.version;
        seen.value_sequence = sequence.unwrap_or(0);
        seen.value.clear();
        seen.value.extend_from_slice(&row.body[..row.body.len().min(VALUE_BYTES_SHOWN)]);
    }

    /// A write ended with this outcome, whatever the answer is.
    pub(super) fn written(&mut self, record_key: &str, written: WriteOutcome) {
        let Some(seen) = self.by_key.get_mut(record_key) else { return };
        match written {
            WriteOutcome::Replayed { .. } => seen.counts.replayed += 1,
            WriteOutcome::Superseded { .. } => seen.counts.superseded += 1,
            WriteOutcome::OlderTenure => seen.counts.fenced += 1,
            // `applied` has counted applied updates; `end` counts the others by their answers.
            _ => {}
        }
    }

    /// # Panics
    /// If the record has no request in progress.
    pub(super) fn end(&mut self, record_key: &str, end: End, now: Duration) {
        let seen = self.by_key.get_mut(record_key).expect("a request ends after it has begun");
        seen.in_progress = seen.in_progress.checked_sub(1).expect("a request ends once");
        if seen.in_progress == 0 {
            seen.busy += now.saturating_sub(seen.began);
        }
        if let Some(span) = &mut self.span {
            span.last = span.last.max(now);
        }
        let counts = &mut seen.counts;
        match end {
            End::Written(
                WriteOutcome::Applied { .. }
                | WriteOutcome::Replayed { .. }
                | WriteOutcome::Superseded { .. }
                | WriteOutcome::OlderTenure,
            ) => {}
            End::Written(
                WriteOutcome::PreconditionFailed { .. }
                | WriteOutcome::PreconditionRequired { .. }
                | WriteOutcome::KeyReused
                | WriteOutcome::KeyInProgress,
            )
            | End::Rejected => counts.rejected += 1,
            End::Failed => counts.failed += 1,
            End::Limited => counts.limited += 1,
            End::StoreFailed => counts.store_failed += 1,
            End::Disconnected => counts.disconnected += 1,
        }
    }

    /// Deletes everything but the requests in progress.
    pub(super) fn reset(&mut self) {
        self.span = None;
        self.by_key.retain(|_, seen| seen.in_progress > 0);
        for seen in self.by_key.values_mut() {
            *seen = RecordHistory {
                in_progress: seen.in_progress,
                began: seen.began,
                ..RecordHistory::default()
            };
        }
    }

    /// When requests came; `None`: there were none.
    pub(super) fn span(&self) -> Option<Span> {
        self.span
    }

    /// The longest time that one record had a request in progress.
    pub(super) fn busiest(&self) -> Duration {
        self.by_key.values().map(|seen| seen.busy).max().unwrap_or_default()
    }

    /// Every record's key, counts and requests in progress.
    pub(super) fn counts(&self) -> impl Iterator<Item = (&str, Counts, u64)> {
        self.by_key.iter().map(|(key, seen)| (key.as_str(), seen.counts(), seen.in_progress))
    }

    pub(super) fn report(&self, record_key: &str) -> Option<RecordReport> {
        let seen = self.by_key.get(record_key)?;
        Some(RecordReport {
            counts: seen.counts(),
            highest_sequence: seen.sequences.highest(),
            value_sequence: seen.value_sequence,
            version: seen.version,
            value: String::from_utf8_lossy(&seen.value).into_owned(),
            first_violation: seen.first_violation.clone(),
        })
    }
}

impl RecordHistory {
    fn violated(&mut self, text: impl FnOnce(u64) -> String) {
        if self.first_violation.is_none() {
            self.first_violation = Some(text(self.counts.requests));
        }
    }

    fn counts(&self) -> Counts {
        let outdated = self.value_sequence < self.sequences.highest();
        Counts { gaps: self.sequences.missing(), outdated: outdated.into(), ..self.counts.clone() }
    }
}

#[cfg(test)]
mod tests;

//! The record book: what was applied to each record and in what order. Pure; one per shard of the receiver.
//!
//! A request is in progress from [`Records::begin`] to [`Records::end`], whatever happens in between. Its update counts
//! as applied at the moment of [`Records::apply`], also when its sender is gone by then or gets a failure for an answer.

use std::collections::{HashMap, VecDeque};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::time::Duration;

use super::report::{Counts, RecordReport};
use super::sequences::Sequences;

/// Bytes kept of a record's value.
pub(super) const VALUE_BYTES_MAX: usize = 64 * 1024;
/// Bytes of it shown in the report.
const VALUE_BYTES_SHOWN: usize = 1024;
/// Latest update ids remembered per record.
const IDS_MAX: usize = 512;

/// A request of a record has begun.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Begun {
    /// Which request of the record it is, from 1.
    pub(super) number: u64,
    /// Time since the first request of the record.
    pub(super) age: Duration,
}

/// What a request wants to write.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Write<'a> {
    pub(super) update_id: Option<&'a str>,
    pub(super) sequence: Option<u64>,
    /// The header `If-Match`.
    pub(super) if_match: Option<&'a str>,
    /// Whether an update id that was applied before is answered without applying it again.
    pub(super) honour_id: bool,
    pub(super) body: &'a [u8],
    pub(super) content_type: Option<&'a str>,
}

/// What became of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Written {
    /// It is the record's value now.
    Applied { version: u64 },
    /// It had been applied before; nothing changed.
    Replayed { version: u64 },
    /// `If-Match` names another version.
    PreconditionFailed { version: u64 },
    /// Its id was used before, for another body.
    IdReused,
}

/// How a request ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    /// Answered with success.
    Answered,
    /// Answered with a fault that was asked for.
    Failed,
    /// Answered 4xx.
    Rejected,
    /// Its sender went away.
    Disconnected,
}

/// The value that a record has now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Value<'a> {
    pub(super) version: u64,
    pub(super) body: &'a [u8],
    pub(super) content_type: Option<&'a str>,
}

#[derive(Debug, Default)]
struct Record {
    /// `gaps` and `outdated` are made when they are asked for.
    counts: Counts,
    in_progress: u64,
    /// The highest that a request had.
    tenure: u64,
    first_request: Duration,
    sequences: Sequences,
    ids: Ids,
    version: u64,
    value_sequence: u64,
    value: Vec<u8>,
    content_type: Option<String>,
    first_violation: Option<String>,
}

/// Records by key.
#[derive(Debug, Default)]
pub(super) struct Records {
    by_key: HashMap<String, Record>,
}

impl Records {
    /// `named_as`: the record that the request's header names, where it names one. `tenure`: its fencing number, where it
    /// has one. `now`: since any moment.
    pub(super) fn begin(
        &mut self,
        record_key: &str,
        named_as: Option<&str>,
        tenure: Option<u64>,
        now: Duration,
    ) -> Begun {
        // Not the entry of a key made anew: most requests are of a record that is there.
        if !self.by_key.contains_key(record_key) {
            let first = Record { first_request: now, ..Record::default() };
            self.by_key.insert(record_key.to_owned(), first);
        }
        let record = self.by_key.get_mut(record_key).expect("it is there now");
        record.counts.requests += 1;
        if record.in_progress > 0 {
            record.counts.overlaps += 1;
            let in_progress = record.in_progress;
            record.violated(|number| format!("request {number} began while {in_progress} were in progress"));
        }
        if named_as.is_some_and(|named_as| named_as != record_key) {
            record.counts.key_mismatches += 1;
            record.violated(|number| format!("request {number} named another record in its header"));
        }
        if tenure.is_some_and(|tenure| tenure < record.tenure) {
            record.counts.older_tenures += 1;
        }
        record.tenure = record.tenure.max(tenure.unwrap_or_default());
        record.in_progress += 1;
        Begun { number: record.counts.requests, age: now.saturating_sub(record.first_request) }
    }

    /// # Panics
    /// If the record has no request in progress.
    pub(super) fn apply(&mut self, record_key: &str, write: &Write<'_>) -> Written {
        let record = self.by_key.get_mut(record_key).expect("a request applies after it has begun");
        let version = record.version;
        let body_hash = if write.honour_id { hash(write.body) } else { 0 };
        let applied_before = write.update_id.map(|id| record.ids.find(id));
        if write.honour_id
            && let Some(Some(earlier)) = applied_before
        {
            if earlier != body_hash {
                return Written::IdReused;
            }
            record.counts.replayed += 1;
            return Written::Replayed { version };
        }
        if write.if_match.is_some_and(|etags| !matches_version(etags, version)) {
            return Written::PreconditionFailed { version };
        }

        let highest = record.sequences.highest();
        let new_id = !matches!(applied_before, Some(Some(_)));
        let new_sequence = write.sequence.is_none_or(|sequence| record.sequences.insert(sequence));
        if let Some(id) = write.update_id.filter(|_| new_id) {
            record.ids.remember(id, body_hash);
        }
        if new_id && new_sequence {
            record.counts.updates += 1;
            if let Some(sequence) = write.sequence.filter(|sequence| *sequence < highest) {
                record.counts.reorders += 1;
                record.violated(|_| format!("sequence {sequence} was applied after {highest}"));
            }
        } else {
            record.counts.duplicates += 1;
        }
        record.write(write);
        Written::Applied { version: record.version }
    }

    /// # Panics
    /// If the record has no request in progress.
    pub(super) fn end(&mut self, record_key: &str, end: End) {
        let record = self.by_key.get_mut(record_key).expect("a request ends after it has begun");
        record.in_progress = record.in_progress.checked_sub(1).expect("a request ends once");
        match end {
            End::Answered => {}
            End::Failed => record.counts.failed += 1,
            End::Rejected => record.counts.rejected += 1,
            End::Disconnected => record.counts.disconnected += 1,
        }
    }

    /// Forgets everything but the requests in progress.
    pub(super) fn reset(&mut self) {
        self.by_key.retain(|_, record| record.in_progress > 0);
        for record in self.by_key.values_mut() {
            *record = Record { in_progress: record.in_progress, ..Record::default() };
        }
    }

    pub(super) fn value(&self, record_key: &str) -> Option<Value<'_>> {
        let record = self.by_key.get(record_key).filter(|record| record.version > 0)?;
        Some(Value {
            version: record.version,
            body: &record.value,
            content_type: record.content_type.as_deref(),
        })
    }

    /// Every record's key, counts and requests in progress.
    pub(super) fn counts(&self) -> impl Iterator<Item = (&str, Counts, u64)> {
        self.by_key.iter().map(|(key, record)| (key.as_str(), record.counts(), record.in_progress))
    }

    pub(super) fn report(&self, record_key: &str) -> Option<RecordReport> {
        let record = self.by_key.get(record_key)?;
        let shown = &record.value[..record.value.len().min(VALUE_BYTES_SHOWN)];
        Some(RecordReport {
            counts: record.counts(),
            highest_sequence: record.sequences.highest(),
            value_sequence: record.value_sequence,
            version: record.version,
            value: String::from_utf8_lossy(shown).into_owned(),
            first_violation: record.first_violation.clone(),
        })
    }
}

impl Record {
    fn write(&mut self, write: &Write<'_>) {
        self.version += 1;
        self.value_sequence = write.sequence.unwrap_or(0);
        self.value.clear();
        self.value.extend_from_slice(&write.body[..write.body.len().min(VALUE_BYTES_MAX)]);
        if self.content_type.as_deref() != write.content_type {
            self.content_type = write.content_type.map(str::to_owned);
        }
    }

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

/// Whether `If-Match` holds (RFC 9110, section 13.1.1). Version 0: there is no value yet.
fn matches_version(etags: &str, version: u64) -> bool {
    version > 0 && etags.split(',').map(str::trim).any(|etag| etag == "*" || etag == etag_of(version))
}

/// The entity tag of a version, quotes included.
pub(super) fn etag_of(version: u64) -> String {
    format!("\"{version}\"")
}

/// The latest update ids of a record, as hashes, with the hash of the body that came with each.
#[derive(Debug, Default)]
struct Ids {
    bodies: HashMap<u64, u64>,
    oldest_first: VecDeque<u64>,
}

impl Ids {
    fn find(&self, id: &str) -> Option<u64> {
        self.bodies.get(&hash(id.as_bytes())).copied()
    }

    fn remember(&mut self, id: &str, body_hash: u64) {
        if self.oldest_first.len() == IDS_MAX
            && let Some(oldest) = self.oldest_first.pop_front()
        {
            self.bodies.remove(&oldest);
        }
        let id = hash(id.as_bytes());
        self.bodies.insert(id, body_hash);
        self.oldest_first.push_back(id);
    }
}

fn hash(bytes: &[u8]) -> u64 {
    let mut hasher = DefaultHasher::new();
    bytes.hash(&mut hasher);
    hasher.finish()
}

#[cfg(test)]
mod tests;

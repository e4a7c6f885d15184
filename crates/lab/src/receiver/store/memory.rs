//! Records in memory, for measuring: without time to think, an update needs one short lock.

use std::collections::HashMap;
use std::sync::Arc;

use tokio::sync::Mutex;
use tokio::time::sleep;

use super::row::tenure_to_raise;
use crate::receiver::judge::Judges;
use crate::receiver::latest::{Latest, hash};
use crate::receiver::rules::{self, Change, KeySeen, Row, WriteOutcome};
use crate::receiver::settings::ReceiverSettings;
use crate::receiver::shards::Shards;

/// See the module.
#[derive(Debug, Default)]
pub(in crate::receiver) struct MemoryStore {
    records: Shards<HashMap<String, StoredRecord>>,
}

#[derive(Debug, Default)]
struct StoredRecord {
    row: Row,
    keys: Latest<AnsweredKey>,
    /// Idempotency keys of changes that wait for the lock, or think.
    in_progress: Vec<String>,
    /// The row lock of changes that think. (A change that does not think is applied under the shard's lock.)
    lock: Arc<Mutex<()>>,
}

/// What a write does first.
enum Admission {
    /// It ends at once.
    Done(WriteOutcome),
    /// It goes on, under this lock if there are row locks.
    Thinks(Arc<Mutex<()>>),
}

/// The answer to an idempotency key, and the body that it was for.
#[derive(Clone, Copy, Debug)]
struct AnsweredKey {
    body_hash: u64,
    version: u64,
}

impl MemoryStore {
    pub(super) fn read(&self, record_key: &str) -> Option<Row> {
        self.with(record_key, |stored| stored.row.clone())
    }

    pub(super) async fn write(
        &self,
        change: &Change,
        settings: &ReceiverSettings,
        judges: &Judges,
    ) -> WriteOutcome {
        let lock = match self.begin(change, settings, judges) {
            Admission::Done(written) => return written,
            Admission::Thinks(lock) => lock,
        };
        let _in_progress = ReservedKey { memory: self, change };
        let _locked = if settings.safeguards.row_locks { Some(lock.lock_owned().await) } else { None };

        let key = change.record_key.as_str();
        let read = self.with(key, |stored| match stored.check(change, settings) {
            Some(written) => Err(written),
            None => Ok(stored.row.clone()),
        });
        let mut row = match read.unwrap_or_else(|| Ok(Row::default())) {
            Ok(row) => row,
            Err(written) => return written,
        };
        row.apply(change);
        sleep(settings.think).await;
        let mut records = self.records.of(key);
        let stored = records.entry(key.to_owned()).or_default();
        stored.row = row;
        stored.written(change, judges)
    }

    /// The whole write, if there is no time to think.
    fn begin(&self, change: &Change, settings: &ReceiverSettings, judges: &Judges) -> Admission {
        let key = change.record_key.as_str();
        let mut records = self.records.of(key);
        // Not `entry`, which needs an owned key: most changes are of a record that is there.
        if !records.contains_key(key) {
            records.insert(key.to_owned(), StoredRecord::default());
        }
        let stored = records.get_mut(key).expect("it is there now");
        if settings.think.is_zero() {
            return Admission::Done(stored.check(change, settings).unwrap_or_else(|| {
                stored.row.apply(change);
                stored.written(change, judges)
            }));
        }
        if change.idempotency_key.as_ref().is_some_and(|key| stored.in_progress.contains(key)) {
            return Admission::Done(WriteOutcome::KeyInProgress);
        }
        stored.in_progress.extend(change.idempotency_key.clone());
        Admission::Thinks(Arc::clone(&stored.lock))
    }

    pub(super) fn clear(&self) {
        self.records.each().for_each(|mut records| records.clear());
    }

    fn with<T>(&self, record_key: &str, then: impl FnOnce(&mut StoredRecord) -> T) -> Option<T> {
        self.records.of(record_key).get_mut(record_key).map(then)
    }
}

impl StoredRecord {
    fn check(&mut self, change: &Change, settings: &ReceiverSettings) -> Option<WriteOutcome> {
        let answered = change.idempotency_key.as_ref().and_then(|key| self.keys.find(key));
        let seen = match answered {
            None => KeySeen::Never,
            Some(answered) if answered.body_hash == hash(&change.body) => {
                KeySeen::Applied { version: answered.version }
            }
            Some(_) => KeySeen::WithOtherBody,
        };
        let written = rules::check(&self.row, seen, change, settings.safeguards, settings.require_if_match)?;
        if let Some(tenure) = tenure_to_raise(&self.row, change, written, settings.safeguards) {
            self.row.tenure = tenure;
        }
        Some(written)
    }

    /// The row has the change now: remembers its key, and lets the judge know.
    fn written(&mut self, change: &Change, judges: &Judges) -> WriteOutcome {
        let version = self.row.version;
        if let Some(key) = &change.idempotency_key {
            self.keys.remember(key, AnsweredKey { body_hash: hash(&change.body), version });
        }
        judges.of(&change.record_key).applied(change, &self.row, || 0);
        WriteOutcome::Applied { version }
    }
}

/// Removes the change's key from those in progress when it is dropped: at the end, or when the sender has gone away.
struct ReservedKey<'a> {
    memory: &'a MemoryStore,
    change: &'a Change,
}

impl Drop for ReservedKey<'_> {
    fn drop(&mut self) {
        let Some(key) = &self.change.idempotency_key else { return };
        self.memory.with(&self.change.record_key, |stored| {
            stored.in_progress.retain(|in_progress| in_progress != key);
        });
    }
}

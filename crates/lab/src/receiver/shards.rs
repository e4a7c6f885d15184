//! State of many records, spread over locks by record key.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Locks that the records are spread over.
const SHARDS: usize = 32;

/// A value per shard. No lock is held across a wait.
#[derive(Debug)]
pub(super) struct Shards<T> {
    shards: [Mutex<T>; SHARDS],
}

impl<T: Default> Default for Shards<T> {
    fn default() -> Self {
        Self { shards: std::array::from_fn(|_| Mutex::default()) }
    }
}

impl<T> Shards<T> {
    /// The shard of this record.
    pub(super) fn of(&self, record_key: &str) -> MutexGuard<'_, T> {
        let mut hasher = DefaultHasher::new();
        record_key.hash(&mut hasher);
        #[expect(clippy::cast_possible_truncation, reason = "any bits will do")]
        let shard = hasher.finish() as usize % SHARDS;
        lock(&self.shards[shard])
    }

    /// Each shard, locked one after another.
    pub(super) fn each(&self) -> impl Iterator<Item = MutexGuard<'_, T>> {
        self.shards.iter().map(lock)
    }
}

/// A panic that held the lock is reported by itself; the value is still whole.
fn lock<T>(shard: &Mutex<T>) -> MutexGuard<'_, T> {
    shard.lock().unwrap_or_else(PoisonError::into_inner)
}

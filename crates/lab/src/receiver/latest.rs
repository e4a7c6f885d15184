//! The latest names that came, with what is known of each: a bounded memory.

use std::collections::{HashMap, VecDeque};
use std::hash::{DefaultHasher, Hash, Hasher};

/// Names remembered.
pub(super) const LATEST_MAX: usize = 512;

/// The latest [`LATEST_MAX`] names, as hashes, each with a value.
#[derive(Debug)]
pub(super) struct Latest<V> {
    by_hash: HashMap<u64, V>,
    oldest_first: VecDeque<u64>,
}

impl<V> Default for Latest<V> {
    fn default() -> Self {
        Self { by_hash: HashMap::new(), oldest_first: VecDeque::new() }
    }
}

impl<V> Latest<V> {
    pub(super) fn find(&self, name: &str) -> Option<&V> {
        self.by_hash.get(&hash(name.as_bytes()))
    }

    /// Adds a name, and forgets the oldest where there are too many; of one that is there, the value is replaced.
    pub(super) fn remember(&mut self, name: &str, value: V) {
        let hashed = hash(name.as_bytes());
        if self.by_hash.insert(hashed, value).is_some() {
            return;
        }
        if self.oldest_first.len() == LATEST_MAX
            && let Some(oldest) = self.oldest_first.pop_front()
        {
            self.by_hash.remove(&oldest);
        }
        self.oldest_first.push_back(hashed);
    }
}

/// Alike within one process, and only there.
pub(super) fn hash(bytes: &[u8]) -> u64 {
    let mut hasher = DefaultHasher::new();
    bytes.hash(&mut hasher);
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_name_is_forgotten_first() {
        let mut latest = Latest::default();
        for number in 0..=LATEST_MAX {
            latest.remember(&number.to_string(), number);
        }
        assert_eq!((latest.find("0"), latest.find("1")), (None, Some(&1)));
        latest.remember("1", 7);
        assert_eq!((latest.find("1"), latest.find("2")), (Some(&7), Some(&2)));
        assert_eq!((latest.by_hash.len(), latest.oldest_first.len()), (LATEST_MAX, LATEST_MAX));
    }
}

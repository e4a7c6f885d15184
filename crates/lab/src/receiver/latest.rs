//! The latest names that came, each with a value: a bounded memory.

use std::hash::{DefaultHasher, Hash, Hasher};

use hashlink::LruCache;

/// Names remembered.
pub(super) const LATEST_MAX: usize = 512;

/// The latest [`LATEST_MAX`] names, as hashes, each with a value. Takes no memory while it is empty: there are two per
/// record.
#[derive(Debug)]
pub(super) struct Latest<V>(LruCache<u64, V>);

impl<V> Default for Latest<V> {
    fn default() -> Self {
        Self(LruCache::new(LATEST_MAX))
    }
}

impl<V> Latest<V> {
    pub(super) fn find(&self, name: &str) -> Option<&V> {
        self.0.peek(&hash(name.as_bytes()))
    }

    /// Makes this name the latest, and forgets the oldest if there are too many.
    pub(super) fn remember(&mut self, name: &str, value: V) {
        self.0.insert(hash(name.as_bytes()), value);
    }
}

/// Equal for equal bytes within one process, and only there.
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
        latest.remember("new", 0);
        assert_eq!((latest.find("1"), latest.find("2")), (Some(&7), None));
        assert_eq!(latest.0.len(), LATEST_MAX);
    }
}

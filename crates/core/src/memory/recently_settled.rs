//! The updates that were settled last: the broker may hand them over again, since acks can be lost with their channel.

use std::collections::{HashMap, VecDeque};

use crate::update::{Identity, RecordKey};

type Key = (RecordKey, Identity);

#[derive(Debug)]
struct Entry {
    key: Key,
    in_present_tenure: bool,
}

/// A queue with a bound: a further entry takes the place of the oldest one.
#[derive(Debug)]
pub(super) struct RecentlySettled {
    entries_max: usize,
    /// Oldest first.
    entries: VecDeque<Entry>,
    /// How many entries each update has.
    counts: HashMap<Key, usize>,
}

impl RecentlySettled {
    pub(super) fn new(entries_max: usize) -> Self {
        Self { entries_max, entries: VecDeque::new(), counts: HashMap::new() }
    }

    pub(super) fn add(&mut self, key: Key) {
        if self.entries.len() == self.entries_max
            && let Some(oldest) = self.entries.pop_front()
        {
            self.forget_one(&oldest.key);
        }
        *self.counts.entry(key.clone()).or_default() += 1;
        self.entries.push_back(Entry { key, in_present_tenure: true });
    }

    pub(super) fn contains(&self, key: &Key) -> bool {
        self.counts.contains_key(key)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Key> {
        self.entries.iter().map(|entry| &entry.key)
    }

    pub(super) fn tenure_ended(&mut self) {
        self.entries.iter_mut().for_each(|entry| entry.in_present_tenure = false);
    }

    /// Forgets the updates of a record that were settled since this one.
    pub(super) fn forget_from(&mut self, from: &Key) {
        let mut since = false;
        self.forget_if(|entry| {
            since |= entry.key == *from;
            since && entry.key.0 == from.0
        });
    }

    /// Forgets the updates of a record that earlier tenures settled.
    pub(super) fn forget_of_earlier_tenures(&mut self, record_key: &RecordKey) {
        self.forget_if(|entry| !entry.in_present_tenure && entry.key.0 == *record_key);
    }

    pub(super) fn clear(&mut self) {
        self.entries.clear();
        self.counts.clear();
    }

    fn forget_if(&mut self, mut is_forgotten: impl FnMut(&Entry) -> bool) {
        for entry in std::mem::take(&mut self.entries) {
            if is_forgotten(&entry) {
                self.forget_one(&entry.key);
            } else {
                self.entries.push_back(entry);
            }
        }
    }

    fn forget_one(&mut self, key: &Key) {
        if let Some(count) = self.counts.get_mut(key) {
            *count -= 1;
            if *count == 0 {
                self.counts.remove(key);
            }
        }
    }
}

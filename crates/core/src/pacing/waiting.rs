//! The requests that wait for permits, in the order in which they were asked for.

use std::collections::{BTreeMap, BTreeSet};

use super::Asker;

/// Requests without permits. As many as the askers have asked for: their windows bound it (I6).
#[derive(Debug, Default)]
pub(super) struct Waiting {
    /// By a number that grows.
    runs: BTreeMap<u64, (Asker, usize)>,
    /// The same, by asker.
    by_asker: BTreeSet<(Asker, u64)>,
    next: u64,
    requests: usize,
}

impl Waiting {
    pub(super) fn requests(&self) -> usize {
        self.requests
    }

    pub(super) fn add(&mut self, asker: Asker, requests: usize) {
        if requests == 0 {
            return;
        }
        self.requests += requests;
        if let Some(mut newest) = self.runs.last_entry()
            && newest.get().0 == asker
        {
            newest.get_mut().1 += requests;
            return;
        }
        self.runs.insert(self.next, (asker, requests));
        self.by_asker.insert((asker, self.next));
        self.next += 1;
    }

    pub(super) fn remove(&mut self, asker: Asker) {
        while let Some(&(_, number)) = self.by_asker.range((asker, 0)..=(asker, u64::MAX)).next() {
            self.by_asker.remove(&(asker, number));
            let (_, requests) = self.runs.remove(&number).expect("both maps have every run");
            self.requests -= requests;
        }
    }

    /// Takes out the oldest `requests`.
    pub(super) fn take(&mut self, requests: usize) -> Vec<(Asker, usize)> {
        let mut left = requests;
        let mut taken = Vec::new();
        while left > 0
            && let Some(mut oldest) = self.runs.first_entry()
        {
            let (asker, waiting) = *oldest.get();
            let some = waiting.min(left);
            if some == waiting {
                let (number, _) = oldest.remove_entry();
                self.by_asker.remove(&(asker, number));
            } else {
                oldest.get_mut().1 -= some;
            }
            left -= some;
            self.requests -= some;
            taken.push((asker, some));
        }
        taken
    }
}

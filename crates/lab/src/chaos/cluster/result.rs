//! What a crash test of a cluster came to.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use crate::receiver::Counts;

/// What happened from one fault to the next.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Harm {
    /// How often the fault was injected.
    pub(super) times: u32,
    pub(super) overlaps: u64,
    pub(super) interleaved: u64,
    pub(super) reorders: u64,
    pub(super) duplicates: u64,
    pub(super) older_tenures: u64,
    /// The longest time in which no update was applied.
    pub(super) standstill: Duration,
}

impl Harm {
    pub(super) fn add(&mut self, other: &Self) {
        self.times += other.times;
        self.overlaps += other.overlaps;
        self.interleaved += other.interleaved;
        self.reorders += other.reorders;
        self.duplicates += other.duplicates;
        self.older_tenures += other.older_tenures;
        self.standstill = self.standstill.max(other.standstill);
    }

    /// What came between two looks at the counts.
    pub(super) fn between(before: &Counts, after: &Counts, standstill: Duration) -> Self {
        Self {
            times: 1,
            overlaps: after.overlaps - before.overlaps,
            interleaved: after.interleaved - before.interleaved,
            reorders: after.reorders - before.reorders,
            duplicates: after.duplicates - before.duplicates,
            older_tenures: after.older_tenures - before.older_tenures,
            standstill,
        }
    }
}

impl fmt::Display for Harm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { times: _, overlaps, interleaved, reorders, duplicates, older_tenures, standstill } = self;
        write!(
            f,
            "overlapped {overlaps}, interleaved {interleaved}, reordered {reorders}, duplicates {duplicates}, \
             of older tenures {older_tenures}; longest time without an update applied {} ms",
            standstill.as_millis()
        )
    }
}

/// The figures of a crash test of a cluster.
#[derive(Debug)]
pub(in crate::chaos) struct ClusterResult {
    pub(super) seed: u64,
    pub(super) lasted: Duration,
    pub(super) has_ledger: bool,
    pub(super) by_fault: BTreeMap<String, Harm>,
    /// Updates that the broker has confirmed.
    pub(super) published: u64,
    /// What both targets saw.
    pub(super) counts: Counts,
    /// How often a dispatcher ended by itself.
    pub(super) ended_dispatchers: u32,
}

impl ClusterResult {
    /// Updates that never arrived.
    pub(super) fn lost(&self) -> u64 {
        self.published.saturating_sub(self.counts.updates)
    }

    /// True if nothing was lost, reordered, interleaved or overlapped, and every record has its last value. A repetition
    /// that goes on in order up to the newest update is allowed without a ledger. With one, only the newest itself is.
    pub(in crate::chaos) fn is_flawless(&self) -> bool {
        let Counts { reorders, overlaps, outdated, interleaved, older_duplicates, .. } = self.counts;
        let repeated = if self.has_ledger { older_duplicates } else { 0 };
        (self.lost(), reorders, overlaps, outdated, interleaved, repeated) == (0, 0, 0, 0, 0, 0)
    }
}

impl fmt::Display for ClusterResult {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { seed, lasted, by_fault, published, counts, ended_dispatchers, .. } = self;
        for (fault, harm) in by_fault {
            writeln!(f, "{fault} ({} times): {harm}", harm.times)?;
        }
        if *ended_dispatchers > 0 {
            writeln!(f, "dispatchers that ended by themselves: {ended_dispatchers}")?;
        }
        write!(
            f,
            "seed {seed}, {} s: {published} updates: lost {}, reordered {}, overlapped {}, interleaved {}, \
             outdated {}, duplicates {} (not of the newest {}), of older tenures {}",
            lasted.as_secs(),
            self.lost(),
            counts.reorders,
            counts.overlaps,
            counts.interleaved,
            counts.outdated,
            counts.duplicates,
            counts.older_duplicates,
            counts.older_tenures,
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn result(has_ledger: bool, counts: Counts) -> ClusterResult {
        ClusterResult {
            seed: 3,
            lasted: Duration::from_secs(75),
            has_ledger,
            by_fault: BTreeMap::new(),
            published: 100,
            counts,
            ended_dispatchers: 0,
        }
    }

    #[test]
    fn a_repetition_is_no_flaw_and_with_a_ledger_only_that_of_the_newest_is_none() {
        let right = Counts { updates: 100, duplicates: 7, ..Counts::default() };
        assert!(result(true, right.clone()).is_flawless());
        let further_back = Counts { older_duplicates: 1, ..right.clone() };
        assert!(result(false, further_back.clone()).is_flawless());
        assert!(!result(true, further_back).is_flawless());
        for wrong in [
            Counts { updates: 99, ..right.clone() },
            Counts { reorders: 1, ..right.clone() },
            Counts { overlaps: 1, ..right.clone() },
            Counts { interleaved: 1, ..right.clone() },
            Counts { outdated: 1, ..right },
        ] {
            assert!(!result(false, wrong.clone()).is_flawless(), "{wrong}");
        }
    }

    /// The tests of the cluster read the last line.
    #[test]
    fn the_last_line_has_the_totals() {
        let counts = Counts { updates: 98, duplicates: 7, overlaps: 1, ..Counts::default() };
        assert_eq!(
            result(false, counts).to_string(),
            "seed 3, 75 s: 100 updates: lost 2, reordered 0, overlapped 1, interleaved 0, outdated 0, \
             duplicates 7 (not of the newest 0), of older tenures 0"
        );
    }
}

//! What a crash test came to: its figures, and whether the promises were kept.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use crate::receiver::Counts;

/// The figures of a crash test.
#[derive(Debug)]
pub(super) struct ChaosResult {
    pub(super) seed: u64,
    pub(super) lasted: Duration,
    /// How often each kind of fault was injected.
    pub(super) faults: BTreeMap<&'static str, u32>,
    /// Updates that the broker has confirmed.
    pub(super) published: u64,
    /// What the target saw.
    pub(super) counts: Counts,
    /// The longest time in which no update was applied.
    pub(super) longest_standstill: Duration,
}

impl ChaosResult {
    /// Updates that never arrived.
    pub(super) fn lost(&self) -> u64 {
        self.published.saturating_sub(self.counts.updates)
    }

    /// True if nothing was lost, reordered or overlapped, and every record has its last value. Duplicates are allowed:
    /// delivery is at least once, and there is no ledger.
    pub(super) fn is_flawless(&self) -> bool {
        let Counts { reorders, overlaps, outdated, .. } = self.counts;
        (self.lost(), reorders, overlaps, outdated) == (0, 0, 0, 0)
    }
}

impl fmt::Display for ChaosResult {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { seed, lasted, faults, published, counts, longest_standstill } = self;
        let kinds: Vec<String> = faults.iter().map(|(kind, count)| format!("{kind} {count}")).collect();
        writeln!(
            f,
            "seed {seed}, {} s: {} faults ({})",
            lasted.as_secs(),
            faults.values().sum::<u32>(),
            kinds.join(", ")
        )?;
        write!(
            f,
            "{published} updates: lost {}, reordered {}, overlapped {}, outdated {}, duplicates {}, \
             of older tenures {}; longest time without an update applied {} ms",
            self.lost(),
            counts.reorders,
            counts.overlaps,
            counts.outdated,
            counts.duplicates,
            counts.older_tenures,
            longest_standstill.as_millis(),
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn result(counts: Counts) -> ChaosResult {
        ChaosResult {
            seed: 3,
            lasted: Duration::from_secs(75),
            faults: BTreeMap::from([("SIGKILL", 4), ("target cut", 1)]),
            published: 100,
            counts,
            longest_standstill: Duration::from_millis(1_500),
        }
    }

    #[test]
    fn whatever_is_lost_reordered_overlapped_or_outdated_is_a_flaw_and_duplicates_are_none() {
        let right = Counts { updates: 100, duplicates: 7, ..Counts::default() };
        assert!(result(right.clone()).is_flawless());
        for wrong in [
            Counts { updates: 99, ..right.clone() },
            Counts { reorders: 1, ..right.clone() },
            Counts { overlaps: 1, ..right.clone() },
            Counts { outdated: 1, ..right },
        ] {
            assert!(!result(wrong.clone()).is_flawless(), "{wrong}");
        }
    }

    /// `scripts/planted-shells` reads the second line.
    #[test]
    fn the_figures_are_two_lines() {
        let counts = Counts { updates: 98, duplicates: 7, overlaps: 1, ..Counts::default() };
        assert_eq!(
            result(counts).to_string(),
            "seed 3, 75 s: 5 faults (SIGKILL 4, target cut 1)\n100 updates: lost 2, reordered 0, overlapped 1, \
             outdated 0, duplicates 7, of older tenures 0; longest time without an update applied 1500 ms"
        );
    }
}

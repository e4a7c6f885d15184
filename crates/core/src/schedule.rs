//! The list of waits between attempts. It is made once from the config and can be printed.

use std::time::Duration;

use super::spread::spread;
use super::update::UpdateId;

/// The waits between the attempts of one update: the first failure waits for the first, and so on; the last repeats.
#[derive(Clone, Debug, PartialEq)]
pub struct Schedule {
    waits: Vec<Duration>,
    jitter: f64,
}

impl Schedule {
    /// `waits` must not be empty. `jitter` (0 to 1) is the share of a wait that chance may take off:
    /// a wait lies in `(1 - jitter) × wait ..= wait`, so what is printed is also the bound.
    ///
    /// # Panics
    /// Without a wait, or with a jitter outside 0 to 1: the config's check rules both out.
    #[must_use]
    pub fn new(waits: Vec<Duration>, jitter: f64) -> Self {
        assert!(!waits.is_empty(), "a schedule has at least one wait");
        assert!((0.0..=1.0).contains(&jitter), "jitter is a share from 0 to 1");
        Self { waits, jitter }
    }

    /// The waits before jitter.
    #[must_use]
    pub fn waits(&self) -> &[Duration] {
        &self.waits
    }

    /// The share of a wait that jitter may take off.
    #[must_use]
    pub fn jitter(&self) -> f64 {
        self.jitter
    }

    /// The longest wait: the last one, which repeats.
    #[must_use]
    pub fn longest(&self) -> Duration {
        self.waits[self.waits.len() - 1]
    }

    /// The wait after failure number `failures` (from 1) of update `id`.
    ///
    /// Equal arguments give an equal wait: jitter is a hash, so that a replay agrees with the original.
    #[must_use]
    pub fn wait(&self, failures: u32, id: &UpdateId) -> Duration {
        let index = usize::try_from(failures.saturating_sub(1)).unwrap_or(usize::MAX);
        let wait = self.waits.get(index).copied().unwrap_or_else(|| self.longest());
        self.jittered(wait, failures, id)
    }

    /// The longest wait with jitter: for a target that refuses us, and for the policy `block`.
    #[must_use]
    pub fn longest_wait(&self, attempt: u32, id: &UpdateId) -> Duration {
        self.jittered(self.longest(), attempt, id)
    }

    fn jittered(&self, wait: Duration, number: u32, id: &UpdateId) -> Duration {
        wait.mul_f64(1.0 - self.jitter * share(id.as_str(), number))
    }
}

/// A number from 0 to 1 that depends only on the id and the attempt.
fn share(id: &str, number: u32) -> f64 {
    let hash = spread(id.bytes().chain(number.to_le_bytes()));
    f64::from(u32::try_from(hash >> 32).unwrap_or(u32::MAX)) / f64::from(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn schedule(jitter: f64) -> Schedule {
        Schedule::new([1, 2, 4].map(Duration::from_secs).to_vec(), jitter)
    }

    #[test]
    fn the_last_wait_repeats() {
        let id = UpdateId::published("u1");
        let waits: Vec<u64> = (1..=5).map(|n| schedule(0.0).wait(n, &id).as_secs()).collect();
        assert_eq!(waits, [1, 2, 4, 4, 4]);
    }

    #[test]
    fn jitter_spreads_updates_that_failed_together() {
        let waits: std::collections::BTreeSet<Duration> =
            (0..100).map(|n| schedule(0.2).wait(3, &UpdateId::published(format!("u{n}")))).collect();
        assert!(waits.len() > 90, "{} different waits of 100", waits.len());
    }

    proptest! {
        #[test]
        fn a_wait_lies_between_its_bounds_and_repeats(failures in 1_u32.., jitter in 0.0..=1.0_f64, id in ".*") {
            let (schedule, id) = (schedule(jitter), UpdateId::published(id));
            let bound = schedule.waits()[usize::try_from(failures - 1).unwrap().min(2)];
            let wait = schedule.wait(failures, &id);
            prop_assert!(wait <= bound && wait >= bound.mul_f64(1.0 - jitter));
            prop_assert_eq!(wait, schedule.wait(failures, &id));
        }
    }
}

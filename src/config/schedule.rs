//! Computes waits with the `backoff` crate, which is unmaintained and stays behind this file.

#![expect(clippy::disallowed_types, reason = "the one place that makes schedules")]

use std::time::Duration;

use backoff::ExponentialBackoffBuilder;
use backoff::backoff::Backoff as _;

/// Length of the longest list: with a multiplier near 1 very many waits may be needed to reach the maximum.
const WAITS_MAX: usize = 1_000;

/// Waits from `initial`, each `multiplier` times the previous one, up to `max`. After the last wait, it repeats.
///
/// The list has at least one wait and at most [`WAITS_MAX`], and the waits never decrease. Equal arguments give an equal
/// list. `initial` must be above zero and at most `max`, and `multiplier` at least 1: the config's check ensures that.
#[must_use]
pub fn waits(initial: Duration, multiplier: f64, max: Duration) -> Vec<Duration> {
    let mut backoff = ExponentialBackoffBuilder::new()
        .with_initial_interval(initial)
        .with_multiplier(multiplier)
        .with_max_interval(max)
        .with_randomization_factor(0.0)
        .with_max_elapsed_time(None)
        .build();
    let mut waits = Vec::new();
    while waits.len() < WAITS_MAX {
        // `next_backoff` would add up to a nanosecond of jitter even without randomization.
        let wait = backoff.current_interval.min(max);
        if waits.last().is_some_and(|last| wait <= *last) {
            break;
        }
        waits.push(wait);
        backoff.next_backoff();
    }
    waits
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn check(initial: u64, multiplier: f64, max: u64, expected: &[u64]) {
        let waits = waits(Duration::from_millis(initial), multiplier, Duration::from_millis(max));
        let expected: Vec<Duration> = expected.iter().copied().map(Duration::from_millis).collect();
        assert_eq!(waits, expected, "{initial} {multiplier} {max}");
    }

    #[test]
    fn waits_grow_up_to_the_longest() {
        check(500, 2.0, 30_000, &[500, 1_000, 2_000, 4_000, 8_000, 16_000, 30_000]);
        check(1_000, 1.5, 3_000, &[1_000, 1_500, 2_250, 3_000]);
        check(1_000, 3.0, 1_000, &[1_000]);
        check(1_000, 1.0, 30_000, &[1_000]);
        check(1_000, 100.0, 30_000, &[1_000, 30_000]);
    }

    #[test]
    fn a_multiplier_near_one_gives_a_list_of_bounded_length() {
        let waits = waits(Duration::from_millis(1), 1.000_1, Duration::from_secs(3600));
        assert_eq!(waits.len(), WAITS_MAX);
    }

    proptest! {
        #[test]
        fn waits_are_bounded_and_never_fall(
            initial in 1_u64..3_600_000, more in 0_u64..3_600_000, multiplier in 1.0..100.0_f64,
        ) {
            let (initial, max) = (Duration::from_millis(initial), Duration::from_millis(initial + more));
            let list = waits(initial, multiplier, max);
            prop_assert_eq!(list[0], initial);
            prop_assert!(list.len() <= WAITS_MAX && list.is_sorted() && list[list.len() - 1] <= max);
            prop_assert!(multiplier < 1.05 || list[list.len() - 1] == max);
            prop_assert_eq!(&list, &waits(initial, multiplier, max));
        }
    }
}

//! How long updates took from being published to being here.

use std::time::Duration;

use hdrhistogram::Histogram;

use super::report::DelayReport;

/// Decimal digits that a figure is exact to: within 1 %.
const SIGNIFICANT_DIGITS: u8 = 2;
/// Longer delays count as this one.
const DELAY_US_MAX: u64 = 24 * 3600 * 1_000_000;

/// Counts by microseconds, of bounded size.
#[derive(Debug)]
pub(super) struct Delays(Histogram<u64>);

impl Default for Delays {
    fn default() -> Self {
        Self(Histogram::new_with_max(DELAY_US_MAX, SIGNIFICANT_DIGITS).expect("the bounds are in order"))
    }
}

impl Delays {
    pub(super) fn add(&mut self, delay: Duration) {
        self.0.saturating_record(u64::try_from(delay.as_micros()).unwrap_or(u64::MAX));
    }

    /// `None` if there was none.
    pub(super) fn report(&self) -> Option<DelayReport> {
        (!self.0.is_empty()).then(|| DelayReport {
            count: self.0.len(),
            p50_us: self.0.value_at_quantile(0.5),
            p99_us: self.0.value_at_quantile(0.99),
            p999_us: self.0.value_at_quantile(0.999),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_are_counted_from_the_shortest_and_exact_within_one_percent() {
        let mut delays = Delays::default();
        assert_eq!(delays.report(), None);
        (1..=1000).for_each(|ms| delays.add(Duration::from_millis(ms)));
        let DelayReport { count, p50_us, p99_us, p999_us } = delays.report().unwrap();
        assert_eq!(count, 1000);
        for (reported, exact) in [(p50_us, 500_000_u64), (p99_us, 990_000), (p999_us, 999_000)] {
            assert!(reported.abs_diff(exact) <= exact / 100, "{reported} for {exact}");
        }
    }

    #[test]
    fn a_delay_of_years_is_the_longest_there_is() {
        let mut delays = Delays::default();
        delays.add(Duration::MAX);
        assert!(delays.report().unwrap().p50_us >= DELAY_US_MAX);
    }
}

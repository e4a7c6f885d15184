//! How long updates took from being published to being here: a histogram of fixed size.

use std::time::Duration;

use super::report::DelayReport;

/// Buckets per doubling, as a power of two: each is 3 % wide.
const BITS: u32 = 5;
const PER_DOUBLING: usize = 1 << BITS;
const DOUBLINGS: usize = 64 - BITS as usize;

/// Counts by microseconds.
#[derive(Debug)]
pub(super) struct Delays {
    counts: Vec<u64>,
    count: u64,
}

impl Default for Delays {
    fn default() -> Self {
        Self { counts: vec![0; PER_DOUBLING * (DOUBLINGS + 1)], count: 0 }
    }
}

impl Delays {
    pub(super) fn add(&mut self, delay: Duration) {
        self.counts[bucket(u64::try_from(delay.as_micros()).unwrap_or(u64::MAX))] += 1;
        self.count += 1;
    }

    /// `None` where there was none.
    pub(super) fn report(&self) -> Option<DelayReport> {
        (self.count > 0).then(|| DelayReport {
            count: self.count,
            p50_us: self.at(500),
            p99_us: self.at(990),
            p999_us: self.at(999),
        })
    }

    /// The shortest delay that so many of 1000 do not exceed.
    fn at(&self, of_1000: u64) -> u64 {
        let wanted = (self.count * of_1000).div_ceil(1000);
        let mut seen = 0;
        let enough = self.counts.iter().position(|count| {
            seen += count;
            seen >= wanted
        });
        enough.map_or(0, lowest)
    }
}

/// Small numbers have a bucket each; above, [`PER_DOUBLING`] buckets share a doubling.
fn bucket(us: u64) -> usize {
    let shift = (u64::BITS - us.leading_zeros()).saturating_sub(BITS + 1);
    let within = usize::try_from(us >> shift).expect("it has six bits");
    shift as usize * PER_DOUBLING + within
}

/// The least number of a bucket.
fn lowest(bucket: usize) -> u64 {
    if bucket < 2 * PER_DOUBLING {
        return bucket as u64;
    }
    let shift = bucket / PER_DOUBLING - 1;
    ((bucket - shift * PER_DOUBLING) as u64) << shift
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_is_reported_within_three_percent() {
        for us in (0..200_000).chain([1_000_000, 60_000_000, u64::MAX]) {
            let reported = lowest(bucket(us));
            assert!(
                reported <= us && us - reported <= us / PER_DOUBLING as u64,
                "{us} was told as {reported}"
            );
        }
    }

    #[test]
    fn shares_are_counted_from_the_shortest() {
        let mut delays = Delays::default();
        assert_eq!(delays.report(), None);
        (1..=1000).for_each(|ms| delays.add(Duration::from_millis(ms)));
        let DelayReport { count, p50_us, p99_us, p999_us } = delays.report().unwrap();
        assert_eq!(count, 1000);
        for (reported, meant) in [(p50_us, 500_000), (p99_us, 990_000), (p999_us, 999_000)] {
            assert!(reported <= meant && meant - reported <= meant / 30, "{reported} for {meant}");
        }
    }
}

//! How many requests the limit has accepted and refused, second by second.

use std::collections::VecDeque;
use std::fmt;
use std::ops::Range;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::RateLimit;

/// Seconds that are kept: a quarter of an hour and some.
const SECONDS_MAX: usize = 1000;

/// What a second, or several, had.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SecondCounts {
    /// Requests that the limit let through, whatever became of them.
    pub accepted: u64,
    /// Answers 429 of the limit.
    pub refused: u64,
}

/// What the rate limit did. Seconds are counted from the receiver's start.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RateLimitReport {
    /// Requests of the limit.
    pub limit_requests: u32,
    /// In which time.
    pub limit_seconds: u64,
    /// All requests.
    pub total: SecondCounts,
    /// The second in which the report was made; it is not over.
    pub now: u64,
    /// The second that `by_second` begins with.
    pub first_second: u64,
    /// The latest seconds, at most 1,000, up to the one of the latest request.
    pub by_second: Vec<SecondCounts>,
}

/// How a limit was used over some time.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct RateLimitShares {
    /// Share of the limit that was used. Over a short time the bucket's capacity can make it more than 1.
    pub used: f64,
    /// Share of the requests that were refused; 0 if there were none.
    pub refused: f64,
    /// The counts that these are shares of.
    pub counts: SecondCounts,
}

impl RateLimitReport {
    /// All requests to the limit.
    #[must_use]
    pub fn requests(&self) -> u64 {
        self.total.accepted + self.total.refused
    }

    /// The counts of a second; `None`: it is longer ago than 1,000 seconds. A second to come has none, which is no `None`.
    #[must_use]
    pub fn second(&self, second: u64) -> Option<SecondCounts> {
        let index = usize::try_from(second.checked_sub(self.first_second)?).unwrap_or(usize::MAX);
        Some(self.by_second.get(index).copied().unwrap_or_default())
    }

    /// What was used and refused in these seconds, such as from the [`Self::now`] of one report to that of a later one.
    /// `None`: the range is empty, or some of them are longer ago than 1,000 seconds.
    #[must_use]
    pub fn shares(&self, seconds: Range<u64>) -> Option<RateLimitShares> {
        let length = seconds.end.checked_sub(seconds.start).filter(|length| *length > 0)?;
        let mut counts = SecondCounts::default();
        for second in seconds {
            let found = self.second(second)?;
            counts.accepted += found.accepted;
            counts.refused += found.refused;
        }
        let limit = f64::from(self.limit_requests) * length as f64 / self.limit_seconds.max(1) as f64;
        let requests = counts.accepted + counts.refused;
        let refused = if requests == 0 { 0.0 } else { counts.refused as f64 / requests as f64 };
        Some(RateLimitShares { used: counts.accepted as f64 / limit, refused, counts })
    }
}

impl fmt::Display for RateLimitReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let SecondCounts { accepted, refused } = self.total;
        let (requests, seconds) = (self.limit_requests, self.limit_seconds);
        write!(f, "rate limit {requests}/{seconds}s: {accepted} requests accepted, {refused} refused")
    }
}

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Series {
    total: SecondCounts,
    /// The second that `seconds` begins with.
    first: u64,
    seconds: VecDeque<SecondCounts>,
}

impl Series {
    /// A request came. `now` does not go back by more than a thread's delay.
    pub(super) fn add(&mut self, now: Duration, accepted: bool) {
        let second = now.as_secs();
        if self.first + (self.seconds.len() as u64) + (SECONDS_MAX as u64) <= second {
            self.seconds.clear();
            self.first = second - (SECONDS_MAX as u64) + 1;
        }
        while self.first + (self.seconds.len() as u64) <= second {
            self.seconds.push_back(SecondCounts::default());
            if self.seconds.len() > SECONDS_MAX {
                self.seconds.pop_front();
                self.first += 1;
            }
        }
        let index = usize::try_from(second.saturating_sub(self.first)).unwrap_or(usize::MAX);
        for counts in [Some(&mut self.total), self.seconds.get_mut(index)].into_iter().flatten() {
            counts.accepted += u64::from(accepted);
            counts.refused += u64::from(!accepted);
        }
    }

    pub(super) fn report(&self, limit: &RateLimit, now: Duration) -> RateLimitReport {
        RateLimitReport {
            limit_requests: limit.requests,
            limit_seconds: limit.window.as_secs(),
            total: self.total,
            now: now.as_secs(),
            first_second: self.first,
            by_second: self.seconds.iter().copied().collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(requests: &[(u64, bool)], limit: &str) -> RateLimitReport {
        let mut series = Series::default();
        for (second, accepted) in requests {
            series.add(Duration::from_secs(*second), *accepted);
        }
        let last = requests.last().map_or(0, |(second, _)| *second);
        series.report(&limit.parse().unwrap(), Duration::from_secs(last))
    }

    #[test]
    fn shares_are_of_the_seconds_that_were_asked_for() {
        let report = report(&[(0, true), (3, true), (3, true), (3, false), (4, true), (6, false)], "2/s");
        let check = |seconds: Range<u64>, used: f64, refused: f64| {
            let shares = report.shares(seconds.clone()).unwrap();
            assert!((shares.used - used).abs() < 1e-9, "{seconds:?}: {shares:?}");
            assert!((shares.refused - refused).abs() < 1e-9, "{seconds:?}: {shares:?}");
        };
        check(0..1, 0.5, 0.0);
        check(1..3, 0.0, 0.0);
        check(3..5, 0.75, 0.25);
        check(0..10, 0.2, 2.0 / 6.0);
        assert_eq!(report.shares(3..3), None);
        assert_eq!((report.requests(), report.total.refused), (6, 2));
    }

    #[test]
    fn old_seconds_are_dropped_and_not_taken_for_quiet_ones() {
        for requests in
            [vec![(0, true), (998, true), (1000, true), (1001, true)], vec![(0, true), (9_000, false)]]
        {
            let report = report(&requests, "1/s");
            assert_eq!(report.by_second.len(), SECONDS_MAX);
            assert_eq!(report.first_second, report.now + 1 - SECONDS_MAX as u64);
            assert_eq!(report.second(0), None);
            assert_eq!(report.shares(report.first_second - 1..report.now), None);
            assert!(report.second(report.now).unwrap() != SecondCounts::default());
            assert_eq!(report.requests(), requests.len() as u64);
        }
    }
}

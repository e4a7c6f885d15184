//! A token bucket that is written down as one moment: when it will be full again.

use std::time::Duration;

use super::RateLimit;

/// See the module.
#[derive(Debug)]
pub(super) struct TokenBucket {
    /// Time in which one token comes.
    interval: Duration,
    capacity: u32,
    /// When all tokens will be there, if none is taken until then.
    full_at: Duration,
}

/// What a request has got from the limit, and what is left after it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in super::super) struct TokenResult {
    pub(in super::super) accepted: bool,
    /// Requests that would be accepted now.
    pub(super) remaining: u32,
    /// Time until a request is accepted; zero if some remain.
    pub(super) next_in: Duration,
    /// Time until the bucket is full.
    pub(super) full_in: Duration,
}

impl TokenBucket {
    /// A full one.
    pub(super) fn new(limit: &RateLimit) -> Self {
        let seconds = u32::try_from(limit.window.as_secs()).unwrap_or(u32::MAX).max(1);
        let requests = limit.requests.max(1);
        let capacity = limit.capacity.unwrap_or_else(|| requests.div_ceil(seconds)).max(1);
        Self { interval: limit.window / requests, capacity, full_at: Duration::ZERO }
    }

    /// Takes a token if there is one. `now` does not go back.
    pub(super) fn take(&mut self, now: Duration) -> TokenResult {
        let depth = self.interval * self.capacity;
        let missing = self.full_at.saturating_sub(now);
        let accepted = missing + self.interval <= depth;
        let full_in = if accepted { missing + self.interval } else { missing };
        self.full_at = now + full_in;
        let remaining = depth.saturating_sub(full_in).as_nanos() / self.interval.as_nanos().max(1);
        TokenResult {
            accepted,
            remaining: u32::try_from(remaining).unwrap_or(u32::MAX),
            next_in: (full_in + self.interval).saturating_sub(depth),
            full_in,
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn bucket(limit: &str, capacity: Option<u32>) -> TokenBucket {
        TokenBucket::new(&RateLimit { capacity, ..limit.parse().unwrap() })
    }

    /// One letter a request: `a`ccepted or `r`efused.
    fn answers(bucket: &mut TokenBucket, times_ms: &[u64]) -> String {
        let mut accepted = |ms: &u64| bucket.take(Duration::from_millis(*ms)).accepted;
        times_ms.iter().map(|ms| if accepted(ms) { 'a' } else { 'r' }).collect()
    }

    #[test]
    fn a_full_bucket_gives_its_capacity_at_once_and_then_one_token_an_interval() {
        let check = |limit: &str, capacity, times_ms: &[u64], expected: &str| {
            assert_eq!(answers(&mut bucket(limit, capacity), times_ms), expected, "{limit} {capacity:?}");
        };
        check("5/s", None, &[0, 0, 0, 0, 0, 0, 199, 200, 200, 400], "aaaaarrara");
        check("5/s", Some(1), &[0, 0, 199, 200, 400, 500, 600], "arraara");
        check("5/s", None, &[0, 0, 0, 0, 0, 60_000, 60_000, 60_000, 60_000, 60_000, 60_000], "aaaaaaaaaar");
        check("120/1m", None, &[0, 0, 0, 500], "aara");
        check("1/10s", None, &[0, 9_999, 10_000], "ara");
    }

    #[test]
    fn what_is_left_is_said_and_when_there_is_more() {
        let mut bucket = bucket("5/s", Some(2));
        let ms = Duration::from_millis;
        let check = |found: TokenResult, accepted, remaining, next_in, full_in| {
            let expected = TokenResult { accepted, remaining, next_in: ms(next_in), full_in: ms(full_in) };
            assert_eq!(found, expected);
        };
        check(bucket.take(ms(0)), true, 1, 0, 200);
        check(bucket.take(ms(50)), true, 0, 150, 350);
        check(bucket.take(ms(100)), false, 0, 100, 300);
        check(bucket.take(ms(200)), true, 0, 200, 400);
    }

    proptest! {
        #[test]
        fn no_window_lets_more_through_than_rate_and_capacity(
            requests in 1_u32..2_000,
            seconds in 1_u64..100,
            capacity in prop::option::of(1_u32..100),
            pauses_ms in prop::collection::vec(0_u64..200, 1..300),
        ) {
            let limit = RateLimit { capacity, ..format!("{requests}/{seconds}s").parse().unwrap() };
            let mut bucket = TokenBucket::new(&limit);
            let (mut now_ms, mut accepted) = (0, 0_u32);
            for pause in pauses_ms {
                now_ms += pause;
                let token = bucket.take(Duration::from_millis(now_ms));
                accepted += u32::from(token.accepted);
                prop_assert_eq!(token.remaining == 0, !token.next_in.is_zero());
                prop_assert!(token.accepted || token.remaining == 0);
            }
            let refilled = now_ms as f64 / 1000.0 * f64::from(requests) / seconds as f64;
            prop_assert!(f64::from(accepted) <= f64::from(bucket.capacity) + refilled + 0.01);
        }
    }
}

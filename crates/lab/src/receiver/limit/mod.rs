//! A rate limit as real APIs have it: a token bucket for the requests of all records together.

mod bucket;
mod fields;
mod series;

use std::str::FromStr;
use std::time::Duration;

use axum::response::Response;

use bucket::TokenBucket;
pub(super) use bucket::TokenResult;
use series::Series;
pub use series::{RateLimitReport, RateLimitShares, SecondCounts};

/// Higher limits are none for one receiver.
const PER_SECOND_MAX: u64 = 1_000_000;

const WINDOW_MAX: Duration = Duration::from_secs(24 * 3600);

/// How many requests are accepted. `"50/s".parse()` sets requests and window, and leaves the rest as most APIs have it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RateLimit {
    /// Requests in each `window`, spread evenly: at least 1.
    pub requests: u32,
    /// Whole seconds: at least 1, at most a day.
    pub window: Duration,
    /// Requests that are accepted at once after a pause. `None`: those of one second, rounded up.
    pub capacity: Option<u32>,
    /// What answers say about the limit.
    pub fields: RateLimitFields,
    /// The body of a refusal.
    pub refusal: RefusalBody,
}

/// Which header fields say what is left of the limit. All but `Retry-After` are on every answer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum RateLimitFields {
    /// None.
    #[default]
    None,
    /// `Retry-After` with each refusal: seconds until a request is accepted, rounded up.
    RetryAfter,
    /// `RateLimit` and `RateLimit-Policy` (draft-ietf-httpapi-ratelimit-headers-10).
    #[value(name = "ratelimit")]
    RateLimit,
    /// `X-RateLimit-Limit`, `-Remaining` and `-Reset`, which is in seconds from now.
    #[value(name = "x-ratelimit")]
    XRateLimit,
    /// The same with `-Reset` in seconds since 1970.
    #[value(name = "x-ratelimit-epoch")]
    XRateLimitEpoch,
}

/// The body of an answer 429 of the limit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum RefusalBody {
    /// A problem document, as from an application.
    #[default]
    Problem,
    /// Plain text, as from a gateway.
    Plain,
}

/// A text is no rate limit.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "{0:?} is not a rate limit; write requests per time in whole seconds, such as 50/s or 1000/1m, at most {PER_SECOND_MAX} a second, at most a day"
)]
pub struct RateLimitError(String);

impl FromStr for RateLimit {
    type Err = RateLimitError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let parsed = || {
            let (requests, window) = text.split_once('/')?;
            let unit_alone = !window.starts_with(|first: char| first.is_ascii_digit());
            let window =
                humantime::parse_duration(&format!("{}{window}", if unit_alone { "1" } else { "" })).ok()?;
            let requests: u32 = requests.parse().ok().filter(|requests| *requests > 0)?;
            let whole = window.subsec_nanos() == 0 && !window.is_zero() && window <= WINDOW_MAX;
            let most = PER_SECOND_MAX.saturating_mul(window.as_secs());
            let (capacity, fields, refusal) = Default::default();
            (whole && u64::from(requests) <= most).then_some(Self {
                requests,
                window,
                capacity,
                fields,
                refusal,
            })
        };
        parsed().ok_or_else(|| RateLimitError(text.to_owned()))
    }
}

/// A limit at work. Times are since a fixed moment.
#[derive(Debug)]
pub(super) struct Limiter {
    limit: RateLimit,
    bucket: TokenBucket,
    series: Series,
}

impl Limiter {
    pub(super) fn new(limit: RateLimit) -> Self {
        Self { limit, bucket: TokenBucket::new(&limit), series: Series::default() }
    }

    /// A request has come.
    pub(super) fn take(&mut self, now: Duration) -> TokenResult {
        let token = self.bucket.take(now);
        self.series.add(now, token.accepted);
        token
    }

    pub(super) fn report(&self, now: Duration) -> RateLimitReport {
        self.series.report(&self.limit, now)
    }

    /// Deletes the counts. What was spent stays spent.
    pub(super) fn forget(&mut self) {
        self.series = Series::default();
    }
}

impl RateLimit {
    /// Writes the header fields into the answer to a request.
    pub(super) fn write_fields(&self, token: &TokenResult, response: Response) -> Response {
        fields::write(self, token, response)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_limit_is_written_as_requests_per_time() {
        let check = |text: &str, requests, seconds| {
            let limit: RateLimit = text.parse().unwrap();
            assert_eq!((limit.requests, limit.window), (requests, Duration::from_secs(seconds)), "{text}");
        };
        check("50/s", 50, 1);
        check("1/1s", 1, 1);
        check("1000/1m", 1000, 60);
        check("1000/m", 1000, 60);
        check("5000/1h 30m", 5000, 5400);
        for text in [
            "",
            "50",
            "/s",
            "0/s",
            "-1/s",
            "5/",
            "5/0s",
            "5/500ms",
            "5/1500ms",
            "5/25h",
            "5.5/s",
            "1000001/s",
            "5/x",
        ] {
            assert!(text.parse::<RateLimit>().is_err(), "{text:?}");
        }
    }
}

//! The header fields that say what is left of a limit.

use std::time::{Duration, SystemTime};

use axum::http::{HeaderName, HeaderValue};
use axum::response::Response;

use super::super::answer::{retry_after, whole_seconds};
use super::bucket::TokenResult;
use super::{RateLimit, RateLimitFields};

const RATE_LIMIT: HeaderName = HeaderName::from_static("ratelimit");
const RATE_LIMIT_POLICY: HeaderName = HeaderName::from_static("ratelimit-policy");
const X_LIMIT: HeaderName = HeaderName::from_static("x-ratelimit-limit");
const X_REMAINING: HeaderName = HeaderName::from_static("x-ratelimit-remaining");
const X_RESET: HeaderName = HeaderName::from_static("x-ratelimit-reset");

/// Resets are when the bucket is full again.
pub(super) fn write(limit: &RateLimit, token: &TokenResult, mut response: Response) -> Response {
    let reset = whole_seconds(token.full_in);
    let headers = response.headers_mut();
    match limit.fields {
        RateLimitFields::None => {}
        RateLimitFields::RetryAfter if token.accepted => {}
        RateLimitFields::RetryAfter => return retry_after(response, token.next_in),
        RateLimitFields::RateLimit => {
            let policy = format!("\"default\";q={};w={}", limit.requests, limit.window.as_secs());
            headers.insert(RATE_LIMIT_POLICY, value(&policy));
            headers.insert(RATE_LIMIT, value(&format!("\"default\";r={};t={reset}", token.remaining)));
        }
        RateLimitFields::XRateLimit | RateLimitFields::XRateLimitEpoch => {
            let reset = if limit.fields == RateLimitFields::XRateLimit {
                reset
            } else {
                let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
                whole_seconds(now.unwrap_or(Duration::ZERO) + token.full_in)
            };
            headers.insert(X_LIMIT, limit.requests.into());
            headers.insert(X_REMAINING, token.remaining.into());
            headers.insert(X_RESET, reset.into());
        }
    }
    response
}

fn value(text: &str) -> HeaderValue {
    HeaderValue::from_str(text).expect("digits and signs are a header value")
}

#[cfg(test)]
mod tests {
    use super::super::bucket::TokenBucket;
    use super::*;

    /// The fields of the answers to requests at 0 ms and at 100 ms, at a limit of 2 in 4 s: the second one is refused.
    fn check(fields: RateLimitFields, expected: [&[(&str, &str)]; 2]) {
        let limit = RateLimit { fields, .."2/4s".parse().unwrap() };
        let mut bucket = TokenBucket::new(&limit);
        for (ms, expected) in [0, 100].into_iter().zip(expected) {
            let token = bucket.take(Duration::from_millis(ms));
            let response = write(&limit, &token, Response::default());
            let found: Vec<(&str, &str)> = response
                .headers()
                .iter()
                .map(|(name, value)| (name.as_str(), value.to_str().unwrap()))
                .collect();
            assert_eq!(found, expected, "{fields:?}");
        }
    }

    #[test]
    fn each_form_has_its_fields() {
        check(RateLimitFields::None, [&[], &[]]);
        check(RateLimitFields::RetryAfter, [&[], &[("retry-after", "2")]]);
        let policy = ("ratelimit-policy", "\"default\";q=2;w=4");
        let spent = ("ratelimit", "\"default\";r=0;t=2");
        check(RateLimitFields::RateLimit, [&[policy, spent], &[policy, spent]]);
        let spent = [("x-ratelimit-limit", "2"), ("x-ratelimit-remaining", "0"), ("x-ratelimit-reset", "2")];
        check(RateLimitFields::XRateLimit, [&spent, &spent]);
    }

    #[test]
    fn the_epoch_form_names_a_moment_that_is_to_come() {
        let limit = RateLimit { fields: RateLimitFields::XRateLimitEpoch, .."1/1m".parse().unwrap() };
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs();
        let token = TokenBucket::new(&limit).take(Duration::ZERO);
        let response = write(&limit, &token, Response::default());
        let reset: u64 = response.headers()[X_RESET].to_str().unwrap().parse().unwrap();
        assert!((now + 60..now + 70).contains(&reset), "{reset} at {now}");
    }
}

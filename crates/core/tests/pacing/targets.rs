//! Targets that limit requests, and what their answers state about it.

use std::collections::VecDeque;
use std::time::Duration;

use lanekeeper_core::pacing::{Quota, Reply};

const SECOND: u64 = 1_000_000;

/// How a target counts. Each allows `limit` requests per `window` microseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// It holds as many tokens as it allows in a window.
    TokenBucket,
    FixedWindow,
    SlidingWindow,
}

/// What its answers state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Headers {
    None,
    RetryAfter,
    /// `RateLimit` and `RateLimit-Policy`.
    RateLimit,
    /// `X-RateLimit-Limit`, `X-RateLimit-Remaining` and `X-RateLimit-Reset`.
    XRateLimit,
    /// The same without the limit.
    XRateLimitRemaining,
}

#[derive(Debug)]
pub struct Target {
    kind: Kind,
    headers: Headers,
    pub limit: u64,
    pub window: u64,
    tokens: f64,
    refilled_at: u64,
    /// When requests of the window were made.
    made: VecDeque<u64>,
    /// 503 with `Retry-After` between these moments.
    pub outage: Option<(u64, u64)>,
    /// A record that is refused always.
    pub refused_record: Option<usize>,
    /// How it fails at random, whatever the rate is. Such requests use nothing of the limit.
    pub chance: Chance,
    /// Requests per second of another program, evenly.
    pub others: u64,
    others_made: u64,
    /// Another limit holds from a moment on.
    pub changes: Option<(u64, u64)>,
}

/// Shares of the requests that fail at random.
#[derive(Clone, Copy, Debug, Default)]
pub struct Chance {
    /// 429.
    pub refused: f64,
    /// 503 with `Retry-After`.
    pub unavailable: f64,
    /// 500.
    pub failed: f64,
    /// No answer for a second.
    pub hangs: f64,
    /// What 429 and 503 say.
    pub retry_after: Option<Duration>,
}

impl Target {
    pub fn new(kind: Kind, headers: Headers, limit: u64) -> Self {
        Self {
            kind,
            headers,
            limit,
            window: SECOND,
            tokens: limit as f64,
            refilled_at: 0,
            made: VecDeque::new(),
            outage: None,
            refused_record: None,
            chance: Chance::default(),
            others: 0,
            others_made: 0,
            changes: None,
        }
    }

    /// What becomes of a request by chance; `lot` is from 0 to below 1. With the time that the answer takes longer.
    fn by_chance(&self, lot: f64) -> Option<(Reply, u64)> {
        let Chance { refused, unavailable, failed, hangs, retry_after } = self.chance;
        let away = Reply::Unavailable { retry_after: retry_after.unwrap_or(Duration::from_secs(1)) };
        let kinds = [
            (refused, Reply::TooMany { retry_after }, 0),
            (unavailable, away, 0),
            (failed, Reply::Other, 0),
            (hangs, Reply::Other, SECOND),
        ];
        let mut sum = 0.0;
        kinds.into_iter().find_map(|(share, reply, longer)| {
            sum += share;
            (lot < sum).then_some((reply, longer))
        })
    }

    /// A request arrives; `lot` is from 0 to below 1. With the time that the answer takes longer.
    pub fn answer(&mut self, now: u64, record: usize, lot: f64) -> (Reply, Quota, u64) {
        if let Some((from, limit)) = self.changes
            && now >= from
        {
            (self.limit, self.changes) = (limit, None);
        }
        while self.others_made < now.saturating_mul(self.others) / SECOND {
            self.others_made += 1;
            self.accept(self.others_made * SECOND / self.others);
        }
        if let Some((reply, longer)) = self.by_chance(lot) {
            return (reply, Quota::default(), longer);
        }
        let (reply, quota) = self.answer_by_limit(now, record);
        (reply, quota, 0)
    }

    fn answer_by_limit(&mut self, now: u64, record: usize) -> (Reply, Quota) {
        if let Some((from, until)) = self.outage
            && (from..until).contains(&now)
        {
            let retry_after = Duration::from_micros(until - now);
            return (Reply::Unavailable { retry_after }, Quota::default());
        }
        let own = self.refused_record == Some(record);
        let accepted = !own && self.accept(now);
        let (remaining, reset) = if own { (0, self.window) } else { self.remaining(now) };
        let seconds = |micros: u64| Duration::from_secs(micros.div_ceil(SECOND));
        let quota = match self.headers {
            Headers::None | Headers::RetryAfter => Quota::default(),
            Headers::RateLimit => Quota {
                remaining: Some(remaining),
                reset: Some(seconds(reset)),
                limit: Some(self.limit),
                window: Some(Duration::from_micros(self.window)),
            },
            Headers::XRateLimit | Headers::XRateLimitRemaining => Quota {
                remaining: Some(remaining),
                reset: Some(seconds(reset)),
                limit: (self.headers == Headers::XRateLimit).then_some(self.limit),
                window: None,
            },
        };
        let retry_after = (self.headers == Headers::RetryAfter).then_some(seconds(reset.max(1)));
        (if accepted { Reply::Applied } else { Reply::TooMany { retry_after } }, quota)
    }

    fn accept(&mut self, now: u64) -> bool {
        self.forget(now);
        if self.kind == Kind::TokenBucket {
            let refill = self.limit as f64 * (now - self.refilled_at) as f64 / self.window as f64;
            self.tokens = (self.tokens + refill).min(self.limit as f64);
            self.refilled_at = now;
            let accepted = self.tokens >= 1.0;
            self.tokens -= if accepted { 1.0 } else { 0.0 };
            return accepted;
        }
        let accepted = (self.made.len() as u64) < self.limit;
        if accepted {
            self.made.push_back(now);
        }
        accepted
    }

    fn forget(&mut self, now: u64) {
        let from = match self.kind {
            Kind::FixedWindow => now / self.window * self.window,
            Kind::SlidingWindow | Kind::TokenBucket => (now + 1).saturating_sub(self.window),
        };
        while self.made.front().is_some_and(|made| *made < from) {
            self.made.pop_front();
        }
    }

    /// Requests that may be made, and the time until more may be.
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "small and positive")]
    fn remaining(&self, now: u64) -> (u64, u64) {
        match self.kind {
            Kind::TokenBucket => {
                let missing = (self.limit as f64 - self.tokens) / self.limit as f64;
                (self.tokens as u64, (missing * self.window as f64) as u64)
            }
            Kind::FixedWindow => {
                (self.limit.saturating_sub(self.made.len() as u64), self.window - now % self.window)
            }
            Kind::SlidingWindow => {
                let newest = self.made.back().copied().unwrap_or(now);
                (self.limit.saturating_sub(self.made.len() as u64), newest + self.window - now)
            }
        }
    }
}

//! When a token is fetched, which one requests carry, and what is done about one that was refused. It has no clock.

use std::time::Duration;

use http::HeaderValue;
use tokio::time::Instant;

use super::token_answer::NewToken;

/// A token is renewed after this many hundredths of its life, so that its server can be away for the rest of it.
const RENEW_AFTER_PERCENT: u32 = 80;
/// Waits after fetches that failed.
const FAILED_WAIT_MIN: Duration = Duration::from_secs(1);
const FAILED_WAIT_MAX: Duration = Duration::from_secs(10);
/// Waits between fetches because of refusals, if the target has accepted none of the tokens: another one will not help, and
/// their server is not to be asked for each request.
const REFUSED_WAIT_MIN: Duration = Duration::from_secs(2);
const REFUSED_WAIT_MAX: Duration = Duration::from_secs(60);

/// A token that requests carry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::http) struct Token {
    /// Which one it is.
    number: u64,
    /// `Bearer TOKEN`.
    pub(super) header: HeaderValue,
}

#[derive(Debug)]
struct HeldToken {
    token: Token,
    /// `None`: its server has not said how long it is good for, and it is used until it is refused.
    times: Option<Times>,
}

#[derive(Clone, Copy, Debug)]
struct Times {
    renew_at: Instant,
    expires_at: Instant,
}

/// The token of one target. Shared by all attempts.
#[derive(Debug, Default)]
pub(super) struct TokenCache {
    held: Option<HeldToken>,
    /// A fetch is under way; there is never a second one.
    fetching: bool,
    /// Tokens so far.
    count: u64,
    /// No fetch before this moment.
    not_before: Option<Instant>,
    /// Fetches that failed since the last one that did not.
    failures: u32,
    /// Why the last one failed.
    fault: Option<String>,
    /// Tokens that were refused since the target has last accepted one.
    refusals: u32,
}

/// What an attempt does to have a token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// Carry this one.
    Use(Token),
    /// Carry this one, and begin a fetch that nobody waits for.
    UseAndFetch(Token),
    /// Begin a fetch, and wait for its end.
    Fetch,
    /// Wait for the end of the fetch that is under way.
    Wait,
    /// There is none, and no fetch may begin now: why.
    Fail(String),
}

/// What is done about a refused token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Refusal {
    /// There is a newer one.
    Replaced,
    /// It is dropped: look again what to do.
    Dropped,
    /// It was fetched a moment ago because of a refusal: no other one is fetched yet.
    TooSoon,
}

/// What of the end of a fetch is worth a line in the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum LogEvent {
    /// Nothing.
    None,
    /// The first failure, while there is a token that is good.
    FailsWhileGood,
    /// The first success after failures.
    WorksAgain,
}

impl TokenCache {
    /// Returns true if there is a token that is good.
    pub(super) fn has_good(&self, now: Instant) -> bool {
        self.good(now).is_some()
    }

    fn good(&self, now: Instant) -> Option<&HeldToken> {
        self.held.as_ref().filter(|held| held.times.is_none_or(|times| now < times.expires_at))
    }

    /// What an attempt does now. After [`Step::Fetch`] and [`Step::UseAndFetch`], a fetch counts as under way.
    pub(super) fn next_step(&mut self, now: Instant) -> Step {
        let may_fetch = !self.fetching && self.not_before.is_none_or(|not_before| not_before <= now);
        let Some(held) = self.good(now) else {
            if self.fetching {
                return Step::Wait;
            }
            if !may_fetch {
                return Step::Fail(self.fault.clone().unwrap_or_else(|| TOO_SOON.to_owned()));
            }
            self.fetching = true;
            return Step::Fetch;
        };
        let token = held.token.clone();
        if may_fetch && held.times.is_some_and(|times| times.renew_at <= now) {
            self.fetching = true;
            return Step::UseAndFetch(token);
        }
        Step::Use(token)
    }

    /// A fetch has ended that `began` then.
    pub(super) fn fetched(
        &mut self,
        began: Instant,
        now: Instant,
        ended: Result<NewToken, String>,
    ) -> LogEvent {
        self.fetching = false;
        match ended {
            Ok(NewToken { header, life }) => {
                self.count += 1;
                // The server counts from when it answered, which is after `began`.
                let times = life.and_then(|life| {
                    let renew_at = began.checked_add(life / 100 * RENEW_AFTER_PERCENT)?;
                    Some(Times { renew_at, expires_at: began.checked_add(life)? })
                });
                self.held = Some(HeldToken { token: Token { number: self.count, header }, times });
                self.not_before = (self.refusals > 0)
                    .then(|| began + doubled(REFUSED_WAIT_MIN, self.refusals, REFUSED_WAIT_MAX));
                self.fault = None;
                if std::mem::take(&mut self.failures) > 0 { LogEvent::WorksAgain } else { LogEvent::None }
            }
            Err(fault) => {
                self.failures = self.failures.saturating_add(1);
                self.not_before = Some(now + doubled(FAILED_WAIT_MIN, self.failures, FAILED_WAIT_MAX));
                self.fault = Some(fault);
                if self.failures == 1 && self.held.is_some() {
                    LogEvent::FailsWhileGood
                } else {
                    LogEvent::None
                }
            }
        }
    }

    /// The target has refused this token.
    pub(super) fn refused(&mut self, token: &Token, now: Instant) -> Refusal {
        match &self.held {
            Some(held) if held.token.number != token.number => return Refusal::Replaced,
            None => return Refusal::Dropped,
            Some(_) => {}
        }
        if !self.fetching && self.failures == 0 && self.not_before.is_some_and(|not_before| now < not_before)
        {
            return Refusal::TooSoon;
        }
        self.held = None;
        self.refusals = self.refusals.saturating_add(1);
        Refusal::Dropped
    }

    /// The target has applied an update with this token.
    pub(super) fn accepted(&mut self, token: &Token) {
        if self.held.as_ref().is_some_and(|held| held.token.number == token.number) {
            self.refusals = 0;
        }
    }
}

/// Why no token is fetched now.
pub(super) const TOO_SOON: &str =
    "the target has refused several tokens one after another, and the next one is not fetched yet";

/// `min`, twice as long each time from the second on, up to `max`.
fn doubled(min: Duration, times: u32, max: Duration) -> Duration {
    min.saturating_mul(1 << times.saturating_sub(1).min(16)).min(max)
}

#[cfg(test)]
mod tests;

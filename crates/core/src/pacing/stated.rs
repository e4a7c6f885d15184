//! The limits that answers state: `RateLimit` with `RateLimit-Policy`, or `X-RateLimit-*`.

use std::time::Duration;

use super::adaptive::RATE_MIN;
use super::{PAUSE_MAX, Quota, Tick};

/// The rate stays so far below a limit that clocks and latency differ.
const MARGIN: f64 = 0.98;
/// A longer window is not spread evenly: it is free until half of the quota is used.
const SHORT: Duration = Duration::from_secs(10);
/// What was learned about a quota is forgotten if a request is refused later than this.
const LEARNED_FOR: Duration = Duration::from_secs(300);
/// A quota that answers do not state any more is forgotten after this time, and at least two windows.
const FORGOTTEN_AFTER: Duration = Duration::from_secs(60);
/// A pause lasts longer than `reset` by this part of it, and at least by [`PAUSE_MARGIN_MIN`].
const PAUSE_MARGIN: u32 = 100;
const PAUSE_MARGIN_MIN: Duration = Duration::from_millis(2);

/// A stated rate is kept if at most one of so many requests is refused,
const DOUBT_PER_REFUSAL: u32 = 20;
/// and for a few more.
const DOUBT_MAX: u32 = 100;

/// What the newest answers state.
#[derive(Debug)]
pub(super) struct Stated {
    limit: Option<u64>,
    window: Option<Duration>,
    remaining: Option<u64>,
    reset_at: Option<Tick>,
    observed_at: Tick,
    /// The most that remained, and the longest time to a reset. Where answers do not state the limit or the window, these
    /// are it.
    learned: Learned,
    learned_from: Tick,
    /// Grows with refusals in spite of the stated rate, and falls with what is applied.
    doubt: u32,
}

#[derive(Clone, Copy, Debug, Default)]
struct Learned {
    limit: u64,
    window: Duration,
}

/// What a stated limit allows.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Allowed {
    /// Any number of requests.
    Any,
    /// So many per second.
    PerSecond(f64),
}

impl Stated {
    pub(super) fn new(now: Tick) -> Self {
        Self {
            limit: None,
            window: None,
            remaining: None,
            reset_at: None,
            observed_at: now,
            learned: Learned::default(),
            learned_from: now,
            doubt: 0,
        }
    }

    /// An answer came with `quota`; `refused`: it refuses a request. Returns until when no request may leave.
    pub(super) fn observe(&mut self, now: Tick, quota: &Quota, refused: bool) -> Option<Tick> {
        if refused && now.since(self.learned_from) > LEARNED_FOR {
            self.learned = Learned::default();
            self.learned_from = now;
        }
        let reset = quota.reset.map(|reset| reset.min(PAUSE_MAX));
        self.observed_at = now;
        self.limit = quota.limit;
        self.window = quota.window.filter(|window| !window.is_zero());
        self.remaining = quota.remaining;
        self.reset_at = reset.map(|reset| now.after(reset));
        let learned = &mut self.learned;
        learned.limit = learned.limit.max(quota.remaining.map_or(0, |remaining| remaining.saturating_add(1)));
        learned.window = learned.window.max(reset.unwrap_or_default());
        // A short window is used up each time, and the rate keeps the limit. `reset` is in whole seconds.
        let short = self.window().is_some_and(|window| window <= SHORT);
        let reset = reset.filter(|_| quota.remaining == Some(0) && (refused || !short))?;
        // Where the rate is kept, one refusal is chance, and a part of the window is enough.
        let reset = if short { reset * self.doubt.max(DOUBT_PER_REFUSAL) / DOUBT_MAX } else { reset };
        Some(now.after(reset + (reset / PAUSE_MARGIN).max(PAUSE_MARGIN_MIN)))
    }

    /// A request was refused although the rate is kept. Returns true if that is too frequent: then others use the limit as
    /// well, or it is lower than stated. Where processes share a window, single refusals are chance.
    pub(super) fn is_doubted(&mut self) -> bool {
        self.doubt = (self.doubt + DOUBT_PER_REFUSAL).min(DOUBT_MAX);
        self.doubt >= DOUBT_MAX
    }

    pub(super) fn applied(&mut self) {
        self.doubt = self.doubt.saturating_sub(1);
    }

    fn limit(&self) -> Option<u64> {
        self.limit.or(Some(self.learned.limit).filter(|limit| *limit > 0))
    }

    fn window(&self) -> Option<Duration> {
        self.window.or(Some(self.learned.window).filter(|window| !window.is_zero()))
    }

    pub(super) fn is_over(&self, now: Tick) -> bool {
        let window = self.window().unwrap_or_default();
        now.since(self.observed_at) > FORGOTTEN_AFTER.max(window.saturating_mul(2))
    }

    /// What it allows now a process that may use `share` of it.
    pub(super) fn allowed(&self, now: Tick, share: f64) -> Allowed {
        let (Some(limit), Some(window)) = (self.limit(), self.window()) else { return Allowed::Any };
        let per_second = |requests: u64, time: Duration| {
            Allowed::PerSecond((requests as f64 / time.as_secs_f64() * MARGIN * share).max(RATE_MIN * share))
        };
        if window <= SHORT {
            return per_second(limit, window);
        }
        match (self.remaining, self.reset_at) {
            (Some(remaining), Some(reset_at)) if reset_at > now && remaining < limit.div_ceil(2) => {
                // The last second is as good as over: what remains then is no rate.
                per_second(remaining, reset_at.since(now).max(Duration::from_secs(1)))
            }
            (Some(_), Some(_)) => Allowed::Any,
            _ => per_second(limit, window),
        }
    }

    /// When [`Self::allowed`] changes by time alone: a long window ends.
    pub(super) fn changes_at(&self, now: Tick) -> Option<Tick> {
        let long = self.window().is_some_and(|window| window > SHORT);
        self.reset_at.filter(|reset_at| long && *reset_at > now)
    }
}

//! How many requests ended lately, second by second.

use super::chance::Counted;
use super::{Reply, Tick};

/// Seconds that are remembered (I6).
const SECONDS: u64 = 128;

/// Over so many seconds rates are averaged, where a single second would show too little.
const AVERAGED_SECONDS: u64 = 10;

#[derive(Clone, Copy, Debug, Default)]
struct Second {
    number: u64,
    ended: u32,
    applied: u32,
    refused: u32,
    /// Refused with 503.
    unavailable: u32,
}

/// The requests that ended in each of the last [`SECONDS`].
#[derive(Debug)]
pub(super) struct Recent(Box<[Second]>);

impl Default for Recent {
    fn default() -> Self {
        Self(vec![Second::default(); usize::try_from(SECONDS).expect("small")].into())
    }
}

impl Recent {
    fn index(second: u64) -> usize {
        usize::try_from(second % SECONDS).expect("small")
    }

    fn second(now: Tick) -> u64 {
        now.micros() / 1_000_000
    }

    pub(super) fn add(&mut self, now: Tick, reply: Reply) {
        let number = Self::second(now);
        let second = &mut self.0[Self::index(number)];
        if second.number != number {
            *second = Second { number, ..Second::default() };
        }
        second.ended += 1;
        match reply {
            Reply::Applied => second.applied += 1,
            Reply::TooMany { .. } => second.refused += 1,
            Reply::Unavailable { .. } => second.unavailable += 1,
            Reply::Other => {}
        }
    }

    fn last(&self, now: Tick, seconds: u64) -> impl Iterator<Item = Second> {
        let newest = Self::second(now);
        (newest.saturating_sub(seconds.min(SECONDS) - 1)..=newest)
            .map(|number| (number, self.0[Self::index(number)]))
            .filter(|(number, second)| second.number == *number)
            .map(|(_, second)| second)
    }

    /// The most requests that ended in one of the last `seconds`.
    pub(super) fn ended_max(&self, now: Tick, seconds: u64) -> u32 {
        self.last(now, seconds).map(|second| second.ended).max().unwrap_or(0)
    }

    /// The most requests that were applied in one of the last `seconds`.
    pub(super) fn applied_max(&self, now: Tick, seconds: u64) -> u32 {
        self.last(now, seconds).map(|second| second.applied).max().unwrap_or(0)
    }

    /// The most requests per second that were applied in [`AVERAGED_SECONDS`] on end.
    pub(super) fn applied_at_best(&self, now: Tick) -> f64 {
        let mut applied = vec![0_u32; usize::try_from(SECONDS).expect("small")];
        let oldest = Self::second(now).saturating_sub(SECONDS - 1);
        for second in self.last(now, SECONDS) {
            applied[usize::try_from(second.number - oldest).expect("small")] = second.applied;
        }
        let averaged = usize::try_from(AVERAGED_SECONDS).expect("small");
        let sums = applied.windows(averaged).map(|window| window.iter().sum::<u32>());
        f64::from(sums.max().unwrap_or(0)) / AVERAGED_SECONDS as f64
    }

    /// The requests of the last [`AVERAGED_SECONDS`], and those refused with 429.
    pub(super) fn counted(&self, now: Tick) -> Counted {
        self.last(now, AVERAGED_SECONDS).fold(Counted::default(), |counted, second| Counted {
            ended: counted.ended + second.ended,
            refused: counted.refused + second.refused,
        })
    }

    /// All requests that are remembered, and those refused in any way.
    pub(super) fn counted_in_all(&self, now: Tick) -> Counted {
        self.last(now, SECONDS).fold(Counted::default(), |counted, second| Counted {
            ended: counted.ended + second.ended,
            refused: counted.refused + second.refused + second.unavailable,
        })
    }

    /// Requests that ended in the last whole seconds, per second.
    pub(super) fn ended_per_second(&self, now: Tick, seconds: u64) -> u32 {
        let newest = Self::second(now);
        let ended: u32 = self.last(now, seconds + 1).filter(|s| s.number < newest).map(|s| s.ended).sum();
        ended.div_ceil(u32::try_from(seconds).expect("small"))
    }

    /// Requests per second that were applied since the oldest second that is remembered; `None` if there were none.
    pub(super) fn applied_on_average(&self, now: Tick) -> Option<f64> {
        let oldest = self.last(now, SECONDS).find(|second| second.applied > 0)?;
        let applied: u32 = self.last(now, SECONDS).map(|second| second.applied).sum();
        let seconds = now.micros() as f64 / 1e6 - oldest.number as f64;
        Some(f64::from(applied) / seconds.max(1.0))
    }
}

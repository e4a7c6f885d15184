//! Refusals by chance: some targets refuse a share of the requests, whatever the rate is. To send them less helps nobody.

use std::time::Duration;

use super::Tick;

/// Up to this share refusals may come from chance; what refuses more is obeyed. Other programs that use up a limit look like
/// chance, too: the bound holds what they cost.
const SHARE_MAX: f64 = 0.12;
/// Counts may differ from a share by so many standard deviations.
const DEVIATIONS: f64 = 2.0;

/// Requests that ended, and those of them that were refused.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Counted {
    pub(super) ended: u32,
    pub(super) refused: u32,
}

impl Counted {
    pub(super) fn add(&mut self, refused: bool) {
        self.ended = self.ended.saturating_add(1);
        self.refused = self.refused.saturating_add(u32::from(refused));
    }

    pub(super) fn share(self) -> f64 {
        f64::from(self.refused) / f64::from(self.ended.max(1))
    }

    /// So few are refused that it may be chance.
    pub(super) fn may_be_chance(self) -> bool {
        self.is_at_most(DEVIATIONS)
    }

    /// So few are refused that it may be chance, also if fewer were by chance before.
    fn is_likely_chance(self) -> bool {
        self.is_at_most(1.0)
    }

    fn is_at_most(self, deviations: f64) -> bool {
        let ended = f64::from(self.ended);
        let deviation = (ended * SHARE_MAX * (1.0 - SHARE_MAX)).sqrt();
        f64::from(self.refused) <= ended * SHARE_MAX + deviations * deviation
    }
}

/// Refusals on end are no chance if they would be less likely than this.
const UNLIKELY: f64 = 1e-6;
/// So many on end are never chance.
const ON_END_MAX: u32 = 16;

/// Refusals of any kind with nothing applied in between.
#[derive(Clone, Copy, Debug)]
pub(super) struct RefusedOnEnd {
    /// When the first of them ended.
    pub(super) since: Tick,
    /// All of them.
    all: u32,
    /// Those whose requests began after the first had ended: the others show what happened before.
    later: u32,
}

impl RefusedOnEnd {
    pub(super) fn new(since: Tick) -> Self {
        Self { since, all: 0, later: 0 }
    }

    /// Another one, of a request that began at `began`.
    pub(super) fn add(&mut self, began: Tick) {
        self.all = self.all.saturating_add(1);
        self.later = self.later.saturating_add(u32::from(began > self.since));
    }

    /// The target refuses everything. `lately` has these refusals, too.
    pub(super) fn is_no_chance(&self, lately: Counted) -> bool {
        let before = Counted {
            ended: lately.ended.saturating_sub(self.all),
            refused: lately.refused.saturating_sub(self.all),
        };
        let needed = UNLIKELY.log(before.share().clamp(UNLIKELY, 0.999)).ceil();
        f64::from(self.later) >= needed.min(f64::from(ON_END_MAX))
    }
}

/// The rate is clearly lower at this part of what it was.
const LOWER: f64 = 0.7;
/// A rate is another one than that of the trial, if it is higher than this part of it.
const AGAIN: f64 = 0.9;
/// Requests at the higher rate, at least.
const HIGH_MIN: u32 = 20;
/// A trial has so many requests at the lower rate that so many would have been refused at the share of before,
const EXPECTED_MIN: f64 = 8.0;
/// and is over anyway after so many.
const LOW_MAX: u32 = 2000;
/// The share has fallen if less than this part of it is left.
const FALLEN: f64 = 0.5;
/// If more are refused within this time after refusals were taken for chance, they do come from the rate.
const FAILS_WITHIN: Duration = Duration::from_secs(60);
/// Then the next trial waits for this time, which doubles with each failure.
const WAIT_MIN: Duration = Duration::from_secs(60);
const WAIT_MAX: Duration = Duration::from_secs(600);

/// What to do about a refusal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Advice {
    /// Lower the rate.
    Lower,
    /// Leave it: the trial goes on.
    Hold,
    /// Raise it: as many are refused at a clearly lower rate.
    Raise,
}

/// Tries if fewer are refused at a clearly lower rate.
#[derive(Debug, Default)]
pub(super) struct Trial {
    running: Option<Running>,
    raised_at: Option<Tick>,
    wait: Duration,
    not_before: Tick,
    /// Until then the rate is not lowered below this, while refusals may be chance.
    floor: f64,
}

#[derive(Clone, Copy, Debug)]
struct Running {
    /// The rate at the first refusal.
    rate: f64,
    high: Counted,
    low: Counted,
    /// Since when the rate is clearly lower.
    low_since: Option<Tick>,
}

impl Trial {
    /// A request that began at `began` has ended; `rate` is the rate now.
    pub(super) fn ended(&mut self, now: Tick, began: Tick, refused: bool, rate: f64) {
        let Some(running) = &mut self.running else { return };
        match running.low_since {
            None if rate < LOWER * running.rate => running.low_since = Some(now),
            None => running.high.add(refused),
            Some(since) if began > since => running.low.add(refused),
            Some(_) => {}
        }
    }

    /// A request was refused at this rate, and it may be chance. `lately` are the requests of the last seconds.
    pub(super) fn refused(&mut self, now: Tick, rate: f64, lately: Counted) -> Advice {
        if now < self.not_before {
            let may_be_chance = rate < self.floor && lately.is_likely_chance();
            return if may_be_chance { Advice::Hold } else { Advice::Lower };
        }
        let running = match &mut self.running {
            Some(running) if rate < AGAIN * running.rate => running,
            running => {
                *running = Some(Running {
                    rate,
                    high: Counted::default(),
                    low: Counted::default(),
                    low_since: None,
                });
                return Advice::Lower;
            }
        };
        if running.low_since.is_none() {
            return Advice::Lower;
        }
        if running.high.ended < HIGH_MIN {
            running.high = lately;
        }
        let (before, low) = (running.high.share(), running.low);
        if !low.may_be_chance() {
            // Too many, at this rate too: it is the higher one of the next trial.
            *running = Running { rate, high: low, low: Counted::default(), low_since: None };
            return Advice::Lower;
        }
        if f64::from(low.ended) * before < EXPECTED_MIN && low.ended < LOW_MAX {
            return Advice::Hold;
        }
        self.running = None;
        if low.share() < FALLEN * before {
            return Advice::Lower;
        }
        self.raised_at = Some(now);
        Advice::Raise
    }

    /// Refusals came that are no chance; `accepted` requests per second were applied at best.
    pub(super) fn failed(&mut self, now: Tick, accepted: f64) {
        self.running = None;
        if self.raised_at.take().is_some_and(|raised_at| now.since(raised_at) < FAILS_WITHIN) {
            self.wait = (self.wait * 2).clamp(WAIT_MIN, WAIT_MAX);
            (self.not_before, self.floor) = (now.after(self.wait), LOWER * accepted);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seconds(seconds: u64) -> Tick {
        Tick::ZERO.after(Duration::from_secs(seconds))
    }

    #[test]
    fn so_many_on_end_are_no_chance_as_the_share_before_says() {
        let check = |ended: u32, refused: u32, expected: u32| {
            let mut on_end = RefusedOnEnd::new(seconds(1));
            on_end.add(seconds(0));
            let needed = (1..100).find(|number| {
                on_end.add(seconds(2));
                on_end.is_no_chance(Counted { ended: ended + 1 + number, refused: refused + 1 + number })
            });
            assert_eq!(needed, Some(expected), "{refused} of {ended}");
        };
        check(0, 0, 1);
        check(1000, 0, 1);
        check(1000, 50, 5);
        check(1000, 100, 6);
        check(1000, 900, ON_END_MAX);
    }

    #[test]
    fn a_share_may_be_chance_up_to_a_bound_that_is_wide_for_few_requests() {
        let check = |ended, refused, expected| {
            assert_eq!(Counted { ended, refused }.may_be_chance(), expected, "{refused} of {ended}");
        };
        check(0, 0, true);
        check(1000, 140, true);
        check(1000, 141, false);
        check(20, 5, true);
        check(20, 6, false);
    }

    /// A trial at 100/s that is lowered to 60/s; of the requests at each rate, one of so many is refused (0: none). The advice
    /// at the first refusal after so many requests.
    fn trial_at(trial: &mut Trial, now: u64, high: u32, low: u32, requests: u32) -> Advice {
        let lately = Counted { ended: 1000, refused: 80 };
        let is_refused = |number: u32, of: u32| of > 0 && number.is_multiple_of(of);
        assert_eq!(trial.refused(seconds(now), 100.0, lately), Advice::Lower);
        for number in 1..=200 {
            trial.ended(seconds(now), seconds(now), is_refused(number, high), 100.0);
        }
        trial.ended(seconds(now + 1), seconds(now), false, 60.0);
        for number in 1..=requests {
            trial.ended(seconds(now + 2), seconds(now + 2), is_refused(number, low), 60.0);
        }
        trial.refused(seconds(now + 2), 60.0, lately)
    }

    #[test]
    fn what_is_refused_at_a_clearly_lower_rate_too_is_chance() {
        let check = |high, low, requests, expected| {
            let advice = trial_at(&mut Trial::default(), 1, high, low, requests);
            assert_eq!(advice, expected, "one of {high}, then one of {low} of {requests}");
        };
        check(10, 10, 200, Advice::Raise);
        check(10, 10, 20, Advice::Hold);
        check(10, 50, 200, Advice::Lower);
        check(3, 3, 200, Advice::Lower);
    }

    #[test]
    fn a_raise_that_was_wrong_is_not_repeated_soon() {
        let mut trial = Trial::default();
        assert_eq!(trial_at(&mut trial, 1, 10, 10, 200), Advice::Raise);
        trial.failed(seconds(10), 100.0);
        let few = Counted { ended: 1000, refused: 80 };
        assert_eq!(trial.refused(seconds(20), 80.0, few), Advice::Lower);
        assert_eq!(trial.refused(seconds(20), 60.0, few), Advice::Hold, "that is low enough");
        assert_eq!(trial.refused(seconds(20), 60.0, Counted { ended: 100, refused: 40 }), Advice::Lower);
        assert_eq!(trial_at(&mut trial, 71, 10, 10, 200), Advice::Raise);
        trial.failed(seconds(80), 100.0);
        assert_eq!(trial.refused(seconds(190), 60.0, few), Advice::Hold, "the wait has doubled");
        assert_eq!(trial_at(&mut trial, 201, 10, 10, 200), Advice::Raise);
    }
}

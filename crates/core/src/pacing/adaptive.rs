//! The rate that the pacer finds out from refusals, and the limit of requests in flight that it finds out from latency.

use std::time::Duration;

use super::chance::{Advice, Trial};
use super::recent::Recent;
use super::{MEASURED_SECONDS, Tick};

/// The lowest rate, per second: one request a minute.
pub(super) const RATE_MIN: f64 = 1.0 / 60.0;
/// What a refusal leaves of the rate.
const DECREASE: f64 = 0.95;
/// What a refusal soon after another one leaves.
const DECREASE_SOON: f64 = 0.8;
/// How soon that is.
const SOON: Duration = Duration::from_secs(3);
/// Refusals within this time count as one: a target that counts by the second refuses until the second is over.
const DECREASE_INTERVAL: Duration = Duration::from_secs(1);
/// In this time the rate grows back to the one that was refused.
const RECOVERY_SECONDS: f64 = 60.0;
/// Growth in a second while few are refused at any rate.
const SEEKING_GROWTH: f64 = 1.5;
/// The limit is gone if the rate grows to so many times the one that was refused.
const RELEASE_FACTOR: f64 = 8.0;
/// The limit is gone if nothing was refused for so long.
const RELEASE_AFTER: Duration = Duration::from_secs(600);

/// What was found out from refusals and latency.
#[derive(Debug)]
pub(super) struct Adaptive {
    pub(super) rate: AdaptiveRate,
    pub(super) in_flight: AdaptiveInFlight,
    pub(super) trial: Trial,
}

impl Adaptive {
    /// See [`AdaptiveRate::new`].
    pub(super) fn new(now: Tick, accepted: f64, seeking: bool) -> Self {
        Self {
            rate: AdaptiveRate::new(now, accepted, seeking),
            in_flight: AdaptiveInFlight::new(now),
            trial: Trial::default(),
        }
    }

    /// A request was refused that began at `began`. `refuses_all`: nothing is applied any more.
    pub(super) fn refused(&mut self, now: Tick, began: Tick, refuses_all: bool, recent: &Recent) {
        let lately = recent.counted(now);
        let may_be_chance = !refuses_all && (!self.rate.is_seeking() || lately.may_be_chance());
        let advice = if !may_be_chance {
            self.trial.failed(now, recent.applied_at_best(now));
            Advice::Lower
        } else if self.rate.is_seeking() {
            Advice::Hold
        } else {
            self.trial.refused(now, self.rate.rate(), lately)
        };
        match advice {
            Advice::Lower => {
                self.rate.refused(now, began, f64::from(recent.ended_max(now, MEASURED_SECONDS)));
            }
            Advice::Hold => self.rate.refused_for_another_reason(now),
            Advice::Raise => self.rate.seek_again(now),
        }
    }
}

/// A rate that is lowered by refusals and grows while it limits.
#[derive(Debug)]
pub(super) struct AdaptiveRate {
    /// Per second.
    rate: f64,
    /// The rate at the last decrease, before and after it.
    refused_rate: f64,
    lowered_rate: f64,
    decreased_at: Tick,
    refused_at: Tick,
    started_at: Tick,
    /// For how long the rate has limited since the last decrease, in seconds.
    limiting_seconds: f64,
    /// So few were refused so far that what was accepted may be far below the limit.
    seeking: bool,
}

impl AdaptiveRate {
    /// The first refusal came when `accepted` requests per second were applied. `seeking`: nothing else shows the limit.
    pub(super) fn new(now: Tick, accepted: f64, seeking: bool) -> Self {
        let mut adaptive = Self {
            rate: accepted,
            refused_rate: accepted,
            lowered_rate: accepted,
            decreased_at: now,
            refused_at: now,
            started_at: now,
            limiting_seconds: 0.0,
            seeking,
        };
        adaptive.lower(now, accepted, DECREASE);
        adaptive
    }

    pub(super) fn rate(&self) -> f64 {
        self.rate
    }

    /// A request was applied that began at `began`. Those from before the first refusal show with their answers how many
    /// requests per second were accepted: `accepted` so far.
    pub(super) fn applied(&mut self, began: Tick, accepted: f64) {
        if began <= self.started_at && self.decreased_at == self.started_at && accepted > self.refused_rate {
            self.lower(self.started_at, accepted, DECREASE);
        }
    }

    /// Few were refused at any rate so far.
    pub(super) fn is_seeking(&self) -> bool {
        self.seeking
    }

    /// The rate is not needed any more.
    pub(super) fn is_over(&self, now: Tick) -> bool {
        self.rate >= RELEASE_FACTOR * self.refused_rate || now.since(self.refused_at) >= RELEASE_AFTER
    }

    /// A request was refused that began at `began`; up to `made` requests were made per second lately, and one more: at low
    /// rates a second can have one less than the next.
    pub(super) fn refused(&mut self, now: Tick, began: Tick, made: f64) {
        (self.refused_at, self.seeking) = (now, false);
        let since = now.since(self.decreased_at);
        if began <= self.decreased_at || since < DECREASE_INTERVAL {
            return;
        }
        let factor = if since < SOON { DECREASE_SOON } else { DECREASE };
        self.lower(now, self.rate.min(made + 1.0), factor);
    }

    /// A request was refused, and not because of the rate.
    pub(super) fn refused_for_another_reason(&mut self, now: Tick) {
        self.refused_at = now;
    }

    /// Refusals do not come from the rate: it grows as if few had been refused at any rate.
    pub(super) fn seek_again(&mut self, now: Tick) {
        (self.refused_at, self.seeking) = (now, true);
    }

    /// After a time of refusals only, the first request was applied: `average` is what was applied per second over all.
    pub(super) fn refusals_over(&mut self, now: Tick, average: f64) {
        if average < self.rate {
            self.lower(now, average / DECREASE, DECREASE);
        }
    }

    fn lower(&mut self, now: Tick, from: f64, factor: f64) {
        self.refused_rate = from.max(RATE_MIN);
        self.lowered_rate = (from * factor).max(RATE_MIN);
        self.rate = self.lowered_rate;
        self.decreased_at = now;
        self.limiting_seconds = 0.0;
    }

    /// Grows: it has limited for `time`. As CUBIC (RFC 9438): slowly near the rate that was refused, faster beyond it.
    pub(super) fn grow(&mut self, time: Duration) {
        if self.seeking {
            self.rate *= SEEKING_GROWTH.powf(time.as_secs_f64());
            return;
        }
        self.limiting_seconds += time.as_secs_f64();
        let beyond = self.limiting_seconds / RECOVERY_SECONDS - 1.0;
        self.rate = self.refused_rate + (self.refused_rate - self.lowered_rate) * beyond.powi(3);
    }
}

/// Part of the difference by which one answer changes the mean latency.
const MEAN_WEIGHT: f64 = 1.0 / 32.0;
/// Latency has risen if its mean is so many times the lowest mean.
const RISE: f64 = 2.0;
/// A rise by less is none.
const RISE_MICROS_MIN: f64 = 10_000.0;
/// Answers before the mean is believed.
const ANSWERS_MIN: u32 = 64;
/// What a rise leaves of the limit.
const IN_FLIGHT_DECREASE: f64 = 0.9;
/// The lowest mean of at least this time is remembered.
const LOWEST_KEPT: Duration = Duration::from_secs(120);

/// Requests in flight: a target whose answers become slow gets fewer at once.
#[derive(Debug)]
pub(super) struct AdaptiveInFlight {
    mean_micros: f64,
    answers: u32,
    /// The lowest mean of the present period, and of the one before.
    lowest: [f64; 2],
    period_from: Tick,
    limit: Option<f64>,
    decreased_at: Tick,
}

impl AdaptiveInFlight {
    pub(super) fn new(now: Tick) -> Self {
        Self {
            mean_micros: 0.0,
            answers: 0,
            lowest: [f64::INFINITY; 2],
            period_from: now,
            limit: None,
            decreased_at: now,
        }
    }

    pub(super) fn limit(&self) -> Option<usize> {
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "at least 1")]
        self.limit.map(|limit| limit.max(1.0) as usize)
    }

    /// A request that began at `began` was applied; `in_flight` were out with it, and `rate` per second may leave.
    pub(super) fn answered(&mut self, now: Tick, began: Tick, in_flight: usize, rate: f64) {
        let latency = now.since(began).as_micros() as f64;
        self.answers = self.answers.saturating_add(1);
        let weight = MEAN_WEIGHT.max(1.0 / f64::from(self.answers));
        self.mean_micros += (latency - self.mean_micros) * weight;
        if self.answers < ANSWERS_MIN {
            return;
        }
        if now.since(self.period_from) > LOWEST_KEPT {
            self.lowest = [f64::INFINITY, self.lowest[0]];
            self.period_from = now;
        }
        self.lowest[0] = self.lowest[0].min(self.mean_micros);
        let lowest = self.lowest[0].min(self.lowest[1]);
        // So many are in flight at this rate if the latency is the lowest one (Little's law): a target that keeps up needs no less.
        let needed = (rate * lowest / 1e6).ceil() + 1.0;
        let risen = self.mean_micros > (RISE * lowest).max(lowest + RISE_MICROS_MIN);
        if risen && began > self.decreased_at {
            let from = self.limit.unwrap_or(in_flight as f64).min(in_flight as f64);
            self.limit = Some((from * IN_FLIGHT_DECREASE).max(needed));
            self.decreased_at = now;
        } else if !risen && let Some(limit) = self.limit {
            let grown = limit + 1.0 / limit;
            // Twice what this rate needs is no limit.
            self.limit = (grown < RISE * needed).then_some(grown);
        }
    }
}

//! Pacing: when the next request to a target may leave, so that the target's limits are kept.
//!
//! One [`Pacer`] stands for the targets that share limits. All partitions of a process ask it for permits, one for each
//! request, and report how the requests end. It knows limits of three kinds: those of the config (`rate_max`,
//! `in_flight_max`), those that answers state ([`Quota`], `Retry-After`), and those that it finds out from refusals (429).
//! While it knows none, no permits are needed ([`Pacer::is_in_force`]).
//!
//! The lowest rate of the three is kept by `spacing`; `waiting` has the requests that wait, `stated` and `adaptive` are the
//! limits of the second and the third kind, `chance` tells refusals that do not come from the rate, and `refusals` decides if a
//! refusal means the target at all. [`share`] divides
//! the limits among processes.

mod adaptive;
mod chance;
mod recent;
mod refusals;
pub mod share;
mod spacing;
mod stated;
mod view;
mod waiting;

use std::num::{NonZeroU32, NonZeroUsize};
use std::time::Duration;

use adaptive::Adaptive;
use chance::RefusedOnEnd;
use recent::Recent;
use refusals::RefusedRecords;
use share::{Demand, Share};
use spacing::Spacing;
use stated::{Allowed, Stated};
pub use view::{Limit, PacerView};
use waiting::Waiting;

use super::outcome::{Cause, Failure, Outcome};
use super::spread::spread;
use super::tick::Tick;
use super::update::RecordKey;

/// The longest pause that an answer can ask for, as in the breaker.
const PAUSE_MAX: Duration = Duration::from_secs(3600);
/// The longest pause between requests that are all refused.
const REFUSED_PAUSE_MAX: Duration = Duration::from_secs(60);
/// Refusals only, for so long: the rate begins at the average of what was applied.
const REFUSED_LONG: Duration = Duration::from_secs(2);
/// A rate is measured over so many seconds.
const MEASURED_SECONDS: u64 = 4;
/// The restart after a pause is over when so many requests may be in flight, or after this time.
const RESTART_IN_FLIGHT_MAX: usize = 256;
const RESTART_TIME_MAX: Duration = Duration::from_secs(60);

/// So many requests in such a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rate {
    /// Requests.
    pub requests: NonZeroU32,
    /// In which time; not zero.
    pub per: Duration,
}

/// The limits of the config. Both are sums over all replicas.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PacerLimits {
    /// `rate_max`.
    pub rate_max: Option<Rate>,
    /// `in_flight_max`.
    pub in_flight_max: Option<NonZeroUsize>,
}

/// What an answer says about the target's limit: `RateLimit` with `RateLimit-Policy`, or `X-RateLimit-*`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Quota {
    /// Requests that may still be made until `reset`.
    pub remaining: Option<u64>,
    /// When more may be made.
    pub reset: Option<Duration>,
    /// Requests that may be made within `window`.
    pub limit: Option<u64>,
    /// The length of the window that `limit` belongs to.
    pub window: Option<Duration>,
}

/// Who asks for permits: a number that the shell gives to each pair of partition and target.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Asker(pub u64);

/// What the end of a request says about the target's limits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reply {
    /// The target has taken the request.
    Applied,
    /// It refuses it for now: too many requests (429).
    TooMany {
        /// `Retry-After`.
        retry_after: Option<Duration>,
    },
    /// It is away for now (503), and says for how long (`Retry-After`).
    Unavailable {
        /// `Retry-After`.
        retry_after: Duration,
    },
    /// Anything else, also no answer.
    Other,
}

impl Reply {
    /// What this outcome means for the target's limits.
    #[must_use]
    pub fn of(outcome: &Outcome) -> Self {
        match outcome {
            Outcome::Applied | Outcome::Conflict(_) => Self::Applied,
            Outcome::Retryable { failure: Failure { cause: Cause::Status(429), .. }, retry_after } => {
                Self::TooMany { retry_after: *retry_after }
            }
            Outcome::Retryable {
                failure: Failure { cause: Cause::Status(503), .. },
                retry_after: Some(retry_after),
            } => Self::Unavailable { retry_after: *retry_after },
            _ => Self::Other,
        }
    }
}

/// The end of a request.
#[derive(Clone, Copy, Debug)]
pub struct RequestEnd<'a> {
    /// The record.
    pub record_key: &'a RecordKey,
    /// When the request was begun.
    pub began: Tick,
    /// It had a permit, which is free again. Probes and requests from before the pacer was in force have none.
    pub permit: bool,
    /// What came of it.
    pub reply: Reply,
    /// What the answer says about the limit.
    pub quota: Quota,
}

/// Whom a refusal means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// The request was not refused.
    None,
    /// This record alone, while the target takes those of others: it waits alone, and its budget counts.
    OfRecord,
    /// The target as a whole: the update keeps its turn and its budget, and the pacer makes everybody wait.
    OfTarget,
}

/// The pacer of the targets that share limits. See the module's documentation.
#[derive(Debug)]
pub struct Pacer {
    limits: PacerLimits,
    share: Share,
    waiting: Waiting,
    /// Permits that are out.
    in_flight: usize,
    spacing: Spacing,
    stated: Option<Stated>,
    adaptive: Option<Adaptive>,
    pause: Option<Pause>,
    /// Since when refusals (429) of the target are all that came.
    refused_since: Option<Tick>,
    /// The same, for refusals of any kind.
    refused_on_end: Option<RefusedOnEnd>,
    records: RefusedRecords,
    recent: Recent,
    /// When the adaptive rate has grown last, and if it was what limited the requests from then on.
    grown_at: Tick,
    limiting: bool,
    adaptive_is_lowest: bool,
    /// Requests per second by the config and by what answers state.
    known_rate: Option<f64>,
}

/// The target as a whole makes us wait.
#[derive(Clone, Copy, Debug)]
struct Pause {
    until: Tick,
    /// Requests that may be in flight afterwards; `None`: as many as before.
    restart: Option<usize>,
}

impl Pacer {
    /// Nothing was sent yet.
    #[must_use]
    pub fn new(limits: PacerLimits) -> Self {
        let mut pacer = Self {
            limits,
            share: Share::WHOLE,
            waiting: Waiting::default(),
            in_flight: 0,
            spacing: Spacing::default(),
            stated: None,
            adaptive: None,
            pause: None,
            refused_since: None,
            refused_on_end: None,
            records: RefusedRecords::default(),
            recent: Recent::default(),
            grown_at: Tick::ZERO,
            limiting: false,
            adaptive_is_lowest: false,
            known_rate: None,
        };
        pacer.respace(Tick::ZERO);
        pacer
    }

    /// Requests need permits. It can change with every call of [`Self::ended`] and [`Self::grant`].
    #[must_use]
    pub fn is_in_force(&self) -> bool {
        self.limits != PacerLimits::default()
            || self.stated.is_some()
            || self.adaptive.is_some()
            || self.pause.is_some()
    }

    /// The part of the limits that this process may use: of `rate_max`, `in_flight_max` (of which it is at least 1) and what
    /// answers state. The whole, unless this is called.
    pub fn set_share(&mut self, now: Tick, share: Share) {
        self.share = share;
        self.refresh(now);
    }

    /// What this process publishes to those that it shares the limits with.
    pub fn demand(&mut self, now: Tick) -> Demand {
        let made = self.recent.ended_per_second(now, MEASURED_SECONDS);
        let waiting = u32::try_from(self.waiting.requests()).unwrap_or(u32::MAX);
        Demand {
            requests: waiting.saturating_add(made),
            in_flight: u32::try_from(self.in_flight).unwrap_or(u32::MAX),
        }
    }

    /// `asker` has `requests` more requests to make. Permits go out in the order in which they were asked for.
    pub fn ask(&mut self, asker: Asker, requests: usize) {
        self.waiting.add(asker, requests);
    }

    /// `asker` makes none of the requests that it has asked for and has no permits for.
    pub fn withdraw(&mut self, asker: Asker) {
        self.waiting.remove(asker);
    }

    /// The permits that may be used now.
    pub fn grant(&mut self, now: Tick) -> Vec<(Asker, usize)> {
        self.refresh(now);
        let paused = self.pause.is_some_and(|pause| pause.until > now) || self.has_no_share();
        let spaced = if paused { 0 } else { self.spacing.available(now) };
        let room = self.room_in_flight();
        let granted = self.waiting.take(spaced.min(room));
        let requests: usize = granted.iter().map(|(_, requests)| requests).sum();
        self.spacing.take(now, requests);
        self.in_flight += requests;
        self.limiting = self.adaptive_is_lowest && !paused && self.waiting.requests() > 0 && spaced <= room;
        granted
    }

    /// When [`Self::grant`] has to be called again if nothing else happens; `None`: somebody must ask or end first.
    #[must_use]
    pub fn next_grant_at(&self) -> Option<Tick> {
        if self.waiting.requests() == 0 || self.room_in_flight() == 0 || self.has_no_share() {
            return None;
        }
        let spaced = self.spacing.next_at();
        // A window ends before: then its rate is over.
        let changes = self.stated.as_ref().and_then(|stated| stated.changes_at(self.grown_at));
        let next = changes.map_or(spaced, |changes| changes.min(spaced));
        Some(self.pause.map_or(next, |pause| pause.until.max(next)))
    }

    /// So many permits were not used: no request was made.
    pub fn returned(&mut self, now: Tick, permits: usize) {
        self.in_flight = self.in_flight.saturating_sub(permits);
        self.spacing.put_back(permits);
        self.refresh(now);
    }

    /// A request has ended.
    pub fn ended(&mut self, now: Tick, end: &RequestEnd<'_>) -> Refusal {
        self.refresh(now);
        let in_flight = self.in_flight;
        if end.permit {
            self.in_flight = self.in_flight.saturating_sub(1);
        }
        let too_many = matches!(end.reply, Reply::TooMany { .. });
        self.recent.add(now, end.reply);
        if let Some(adaptive) = &mut self.adaptive {
            adaptive.trial.ended(now, end.began, too_many, adaptive.rate.rate());
        }
        let refusal = match end.reply {
            Reply::Applied => {
                self.applied(now, end, in_flight);
                Refusal::None
            }
            Reply::TooMany { .. } | Reply::Unavailable { .. } => {
                let refusal = self.records.refused(now, hash(end.record_key), self.adaptive.is_some());
                self.refused_on_end.get_or_insert(RefusedOnEnd::new(now)).add(end.began);
                // A 503 beside answers that apply is no outage.
                if too_many || self.refuses_all(now) { refusal } else { Refusal::OfRecord }
            }
            Reply::Other => Refusal::None,
        };
        if refusal != Refusal::OfRecord && end.quota != Quota::default() {
            let stated = self.stated.get_or_insert_with(|| Stated::new(now));
            if let Some(until) = stated.observe(now, &end.quota, refusal == Refusal::OfTarget) {
                self.pause_until(until, false);
            }
        }
        if refusal == Refusal::OfTarget {
            self.refused(now, end);
        }
        self.respace(now);
        refusal
    }

    fn applied(&mut self, now: Tick, end: &RequestEnd<'_>, in_flight: usize) {
        let record = if self.records.is_empty() { None } else { Some(hash(end.record_key)) };
        self.records.applied(record);
        let refused_all = self.refuses_all(now);
        self.refused_on_end.take_if(|refused| end.began > refused.since);
        if let Some(since) = self.refused_since.filter(|since| end.began > *since) {
            self.refused_since = None;
            if refused_all
                && now.since(since) > REFUSED_LONG
                && let Some(adaptive) = &mut self.adaptive
                && let Some(average) = self.recent.applied_on_average(now)
            {
                adaptive.rate.refusals_over(now, average);
            }
        }
        if let Some(stated) = &mut self.stated {
            stated.applied();
        }
        if let Some(Pause { until, restart: Some(restart) }) = &mut self.pause
            && end.began >= *until
        {
            *restart += 1;
        }
        if let Some(adaptive) = &mut self.adaptive {
            adaptive.rate.applied(end.began, f64::from(self.recent.applied_max(now, MEASURED_SECONDS)));
            adaptive.in_flight.answered(now, end.began, in_flight, adaptive.rate.rate());
        }
    }

    /// Nothing was applied with a request that began after an earlier one was refused, and that is no chance.
    fn refuses_all(&self, now: Tick) -> bool {
        self.refused_on_end.is_some_and(|refused| refused.is_no_chance(self.recent.counted_in_all(now)))
    }

    /// The target as a whole has refused a request.
    fn refused(&mut self, now: Tick, end: &RequestEnd<'_>) {
        let retry_after = match end.reply {
            Reply::TooMany { retry_after } => retry_after,
            Reply::Unavailable { retry_after } => Some(retry_after),
            Reply::Applied | Reply::Other => None,
        };
        // Where others are applied meanwhile, the rate alone is too high.
        let refuses_all = self.refuses_all(now);
        if let Some(wait) = retry_after.filter(|_| refuses_all) {
            self.pause_until(now.after(wait.min(PAUSE_MAX)), true);
        }
        if matches!(end.reply, Reply::Unavailable { .. }) {
            return;
        }
        if let Some(stated) = &mut self.stated {
            // A request from before the limit was known shows no more than what the answer states.
            if end.permit && stated.is_doubted() {
                self.lower_rate(now, end.began);
            }
        } else {
            self.lower_rate(now, end.began);
        }
        let since = *self.refused_since.get_or_insert(now);
        if retry_after.is_none() && refuses_all && end.began > since {
            let wait = (now.since(since) / 2).min(REFUSED_PAUSE_MAX);
            self.pause_until(now.after(wait), false);
        }
    }

    fn lower_rate(&mut self, now: Tick, began: Tick) {
        let refuses_all = self.refuses_all(now);
        if let Some(adaptive) = &mut self.adaptive {
            adaptive.refused(now, began, refuses_all, &self.recent);
        } else {
            let accepted = f64::from(self.recent.applied_max(now, MEASURED_SECONDS).max(1));
            let accepted = self.known_rate.map_or(accepted, |known| accepted.max(known));
            self.adaptive = Some(Adaptive::new(now, accepted, self.stated.is_none()));
        }
    }

    /// Afterwards requests go out one by one at first, if `restarts`.
    fn pause_until(&mut self, until: Tick, restarts: bool) {
        let before = self.pause;
        let until = before.map_or(until, |pause| pause.until.max(until));
        let restart = if restarts { Some(1) } else { before.and_then(|pause| pause.restart) };
        self.pause = Some(Pause { until, restart });
    }

    /// What changes by time alone.
    fn refresh(&mut self, now: Tick) {
        if let Some(adaptive) = &mut self.adaptive {
            if self.limiting {
                adaptive.rate.grow(now.since(self.grown_at));
            }
            if adaptive.rate.is_over(now) {
                self.adaptive = None;
            }
        }
        self.grown_at = now;
        if self.stated.as_ref().is_some_and(|stated| stated.is_over(now)) {
            self.stated = None;
        }
        if let Some(pause) = self.pause
            && pause.until <= now
        {
            let enough = pause.restart.is_none_or(|restart| {
                restart >= RESTART_IN_FLIGHT_MAX
                    || (restart > 1 && restart > self.in_flight + self.waiting.requests())
                    || now.since(pause.until) > RESTART_TIME_MAX
            });
            if enough {
                self.pause = None;
            }
        }
        self.respace(now);
    }

    /// Requests per second by the config and by what answers state.
    fn known_rate_at(&self, now: Tick) -> Option<f64> {
        // Without a part nothing is granted; the rate stays a number.
        let share = self.share.max(Share::from_millionths(1)).part();
        let config = self.limits.rate_max.map(|rate| {
            let per_second = f64::from(rate.requests.get()) / rate.per.as_secs_f64();
            per_second * share
        });
        let stated = self.stated.as_ref().and_then(|stated| match stated.allowed(now, share) {
            Allowed::Any => None,
            Allowed::PerSecond(rate) => Some(rate),
        });
        match (config, stated) {
            (Some(config), Some(stated)) => Some(config.min(stated)),
            (config, stated) => config.or(stated),
        }
    }

    fn respace(&mut self, now: Tick) {
        self.known_rate = self.known_rate_at(now);
        let adaptive = self.adaptive.as_ref().map(|adaptive| adaptive.rate.rate());
        let known = self.known_rate.unwrap_or(f64::INFINITY);
        self.adaptive_is_lowest = adaptive.is_some_and(|adaptive| adaptive <= known);
        let rate = adaptive.map_or(known, |adaptive| adaptive.min(known));
        self.spacing.set_rate(now, rate.is_finite().then_some(rate));
        if let Some(pause) = self.pause {
            self.spacing.pause(pause.until);
        }
    }

    /// Nothing of the limits may be used by this process.
    fn has_no_share(&self) -> bool {
        let divided = self.limits != PacerLimits::default() || self.stated.is_some();
        divided && self.share == Share::NONE
    }

    /// Permits that the limits of requests in flight leave.
    fn room_in_flight(&self) -> usize {
        let config = self.limits.in_flight_max.map(|max| {
            let part =
                max.get() as u64 * u64::from(self.share.millionths()) / u64::from(Share::WHOLE.millionths());
            usize::try_from(part).unwrap_or(usize::MAX).max(1)
        });
        let adaptive = self.adaptive.as_ref().and_then(|adaptive| adaptive.in_flight.limit());
        let restart = self.pause.and_then(|pause| pause.restart);
        let limit = [config, adaptive, restart].into_iter().flatten().min();
        limit.map_or(usize::MAX, |limit| limit.saturating_sub(self.in_flight))
    }
}

fn hash(record_key: &RecordKey) -> u64 {
    spread(record_key.as_str().bytes())
}

#[cfg(test)]
mod tests;

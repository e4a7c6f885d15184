//! What keeps requests back, for people.

use super::Pacer;
use crate::tick::Tick;

/// What keeps requests back, for people. See [`Pacer::view`].
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct PacerView {
    /// Requests need permits.
    pub in_force: bool,
    /// Requests per second that may leave; `None`: no limit of that kind.
    pub rate: Option<f64>,
    /// The limit that requests meet first; `None`: none does.
    pub limit: Option<Limit>,
    /// Permits that are out.
    pub in_flight: usize,
    /// Requests that wait for a permit.
    pub waiting: usize,
    /// When the next permit is there, if requests wait and nothing else happens.
    pub next_grant_at: Option<Tick>,
}

/// A limit of a target.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Limit {
    /// The target asked for a pause (`Retry-After`), or refuses everything.
    Pause,
    /// Other processes use the whole of it.
    NoShare,
    /// `in_flight_max`.
    InFlightMax,
    /// The number in flight that was found out from refusals.
    InFlightFound,
    /// `rate_max`.
    RateMax,
    /// What answers state (`RateLimit`).
    RateStated,
    /// `rate_max` or what answers state, whichever is lower.
    RateMaxOrStated,
    /// The rate that was found out from refusals.
    RateFound,
}

impl Limit {
    /// For people.
    #[must_use]
    pub const fn words(self) -> &'static str {
        match self {
            Self::Pause => "the target asked for a pause",
            Self::NoShare => "other processes use the whole limit",
            Self::InFlightMax => "in_flight_max of the target",
            Self::InFlightFound => "the requests in flight that the target was found to take",
            Self::RateMax => "rate_max",
            Self::RateStated => "the rate that the target's answers state",
            Self::RateMaxOrStated => "rate_max, or the rate that the target's answers state",
            Self::RateFound => "the rate that the target was found to take",
        }
    }
}

impl Pacer {
    /// What keeps requests back, for people.
    #[must_use]
    pub fn view(&self, now: Tick) -> PacerView {
        let rate = self.spacing.rate();
        let config_rate = self.limits.rate_max.is_some();
        let limit = if self.pause.is_some_and(|pause| pause.until > now) {
            Some(Limit::Pause)
        } else if self.has_no_share() {
            Some(Limit::NoShare)
        } else if self.room_in_flight() == 0 {
            Some(if self.limits.in_flight_max.is_some() { Limit::InFlightMax } else { Limit::InFlightFound })
        } else if rate.is_none() {
            None
        } else if self.adaptive_is_lowest {
            Some(Limit::RateFound)
        } else if self.stated.is_some() {
            Some(if config_rate { Limit::RateMaxOrStated } else { Limit::RateStated })
        } else {
            Some(Limit::RateMax)
        };
        PacerView {
            in_force: self.is_in_force(),
            rate,
            limit: limit.filter(|_| self.is_in_force()),
            in_flight: self.in_flight,
            waiting: self.waiting.requests(),
            next_grant_at: self.next_grant_at(),
        }
    }
}

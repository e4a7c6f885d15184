//! A target with a limit, outages, and a record that it refuses alone.

use std::time::Duration;

use lanekeeper_core::outcome::{Cause, Failure, Outcome};
use lanekeeper_core::tick::Tick;

use crate::rng::Rng;

#[derive(Debug)]
pub struct Api {
    /// Requests per second; a bucket of one second's worth.
    rate: Option<u64>,
    /// In millionths of a request.
    tokens: u64,
    filled_at: Tick,
    /// In which all requests are refused, with this status.
    outages: Vec<(Tick, Tick, u16)>,
    stuck: Option<Stuck>,
    states_wait: bool,
    /// How many of a thousand requests it refuses by chance.
    by_chance: u64,
}

/// This record is refused alone.
#[derive(Clone, Copy, Debug)]
struct Stuck {
    record: u64,
    /// 429 or 403, each time.
    status: u16,
    until: Tick,
}

impl Api {
    pub fn new(rng: &mut Rng, records: u64) -> Self {
        let rate = rng.chance(500).then(|| rng.pick(&[5, 20, 200]));
        let outages = (0..rng.pick(&[0, 0, 1, 2])).map(|_| {
            let from = Tick::from_micros(rng.below(20_000_000));
            (from, from.after(Duration::from_millis(rng.between(100, 40_000))), rng.pick(&[429, 503, 403]))
        });
        let outages = outages.collect();
        let stuck = rng.chance(500).then(|| {
            let (record, status) = (rng.below(records), rng.pick(&[429, 403]));
            // While nothing else is sent, nothing shows that a record answered 403 is the only one.
            let seconds = if status == 403 { rng.between(30, 120) } else { u64::from(u32::MAX) };
            Stuck { record, status, until: Tick::ZERO.after(Duration::from_secs(seconds)) }
        });
        let tokens = rate.unwrap_or(0) * 1_000_000;
        let states_wait = rng.chance(500);
        let by_chance = rng.pick(&[0, 0, 0, 50, 100]);
        Self { rate, tokens, filled_at: Tick::ZERO, outages, stuck, states_wait, by_chance }
    }

    pub fn stuck_record(&self) -> Option<u64> {
        self.stuck.map(|stuck| stuck.record)
    }

    /// Nothing else is refused.
    pub fn refuses_one_record_alone(&self) -> bool {
        self.rate.is_none() && self.outages.is_empty() && self.by_chance == 0
    }

    /// What it refuses, it refuses by chance.
    pub fn refuses_by_chance_alone(&self) -> bool {
        self.by_chance > 0 && self.rate.is_none() && self.outages.is_empty() && self.stuck.is_none()
    }

    pub fn answer(&mut self, now: Tick, record: u64, rng: &mut Rng) -> Outcome {
        if let Some((_, until, status)) =
            self.outages.iter().find(|(from, until, _)| *from <= now && now < *until)
        {
            let rest = until.since(now).min(Duration::from_secs(3));
            return refused(*status, (*status == 503 || self.states_wait).then_some(rest));
        }
        if let Some(stuck) = self.stuck
            && stuck.record == record
            && now < stuck.until
        {
            if stuck.status == 403 {
                return refused(403, None);
            }
            return refused(429, (self.states_wait && rng.chance(500)).then_some(Duration::from_secs(2)));
        }
        if self.by_chance > 0 && rng.chance(self.by_chance) {
            return refused(429, self.states_wait.then_some(Duration::from_secs(1)));
        }
        let Some(rate) = self.rate else { return Outcome::Applied };
        let came = u64::try_from(now.since(self.filled_at).as_micros()).expect("hours") * rate;
        (self.tokens, self.filled_at) = ((self.tokens + came).min(rate * 1_000_000), now);
        if let Some(left) = self.tokens.checked_sub(1_000_000) {
            self.tokens = left;
            return Outcome::Applied;
        }
        let wait = Duration::from_micros((1_000_000 - self.tokens) / rate);
        refused(429, self.states_wait.then_some(wait))
    }
}

fn refused(status: u16, retry_after: Option<Duration>) -> Outcome {
    let failure = Failure { cause: Cause::Status(status), detail: String::new() };
    if status == 403 { Outcome::Refused(failure) } else { Outcome::Retryable { failure, retry_after } }
}

//! A target with a limit, outages, and a record that it refuses for itself.

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
    /// Is answered 429 for ever.
    stuck: Option<u64>,
    states_wait: bool,
}

impl Api {
    pub fn new(rng: &mut Rng, records: u64) -> Self {
        let rate = rng.chance(500).then(|| rng.pick(&[5, 20, 200]));
        let outages = (0..rng.pick(&[0, 0, 1, 2])).map(|_| {
            let from = Tick::from_micros(rng.below(20_000_000));
            (from, from.after(Duration::from_millis(rng.between(100, 40_000))), rng.pick(&[429, 503]))
        });
        let outages = outages.collect();
        let stuck = rng.chance(400).then(|| rng.below(records));
        let tokens = rate.unwrap_or(0) * 1_000_000;
        Self { rate, tokens, filled_at: Tick::ZERO, outages, stuck, states_wait: rng.chance(500) }
    }

    pub fn stuck_record(&self) -> Option<u64> {
        self.stuck
    }

    /// Nothing else is refused.
    pub fn refuses_one_record_alone(&self) -> bool {
        self.rate.is_none() && self.outages.is_empty()
    }

    pub fn answer(&mut self, now: Tick, record: u64, rng: &mut Rng) -> Outcome {
        if let Some((_, until, status)) =
            self.outages.iter().find(|(from, until, _)| *from <= now && now < *until)
        {
            let rest = until.since(now).min(Duration::from_secs(3));
            return refused(*status, (*status == 503 || self.states_wait).then_some(rest));
        }
        if self.stuck == Some(record) {
            return refused(429, (self.states_wait && rng.chance(500)).then_some(Duration::from_secs(2)));
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
    Outcome::Retryable { failure, retry_after }
}

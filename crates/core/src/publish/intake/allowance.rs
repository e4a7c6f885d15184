//! How many updates in a time a client may send.

use std::time::Duration;

use crate::pacing::Rate;
use crate::tick::Tick;

/// How far a client may be ahead of its rate.
const AHEAD_MAX: Duration = Duration::from_secs(1);

/// The generic cell rate algorithm (ITU-T I.371): the time at which what was taken is paid for.
#[derive(Debug)]
pub(super) struct Allowance {
    per_update: Option<Duration>,
    paid: Tick,
}

impl Allowance {
    pub(super) fn new(rate_max: Option<Rate>) -> Self {
        Self { per_update: rate_max.map(|rate| rate.per / rate.requests.get()), paid: Tick::ZERO }
    }

    /// How long until it may take more; `None`: it may now. A client that owes less than a second may take any number, and
    /// owes for them.
    pub(super) fn wait(&self, now: Tick) -> Option<Duration> {
        let (per_update, ahead) = (self.per_update?, self.paid.since(now));
        ahead.checked_sub(AHEAD_MAX).map(|over| over + per_update)
    }

    pub(super) fn take(&mut self, updates: usize, now: Tick) {
        if let Some(per_update) = self.per_update {
            let updates = u32::try_from(updates).unwrap_or(u32::MAX);
            self.paid = self.paid.max(now).after(per_update.saturating_mul(updates));
        }
    }
}

//! Outages: what stands in front of the receiver fails every request, or those of a share of the records, for a time.

use std::time::Duration;

use super::faults::{Fault, FaultRng};

/// How requests fail during an outage.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Outage {
    /// How.
    pub fault: Fault,
    /// Share of the records whose requests fail, 0 to 1: always the same ones for equal seeds.
    pub share: f64,
    /// Sent as `Retry-After` with 429 and 503; `None`: as the settings say.
    pub retry_after: Option<Duration>,
}

impl Outage {
    /// Of all records.
    #[must_use]
    pub fn of_all(fault: Fault) -> Self {
        Self { fault, share: 1.0, retry_after: None }
    }

    /// True if the requests of this record fail.
    #[must_use]
    pub fn is_of(&self, record_key: &str, seed: u64) -> bool {
        FaultRng::of_attempt(seed, record_key, "", 0).unit(0) < self.share
    }
}

/// An outage with its time. Times are since the receiver's start.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct PlannedOutage {
    /// How requests fail.
    pub outage: Outage,
    /// When it begins.
    pub after: Duration,
    /// How long it is; `None`: it does not end by itself.
    pub lasts: Option<Duration>,
}

impl PlannedOutage {
    /// The outage, if it goes on at this time.
    pub(super) fn at(&self, now: Duration) -> Option<Outage> {
        let ago = now.checked_sub(self.after)?;
        self.lasts.is_none_or(|lasts| ago < lasts).then_some(self.outage)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_outage_has_its_time() {
        let outage = Outage::of_all("gateway-404".parse().unwrap());
        let seconds = Duration::from_secs;
        let check = |lasts, now, expected: bool| {
            let planned = PlannedOutage { outage, after: seconds(5), lasts };
            assert_eq!(planned.at(seconds(now)).is_some(), expected, "{now}");
        };
        check(Some(seconds(2)), 4, false);
        check(Some(seconds(2)), 5, true);
        check(Some(seconds(2)), 7, false);
        check(None, 7_000, true);
    }

    #[test]
    fn an_outage_of_a_share_is_of_the_same_records_always() {
        let failing = |share, seed| {
            let outage = Outage { share, ..Outage::of_all("gateway-404".parse().unwrap()) };
            (0..1000).filter(|n| outage.is_of(&format!("record-{n}"), seed)).collect::<Vec<_>>()
        };
        assert_eq!(failing(0.5, 1), failing(0.5, 1));
        assert_ne!(failing(0.5, 1), failing(0.5, 2));
        assert!((450..550).contains(&failing(0.5, 1).len()));
        assert_eq!((failing(1.0, 1).len(), failing(0.0, 1).len()), (1000, 0));
    }
}

//! Ownership of a partition: attempts start only while it is claimed and the broker has answered recently.

use std::time::Duration;

use super::message::TenureNumber;
use super::tick::Tick;

/// The state of the claim on a partition, within one tenure.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OwnershipState {
    /// We hold nothing of it: another may own it. Leaves to `Claiming` with the first delivery.
    #[default]
    Unclaimed,
    /// The claim is under way. Leaves to `Claimed`.
    Claiming,
    /// It is ours, under this number; without one if the broker takes no publishes. Leaves to `Unclaimed` if another is to
    /// have it and nothing is held, to `Claiming` if its number is outdated, to `Silent`, to `Lost`.
    Claimed(Option<TenureNumber>),
    /// The broker has not answered for too long: another process may own it. Leaves to `Claiming` when the broker answers.
    Silent,
    /// Another claimed it after us while we held deliveries: these are void. Ends with the tenure.
    Lost,
}

/// If an attempt may start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Permit {
    /// Under this number, or without one.
    Granted(Option<TenureNumber>),
    /// The partition is not claimed, or the broker has not answered recently.
    Denied,
}

/// The claim and the fence of one partition.
#[derive(Debug)]
pub(super) struct Ownership {
    silence_max: Duration,
    last_seen: Tick,
    state: OwnershipState,
}

impl Ownership {
    pub(super) fn new(silence_max: Duration) -> Self {
        Self { silence_max, last_seen: Tick::ZERO, state: OwnershipState::Unclaimed }
    }

    pub(super) fn state(&self) -> OwnershipState {
        self.state
    }

    pub(super) fn begin(&mut self, last_seen: Tick) {
        (self.last_seen, self.state) = (last_seen, OwnershipState::Unclaimed);
    }

    pub(super) fn end(&mut self) {
        self.state = OwnershipState::Unclaimed;
    }

    /// Decides if an attempt may start now, and under which number.
    pub(super) fn permit(&mut self, now: Tick) -> Permit {
        let OwnershipState::Claimed(number) = self.state else { return Permit::Denied };
        if now.since(self.last_seen) > self.silence_max {
            self.state = OwnershipState::Silent;
            return Permit::Denied;
        }
        Permit::Granted(number)
    }

    /// Until when requests may leave, and under which number.
    pub(super) fn may_send_until(&self) -> Option<(Option<TenureNumber>, Tick)> {
        match self.state {
            OwnershipState::Claimed(number) => Some((number, self.last_seen.after(self.silence_max))),
            OwnershipState::Unclaimed
            | OwnershipState::Claiming
            | OwnershipState::Silent
            | OwnershipState::Lost => None,
        }
    }

    /// The broker has answered a request that was sent at `at`. Returns true if the partition must be claimed again.
    pub(super) fn broker_seen(&mut self, now: Tick, at: Tick) -> bool {
        self.permit(now); // falls silent if it is late
        self.last_seen = self.last_seen.max(at);
        let answers = now.since(self.last_seen) <= self.silence_max;
        let again = self.state == OwnershipState::Silent && answers;
        if again {
            self.state = OwnershipState::Claiming;
        }
        again
    }

    /// A delivery came. Returns true if the partition must be claimed.
    pub(super) fn delivered(&mut self) -> bool {
        let first = self.state == OwnershipState::Unclaimed;
        if first {
            self.state = OwnershipState::Claiming;
        }
        first
    }

    /// The claim was read back, or counts without a number, or has got its number late. Returns true if that was awaited.
    pub(super) fn claimed(&mut self, number: Option<TenureNumber>) -> bool {
        let awaited = match self.state {
            OwnershipState::Claiming => true,
            OwnershipState::Claimed(None) => number.is_some(),
            OwnershipState::Unclaimed
            | OwnershipState::Claimed(Some(_))
            | OwnershipState::Silent
            | OwnershipState::Lost => false,
        };
        if awaited {
            self.state = OwnershipState::Claimed(number);
        }
        awaited
    }

    /// The number that it has, or is about to get, counts no more. Returns true if the partition must be claimed again.
    pub(super) fn outdate(&mut self) -> bool {
        let outdated = matches!(self.state, OwnershipState::Claimed(_) | OwnershipState::Claiming);
        if outdated {
            self.state = OwnershipState::Claiming;
        }
        outdated
    }

    /// Nothing is held, and another is to have the partition, or has it.
    pub(super) fn let_go(&mut self) {
        self.state = OwnershipState::Unclaimed;
    }

    /// Another has it, and we hold deliveries. Returns true if that was not known.
    pub(super) fn lose(&mut self) -> bool {
        std::mem::replace(&mut self.state, OwnershipState::Lost) != OwnershipState::Lost
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = 1_000_000;

    fn at(seconds: u64) -> Tick {
        Tick::from_micros(seconds * SECOND)
    }

    fn claimed() -> Ownership {
        let mut ownership = Ownership::new(Duration::from_secs(10));
        ownership.begin(at(0));
        assert!(ownership.delivered(), "the first delivery asks for a claim");
        assert!(!ownership.delivered(), "and the second does not");
        assert_eq!(ownership.permit(at(1)), Permit::Denied, "no attempt before the claim is read back");
        assert!(ownership.claimed(Some(TenureNumber(7))));
        ownership
    }

    #[test]
    fn an_attempt_needs_a_claim_and_a_broker_that_was_seen_within_the_limit() {
        let mut ownership = claimed();
        assert_eq!(ownership.permit(at(10)), Permit::Granted(Some(TenureNumber(7))));
        assert_eq!(ownership.permit(at(11)), Permit::Denied, "eleven seconds of silence");
        assert_eq!(ownership.permit(at(1)), Permit::Denied, "and it stays so until a new claim");
        assert!(!ownership.broker_seen(at(30), at(12)), "an old answer proves nothing");
        assert!(ownership.broker_seen(at(31), at(30)), "a new one asks for a claim");
        assert_eq!(ownership.permit(at(31)), Permit::Denied);
        assert!(ownership.claimed(Some(TenureNumber(9))));
        assert_eq!(ownership.permit(at(40)), Permit::Granted(Some(TenureNumber(9))));
    }

    #[test]
    fn a_silence_counts_even_where_nothing_was_to_be_attempted() {
        let mut ownership = claimed();
        assert!(ownership.broker_seen(at(60), at(60)), "sixty seconds later the claim may be another's");
    }

    #[test]
    fn a_claim_without_a_number_gets_one_later() {
        let mut ownership = Ownership::new(Duration::from_secs(10));
        ownership.begin(at(0));
        ownership.delivered();
        assert!(ownership.claimed(None));
        assert_eq!(ownership.permit(at(1)), Permit::Granted(None));
        assert!(!ownership.claimed(None), "nothing new");
        assert!(ownership.claimed(Some(TenureNumber(3))));
        assert!(!ownership.claimed(Some(TenureNumber(4))), "nobody asked");
        assert_eq!(ownership.permit(at(1)), Permit::Granted(Some(TenureNumber(3))));
    }

    #[test]
    fn a_number_that_is_outdated_starts_no_attempt_until_the_next_claim() {
        let mut ownership = claimed();
        assert!(ownership.outdate(), "a claim is to be made");
        assert_eq!(ownership.permit(at(1)), Permit::Denied);
        assert!(ownership.outdate(), "and again, though one is under way");
        assert!(ownership.claimed(Some(TenureNumber(9))));
        assert_eq!(ownership.permit(at(1)), Permit::Granted(Some(TenureNumber(9))));
        ownership.permit(at(60));
        assert!(!ownership.outdate(), "silent: it is claimed anew in any case");
        ownership.lose();
        assert!(!ownership.outdate());
        ownership.begin(at(60));
        assert!(!ownership.outdate(), "nobody has claimed it");
    }

    #[test]
    fn what_another_has_claimed_stays_lost_until_the_tenure_ends() {
        let mut ownership = claimed();
        assert!(ownership.lose());
        assert!(!ownership.lose(), "told once");
        assert!(!ownership.claimed(Some(TenureNumber(9))));
        assert!(!ownership.broker_seen(at(60), at(60)));
        assert!(!ownership.delivered());
        assert_eq!(ownership.permit(at(60)), Permit::Denied);
        ownership.begin(at(60));
        assert!(ownership.delivered());
    }
}

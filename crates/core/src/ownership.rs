//! Ownership of a partition: attempts start only while it is claimed and the lease of the process runs.

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
    /// have it and nothing is held, to `Claiming` if its number is outdated, to `Lapsed`, to `Lost`.
    Claimed(Option<TenureNumber>),
    /// It was ours under this number when the lease ran out: another process may own it. Leaves to `Claimed`, under the
    /// same number, when the lease is renewed, and otherwise as `Claimed` does.
    Lapsed(Option<TenureNumber>),
    /// Another claimed it after us while we held deliveries: these are void. Ends with the tenure.
    Lost,
}

/// If an attempt may start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Permit {
    /// Under this number, or without one.
    Granted(Option<TenureNumber>),
    /// The partition is not claimed, or the lease is over.
    Denied,
}

/// The claim on one partition, and the lease of the process.
#[derive(Debug, Default)]
pub(super) struct Ownership {
    /// The lease belongs to the process, so that it outlives tenures.
    lease_until: Tick,
    state: OwnershipState,
}

impl Ownership {
    pub(super) fn state(&self) -> OwnershipState {
        self.state
    }

    /// The state at this moment, also if nothing was handled since the lease ran out.
    pub(super) fn state_at(&self, now: Tick) -> OwnershipState {
        match self.state {
            OwnershipState::Claimed(number) if now > self.lease_until => OwnershipState::Lapsed(number),
            state => state,
        }
    }

    pub(super) fn begin(&mut self) {
        self.state = OwnershipState::Unclaimed;
    }

    pub(super) fn end(&mut self) {
        self.state = OwnershipState::Unclaimed;
    }

    /// What is claimed lapses if the lease is over.
    pub(super) fn check_lease(&mut self, now: Tick) {
        if let OwnershipState::Claimed(number) = self.state
            && now > self.lease_until
        {
            self.state = OwnershipState::Lapsed(number);
        }
    }

    /// Decides if an attempt may start, and under which number. The lease was checked before.
    pub(super) fn permit(&self) -> Permit {
        match self.state {
            OwnershipState::Claimed(number) => Permit::Granted(number),
            OwnershipState::Unclaimed
            | OwnershipState::Claiming
            | OwnershipState::Lapsed(_)
            | OwnershipState::Lost => Permit::Denied,
        }
    }

    /// Until when requests may leave, and under which number.
    pub(super) fn may_send_until(&self) -> Option<(Option<TenureNumber>, Tick)> {
        match self.permit() {
            Permit::Granted(number) => Some((number, self.lease_until)),
            Permit::Denied => None,
        }
    }

    /// A note came back. What had lapsed is ours again, under its number: a claim of another would have been read before.
    pub(super) fn lease_renewed(&mut self, now: Tick, until: Tick) {
        self.lease_until = self.lease_until.max(until);
        if let OwnershipState::Lapsed(number) = self.state
            && now <= self.lease_until
        {
            self.state = OwnershipState::Claimed(number);
        }
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
        match self.state {
            OwnershipState::Claiming => self.state = OwnershipState::Claimed(number),
            OwnershipState::Claimed(None) if number.is_some() => self.state = OwnershipState::Claimed(number),
            OwnershipState::Lapsed(None) if number.is_some() => self.state = OwnershipState::Lapsed(number),
            OwnershipState::Unclaimed
            | OwnershipState::Claimed(_)
            | OwnershipState::Lapsed(_)
            | OwnershipState::Lost => return false,
        }
        true
    }

    /// The number that it has, or is about to get, counts no more. Returns true if the partition must be claimed again.
    pub(super) fn outdate(&mut self) -> bool {
        let outdated = matches!(
            self.state,
            OwnershipState::Claimed(_) | OwnershipState::Lapsed(_) | OwnershipState::Claiming
        );
        if outdated {
            self.state = OwnershipState::Claiming;
        }
        outdated
    }

    /// Nothing is held, and another is to have the partition, or has it. Returns true if there is a claim that ends.
    pub(super) fn let_go(&mut self) -> bool {
        !matches!(
            std::mem::replace(&mut self.state, OwnershipState::Unclaimed),
            OwnershipState::Unclaimed | OwnershipState::Lost
        )
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
    const SEVEN: Option<TenureNumber> = Some(TenureNumber(7));

    fn at(seconds: u64) -> Tick {
        Tick::from_micros(seconds * SECOND)
    }

    /// Under number 7, with a lease until 10.
    fn claimed() -> Ownership {
        let mut ownership = Ownership::default();
        ownership.lease_renewed(at(0), at(10));
        ownership.begin();
        assert!(ownership.delivered(), "the first delivery asks for a claim");
        assert!(!ownership.delivered(), "and the second does not");
        assert_eq!(permit(&mut ownership, 1), Permit::Denied, "no attempt before the claim is read back");
        assert!(ownership.claimed(SEVEN));
        ownership
    }

    fn permit(ownership: &mut Ownership, seconds: u64) -> Permit {
        ownership.check_lease(at(seconds));
        ownership.permit()
    }

    #[test]
    fn an_attempt_needs_a_claim_and_a_lease_that_runs() {
        let mut ownership = claimed();
        assert_eq!(permit(&mut ownership, 10), Permit::Granted(SEVEN));
        assert_eq!(permit(&mut ownership, 11), Permit::Denied, "a second after the lease");
        assert_eq!(permit(&mut ownership, 1), Permit::Denied, "and it stays so until the lease is renewed");
        ownership.lease_renewed(at(30), at(22));
        assert_eq!(
            permit(&mut ownership, 30),
            Permit::Denied,
            "a note that was sent long ago proves nothing"
        );
        assert_eq!(ownership.state(), OwnershipState::Lapsed(SEVEN));
        ownership.lease_renewed(at(31), at(40));
        assert_eq!(permit(&mut ownership, 40), Permit::Granted(SEVEN), "under the number that it had");
        assert!(!ownership.claimed(Some(TenureNumber(9))), "nobody asked for another");
    }

    #[test]
    fn a_lease_is_never_shortened_and_outlives_the_tenure() {
        let mut ownership = claimed();
        ownership.lease_renewed(at(1), at(8));
        assert_eq!(ownership.may_send_until(), Some((SEVEN, at(10))));
        ownership.end();
        ownership.lease_renewed(at(2), at(12));
        ownership.begin();
        ownership.delivered();
        ownership.claimed(Some(TenureNumber(8)));
        assert_eq!(ownership.may_send_until(), Some((Some(TenureNumber(8)), at(12))));
    }

    #[test]
    fn a_claim_without_a_number_gets_one_later() {
        let mut ownership = Ownership::default();
        ownership.lease_renewed(at(0), at(10));
        ownership.delivered();
        assert!(ownership.claimed(None));
        assert_eq!(permit(&mut ownership, 1), Permit::Granted(None));
        assert!(!ownership.claimed(None), "nothing new");
        assert_eq!(permit(&mut ownership, 11), Permit::Denied);
        assert!(ownership.claimed(Some(TenureNumber(3))), "also while it has lapsed");
        assert_eq!(permit(&mut ownership, 11), Permit::Denied);
        assert!(!ownership.claimed(Some(TenureNumber(4))), "nobody asked");
        ownership.lease_renewed(at(11), at(20));
        assert_eq!(permit(&mut ownership, 12), Permit::Granted(Some(TenureNumber(3))));
    }

    #[test]
    fn a_number_that_is_outdated_starts_no_attempt_until_the_next_claim() {
        let mut ownership = claimed();
        assert!(ownership.outdate(), "a claim is to be made");
        assert_eq!(permit(&mut ownership, 1), Permit::Denied);
        assert!(ownership.outdate(), "and again, though one is under way");
        assert!(ownership.claimed(Some(TenureNumber(9))));
        assert_eq!(permit(&mut ownership, 1), Permit::Granted(Some(TenureNumber(9))));
        ownership.check_lease(at(60));
        assert!(ownership.outdate(), "what has lapsed would be renewed under the outdated number");
        ownership.lose();
        assert!(!ownership.outdate());
        ownership.begin();
        assert!(!ownership.outdate(), "nobody has claimed it");
    }

    #[test]
    fn what_another_has_claimed_stays_lost_until_the_tenure_ends() {
        let mut ownership = claimed();
        assert!(ownership.lose());
        assert!(!ownership.lose(), "said once");
        assert!(!ownership.claimed(Some(TenureNumber(9))));
        ownership.lease_renewed(at(60), at(70));
        assert!(!ownership.delivered());
        assert_eq!(permit(&mut ownership, 60), Permit::Denied);
        ownership.begin();
        assert!(ownership.delivered());
    }

    #[test]
    fn a_claim_that_is_let_go_ends_once() {
        let mut ownership = claimed();
        assert!(ownership.let_go());
        assert!(!ownership.let_go());
        ownership.delivered();
        assert!(ownership.let_go(), "also one that is under way");
    }
}

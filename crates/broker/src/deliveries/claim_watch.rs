//! What the messages of other replicas mean for the tenure of a partition.

use std::collections::VecDeque;
use std::time::Duration;

use tokio::sync::watch;

use crate::membership::{Membership, PartitionClaims};
use crate::source::{Lost, SourceEvent};
use lanekeeper_core::layout::PartitionNumber;
use lanekeeper_core::message::TenureNumber;
use lanekeeper_core::tick::Tick;

/// Turns what the replicas publish about a partition into the events of one tenure.
pub(super) struct ClaimWatch {
    membership: Membership,
    partition: PartitionNumber,
    known: watch::Receiver<PartitionClaims>,
    lease_until: watch::Receiver<Tick>,
    observes_priority: bool,
    /// Announcements from this offset on are new to this tenure.
    preempted_from: u64,
    claim: Option<Claim>,
    notified: ClaimNotice,
    /// The wait that the driver knows of.
    wait_until: Option<Tick>,
    /// The newest request for a status that has become an event.
    asked: Option<u64>,
}

/// A claim that was made.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Claim {
    number: u64,
    /// How often messages had been missed by then.
    gaps: u64,
}

/// What the driver knows of the present claim.
#[derive(Clone, Copy, PartialEq, Eq)]
enum ClaimNotice {
    Nothing,
    /// It has no number; with the newest claim of another process by then.
    WithoutNumber(Option<TenureNumber>),
    Number(TenureNumber),
    Superseded,
}

impl ClaimWatch {
    /// `position`: announcements of other replicas from this offset on are new to this tenure.
    pub(super) fn new(
        membership: Membership,
        partition: PartitionNumber,
        position: u64,
        observes_priority: bool,
    ) -> Self {
        let (mut known, mut lease_until) = (membership.watch(partition), membership.lease_until());
        known.mark_changed();
        lease_until.mark_changed();
        Self {
            membership,
            partition,
            known,
            lease_until,
            observes_priority,
            preempted_from: position,
            claim: None,
            notified: ClaimNotice::Nothing,
            wait_until: None,
            asked: None,
        }
    }

    /// Waits for a message that [`Self::look`] has not seen. Nothing is lost if the future is dropped.
    pub(super) async fn changed(&mut self) {
        tokio::select! {
            Ok(()) = self.known.changed() => self.known.mark_changed(),
            Ok(()) = self.lease_until.changed() => self.lease_until.mark_changed(),
            else => std::future::pending().await, // the process ends
        }
    }

    /// Claims the partition for this tenure.
    pub(super) fn claim(&mut self) {
        let gaps = self.known.borrow().gaps;
        self.claim = Some(Claim { number: self.membership.claim(self.partition), gaps });
        self.notified = ClaimNotice::Nothing;
    }

    /// The claim is over. Returns its number, if it had one.
    pub(super) fn withdraw(&mut self) -> Option<TenureNumber> {
        self.membership.withdraw(self.partition);
        let count = self.claim.take().map(|claim| claim.number);
        self.notified = ClaimNotice::Nothing;
        // Also one that was read back this moment, of which the driver does not know.
        let ours = self.known.borrow().tenures.ours();
        ours.filter(|ours| Some(ours.count) == count && !ours.void).map(|ours| ours.number)
    }

    /// Says to the other replicas that the claim is over. Returns true if there was one with a number.
    pub(super) fn end(&mut self, rest: Duration) -> bool {
        let number = self.withdraw();
        if let Some(number) = number {
            self.membership.publish_end(self.partition, number, rest);
        }
        number.is_some()
    }

    /// Returns once the other replicas can read that the claim is over; soon in any case.
    pub(super) async fn end_read_back(&self) {
        self.membership.end_read_back(self.partition).await;
    }

    /// Appends what has changed to the events.
    ///
    /// # Errors
    /// The claim does not count.
    pub(super) fn look(&mut self, events: &mut VecDeque<SourceEvent>) -> Result<(), Lost> {
        // The lease is looked at first: what stands before the note by which it was renewed is known by now.
        let lease_until =
            self.lease_until.has_changed().unwrap_or(false).then(|| *self.lease_until.borrow_and_update());
        let looked = self.look_at_claims(events);
        events.extend(lease_until.map(SourceEvent::LeaseRenewed));
        looked
    }

    fn look_at_claims(&mut self, events: &mut VecDeque<SourceEvent>) -> Result<(), Lost> {
        if !self.known.has_changed().unwrap_or(false) {
            return Ok(());
        }
        let now = self.membership.clock().now();
        let known = self.known.borrow_and_update();
        if self.claim.is_some_and(|claim| claim.gaps != known.gaps) {
            return Err(Lost("messages of other replicas were missed since its claim".to_owned()));
        }
        let claim = self.claim.map(|claim| claim.number);
        let ours = known.tenures.ours().filter(|ours| Some(ours.count) == claim);
        if ours.is_some_and(|ours| ours.void) {
            return Err(Lost(
                "its claim does not count: another process had claimed the partition, or begun a new epoch of tenure numbers, before it".to_owned(),
            ));
        }
        let wait_until = known.tenures.wait_until(now);
        let begins = ours.is_some() || (claim.is_some() && known.without_number == claim);
        if begins && self.notified == ClaimNotice::Nothing && self.membership.claims_kept_back(self.partition)
        {
            events.push_back(SourceEvent::ClaimsKeptBack);
        }
        match (self.notified, ours) {
            (ClaimNotice::Nothing | ClaimNotice::WithoutNumber(_), Some(ours)) => {
                self.membership.own(self.partition, ours.number);
                (self.notified, self.wait_until) = (ClaimNotice::Number(ours.number), wait_until);
                events.push_back(SourceEvent::Claimed {
                    number: Some(ours.number),
                    rival_claim: ours.rival,
                    wait_until,
                });
            }
            (ClaimNotice::Nothing, None) if claim.is_some() && known.without_number == claim => {
                // It was waited before.
                let rival_claim = known.tenures.rival_tenure();
                (self.notified, self.wait_until) = (ClaimNotice::WithoutNumber(rival_claim), None);
                events.push_back(SourceEvent::Claimed { number: None, rival_claim, wait_until: None });
            }
            (ClaimNotice::Number(_), _) if self.wait_until > Some(now) && wait_until != self.wait_until => {
                self.wait_until = wait_until;
                events.push_back(SourceEvent::TakeOverWait(wait_until));
            }
            _ => {}
        }
        if let Some(request) = known.asked.filter(|_| known.asked != self.asked) {
            self.asked = known.asked;
            events.push_back(SourceEvent::StatusRequested(request));
        }
        let latest = match self.notified {
            ClaimNotice::Number(number) => Some(Some(number)),
            ClaimNotice::WithoutNumber(rival_claim) => Some(rival_claim),
            ClaimNotice::Nothing | ClaimNotice::Superseded => None,
        };
        if latest.is_some_and(|latest| known.tenures.rival() > latest) {
            self.notified = ClaimNotice::Superseded;
            events.push_back(SourceEvent::ClaimSuperseded);
        }
        if let Some(at) = known.preempted_at.filter(|at| *at >= self.preempted_from) {
            self.preempted_from = at + 1;
            if self.observes_priority {
                events.push_back(SourceEvent::Preempted);
            }
        }
        Ok(())
    }
}

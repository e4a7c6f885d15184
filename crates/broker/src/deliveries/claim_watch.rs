//! What the messages of other replicas mean for the tenure of a partition.

use std::collections::VecDeque;

use tokio::sync::watch;

use crate::membership::{Membership, PartitionClaims};
use crate::source::SourceEvent;
use lanekeeper_core::layout::PartitionNumber;
use lanekeeper_core::message::TenureNumber;

/// Turns what the replicas publish about a partition into the events of one tenure.
pub(super) struct ClaimWatch {
    membership: Membership,
    partition: PartitionNumber,
    known: watch::Receiver<PartitionClaims>,
    observes_priority: bool,
    /// Announcements from this offset on are new to this tenure.
    preempted_from: u64,
    claim: Option<u64>,
    notified: ClaimNotice,
    /// The newest request for a status that has become an event.
    asked: Option<u64>,
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
        let mut known = membership.watch(partition);
        known.mark_changed();
        Self {
            membership,
            partition,
            known,
            observes_priority,
            preempted_from: position,
            claim: None,
            notified: ClaimNotice::Nothing,
            asked: None,
        }
    }

    /// Waits for a message that [`Self::look`] has not seen. Nothing is lost if the future is dropped.
    pub(super) async fn changed(&mut self) {
        match self.known.changed().await {
            Ok(()) => self.known.mark_changed(),
            Err(_) => std::future::pending().await, // the process ends
        }
    }

    /// The tenure is over.
    pub(super) fn withdraw(&self) {
        self.membership.withdraw(self.partition);
    }

    /// Claims the partition for this tenure.
    pub(super) fn claim(&mut self) {
        self.claim = Some(self.membership.claim(self.partition));
        self.notified = ClaimNotice::Nothing;
    }

    /// Appends what has changed to the events.
    pub(super) fn look(&mut self, events: &mut VecDeque<SourceEvent>) {
        if !self.known.has_changed().unwrap_or(false) {
            return;
        }
        let known = *self.known.borrow_and_update();
        let ours = known.ours.filter(|(claim, _)| Some(*claim) == self.claim).map(|(_, number)| number);
        match (self.notified, ours) {
            (ClaimNotice::Nothing | ClaimNotice::WithoutNumber(_), Some(number)) => {
                self.notified = ClaimNotice::Number(number);
                events
                    .push_back(SourceEvent::Claimed { number: Some(number), rival_claim: known.before_ours });
            }
            (ClaimNotice::Nothing, None) if self.claim.is_some() && known.without_number == self.claim => {
                self.notified = ClaimNotice::WithoutNumber(known.rival_claim);
                events.push_back(SourceEvent::Claimed { number: None, rival_claim: known.rival_claim });
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
        if latest.is_some_and(|latest| known.rival_claim > latest) {
            self.notified = ClaimNotice::Superseded;
            events.push_back(SourceEvent::ClaimSuperseded);
        }
        if let Some(at) = known.preempted_at.filter(|at| *at >= self.preempted_from) {
            self.preempted_from = at + 1;
            if self.observes_priority {
                events.push_back(SourceEvent::Preempted);
            }
        }
    }
}

//! What a replica knows of a partition from the messages that it reads. Pure.

use std::time::Duration;

use super::message::{MemberMessage, MessageKind, PublishedTerms, ReplicaId};
use lanekeeper_core::message::TenureNumber;
use lanekeeper_core::tenures::{Claim, Tenures};
use lanekeeper_core::tick::Tick;

/// What is known of one partition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct PartitionClaims {
    /// Who has claimed it, and what must be waited for.
    pub(crate) tenures: Tenures,
    /// Offset of the newest message in which a replica of a higher priority than ours says that it consumes the partition.
    pub(crate) preempted_at: Option<u64>,
    /// Our claim that does without a number, since the broker takes no publishes.
    pub(crate) without_number: Option<u64>,
    /// Offset of the newest request for a status.
    pub(crate) asked: Option<u64>,
    /// How often messages were missed: the stream was recreated, or a part of it was gone before it was read. A claim counts
    /// only as long as everything since it was read.
    pub(crate) gaps: u64,
}

impl PartitionClaims {
    pub(crate) fn new(tenures: Tenures) -> Self {
        Self { tenures, preempted_at: None, without_number: None, asked: None, gaps: 0 }
    }

    /// Messages may have been missed.
    pub(crate) fn gap(&mut self) {
        self.gaps += 1;
        self.tenures.something_is_missing();
    }

    /// The stream was deleted and declared again.
    pub(crate) fn recreated(&mut self, now: Tick) {
        self.gaps += 1;
        self.tenures.recreated(now);
        (self.preempted_at, self.asked) = (None, None);
    }

    /// A message of the partition, or one that is of all partitions, was read at this offset. `epoch_read`: the highest
    /// epoch of the messages up to it. Returns true if it changes anything.
    pub(crate) fn read(
        &mut self,
        now: Tick,
        replica: &ReplicaId,
        own_priority: i32,
        (offset, epoch_read): (u64, u64),
        message: &MemberMessage,
    ) -> bool {
        let is_ours = message.process == replica.process;
        match message.kind {
            MessageKind::Claimed => {
                let claim = Claim {
                    offset,
                    // An older program does not know epochs, and counts always.
                    epoch: message.epoch.unwrap_or(epoch_read),
                    outdated: message.epoch.is_some_and(|epoch| epoch < epoch_read),
                    process: &message.process,
                    count: message.claim,
                    read: message.read,
                    terms: message.terms.map(PublishedTerms::terms),
                    over: message.over_ms.map(Duration::from_millis),
                };
                self.tenures.claimed(now, &claim)
            }
            MessageKind::TenureEnded => message.end.is_some_and(|end| {
                let rest = Duration::from_millis(end.rest_ms);
                self.tenures.ended(now, TenureNumber(end.tenure), rest)
            }),
            MessageKind::Attached if !is_ours && message.priority > own_priority => {
                self.preempted_at = Some(offset);
                true
            }
            MessageKind::StatusRequest => {
                self.asked = Some(offset);
                true
            }
            MessageKind::Attached
            | MessageKind::Note
            | MessageKind::Moved
            | MessageKind::StatusReport
            | MessageKind::TargetBelieved
            | MessageKind::Inquiry
            | MessageKind::ProcessEnded => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::message::parse;
    use super::*;
    use lanekeeper_core::layout::{LayoutNumber, PartitionNumber};
    use lanekeeper_core::tenures::Terms;

    fn replica(process: &str) -> ReplicaId {
        ReplicaId { instance: process.to_owned(), process: process.to_owned(), layout: LayoutNumber(1) }
    }

    /// Messages as `process kind number`, where the number is a claim's or the priority; what "a" of priority 5 knows.
    fn known(messages: &[(&str, MessageKind, i32)]) -> PartitionClaims {
        let mut known = PartitionClaims::new(Tenures::new("a".to_owned(), Terms::default()));
        for (offset, (process, kind, number)) in (10..).zip(messages) {
            let claim = if *kind == MessageKind::Claimed { (*number).try_into().unwrap() } else { 0 };
            let message = replica(process).message(*kind, PartitionNumber(0), *number, claim);
            let message = parse(&message.body()).expect("it can be read back");
            known.read(Tick::ZERO, &replica("a"), 5, (offset, 0), &message);
        }
        known
    }

    #[test]
    fn the_offset_of_a_claim_is_its_number() {
        use MessageKind::{Attached, Claimed};
        let known = known(&[("a", Attached, 5), ("b", Claimed, 1), ("a", Claimed, 1), ("a", Claimed, 1)]);
        let ours = known.tenures.ours().expect("it was read");
        assert_eq!((ours.count, ours.number, ours.rival), (1, TenureNumber(12), Some(TenureNumber(11))));
    }

    #[test]
    fn only_a_higher_priority_of_another_outranks() {
        use MessageKind::Attached;
        assert_eq!(known(&[("a", Attached, 9), ("b", Attached, 5), ("b", Attached, 4)]).preempted_at, None);
        assert_eq!(known(&[("b", Attached, 6)]).preempted_at, Some(10));
    }

    #[test]
    fn a_status_request_is_known_by_its_offset() {
        use MessageKind::{StatusReport, StatusRequest};
        assert_eq!(known(&[("o", StatusRequest, 0), ("o", StatusRequest, 0)]).asked, Some(11));
        assert_eq!(known(&[("b", StatusReport, 0)]), known(&[]));
    }
}

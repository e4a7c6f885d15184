//! What a replica knows of the claims on a partition, from the messages that it reads. Pure.

use super::message::{MemberMessage, MessageKind, ReplicaId};
use lanekeeper_core::message::TenureNumber;

/// What is known of the claims on one partition.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct PartitionClaims {
    /// Our newest claim that was read back, and its number.
    pub(crate) ours: Option<(u64, TenureNumber)>,
    /// The newest claim of another process before it.
    pub(crate) before_ours: Option<TenureNumber>,
    /// The newest claim of another process.
    pub(crate) rival_claim: Option<TenureNumber>,
    /// Offset of the newest message in which a replica of a higher priority than ours says that it consumes the partition.
    pub(crate) preempted_at: Option<u64>,
    /// Our claim that does without a number, since the broker takes no publishes.
    pub(crate) without_number: Option<u64>,
    /// Offset of the newest request for a status.
    pub(crate) asked: Option<u64>,
}

impl PartitionClaims {
    /// A message was read at this offset. Returns true if it changes anything.
    pub(crate) fn read(
        &mut self,
        replica: &ReplicaId,
        own_priority: i32,
        offset: u64,
        message: &MemberMessage,
    ) -> bool {
        let number = TenureNumber(offset);
        let is_ours = message.process == replica.process;
        match message.kind {
            MessageKind::Claimed if is_ours => {
                // Published twice where the first was slow to come back: one claim, one number.
                if self.ours.is_some_and(|(claim, _)| claim >= message.claim) {
                    return false;
                }
                self.before_ours = self.rival_claim;
                self.ours = Some((message.claim, number));
                true
            }
            MessageKind::Claimed => {
                self.rival_claim = Some(number);
                true
            }
            MessageKind::Attached if !is_ours && message.priority > own_priority => {
                self.preempted_at = Some(offset);
                true
            }
            MessageKind::StatusRequest => {
                self.asked = Some(offset);
                true
            }
            MessageKind::Attached | MessageKind::Moved | MessageKind::StatusReport => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::message::parse;
    use super::*;
    use lanekeeper_core::layout::{LayoutNumber, PartitionNumber};

    fn replica(process: &str) -> ReplicaId {
        ReplicaId { instance: process.to_owned(), process: process.to_owned(), layout: LayoutNumber(1) }
    }

    /// Notes as `process kind number`, where the number is a claim's or the priority; what "a" of priority 5 knows.
    fn check(messages: &[(&str, MessageKind, i32)], expected: PartitionClaims) {
        let mut known = PartitionClaims::default();
        for (offset, (process, kind, number)) in (10..).zip(messages) {
            let claim = if *kind == MessageKind::Claimed { (*number).try_into().unwrap() } else { 0 };
            let message = replica(process).message(*kind, PartitionNumber(0), *number, claim);
            let message = parse(&serde_json::to_vec(&message).unwrap()).expect("it can be read back");
            known.read(&replica("a"), 5, offset, &message);
        }
        assert_eq!(known, expected, "{messages:?}");
    }

    #[test]
    fn the_offset_of_a_claim_is_its_number() {
        use MessageKind::{Attached, Claimed};
        let ours = |claim, number| Some((claim, TenureNumber(number)));
        let rival = |number| Some(TenureNumber(number));
        check(
            &[("a", Attached, 5), ("a", Claimed, 1)],
            PartitionClaims { ours: ours(1, 11), ..PartitionClaims::default() },
        );
        // Published again: the first one counts.
        check(
            &[("a", Claimed, 1), ("a", Claimed, 1)],
            PartitionClaims { ours: ours(1, 10), ..PartitionClaims::default() },
        );
        check(
            &[("a", Claimed, 1), ("b", Claimed, 1)],
            PartitionClaims { ours: ours(1, 10), rival_claim: rival(11), ..PartitionClaims::default() },
        );
        check(
            &[("a", Claimed, 1), ("b", Claimed, 1), ("a", Claimed, 2)],
            PartitionClaims {
                ours: ours(2, 12),
                before_ours: rival(11),
                rival_claim: rival(11),
                ..PartitionClaims::default()
            },
        );
        check(
            &[("b", Claimed, 1), ("a", Claimed, 1), ("a", Claimed, 2)],
            PartitionClaims {
                ours: ours(2, 12),
                before_ours: rival(10),
                rival_claim: rival(10),
                ..PartitionClaims::default()
            },
        );
    }

    #[test]
    fn only_a_higher_priority_of_another_outranks() {
        use MessageKind::Attached;
        check(&[("a", Attached, 9), ("b", Attached, 5), ("b", Attached, 4)], PartitionClaims::default());
        check(
            &[("b", Attached, 6)],
            PartitionClaims { preempted_at: Some(10), ..PartitionClaims::default() },
        );
    }

    #[test]
    fn a_status_request_is_known_by_its_offset() {
        use MessageKind::{StatusReport, StatusRequest};
        check(
            &[("o", StatusRequest, 0), ("o", StatusRequest, 0)],
            PartitionClaims { asked: Some(11), ..PartitionClaims::default() },
        );
        check(&[("b", StatusReport, 0)], PartitionClaims::default());
    }
}

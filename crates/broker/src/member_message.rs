//! What the replicas tell each other in the stream of members, and what each of them makes of it. Pure.

use serde::{Deserialize, Serialize};

use lanekeeper_core::layout::{LayoutNumber, PartitionNumber};
use lanekeeper_core::message::TenureNumber;

/// Form of the messages that this program writes and reads; others are passed over.
pub(super) const MESSAGE_VERSION: u32 = 1;

/// One message of the stream.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct MemberMessage {
    /// [`MESSAGE_VERSION`].
    pub(super) version: u32,
    pub(super) kind: MessageKind,
    /// `instance.name` of the replica.
    pub(super) instance: String,
    /// Made anew at each start: tells replicas of one name apart.
    pub(super) process: String,
    pub(super) layout: u32,
    pub(super) partition: u16,
    /// The priority that it consumes with.
    pub(super) priority: i32,
    /// Counts the claims of the process; 0 where it is no claim.
    pub(super) claim: u64,
    /// With [`MessageKind::StatusReport`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[serde(rename = "holding")]
    pub(super) status: Option<PartitionStatus>,
}

/// What a replica that consumes a partition holds of it, for operators. Everything but the first two came later: where it
/// is missing, an older program has told it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PartitionStatus {
    /// Updates: deliveries that are not settled.
    pub updates: usize,
    /// Where the layout drains, records that are tried again and again, at most a few: their keys, updates and attempts
    /// of the first one.
    pub retried: Vec<(String, usize, u32)>,
    /// Offset of the newest question that was read by then; `None`: it was told unasked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub answers: Option<u64>,
    /// The broker has handed something over since it consumes: it is the owner, not a standby. Where nothing has come
    /// yet, nobody but the broker knows.
    #[serde(default)]
    pub owns: bool,
    /// Number of its tenure, where it has claimed one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tenure: Option<u64>,
    /// For how many seconds it has held the update that it has held longest: since the broker handed it over. What was
    /// given back and comes again counts anew.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub oldest_held_seconds: Option<u64>,
    /// Seconds since the earliest publish among the held updates, by their publishers' timestamps; `None` where none has
    /// one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub oldest_published_seconds: Option<u64>,
    /// Records that it holds updates of.
    #[serde(default)]
    pub records: usize,
    /// Those of them whose first update has failed and waits for its next attempt.
    #[serde(default)]
    pub waiting: usize,
    /// Those of them that wait for a target that is shut.
    #[serde(default)]
    pub target_shut: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum MessageKind {
    /// It consumes the partition: as owner or on standby, it does not know.
    Attached,
    /// It got a delivery: the offset of this message is the number of its tenure.
    Claimed,
    /// It got a witness from this partition that belongs to another: everybody stops.
    Moved,
    /// What it holds of the partition, for operators: now and then where the layout drains, otherwise as an answer.
    #[serde(rename = "holds")]
    StatusReport,
    /// Somebody wants to know what is held of all partitions of the layout. Its offset is the number of the question.
    #[serde(rename = "asks")]
    StatusRequest,
}

/// What is known of one partition.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct PartitionClaims {
    /// Our newest claim that was read back, and its number.
    pub(super) ours: Option<(u64, TenureNumber)>,
    /// The newest claim of another process before it.
    pub(super) before_ours: Option<TenureNumber>,
    /// The newest claim of another process.
    pub(super) rival_claim: Option<TenureNumber>,
    /// Where a replica of a higher priority than ours last said that it consumes the partition.
    pub(super) preempted_at: Option<u64>,
    /// Our claim that goes on without a number, since the broker takes no publishes.
    pub(super) without_number: Option<u64>,
    /// The newest question what is held.
    pub(super) asked: Option<u64>,
}

/// Who we are, to tell our notes from others'.
#[derive(Clone, Debug)]
pub(super) struct ReplicaId {
    pub(super) instance: String,
    pub(super) process: String,
    pub(super) layout: LayoutNumber,
}

impl ReplicaId {
    pub(super) fn message(
        &self,
        kind: MessageKind,
        partition: PartitionNumber,
        priority: i32,
        claim: u64,
    ) -> MemberMessage {
        MemberMessage {
            version: MESSAGE_VERSION,
            kind,
            instance: self.instance.clone(),
            process: self.process.clone(),
            layout: self.layout.0,
            partition: partition.0,
            priority,
            claim,
            status: None,
        }
    }

    /// What a note at this offset changes in what is known of its partition. Whether it changes anything.
    pub(super) fn read(
        &self,
        known: &mut PartitionClaims,
        own_priority: i32,
        offset: u64,
        message: &MemberMessage,
    ) -> bool {
        let number = TenureNumber(offset);
        let is_ours = message.process == self.process;
        match message.kind {
            MessageKind::Claimed if is_ours => {
                // Published twice where the first was slow to come back: one claim, one number.
                if known.ours.is_some_and(|(claim, _)| claim >= message.claim) {
                    return false;
                }
                known.before_ours = known.rival_claim;
                known.ours = Some((message.claim, number));
                true
            }
            MessageKind::Claimed => {
                known.rival_claim = Some(number);
                true
            }
            MessageKind::Attached if !is_ours && message.priority > own_priority => {
                known.preempted_at = Some(offset);
                true
            }
            MessageKind::StatusRequest => {
                known.asked = Some(offset);
                true
            }
            MessageKind::Attached | MessageKind::Moved | MessageKind::StatusReport => false,
        }
    }
}

/// The note, where this program understands it.
pub(super) fn parse(body: &[u8]) -> Option<MemberMessage> {
    serde_json::from_slice(body).ok().filter(|message: &MemberMessage| message.version == MESSAGE_VERSION)
}

#[cfg(test)]
mod tests {
    use super::*;

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
            replica("a").read(&mut known, 5, offset, &message);
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
    fn a_question_is_known_by_its_offset() {
        use MessageKind::{StatusReport, StatusRequest};
        check(
            &[("o", StatusRequest, 0), ("o", StatusRequest, 0)],
            PartitionClaims { asked: Some(11), ..PartitionClaims::default() },
        );
        check(&[("b", StatusReport, 0)], PartitionClaims::default());
    }

    #[test]
    fn status_reports_of_older_programs_are_read() {
        let message = r#"{"version":1,"kind":"holds","instance":"a","process":"p","layout":1,"partition":0,"priority":5,
            "claim":0,"holding":{"updates":3,"retried":[["key",3,7]]}}"#;
        let status =
            PartitionStatus { updates: 3, retried: vec![("key".into(), 3, 7)], ..PartitionStatus::default() };
        assert_eq!(parse(message.as_bytes()).and_then(|message| message.status), Some(status));
    }

    #[test]
    fn what_is_not_understood_is_passed_over() {
        let later = r#"{"version":1,"kind":"sings","instance":"a","process":"p","layout":1,"partition":0,"priority":5,"claim":0}"#;
        for body in ["", "{}", "[1]", r#"{"version":2,"kind":"claimed"}"#, later] {
            assert_eq!(parse(body.as_bytes()), None, "{body}");
        }
    }
}

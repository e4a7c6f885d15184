//! The messages of the stream of members, by which replicas know of each other. Pure.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::beliefs::PublishedBelief;
use crate::inquiries::PublishedInquiry;
use crate::presence::Notices;
use crate::shares::PublishedShares;
use lanekeeper_core::layout::{LayoutNumber, PartitionNumber};
use lanekeeper_core::numbering::{EPOCH_MAX, OFFSET_MAX};
use lanekeeper_core::tenures::Terms;

/// What is being done, for the errors.
pub(crate) const READING: &str = "reading the stream of members";
/// Form of the messages that this program writes and reads; others are passed over.
pub(crate) const MESSAGE_VERSION: u32 = 1;

/// One message of the stream. Fields that came later are left out where they say nothing, so that programs of before read
/// these messages, and their messages are read.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct MemberMessage {
    /// [`MESSAGE_VERSION`].
    pub(crate) version: u32,
    pub(crate) kind: MessageKind,
    /// `instance.name` of the replica.
    pub(crate) instance: String,
    /// Another one at each start: distinguishes replicas of one name.
    pub(crate) process: String,
    pub(crate) layout: u32,
    /// 0 in a message that is of no partition, or of all.
    pub(crate) partition: u16,
    /// The priority that it consumes with.
    pub(crate) priority: i32,
    /// Counts the claims of the process, in a note its notes; 0 in every other message.
    pub(crate) claim: u64,
    /// With [`MessageKind::StatusReport`].
    #[serde(rename = "holding", default, skip_serializing_if = "Option::is_none")]
    pub(crate) status: Option<PartitionStatus>,
    /// With [`MessageKind::Claimed`], and with [`MessageKind::Note`] once the process knows the stream: it had read everything
    /// before this offset.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) read: Option<u64>,
    /// With [`MessageKind::Claimed`] and [`MessageKind::Note`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) terms: Option<PublishedTerms>,
    /// With [`MessageKind::Claimed`]: the tenure had no number and is over; for so long its requests can still be at work.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) over_ms: Option<u64>,
    /// With [`MessageKind::Note`]: partitions that the process owns, with the numbers of their tenures.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) owned: Vec<(u16, u64)>,
    /// The epoch that the process numbers its tenures in, with [`MessageKind::Claimed`] and [`MessageKind::Note`]; 0 in every
    /// other message. `None`: a program of before, which knows no epochs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) epoch: Option<u64>,
    /// With [`MessageKind::Note`]: if the process reaches its targets and its ledger. `None`: nothing shows it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) works: Option<bool>,
    /// With [`MessageKind::Note`]: the parts of the targets' limits that the process claims. `None`: a program of before, which
    /// divides no limits.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) shares: Option<PublishedShares>,
    /// With [`MessageKind::Note`]: what people are to be told of. `None`: the process tells nobody.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) notices: Option<Notices>,
    /// With [`MessageKind::TenureEnded`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) end: Option<PublishedEnd>,
    /// With [`MessageKind::TargetBelieved`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) belief: Option<PublishedBelief>,
    /// With [`MessageKind::Inquiry`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) inquiry: Option<PublishedInquiry>,
    /// With [`MessageKind::Note`]: the URL of the admin port, if there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) admin: Option<String>,
}

/// [`Terms`], in milliseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct PublishedTerms {
    lease_ms: u64,
    at_work_ms: u64,
}

impl PublishedTerms {
    pub(crate) fn of(terms: Terms) -> Self {
        Self { lease_ms: millis(terms.lease), at_work_ms: millis(terms.at_work) }
    }

    pub(crate) fn terms(self) -> Terms {
        Terms { lease: Duration::from_millis(self.lease_ms), at_work: Duration::from_millis(self.at_work_ms) }
    }
}

/// The end of a tenure in order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct PublishedEnd {
    /// The number of the tenure.
    pub(crate) tenure: u64,
    /// For so long requests of it, or of a tenure that it had waited for, can still be at work.
    pub(crate) rest_ms: u64,
}

/// Rounded up: who waits for so long has waited long enough.
pub(crate) fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos().div_ceil(1_000_000)).unwrap_or(u64::MAX)
}

/// A record that is retried. Its key is not published: ids are not to hold personal data, keys may.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RetriedRecord {
    /// The id of its first update.
    pub update_id: String,
    /// Updates of the record that are held.
    pub updates: usize,
    /// Attempts of the first one.
    pub attempts: u32,
}

/// What a replica that consumes a partition holds of it, for operators. All fields but the first two came later: where
/// they are missing, an older program has published it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PartitionStatus {
    /// Updates: deliveries that are not settled.
    pub updates: usize,
    /// As programs of before publish some of the records that are retried, with their keys. It is empty now: the stream is
    /// kept, and keys can be personal data.
    pub retried: Vec<(String, usize, u32)>,
    /// If the layout drains, some of the records that are retried.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub retried_records: Vec<RetriedRecord>,
    /// Offset of the newest request that was read by then; `None`: nobody had asked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub answers: Option<u64>,
    /// The broker has delivered something since the process consumes: it is the owner, not a standby. Before that, only the
    /// broker knows.
    #[serde(default)]
    pub owns: bool,
    /// Number of its tenure, if it has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tenure: Option<u64>,
    /// For how many seconds it has held the update that it has held longest: since the broker handed it over. What was
    /// given back and comes again counts from then on.
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
    /// Those of them that wait for a target whose breaker is open.
    #[serde(default)]
    pub target_shut: usize,
    /// Those of them that wait for a target that a person has paused.
    #[serde(default)]
    pub target_paused: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum MessageKind {
    /// The process consumes the partition, as owner or on standby: it does not know which.
    Attached,
    /// The process got a delivery: the offset of this message is the number of its tenure.
    Claimed,
    /// The process is alive, and owns what the note names. Read back, it renews the lease of the process.
    Note,
    /// A tenure is over, in order.
    #[serde(rename = "ended")]
    TenureEnded,
    /// The process got a witness from this partition that belongs to another one: all processes stop.
    Moved,
    /// What the process holds of the partition, for operators: every two seconds if the layout drains, otherwise on request.
    #[serde(rename = "holds")]
    StatusReport,
    /// An operator asks what is held of all partitions of the layout. Its offset is the number of the request.
    #[serde(rename = "asks")]
    StatusRequest,
    /// An operator says that rejections of a target are its own word for some time. It is of no layout.
    #[serde(rename = "believes")]
    TargetBelieved,
    /// A person's program asks something of all processes. It is of no layout.
    Inquiry,
    /// The process ends in order: it answers nothing any more.
    ProcessEnded,
}

/// Who this process is, to distinguish its messages from others'.
#[derive(Clone, Debug)]
pub(crate) struct ReplicaId {
    pub(crate) instance: String,
    pub(crate) process: String,
    pub(crate) layout: LayoutNumber,
}

impl ReplicaId {
    pub(crate) fn message(
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
            read: None,
            terms: None,
            over_ms: None,
            owned: Vec::new(),
            epoch: Some(0),
            works: None,
            shares: None,
            notices: None,
            end: None,
            belief: None,
            inquiry: None,
            admin: None,
        }
    }
}

impl MemberMessage {
    /// As it is published.
    pub(crate) fn body(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("a note is plain data")
    }
}

/// The message; `None` if this program does not understand it.
pub(crate) fn parse(body: &[u8]) -> Option<MemberMessage> {
    serde_json::from_slice(body).ok().filter(|message: &MemberMessage| {
        message.version == MESSAGE_VERSION
            && message.epoch.is_none_or(|epoch| epoch <= EPOCH_MAX)
            && message.read.is_none_or(|read| read <= OFFSET_MAX)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_status_that_an_older_program_publishes_is_read() {
        let message = r#"{"version":1,"kind":"holds","instance":"a","process":"p","layout":1,"partition":0,"priority":5,
            "claim":0,"holding":{"updates":3,"retried":[["key",3,7]]}}"#;
        let status =
            PartitionStatus { updates: 3, retried: vec![("key".into(), 3, 7)], ..PartitionStatus::default() };
        assert_eq!(parse(message.as_bytes()).and_then(|message| message.status), Some(status));
    }

    #[test]
    fn a_status_is_read_by_older_programs_and_names_no_record_key() {
        let retried = RetriedRecord { update_id: "u1".into(), updates: 3, attempts: 7 };
        let status =
            PartitionStatus { updates: 3, retried_records: vec![retried], ..PartitionStatus::default() };
        let json = serde_json::to_value(&status).unwrap();
        // They need the member.
        assert_eq!(json["retried"], serde_json::json!([]));
        assert_eq!(json["retried_records"][0]["update_id"], "u1");
        assert_eq!(serde_json::from_value::<PartitionStatus>(json).unwrap(), status);
    }

    #[test]
    fn a_claim_of_an_older_program_says_nothing_of_its_terms() {
        let message = r#"{"version":1,"kind":"claimed","instance":"a","process":"p","layout":1,"partition":0,"priority":5,"claim":3}"#;
        let claim = parse(message.as_bytes()).expect("it is a claim");
        assert_eq!((claim.claim, claim.read, claim.terms, claim.epoch), (3, None, None, None));
        assert_eq!(String::from_utf8(claim.body()).unwrap(), message, "and is written as it was");
    }

    #[test]
    fn what_an_operator_believes_is_read_back() {
        let message = r#"{"version":1,"kind":"believes","instance":"a","process":"p","layout":0,"partition":0,"priority":0,"claim":0,"epoch":0,"belief":{"target":"crm","until":1767225600}}"#;
        let read = parse(message.as_bytes()).expect("it is understood");
        let belief = PublishedBelief { target: "crm".to_owned(), until: 1_767_225_600 };
        assert_eq!((read.kind, read.belief.as_ref()), (MessageKind::TargetBelieved, Some(&belief)));
        assert_eq!(String::from_utf8(read.body()).unwrap(), message);
    }

    #[test]
    fn a_rest_is_rounded_up() {
        assert_eq!(millis(Duration::from_micros(1)), 1);
        assert_eq!(millis(Duration::from_millis(7)), 7);
        assert_eq!(millis(Duration::MAX), u64::MAX);
    }

    #[test]
    fn what_is_not_understood_is_passed_over() {
        let later = r#"{"version":1,"kind":"sings","instance":"a","process":"p","layout":1,"partition":0,"priority":5,"claim":0}"#;
        let far = r#"{"version":1,"kind":"claimed","instance":"a","process":"p","layout":1,"partition":0,"priority":5,"claim":3,"epoch":4294967296}"#;
        let further = far.replace(r#""epoch":4294967296"#, r#""epoch":7,"read":18446744073709551615"#);
        for body in ["", "{}", "[1]", r#"{"version":2,"kind":"claimed"}"#, later, far, &further] {
            assert_eq!(parse(body.as_bytes()), None, "{body}");
        }
    }
}

//! Asks the owners of partitions what they hold, over the stream of members: a question, and what is told after it.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use lapin::BasicProperties;
use lapin::Connection;
use lapin::options::BasicPublishOptions;
use tokio::time::{Instant, timeout_at};
use uuid::Uuid;

use super::document::{self, StreamOffset};
use super::error::SourceError;
use super::member_message::{MemberMessage, MessageKind, PartitionStatus, ReplicaId, parse};
use super::membership::offset_of;
use super::names::Names;
use super::topology::{close, open};
use lanekeeper_core::error::error_chain;
use lanekeeper_core::layout::{LayoutNumber, PartitionNumber};

/// How long whoever asks waits for answers. Owners answer within milliseconds, and at most once a second.
pub const STATUS_TIMEOUT: Duration = Duration::from_secs(2);

const READING: &str = "reading the stream of members";
const ASKING: &str = "asking the owners of partitions";

/// A partition of a layout.
pub(super) type PartitionOfLayout = (LayoutNumber, PartitionNumber);

/// What is known of a partition from those who consume it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StatusAnswer {
    /// `instance.name` of the owner, or of a standby where the owner has told nothing.
    pub instance: String,
    /// What it holds.
    pub status: PartitionStatus,
    /// Whether it was told after the question. Otherwise it was told unasked, at most two seconds before it was read, as
    /// programs do that do not know questions.
    pub asked: bool,
    priority: i32,
}

impl StatusAnswer {
    /// The owner's answer counts, not that of a standby. Where two say that they own it, one of them has not heard yet
    /// that it was replaced: the newer claim counts, then the one that the broker is to prefer.
    fn rank(&self) -> (bool, bool, Option<u64>, i32) {
        (self.is_of_the_owner(), self.asked, self.status.tenure, self.priority)
    }

    /// Whether whoever has told it owns the partition. Programs that know no questions do not say so; a standby holds
    /// nothing.
    #[must_use]
    pub fn is_of_the_owner(&self) -> bool {
        self.status.owns || (self.status.answers.is_none() && self.status.updates > 0)
    }
}

/// What was answered, and what was not.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StatusAnswers {
    /// By partition.
    pub of: BTreeMap<(LayoutNumber, PartitionNumber), StatusAnswer>,
    /// Why nobody could be asked, or why some may not have answered; `None`: nothing is known against it.
    pub fault: Option<String>,
}

/// A question on its way, and what has come of it. Pure.
struct StatusQuery {
    process: String,
    /// Partitions with an owner that has not answered.
    awaited: BTreeSet<PartitionOfLayout>,
    /// Offset of the question, by layout, once it was read back.
    asked: BTreeMap<LayoutNumber, u64>,
    of: BTreeMap<PartitionOfLayout, StatusAnswer>,
}

impl StatusQuery {
    fn new(process: String, awaited: BTreeSet<PartitionOfLayout>) -> Self {
        Self { process, awaited, asked: BTreeMap::new(), of: BTreeMap::new() }
    }

    fn layouts(&self) -> BTreeSet<LayoutNumber> {
        self.awaited.iter().map(|(layout, _)| *layout).collect()
    }

    fn read(&mut self, offset: u64, message: MemberMessage) {
        let layout = LayoutNumber(message.layout);
        match message.kind {
            MessageKind::StatusRequest if message.process == self.process => {
                self.asked.insert(layout, offset);
            }
            MessageKind::StatusReport => {
                let Some(status) = message.status else { return };
                let place = (layout, PartitionNumber(message.partition));
                // Whoever answers a later question has read this one.
                let asked = self.asked.get(&layout).is_some_and(|asked| status.answers >= Some(*asked));
                let answer =
                    StatusAnswer { instance: message.instance, status, asked, priority: message.priority };
                if asked && answer.is_of_the_owner() {
                    self.awaited.remove(&place);
                }
                let better = self.of.get(&place).is_none_or(|known| known.rank() <= answer.rank());
                if better {
                    self.of.insert(place, answer);
                }
            }
            MessageKind::StatusRequest
            | MessageKind::Attached
            | MessageKind::Claimed
            | MessageKind::Moved => {}
        }
    }
}

/// Asks what is held of these partitions, which have an owner, and answers once all have answered or the time is up. What
/// is told of other partitions meanwhile is answered as well.
pub(super) async fn ask(
    connection: &Connection,
    names: &Names,
    instance: &str,
    awaited: BTreeSet<PartitionOfLayout>,
) -> StatusAnswers {
    let mut query = StatusQuery::new(Uuid::new_v4().to_string(), awaited);
    if query.awaited.is_empty() {
        return StatusAnswers::default();
    }
    let until = Instant::now() + STATUS_TIMEOUT;
    let fault = match timeout_at(until, ask_for_ever(connection, names, instance, &mut query)).await {
        // Nobody was ever there who could answer.
        Ok(Err(SourceError::Missing { .. })) => {
            Some(format!("the stream {} is not there", names.members()))
        }
        Ok(Err(fault)) => Some(error_chain(&fault)),
        Err(_) if connection.status().blocked() => Some(
            "the broker takes no publishes, since it has a memory or disk alarm: nobody can be asked, and nobody can \
             answer"
                .to_owned(),
        ),
        Ok(Ok(())) | Err(_) => None,
    };
    StatusAnswers { of: query.of, fault }
}

/// Done once all have answered.
async fn ask_for_ever(
    connection: &Connection,
    names: &Names,
    instance: &str,
    query: &mut StatusQuery,
) -> Result<(), SourceError> {
    let stream = names.members();
    let about = |fault| match fault {
        SourceError::Amqp { source, .. } => {
            SourceError::from_amqp(READING, &format!("stream {stream}"), names.public(), *source)
        }
        fault => fault,
    };
    let channel = open(connection).await?;
    let mut consumer = document::consume(&channel, &stream, StreamOffset::Next).await.map_err(about)?;
    for layout in query.layouts() {
        let replica = ReplicaId { instance: instance.to_owned(), process: query.process.clone(), layout };
        let message = replica.message(MessageKind::StatusRequest, PartitionNumber(0), 0, 0);
        let body = serde_json::to_vec(&message).expect("a note is plain data");
        let properties = BasicProperties::default().with_content_type("application/json".into());
        let properties = properties.with_delivery_mode(2);
        let options = BasicPublishOptions::default();
        // Reading it back is the proof that it was taken.
        let publishing = channel.basic_publish("".into(), stream.as_str().into(), options, &body, properties);
        publishing.await.map_err(SourceError::amqp(ASKING)).map_err(about)?;
    }
    while !query.awaited.is_empty() {
        let delivery = document::next(&mut consumer).await.map_err(about)?;
        if let (Some(offset), Some(message)) = (offset_of(&delivery), parse(&delivery.data)) {
            query.read(offset, message);
        }
    }
    close(channel).await;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(
        process: &str,
        kind: MessageKind,
        partition: u16,
        status: Option<PartitionStatus>,
    ) -> MemberMessage {
        let (instance, layout) = (process.to_owned(), LayoutNumber(1));
        let replica = ReplicaId { instance, process: process.to_owned(), layout };
        MemberMessage { status, ..replica.message(kind, PartitionNumber(partition), 0, 0) }
    }

    fn answer(answers: Option<u64>, owns: bool, updates: usize, tenure: Option<u64>) -> PartitionStatus {
        PartitionStatus { updates, answers, owns, tenure, ..PartitionStatus::default() }
    }

    /// What is read of partition 0 after the question at offset 10, by whom; who is taken for the owner, and whether more
    /// is awaited.
    #[track_caller]
    fn check(reports: &[(&str, PartitionStatus)], expected: Option<(&str, bool)>, awaits: bool) {
        let place = (LayoutNumber(1), PartitionNumber(0));
        let mut query = StatusQuery::new("o".to_owned(), BTreeSet::from([place]));
        query.read(10, message("o", MessageKind::StatusRequest, 0, None));
        for (offset, (process, status)) in (11..).zip(reports) {
            query.read(offset, message(process, MessageKind::StatusReport, 0, Some(status.clone())));
        }
        let known = query.of.get(&place).map(|answer| (answer.instance.as_str(), answer.asked));
        assert_eq!(known, expected, "{reports:?}");
        assert_eq!(!query.awaited.is_empty(), awaits, "{reports:?}");
    }

    #[test]
    fn the_owner_is_waited_for_whatever_standbys_say() {
        let (owner, standby) = (answer(Some(10), true, 3, Some(7)), answer(Some(10), false, 0, None));
        check(&[], None, true);
        check(&[("a", owner.clone())], Some(("a", true)), false);
        check(&[("b", standby.clone())], Some(("b", true)), true);
        check(&[("b", standby.clone()), ("a", owner.clone())], Some(("a", true)), false);
        check(&[("a", owner), ("b", standby)], Some(("a", true)), false);
    }

    #[test]
    fn of_two_owners_the_one_with_the_newer_claim_counts() {
        let of = |tenure| answer(Some(10), true, 3, tenure);
        check(&[("a", of(Some(7))), ("b", of(Some(8)))], Some(("b", true)), false);
        check(&[("b", of(Some(8))), ("a", of(Some(7)))], Some(("b", true)), false);
        check(&[("b", of(Some(8))), ("a", of(None))], Some(("b", true)), false);
    }

    #[test]
    fn a_report_from_before_the_request_is_no_answer_to_it() {
        check(&[("a", answer(Some(9), true, 3, Some(7)))], Some(("a", false)), true);
        check(&[("a", answer(Some(11), true, 3, Some(7)))], Some(("a", true)), false);
        // As a program of before questions tells it while its layout drains.
        check(&[("a", answer(None, false, 3, None))], Some(("a", false)), true);
    }

    #[test]
    fn questions_of_others_and_other_layouts_answer_nothing() {
        let place = (LayoutNumber(1), PartitionNumber(0));
        let mut query = StatusQuery::new("o".to_owned(), BTreeSet::from([place]));
        query.read(9, message("other", MessageKind::StatusRequest, 0, None));
        let reports = Some(answer(Some(9), true, 3, Some(7)));
        query.read(10, message("a", MessageKind::StatusReport, 0, reports.clone()));
        let of_another_layout =
            MemberMessage { layout: 2, ..message("a", MessageKind::StatusReport, 0, reports) };
        query.read(11, of_another_layout);
        assert_eq!(query.awaited, BTreeSet::from([place]));
        assert_eq!(query.of.len(), 2, "told, and not as an answer");
    }
}

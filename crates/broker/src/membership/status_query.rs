//! Asks the owners of partitions what they hold, over the stream of members: a request, and what is published after it.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use lapin::BasicProperties;
use tokio::time::{Instant, timeout_at};
use uuid::Uuid;

use super::message::{MemberMessage, MessageKind, PartitionStatus, READING, ReplicaId, parse};
use crate::channel::confirm_channel::Message;
use crate::channel::stream_reader::{StreamOffset, offset_of};
use crate::connection::Connection;
use crate::error::SourceError;
use crate::names::Names;
use crate::topology::session::TopologySession;
use lanekeeper_core::error::error_chain;
use lanekeeper_core::layout::{LayoutNumber, PartitionNumber};

/// How long an operator waits for answers. Owners answer within milliseconds, and at most once a second.
pub const STATUS_TIMEOUT: Duration = Duration::from_secs(2);

const ASKING: &str = "asking the owners of partitions";

/// A partition of a layout.
pub(crate) type PartitionOfLayout = (LayoutNumber, PartitionNumber);

/// What is known of a partition from those who consume it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StatusAnswer {
    /// `instance.name` of the owner, or of a standby if nothing came from the owner.
    pub instance: String,
    /// What it holds.
    pub status: PartitionStatus,
    /// True if it was published in answer to this request. Otherwise nobody had asked, or it is from a program that does not
    /// know requests; it was then published at most two seconds before it was read.
    pub asked: bool,
    priority: i32,
}

impl StatusAnswer {
    /// The owner's answer counts, not that of a standby. If two processes say that they own the partition, one of them does
    /// not know yet that it was replaced: the newer claim counts, then the one that the broker is to prefer.
    fn rank(&self) -> (bool, bool, Option<u64>, i32) {
        (self.is_of_the_owner(), self.asked, self.status.tenure, self.priority)
    }

    /// Returns true if it comes from the owner of the partition. Programs that do not know requests do not say so; a standby
    /// holds nothing.
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

/// A request, and the answers so far. Pure.
struct StatusQuery {
    process: String,
    /// Partitions with an owner that has not answered.
    awaited: BTreeSet<PartitionOfLayout>,
    /// Offset of the request, by layout, once it was read back.
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
                // An answer to a later request is one to this request, too.
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
            | MessageKind::Note
            | MessageKind::TenureEnded
            | MessageKind::Moved
            | MessageKind::TargetBelieved
            | MessageKind::Inquiry
            | MessageKind::ProcessEnded => {}
        }
    }
}

/// Asks what is held of these partitions, which have an owner. Returns once all have answered or the time is up, also with
/// what came of other partitions by then.
pub(crate) async fn ask(
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
        // No dispatcher has run that could answer.
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

/// Returns once all have answered.
async fn ask_for_ever(
    connection: &Connection,
    names: &Names,
    instance: &str,
    query: &mut StatusQuery,
) -> Result<(), SourceError> {
    let mut session = TopologySession::new(connection, names, instance);
    let stream = names.members();
    let mut reader = session.read_stream(&stream, StreamOffset::Next, READING).await?;
    let messages = query.layouts().into_iter().map(|layout| {
        let replica = ReplicaId { instance: instance.to_owned(), process: query.process.clone(), layout };
        replica.message(MessageKind::StatusRequest, PartitionNumber(0), 0, 0).body()
    });
    let messages: Vec<Vec<u8>> = messages.collect();
    let properties = || BasicProperties::default().with_content_type("application/json".into());
    let messages = messages.iter().map(|message| Message::to_queue(&stream, properties(), message)).collect();
    // Reading it back is the proof that it was taken.
    session.publish_all(ASKING, &format!("stream {stream}"), messages).await?;
    while !query.awaited.is_empty() {
        let delivery = reader.next().await?;
        if let (Some(offset), Some(message)) = (offset_of(&delivery), parse(&delivery.data)) {
            query.read(offset, message);
        }
    }
    reader.close().await;
    session.close().await;
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

    /// What is read of partition 0 after the request at offset 10, and from whom; who counts as the owner, and if more is
    /// awaited.
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
    fn a_status_from_before_the_request_is_no_answer_to_it() {
        check(&[("a", answer(Some(9), true, 3, Some(7)))], Some(("a", false)), true);
        check(&[("a", answer(Some(11), true, 3, Some(7)))], Some(("a", true)), false);
        // As a program that does not know requests publishes it while its layout drains.
        check(&[("a", answer(None, false, 3, None))], Some(("a", false)), true);
    }

    #[test]
    fn requests_of_others_and_other_layouts_answer_nothing() {
        let place = (LayoutNumber(1), PartitionNumber(0));
        let mut query = StatusQuery::new("o".to_owned(), BTreeSet::from([place]));
        query.read(9, message("other", MessageKind::StatusRequest, 0, None));
        let reports = Some(answer(Some(9), true, 3, Some(7)));
        query.read(10, message("a", MessageKind::StatusReport, 0, reports.clone()));
        let of_another_layout =
            MemberMessage { layout: 2, ..message("a", MessageKind::StatusReport, 0, reports) };
        query.read(11, of_another_layout);
        assert_eq!(query.awaited, BTreeSet::from([place]));
        assert_eq!(query.of.len(), 2, "known, but not as an answer");
    }
}

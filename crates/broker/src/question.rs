//! Asks the owners of partitions what they hold, over the stream of members: a question, and what is told after it.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use lapin::BasicProperties;
use lapin::Connection;
use lapin::options::BasicPublishOptions;
use tokio::time::{Instant, timeout_at};
use uuid::Uuid;

use super::document::{self, From};
use super::error::SourceError;
use super::members::offset_of;
use super::names::Names;
use super::roster::{Holding, Kind, Note, Oneself, parse};
use super::topology::{close, open};
use lanekeeper_core::error::chain;
use lanekeeper_core::layout::{LayoutNumber, PartitionNumber};

/// How long whoever asks waits for answers. Owners answer within milliseconds, and at most once a second.
pub const ANSWER_PATIENCE: Duration = Duration::from_secs(2);

const READING: &str = "reading the stream of members";
const ASKING: &str = "asking the owners of partitions";

/// A partition of a layout.
pub(super) type Place = (LayoutNumber, PartitionNumber);

/// What is known of a partition from those who consume it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// `instance.name` of the owner, or of a standby where the owner has told nothing.
    pub instance: String,
    /// What it holds.
    pub holding: Holding,
    /// Whether it was told after the question. Otherwise it was told unasked, at most two seconds before it was read, as
    /// programs do that do not know questions.
    pub asked: bool,
    priority: i32,
}

impl Answer {
    /// The owner's answer counts, not that of a standby. Where two say that they own it, one of them has not heard yet
    /// that it was replaced: the newer claim counts, then the one that the broker is to prefer.
    fn rank(&self) -> (bool, bool, Option<u64>, i32) {
        (self.is_of_the_owner(), self.asked, self.holding.tenure, self.priority)
    }

    /// Whether whoever has told it owns the partition. Programs that know no questions do not say so; a standby holds
    /// nothing.
    #[must_use]
    pub fn is_of_the_owner(&self) -> bool {
        self.holding.owns || (self.holding.answers.is_none() && self.holding.updates > 0)
    }
}

/// What was answered, and what was not.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Answers {
    /// By partition.
    pub of: BTreeMap<(LayoutNumber, PartitionNumber), Answer>,
    /// Why nobody could be asked, or why some may not have answered; `None`: nothing is known against it.
    pub fault: Option<String>,
}

/// A question on its way, and what has come of it. Pure.
struct Question {
    process: String,
    /// Partitions with an owner that has not answered.
    awaited: BTreeSet<Place>,
    /// Offset of the question, by layout, once it was read back.
    asked: BTreeMap<LayoutNumber, u64>,
    of: BTreeMap<Place, Answer>,
}

impl Question {
    fn new(process: String, awaited: BTreeSet<Place>) -> Self {
        Self { process, awaited, asked: BTreeMap::new(), of: BTreeMap::new() }
    }

    fn layouts(&self) -> BTreeSet<LayoutNumber> {
        self.awaited.iter().map(|(layout, _)| *layout).collect()
    }

    fn read(&mut self, offset: u64, note: Note) {
        let layout = LayoutNumber(note.layout);
        match note.kind {
            Kind::Asks if note.process == self.process => {
                self.asked.insert(layout, offset);
            }
            Kind::Holds => {
                let Some(holding) = note.holding else { return };
                let place = (layout, PartitionNumber(note.partition));
                // Whoever answers a later question has read this one.
                let asked = self.asked.get(&layout).is_some_and(|asked| holding.answers >= Some(*asked));
                let answer = Answer { instance: note.instance, holding, asked, priority: note.priority };
                if asked && answer.is_of_the_owner() {
                    self.awaited.remove(&place);
                }
                let better = self.of.get(&place).is_none_or(|known| known.rank() <= answer.rank());
                if better {
                    self.of.insert(place, answer);
                }
            }
            Kind::Asks | Kind::Attached | Kind::Claimed | Kind::Moved => {}
        }
    }
}

/// Asks what is held of these partitions, which have an owner, and answers once all have answered or the time is up. What
/// is told of other partitions meanwhile is answered as well.
pub(super) async fn ask(
    connection: &Connection,
    names: &Names,
    instance: &str,
    awaited: BTreeSet<Place>,
) -> Answers {
    let mut question = Question::new(Uuid::new_v4().to_string(), awaited);
    if question.awaited.is_empty() {
        return Answers::default();
    }
    let until = Instant::now() + ANSWER_PATIENCE;
    let fault = match timeout_at(until, ask_for_ever(connection, names, instance, &mut question)).await {
        // Nobody was ever there who could answer.
        Ok(Err(SourceError::Missing { .. })) => {
            Some(format!("the stream {} is not there", names.members()))
        }
        Ok(Err(fault)) => Some(chain(&fault)),
        Err(_) if connection.status().blocked() => Some(
            "the broker takes no publishes, since it has a memory or disk alarm: nobody can be asked, and nobody can \
             answer"
                .to_owned(),
        ),
        Ok(Ok(())) | Err(_) => None,
    };
    Answers { of: question.of, fault }
}

/// Done once all have answered.
async fn ask_for_ever(
    connection: &Connection,
    names: &Names,
    instance: &str,
    question: &mut Question,
) -> Result<(), SourceError> {
    let stream = names.members();
    let about = |fault| match fault {
        SourceError::Amqp { source, .. } => {
            SourceError::from_amqp(READING, &format!("stream {stream}"), names.public(), *source)
        }
        fault => fault,
    };
    let channel = open(connection).await?;
    let mut consumer = document::consume(&channel, &stream, From::Next).await.map_err(about)?;
    for layout in question.layouts() {
        let oneself = Oneself { instance: instance.to_owned(), process: question.process.clone(), layout };
        let note = oneself.note(Kind::Asks, PartitionNumber(0), 0, 0);
        let body = serde_json::to_vec(&note).expect("a note is plain data");
        let properties = BasicProperties::default().with_content_type("application/json".into());
        let properties = properties.with_delivery_mode(2);
        let options = BasicPublishOptions::default();
        // Reading it back is the proof that it was taken.
        let publishing = channel.basic_publish("".into(), stream.as_str().into(), options, &body, properties);
        publishing.await.map_err(SourceError::amqp(ASKING)).map_err(about)?;
    }
    while !question.awaited.is_empty() {
        let delivery = document::next(&mut consumer).await.map_err(about)?;
        if let (Some(offset), Some(note)) = (offset_of(&delivery), parse(&delivery.data)) {
            question.read(offset, note);
        }
    }
    close(channel).await;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn note(process: &str, kind: Kind, partition: u16, holding: Option<Holding>) -> Note {
        let (instance, layout) = (process.to_owned(), LayoutNumber(1));
        let oneself = Oneself { instance, process: process.to_owned(), layout };
        Note { holding, ..oneself.note(kind, PartitionNumber(partition), 0, 0) }
    }

    fn answer(answers: Option<u64>, owns: bool, updates: usize, tenure: Option<u64>) -> Holding {
        Holding { updates, answers, owns, tenure, ..Holding::default() }
    }

    /// What is read of partition 0 after the question at offset 10, by whom; who is taken for the owner, and whether more
    /// is awaited.
    #[track_caller]
    fn check(told: &[(&str, Holding)], expected: Option<(&str, bool)>, awaits: bool) {
        let place = (LayoutNumber(1), PartitionNumber(0));
        let mut question = Question::new("o".to_owned(), BTreeSet::from([place]));
        question.read(10, note("o", Kind::Asks, 0, None));
        for (offset, (process, holding)) in (11..).zip(told) {
            question.read(offset, note(process, Kind::Holds, 0, Some(holding.clone())));
        }
        let known = question.of.get(&place).map(|answer| (answer.instance.as_str(), answer.asked));
        assert_eq!(known, expected, "{told:?}");
        assert_eq!(!question.awaited.is_empty(), awaits, "{told:?}");
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
    fn what_was_told_before_the_question_is_no_answer_to_it() {
        check(&[("a", answer(Some(9), true, 3, Some(7)))], Some(("a", false)), true);
        check(&[("a", answer(Some(11), true, 3, Some(7)))], Some(("a", true)), false);
        // As a program of before questions tells it while its layout drains.
        check(&[("a", answer(None, false, 3, None))], Some(("a", false)), true);
    }

    #[test]
    fn questions_of_others_and_other_layouts_answer_nothing() {
        let place = (LayoutNumber(1), PartitionNumber(0));
        let mut question = Question::new("o".to_owned(), BTreeSet::from([place]));
        question.read(9, note("other", Kind::Asks, 0, None));
        let told = Some(answer(Some(9), true, 3, Some(7)));
        question.read(10, note("a", Kind::Holds, 0, told.clone()));
        let of_another_layout = Note { layout: 2, ..note("a", Kind::Holds, 0, told) };
        question.read(11, of_another_layout);
        assert_eq!(question.awaited, BTreeSet::from([place]));
        assert_eq!(question.of.len(), 2, "told, and not as an answer");
    }
}

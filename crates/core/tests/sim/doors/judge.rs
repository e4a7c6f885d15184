//! What must hold.

use std::collections::{BTreeMap, HashMap};

use lanekeeper_core::publish::intake::LineAnswer;

use super::Carried;
use super::door::{Door, Tag};
use super::sender::Sender;

/// What a sender is reply of its request.
#[derive(Clone, Debug)]
pub(super) enum HttpReply {
    OfLines(Vec<LineAnswer>),
    Refused,
    IdReused,
    /// The connection ended.
    CutOff,
    /// It did not wait.
    HungUp,
}

/// As its sender sees it.
#[derive(Clone, Debug)]
pub(super) enum Response {
    OfLines(Vec<LineAnswer>),
    /// Nothing of it was published.
    Refused(&'static str),
    Nothing(&'static str),
}

impl From<HttpReply> for Response {
    fn from(reply: HttpReply) -> Self {
        match reply {
            HttpReply::OfLines(answers) => Self::OfLines(answers),
            HttpReply::Refused => Self::Refused("refused"),
            HttpReply::IdReused => Self::Refused("id reused"),
            HttpReply::CutOff => Self::Nothing("cut off"),
            HttpReply::HungUp => Self::Nothing("hung up"),
        }
    }
}

/// What was said of a submission.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum SubmissionEnd {
    /// It is not published again.
    NotAgain,
    /// It has not arrived, and will not.
    NotThere,
}

#[derive(Debug, Default)]
struct Carriers {
    open: usize,
    /// Some request that carried it may have brought it to the broker.
    may_be_there: bool,
}

pub(super) struct DoorsJudge {
    /// Nothing arrives late, so that order holds without a ledger.
    is_strict: bool,
    carriers: HashMap<Carried, Carriers>,
    verdicts: HashMap<Tag, SubmissionEnd>,
    /// By record, the newest update that arrived.
    newest: Vec<Option<usize>>,
    pub(super) counts: BTreeMap<&'static str, u64>,
}

impl DoorsJudge {
    pub(super) fn new(records: usize, is_strict: bool) -> Self {
        Self {
            is_strict,
            carriers: HashMap::new(),
            verdicts: HashMap::new(),
            newest: vec![None; records],
            counts: BTreeMap::new(),
        }
    }

    fn count(&mut self, what: &'static str) {
        *self.counts.entry(what).or_default() += 1;
    }

    pub(super) fn sent(&mut self, carried: &[Carried]) {
        for carried in carried {
            self.carriers.entry(*carried).or_default().open += 1;
        }
    }

    pub(super) fn may_be_there(&self, carried: Carried) -> bool {
        self.carriers.get(&carried).is_some_and(|carriers| carriers.may_be_there || carriers.open > 0)
    }

    pub(super) fn verdict(&mut self, tag: Tag, verdict: SubmissionEnd) {
        self.verdicts.insert(tag, verdict);
    }

    pub(super) fn published(&mut self, tag: Tag, again: bool) {
        let verdict = self.verdicts.get(&tag);
        assert!(verdict.is_none(), "judge (withdrawn): {tag:?} is published, after {verdict:?}");
        if again {
            self.count("again");
        }
    }

    /// It comes to the queue.
    pub(super) fn arrived(&mut self, tag: Tag, carried: Carried, sender: &Sender, queue: &[Carried]) {
        let verdict = self.verdicts.get(&tag);
        assert!(
            verdict != Some(&SubmissionEnd::NotThere),
            "judge (withdrawn): {tag:?} arrives, after {verdict:?}"
        );
        assert!(
            self.may_be_there(carried),
            "judge (not accepted): {carried:?} arrives, and was refused by all"
        );
        if carried.is_impostor {
            return;
        }
        let Carried { record, sequence, .. } = carried;
        if !queue.contains(&carried) {
            let newest = self.newest[record];
            assert!(newest < Some(sequence), "judge (order): {carried:?} arrives after {newest:?}");
            self.newest[record] = Some(sequence);
        }
        let next = sender.next;
        assert!(
            !self.is_strict || sequence >= next,
            "judge (late): {carried:?} arrives, and its sender is at {next}"
        );
    }

    pub(super) fn response(&mut self, carried: &[Carried], response: &Response, queue: &[Carried]) {
        match response {
            Response::Refused(what) | Response::Nothing(what) => self.count(what),
            Response::OfLines(_) => {}
        }
        for (index, carried) in carried.iter().enumerate() {
            let carriers = self.carriers.get_mut(carried).expect("it was sent");
            carriers.open -= 1;
            let name = match response {
                Response::Refused(_) => None,
                Response::Nothing(_) => {
                    carriers.may_be_there = true;
                    None
                }
                Response::OfLines(answers) => {
                    carriers.may_be_there |= answers[index] != LineAnswer::NotAccepted;
                    Some(match answers[index] {
                        LineAnswer::Accepted => "accepted",
                        LineAnswer::Known => "known",
                        LineAnswer::NotAccepted => "not accepted",
                        LineAnswer::Unknown => "unknown",
                    })
                }
            };
            let is_refused = !self.may_be_there(*carried);
            assert!(
                !is_refused || !queue.contains(carried),
                "judge (not accepted): {carried:?} has arrived, and was refused by all"
            );
            if let Some(name) = name {
                self.count(name);
            }
        }
    }

    pub(super) fn bounds(door: &Door) {
        let (updates, bytes) = door.intake.load();
        let limits = &door.limits;
        assert!(updates <= limits.pending_max, "judge (bounds): {updates} updates wait");
        let bytes_max = limits.pending_bytes_max;
        assert!(bytes <= bytes_max, "judge (bounds): {bytes} bytes wait, over {bytes_max}");
        let (_, held) = door.outbox.load();
        assert!(held <= updates, "judge (bounds): the outbox holds {held}, and {updates} wait");
    }

    pub(super) fn ended(&self, record: usize, sender: &Sender) {
        let newest = self.newest[record];
        let last = (0..sender.next).rev().find(|sequence| !sender.passed.contains(sequence));
        assert!(newest >= last, "judge (complete): record {record} ends at {newest:?}, and not at {last:?}");
    }
}

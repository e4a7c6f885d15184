//! What a record must be said to wait for, by what a world knows from outside: which requests are out, how attempts ended, who
//! may send, and what is used up. The worlds of limits, layouts and clusters ask with it; `judge/why` is that of the others.
//! It does not use the table that prints causes.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::time::Duration;

use lanekeeper_core::message::{Tenure, TenureNumber};
use lanekeeper_core::partition::{Explained, Partition};
use lanekeeper_core::tick::Tick;
use lanekeeper_core::update::RecordKey;
use lanekeeper_core::why::WaitCause;

/// Ends the world: what broke the rule.
macro_rules! fault {
    ($($what:tt)*) => { panic!("judge (why): {}", format_args!($($what)*)) };
}

/// How often each cause was the answer.
#[derive(Clone, Debug, Default)]
pub struct CausesMet(BTreeMap<&'static str, u64>);

impl CausesMet {
    pub fn count_all<'a>(&mut self, causes: impl IntoIterator<Item = &'a WaitCause>) {
        for cause in causes {
            *self.0.entry(cause.into()).or_default() += 1;
        }
    }

    pub fn add(&mut self, other: &Self) {
        for (cause, times) in &other.0 {
            *self.0.entry(cause).or_default() += times;
        }
    }

    /// A quiet world proves nothing.
    pub fn check(&self, causes: &[&str], least: u64) {
        for cause in causes {
            let times = self.0.get(cause).copied().unwrap_or_default();
            assert!(times >= least, "the cause {cause} was the answer {times} times only: {:?}", self.0);
        }
    }
}

/// The latest attempt of an update by this process.
#[derive(Clone, Copy, Debug)]
pub struct LastAttempt {
    pub number: u32,
    pub began: Tick,
    pub tenure: Tenure,
    /// `None`: it is out.
    pub ended: Option<AttemptEnd>,
}

/// How it failed. The next one comes not before `from`, and not after `until` for this reason.
#[derive(Clone, Copy, Debug)]
pub struct AttemptEnd {
    pub refused: bool,
    pub from: Tick,
    pub until: Tick,
}

/// The latest attempts of updates by one process at a target that either applies or fails.
#[derive(Debug)]
pub struct Attempts {
    /// Between attempts, in milliseconds: after the first, and after each later one.
    waits: [u64; 2],
    of: BTreeMap<usize, LastAttempt>,
    rival_claim: Option<TenureNumber>,
}

impl Attempts {
    pub fn new(waits: [u64; 2]) -> Self {
        Self { waits, of: BTreeMap::new(), rival_claim: None }
    }

    pub fn last(&self, update: usize) -> Option<LastAttempt> {
        self.of.get(&update).copied()
    }

    pub fn began(&mut self, now: Tick, tenure: Tenure, update: usize, number: u32) {
        self.of.insert(update, LastAttempt { number, began: now, tenure, ended: None });
    }

    pub fn ended(&mut self, now: Tick, update: usize, fails: bool) {
        let Some(last) = self.of.get_mut(&update).filter(|_| fails) else {
            self.of.remove(&update);
            return;
        };
        let until = now.after(Duration::from_millis(self.waits[usize::from(last.number > 1)]));
        last.ended = Some(AttemptEnd { refused: false, from: until, until });
    }

    /// Returns true if another process has owned the partition since: what is known of its updates is forgotten, but for
    /// requests that are out.
    pub fn claimed(&mut self, rival_claim: Option<TenureNumber>) -> bool {
        let lapsed = rival_claim.is_some() && rival_claim != self.rival_claim;
        if lapsed {
            self.rival_claim = rival_claim;
            self.of.retain(|_, last| last.ended.is_none());
        }
        lapsed
    }

    /// Another process has owned the partition.
    pub fn has_lapsed(&self) -> bool {
        self.rival_claim.is_some()
    }
}

/// A request of the record, or a resolution that is being written down.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct UnderWay {
    /// It is of the oldest update that is held.
    pub of_head: bool,
    pub in_this_tenure: bool,
}

/// If the partition may send.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum MaySend {
    Yes,
    Unclaimed,
    Lapsed,
    Stopping,
}

/// What a world knows of a record of which a partition holds updates.
#[derive(Debug)]
pub struct Known {
    /// Who is asked, and for what.
    pub name: String,
    /// Its oldest update that is held.
    pub head: usize,
    /// Its updates that are held.
    pub updates: usize,
    /// The partition was ours when the oldest one came, or has been since: it has its lane.
    pub in_lane: bool,
    /// Updates of other records that go first, since one goes after the other.
    pub before: usize,
    pub tenure: Tenure,
    pub may_send: MaySend,
    pub out: Option<UnderWay>,
    pub written: Option<UnderWay>,
    /// The partition of the previous layout that is not drained, as far as the driver was told.
    pub previous: Option<u16>,
    pub last: Option<LastAttempt>,
    /// The partition is about to be woken: what has waited for a time may still do so.
    pub is_due: bool,
    /// What an earlier tenure knew of its updates may be forgotten.
    pub may_be_forgotten: bool,
    /// Until when its head waits for requests of owners before this one.
    pub take_over: Option<Tick>,
    /// Requests need permits, and none is left over.
    pub paced: bool,
    pub in_flight: usize,
    pub in_flight_max: usize,
}

/// An answer that is right.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Answer {
    InFlight,
    EarlierAttempt,
    Recording,
    EarlierRecording,
    HandBack,
    Previous(u16),
    Retry,
    Refused,
    Claim,
    LeaseLapsed,
    TakeOver,
    Limit,
    Room,
}

impl Answer {
    fn of(cause: &WaitCause) -> Option<Self> {
        Some(match cause {
            WaitCause::InFlight { .. } => Self::InFlight,
            WaitCause::EarlierAttempt => Self::EarlierAttempt,
            WaitCause::Recording { .. } => Self::Recording,
            WaitCause::EarlierRecording => Self::EarlierRecording,
            WaitCause::HandBack => Self::HandBack,
            WaitCause::PreviousLayout { partition } => Self::Previous(*partition),
            WaitCause::Retry { .. } => Self::Retry,
            WaitCause::Refused { .. } => Self::Refused,
            WaitCause::Claim => Self::Claim,
            WaitCause::LeaseLapsed => Self::LeaseLapsed,
            WaitCause::TakeOver => Self::TakeOver,
            WaitCause::Limit { .. } => Self::Limit,
            WaitCause::Room { .. } => Self::Room,
            _ => return None,
        })
    }
}

impl Known {
    /// What may be said of it now; more than one where the world cannot tell.
    fn answers(&self, now: Tick) -> Vec<Answer> {
        let without_permit = match self.may_send {
            MaySend::Yes => None,
            MaySend::Unclaimed => Some(Answer::Claim),
            MaySend::Lapsed => Some(Answer::LeaseLapsed),
            MaySend::Stopping => Some(Answer::HandBack),
        };
        if !self.in_lane {
            return without_permit.into_iter().collect();
        }
        let mut answers = Vec::new();
        // What an earlier tenure began goes on under its name, if it is known again. Otherwise it is in the way of the head,
        // which does not matter to who gives the partition back.
        let is_stopping = self.may_send == MaySend::Stopping;
        for (under_way, own, earlier) in [
            (self.out, Answer::InFlight, Answer::EarlierAttempt),
            (self.written, Answer::Recording, Answer::EarlierRecording),
        ] {
            let earlier = if is_stopping { Answer::HandBack } else { earlier };
            match under_way {
                None => {}
                Some(UnderWay { of_head: true, in_this_tenure: true }) => return vec![own],
                Some(UnderWay { of_head: true, .. }) if !self.may_be_forgotten => return vec![own],
                Some(UnderWay { of_head: true, .. }) => answers.extend([own, earlier]),
                Some(UnderWay { of_head: false, .. }) => answers.push(earlier),
            }
        }
        if !answers.is_empty() {
            return answers;
        }
        if is_stopping {
            return vec![Answer::HandBack];
        }
        if let Some(previous) = self.previous {
            return vec![Answer::Previous(previous)];
        }
        let is_sure = |last: &LastAttempt| last.tenure == self.tenure || !self.may_be_forgotten;
        if let Some((last, end)) = self.last.as_ref().and_then(|last| Some((last, last.ended?)))
            && (now < end.until || self.is_due)
        {
            answers.push(if end.refused { Answer::Refused } else { Answer::Retry });
            if now < end.from && is_sure(last) {
                return answers;
            }
        }
        let full = self.in_flight == self.in_flight_max;
        let begun = self.last.as_ref().is_some_and(is_sure);
        if self.take_over.is_some_and(|until| now < until || self.is_due) && !begun {
            answers.push(Answer::TakeOver);
            if self.last.is_none() && !full && without_permit.is_none() {
                return answers;
            }
        }
        // Its turn had come before the partition was lost.
        if self.paced && !(self.may_send == MaySend::Unclaimed) {
            answers.push(Answer::Limit);
        }
        match without_permit {
            Some(answer) => answers.push(answer),
            None if full => answers.push(Answer::Room),
            None => {}
        }
        answers
    }

    /// `first`: what the oldest update of the partition waits for, where one goes after the other.
    pub fn judge(&self, now: Tick, explained: Option<&Explained>, first: Option<&WaitCause>) {
        let (name, head) = (&self.name, self.head);
        let Some(explained) = explained else {
            fault!("{name}: #{head} is held, and nothing is said of what it waits for");
        };
        let cause = &explained.cause;
        if explained.head.published_at != Some(head as u64) {
            fault!("{name}: #{head} is its oldest update, not #{:?}", explained.head.published_at);
        }
        if explained.behind + 1 != self.updates {
            fault!("{name}: {} updates are held, not {}", self.updates, explained.behind + 1);
        }
        if explained.since > now {
            fault!("{name}: it waits since {:?}, which has not come", explained.since);
        }
        if self.in_lane && self.before > 0 {
            let WaitCause::Strict { before, first: said } = cause else {
                fault!("{name}: {cause:?}, though {} updates go first", self.before);
            };
            if *before != self.before || Some(said.as_ref()) != first {
                fault!(
                    "{name}: {cause:?}, though {} go first, of which the first waits for {first:?}",
                    self.before
                );
            }
            return;
        }
        let answers = self.answers(now);
        let answer = Answer::of(cause);
        if answers.is_empty() {
            fault!("{name}: {cause:?}, though nothing keeps #{head} back");
        }
        if !answer.is_some_and(|answer| answers.contains(&answer)) {
            fault!("{name}: {cause:?} is said, and it must be one of {answers:?}: {self:?}");
        }
        self.judge_figures(now, explained);
    }

    /// The figures of an answer that is right.
    fn judge_figures(&self, now: Tick, explained: &Explained) {
        let (name, cause) = (&self.name, &explained.cause);
        let ends_at = match (cause, self.last) {
            (WaitCause::InFlight { attempt }, Some(last)) => {
                if *attempt != last.number || explained.head.latest_began != Some(last.began) {
                    fault!("{name}: {cause:?} of {:?}, though it is {last:?}", explained.head);
                }
                None
            }
            (WaitCause::Retry { attempts, .. } | WaitCause::Refused { attempts, .. }, Some(last)) => {
                let end = last.ended.expect("it was looked at");
                if *attempts != last.number
                    || explained
                        .ends_at
                        .is_none_or(|ends_at| ends_at < end.from.max(now) || ends_at > end.until.max(now))
                {
                    fault!("{name}: {cause:?} until {:?}, though it is {last:?}", explained.ends_at);
                }
                explained.ends_at
            }
            (WaitCause::TakeOver, _) => self.take_over.map(|until| until.max(now)),
            (WaitCause::Room { in_flight, in_flight_max, .. }, _) => {
                if (*in_flight, *in_flight_max) != (self.in_flight, self.in_flight_max) {
                    fault!("{name}: {cause:?}, though {} of {} are out", self.in_flight, self.in_flight_max);
                }
                None
            }
            _ => None,
        };
        if explained.ends_at != ends_at {
            fault!("{name}: {cause:?} ends at {:?}, not at {:?}", ends_at, explained.ends_at);
        }
    }
}

/// The lists of records say of each what it is said to wait for alone. `said`: that, each with the place of its oldest update
/// among what is held.
pub fn judge_lists(name: &str, partition: &Partition, now: Tick, mut said: Vec<(usize, Explained)>) {
    said.sort_unstable_by_key(|(place, _)| *place);
    let said: Vec<Explained> = said.into_iter().map(|(_, explained)| explained).collect();
    let oldest = partition.explain_oldest(now, usize::MAX);
    if oldest != said {
        fault!("{name}: the oldest records are {said:?}, and these are said to be: {oldest:?}");
    }
    let mut largest: Vec<usize> = said.iter().map(|explained| explained.behind).collect();
    largest.sort_unstable_by_key(|behind| Reverse(*behind));
    let updates = partition.explain_largest(now, usize::MAX).into_iter().map(|explained| explained.behind);
    if !updates.eq(largest.iter().copied()) {
        fault!("{name}: so many updates are behind the oldest of the largest records: {largest:?}");
    }
    let is_out = |explained: &&Explained| matches!(explained.cause, WaitCause::InFlight { .. });
    let mut out: Vec<&RecordKey> =
        said.iter().filter(is_out).map(|explained| &explained.record_key).collect();
    let in_flight = partition.explain_in_flight(now, usize::MAX);
    let mut in_flight: Vec<&RecordKey> = in_flight.iter().map(|explained| &explained.record_key).collect();
    out.sort_unstable();
    in_flight.sort_unstable();
    if out != in_flight {
        fault!("{name}: {out:?} are in flight, and these are said to be: {in_flight:?}");
    }
}

/// Records that wait for the same thing are in one order, each with all before it.
pub fn judge_order(name: &str, mut said: Vec<usize>) {
    said.sort_unstable();
    if said.iter().enumerate().any(|(place, before)| place != *before) {
        fault!("{name}: of records that wait in one order, so many are said to be before each: {said:?}");
    }
}

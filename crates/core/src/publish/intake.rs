//! Decides which updates a door takes in, and what each request is answered.
//!
//! A request is answered when each of its lines is: accepted once the broker has confirmed it, known if it was confirmed
//! before, or withdrawn when its time is over. A repeat of an update that waits joins it. What waits is bounded: in updates
//! and bytes, per record and per client. Pure: time is an argument, and the answers come from [`Intake::next_answer`].

mod allowance;
mod limits;
mod recently_confirmed;

use std::collections::hash_map::Entry;
use std::collections::{BTreeSet, HashMap, VecDeque};

use super::outbox::{NotConfirmedReason, PublishReceipt, PublishResult, SubmissionId};
use crate::tick::Tick;
use crate::update::RecordKey;
use allowance::Allowance;
pub use limits::{ClientLimits, IntakeLimits, NotAdmitted};
use recently_confirmed::RecentlyConfirmed;

/// Stands for a record key and an update id: a hash that two of them never share by chance.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct UpdateName(pub [u8; 16]);

/// Tells bodies apart: a hash that two of them never share by chance.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct BodyHash(pub [u8; 16]);

/// A request that waits for its answer. Never used twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RequestId(pub u64);

/// An update that a request brings: one of its lines.
#[derive(Clone, Debug)]
pub struct Offer {
    /// Of its record key and id.
    pub name: UpdateName,
    /// Of its body.
    pub body_hash: BodyHash,
    /// Its record.
    pub record_key: RecordKey,
    /// What it takes of the bound on bytes.
    pub bytes: usize,
}

/// What a line is answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum LineAnswer {
    /// The broker has it.
    Accepted,
    /// The broker has had it for a while: it was accepted before, and is not published again.
    Known,
    /// The broker does not have it, and will not get it.
    NotAccepted,
    /// It was published, and nobody knows if the broker has it. It is not published again.
    Unknown,
}

/// A request that was admitted. Its answer comes from [`Intake::next_answer`].
#[derive(Clone, Debug)]
pub struct Admitted {
    /// Names the request.
    pub request_id: RequestId,
    /// The lines to publish, by their index, in this order. Others are known, or joined one that waits.
    pub submit: Vec<(usize, SubmissionId)>,
}

/// Updates that nobody waits for any longer: for [`Outbox::withdraw`](super::outbox::Outbox::withdraw).
pub type Withdrawn = Vec<(RecordKey, SubmissionId)>;

/// An update between its submission and its receipt.
#[derive(Debug)]
struct Pending {
    line: Offer,
    client: usize,
    status: PendingStatus,
}

/// Whose answer an update decides.
#[derive(Debug)]
enum PendingStatus {
    /// Lines of requests wait for it, at least one. A repeat joins. Leaves to `Withdrawing`, or with its receipt.
    Expected(Vec<(RequestId, usize)>),
    /// Nobody waits for its confirm any more, and these lines for what the outbox says. A repeat is a submission of its own,
    /// behind it. Leaves to `InFlight`, or with its receipt.
    Withdrawing(Vec<(RequestId, usize)>),
    /// It is withdrawn, and its publish has no answer yet. Leaves with its receipt.
    InFlight,
}

#[derive(Clone, Copy, Debug)]
enum LineStatus {
    Waits(SubmissionId),
    Done(LineAnswer),
}

#[derive(Debug)]
struct Request {
    lines: Vec<LineStatus>,
    /// How many of them wait.
    waiting: usize,
    deadline: Tick,
}

/// What a line would be.
enum Place {
    Known,
    Joins(SubmissionId),
    JoinsLine(usize),
    New,
}

/// See the module.
#[derive(Debug)]
pub struct Intake {
    limits: IntakeLimits,
    /// The newest pending update of each name.
    by_name: HashMap<UpdateName, SubmissionId>,
    pending: HashMap<SubmissionId, Pending>,
    pending_bytes: usize,
    of_record: HashMap<RecordKey, usize>,
    of_client: Vec<usize>,
    allowances: Vec<Allowance>,
    recently_confirmed: RecentlyConfirmed,
    requests: HashMap<RequestId, Request>,
    deadlines: BTreeSet<(Tick, RequestId)>,
    answers: VecDeque<(RequestId, Vec<LineAnswer>)>,
    submission_id_next: u64,
    request_id_next: u64,
}

impl Intake {
    /// Empty.
    #[must_use]
    pub fn new(limits: IntakeLimits) -> Self {
        Self {
            by_name: HashMap::new(),
            pending: HashMap::new(),
            pending_bytes: 0,
            of_record: HashMap::new(),
            of_client: vec![0; limits.clients.len()],
            allowances: limits.clients.iter().map(|client| Allowance::new(client.rate_max)).collect(),
            recently_confirmed: RecentlyConfirmed::new(limits.remember, limits.remembered_max),
            requests: HashMap::new(),
            deadlines: BTreeSet::new(),
            answers: VecDeque::new(),
            submission_id_next: 0,
            request_id_next: 0,
            limits,
        }
    }

    /// Takes all lines of a request of this client, or none. Its answer comes at the latest when it is withdrawn, which
    /// [`Intake::wake`] begins at the deadline.
    ///
    /// # Errors
    /// Why none was taken.
    ///
    /// # Panics
    /// There is no such client.
    pub fn admit(
        &mut self,
        client: usize,
        lines: &[Offer],
        now: Tick,
        deadline: Tick,
    ) -> Result<Admitted, NotAdmitted> {
        self.recently_confirmed.forget(now);
        let places = self.places(lines)?;
        self.check_limits(client, lines, &places, now)?;
        self.allowances[client].take(lines.len(), now);
        let request_id = RequestId(self.request_id_next);
        self.request_id_next += 1;
        let mut request = Request { lines: Vec::with_capacity(lines.len()), waiting: 0, deadline };
        let mut submit = Vec::new();
        for (index, (line, place)) in lines.iter().zip(places).enumerate() {
            let submission_id = match place {
                Place::Known => {
                    request.lines.push(LineStatus::Done(LineAnswer::Known));
                    continue;
                }
                Place::Joins(submission_id) => submission_id,
                Place::JoinsLine(earlier) => match request.lines[earlier] {
                    LineStatus::Waits(submission_id) => submission_id,
                    LineStatus::Done(_) => unreachable!("a line joins a new one"),
                },
                Place::New => {
                    let submission_id = self.begin(client, line.clone());
                    submit.push((index, submission_id));
                    submission_id
                }
            };
            self.expected(submission_id).push((request_id, index));
            request.lines.push(LineStatus::Waits(submission_id));
            request.waiting += 1;
        }
        self.deadlines.insert((deadline, request_id));
        self.requests.insert(request_id, request);
        self.answer_if_complete(request_id);
        Ok(Admitted { request_id, submit })
    }

    /// What became of a submission.
    pub fn receipt(&mut self, receipt: PublishReceipt, now: Tick) {
        let PublishReceipt { submission_id, result } = receipt;
        let Some(Pending { line, client, status }) = self.pending.remove(&submission_id) else { return };
        self.pending_bytes -= line.bytes;
        self.of_client[client] -= 1;
        if self.by_name.get(&line.name) == Some(&submission_id) {
            self.by_name.remove(&line.name);
        }
        if let Entry::Occupied(mut count) = self.of_record.entry(line.record_key) {
            *count.get_mut() -= 1;
            if *count.get() == 0 {
                count.remove();
            }
        }
        let answer = match result {
            PublishResult::Confirmed => {
                self.recently_confirmed.insert(line.name, line.body_hash, now);
                LineAnswer::Accepted
            }
            PublishResult::NotConfirmed(NotConfirmedReason::NotPublished | NotConfirmedReason::Behind) => {
                LineAnswer::NotAccepted
            }
            PublishResult::NotConfirmed(NotConfirmedReason::Stopped | NotConfirmedReason::Refused(_)) => {
                LineAnswer::Unknown
            }
        };
        match status {
            PendingStatus::Expected(lines) | PendingStatus::Withdrawing(lines) => self.answer(lines, answer),
            PendingStatus::InFlight => {}
        }
    }

    /// A submission that was withdrawn is in flight: it is published, and its receipt will come when it is known.
    pub fn in_flight(&mut self, submission_id: SubmissionId) {
        let Some(pending) = self.pending.get_mut(&submission_id) else { return };
        if let PendingStatus::Withdrawing(lines) =
            std::mem::replace(&mut pending.status, PendingStatus::InFlight)
        {
            self.answer(lines, LineAnswer::Unknown);
        }
    }

    /// Requests whose time is over wait no longer. The updates that nobody else waits for are to be withdrawn, all at once.
    #[must_use]
    pub fn wake(&mut self, now: Tick) -> Withdrawn {
        let mut withdrawn = Withdrawn::new();
        while let Some((deadline, request_id)) = self.deadlines.first().copied()
            && deadline <= now
        {
            self.deadlines.pop_first();
            for (index, submission_id) in self.waiting_lines(request_id) {
                let requests = &self.requests;
                let is_late = |of: &(RequestId, usize)| requests[&of.0].deadline <= now;
                let pending = self.pending.get_mut(&submission_id).expect("what a line waits for is pending");
                let PendingStatus::Expected(lines) = &mut pending.status else { continue };
                if lines.iter().all(is_late) {
                    withdrawn.push(pending.withdraw(submission_id));
                } else {
                    // Somebody has sent it again, and waits for that longer.
                    lines.retain(|of| *of != (request_id, index));
                    self.answer(vec![(request_id, index)], LineAnswer::Unknown);
                }
            }
        }
        withdrawn
    }

    /// Whoever sent the request does not wait for its answer any longer, which will not come. The updates that nobody else
    /// waits for are to be withdrawn, all at once: they may be sent by another way now.
    #[must_use]
    pub fn hung_up(&mut self, request_id: RequestId) -> Withdrawn {
        let waiting = self.waiting_lines(request_id);
        let mut withdrawn = Withdrawn::new();
        for (index, submission_id) in waiting {
            let pending = self.pending.get_mut(&submission_id).expect("what a line waits for is pending");
            match &mut pending.status {
                PendingStatus::Expected(lines) => {
                    lines.retain(|of| *of != (request_id, index));
                    if lines.is_empty() {
                        withdrawn.push(pending.withdraw(submission_id));
                    }
                }
                PendingStatus::Withdrawing(lines) => lines.retain(|of| *of != (request_id, index)),
                PendingStatus::InFlight => {}
            }
        }
        if let Some(request) = self.requests.remove(&request_id) {
            self.deadlines.remove(&(request.deadline, request_id));
        }
        withdrawn
    }

    /// The next answer: one for each line of the request.
    pub fn next_answer(&mut self) -> Option<(RequestId, Vec<LineAnswer>)> {
        self.answers.pop_front()
    }

    /// When [`Intake::wake`] has something to do next.
    #[must_use]
    pub fn next_deadline(&self) -> Option<Tick> {
        self.deadlines.first().map(|(deadline, _)| *deadline)
    }

    /// Updates and bytes between submission and receipt.
    #[must_use]
    pub fn load(&self) -> (usize, usize) {
        (self.pending.len(), self.pending_bytes)
    }

    /// Requests that wait for their answer.
    #[must_use]
    pub fn requests(&self) -> usize {
        self.requests.len()
    }

    /// What each line would be, if nothing stands against all of them.
    fn places(&self, lines: &[Offer]) -> Result<Vec<Place>, NotAdmitted> {
        let mut of_request: HashMap<UpdateName, usize> = HashMap::new();
        let place = |(index, line): (usize, &Offer)| {
            let same = |known: BodyHash, place: Place| {
                if known == line.body_hash { Ok(place) } else { Err(NotAdmitted::IdReused { line: index }) }
            };
            if let Some(known) = self.recently_confirmed.body_hash(line.name) {
                return same(known, Place::Known);
            }
            if let Some(earlier) = of_request.get(&line.name) {
                return same(lines[*earlier].body_hash, Place::JoinsLine(*earlier));
            }
            let Some(submission_id) = self.by_name.get(&line.name) else {
                of_request.insert(line.name, index);
                return Ok(Place::New);
            };
            let pending = &self.pending[submission_id];
            let is_expected = matches!(pending.status, PendingStatus::Expected(_));
            if !is_expected {
                of_request.insert(line.name, index);
            }
            same(pending.line.body_hash, if is_expected { Place::Joins(*submission_id) } else { Place::New })
        };
        lines.iter().enumerate().map(place).collect()
    }

    fn begin(&mut self, client: usize, line: Offer) -> SubmissionId {
        let submission_id = SubmissionId(self.submission_id_next);
        self.submission_id_next += 1;
        self.pending_bytes += line.bytes;
        self.of_client[client] += 1;
        *self.of_record.entry(line.record_key.clone()).or_default() += 1;
        self.by_name.insert(line.name, submission_id);
        let status = PendingStatus::Expected(Vec::new());
        self.pending.insert(submission_id, Pending { line, client, status });
        submission_id
    }

    fn expected(&mut self, submission_id: SubmissionId) -> &mut Vec<(RequestId, usize)> {
        match self.pending.get_mut(&submission_id).map(|pending| &mut pending.status) {
            Some(PendingStatus::Expected(lines)) => lines,
            _ => unreachable!("only what is expected is joined"),
        }
    }

    fn waiting_lines(&self, request_id: RequestId) -> Vec<(usize, SubmissionId)> {
        let lines =
            self.requests.get(&request_id).into_iter().flat_map(|request| request.lines.iter().enumerate());
        let waiting = lines.filter_map(|(index, line)| match line {
            LineStatus::Waits(submission_id) => Some((index, *submission_id)),
            LineStatus::Done(_) => None,
        });
        waiting.collect()
    }

    fn answer(&mut self, lines: Vec<(RequestId, usize)>, answer: LineAnswer) {
        for (request_id, index) in lines {
            let request = self.requests.get_mut(&request_id).expect("a request that waits");
            request.lines[index] = LineStatus::Done(answer);
            request.waiting -= 1;
            self.answer_if_complete(request_id);
        }
    }

    fn answer_if_complete(&mut self, request_id: RequestId) {
        let Some(request) = self.requests.get(&request_id).filter(|request| request.waiting == 0) else {
            return;
        };
        let answered = request.lines.iter().filter_map(|line| match line {
            LineStatus::Done(answer) => Some(*answer),
            LineStatus::Waits(_) => None,
        });
        self.answers.push_back((request_id, answered.collect()));
        self.deadlines.remove(&(request.deadline, request_id));
        self.requests.remove(&request_id);
    }
}

impl Pending {
    /// Its lines wait for what the outbox says from now on.
    fn withdraw(&mut self, submission_id: SubmissionId) -> (RecordKey, SubmissionId) {
        if let PendingStatus::Expected(lines) = &mut self.status {
            self.status = PendingStatus::Withdrawing(std::mem::take(lines));
        }
        (self.line.record_key.clone(), submission_id)
    }
}

#[cfg(test)]
mod tests;

//! A target in memory: answers as a test says, one update after another.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::facts::{Facts, Request};
use super::rng::Rng;
use crate::http::{Attempt, AttemptReceipt, Target};
use lanekeeper_core::outcome::{Cause, Failure, Outcome};

/// What the target does with one request.
#[derive(Clone, Debug)]
pub(super) struct Answer {
    after: Duration,
    outcome: Outcome,
    /// Whether it has the update then, whatever it answers.
    applies: bool,
}

impl Answer {
    pub(super) fn applied() -> Self {
        Self { after: Duration::from_millis(5), outcome: Outcome::Applied, applies: true }
    }

    pub(super) fn status(status: u16) -> Self {
        let failure = Failure { cause: Cause::Status(status), detail: String::new() };
        let outcome = match status {
            400..=499 => Outcome::Rejected(failure),
            _ => Outcome::Retryable { failure, retry_after: None },
        };
        Self { outcome, applies: false, ..Self::applied() }
    }

    /// Applies the update and answers something else.
    pub(super) fn applies_but_answers(status: u16) -> Self {
        Self { applies: true, ..Self::status(status) }
    }

    pub(super) fn after(self, after: Duration) -> Self {
        Self { after, ..self }
    }

    fn drawn(rng: &mut Rng) -> Self {
        let answer = match rng.below(10) {
            0 => Self::status(503),
            1 => Self::applies_but_answers(500),
            2 if rng.below(3) == 0 => Self::status(400),
            _ => Self::applied(),
        };
        // Rarely longer than a drain may take.
        let millis = if rng.below(30) == 0 { 4_000 } else { rng.below(200) };
        answer.after(Duration::from_millis(millis))
    }
}

/// Applies everything, unless a test says otherwise.
pub(super) struct MemoryTarget {
    facts: Facts,
    answers: Mutex<AnswerScript>,
}

#[derive(Default)]
struct AnswerScript {
    /// By update id, the next one first.
    scripted: BTreeMap<String, VecDeque<Answer>>,
    /// Where a test says nothing.
    drawn: Option<Rng>,
}

impl MemoryTarget {
    pub(super) fn new(facts: Facts) -> Self {
        Self { facts, answers: Mutex::default() }
    }

    /// The next request for this update is answered so.
    pub(super) fn answer(&self, id: &str, answer: Answer) {
        let mut answers = self.answers.lock().unwrap_or_else(PoisonError::into_inner);
        answers.scripted.entry(id.to_owned()).or_default().push_back(answer);
    }

    /// From now on answers are drawn by chance; `None`: everything is applied.
    pub(super) fn draw(&self, rng: Option<Rng>) {
        self.answers.lock().unwrap_or_else(PoisonError::into_inner).drawn = rng;
    }

    fn next_answer(&self, id: &str) -> Answer {
        let mut answers = self.answers.lock().unwrap_or_else(PoisonError::into_inner);
        let scripted = answers.scripted.get_mut(id).and_then(VecDeque::pop_front);
        scripted.or_else(|| answers.drawn.as_mut().map(Answer::drawn)).unwrap_or_else(Answer::applied)
    }
}

/// Ends with its request, also where that is dropped.
struct InFlight<'a> {
    facts: &'a Facts,
    id: String,
}

impl Drop for InFlight<'_> {
    fn drop(&mut self) {
        self.facts.request_ended(&self.id);
    }
}

impl Target for MemoryTarget {
    async fn send(&self, attempt: Attempt) -> (Outcome, AttemptReceipt) {
        let id = attempt.update.id.as_str().to_owned();
        let Attempt { number, tenure, trace, .. } = attempt;
        let traceparent = trace.map(|trace| trace.traceparent.to_str().expect("it is text").to_owned());
        let request = Request { id: id.clone(), attempt: number, tenure, at: Instant::now(), traceparent };
        self.facts.request_began(request);
        let in_flight = InFlight { facts: &self.facts, id };
        let Answer { after, outcome, applies } = self.next_answer(&in_flight.id);
        sleep(after).await;
        if applies {
            self.facts.applied(&in_flight.id);
        }
        (outcome, AttemptReceipt::default())
    }
}

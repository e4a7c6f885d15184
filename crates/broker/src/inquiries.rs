//! Inquiries that a person's program puts to all processes, over the stream of members. An answer goes to the queue that the
//! question names, and is stored nowhere else.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};

use serde::{Deserialize, Serialize};
use tokio::sync::mpsc;

use crate::names::Names;

/// Inquiries that wait for their turn in one process (I6). Of more, the newest are passed over: who asks learns that this
/// process did not answer.
const QUESTIONS_MAX: usize = 32;
/// Ids of questions that are known: each is read once by every layout of the process.
const KNOWN_MAX: usize = 64;
/// The longest question, in bytes.
pub(crate) const QUESTION_BYTES_MAX: usize = 4 * 1024;

/// A question, as it stands in the stream: no record key, and nothing else that is secret.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct PublishedInquiry {
    /// Chosen by who asks.
    pub(crate) id: String,
    /// The queue that takes the answers.
    pub(crate) reply_to: String,
    /// What is asked, as the product's programs write it. This crate does not read it.
    pub(crate) text: String,
}

/// A question that this process is to answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Inquiry {
    /// The queue that takes the answer.
    pub reply_to: String,
    /// What is asked.
    pub text: String,
}

/// Takes in what the readers of the stream find. Shared by all layouts of a process.
#[derive(Clone, Debug)]
pub struct Inquiries(Arc<InquiriesState>);

#[derive(Debug)]
struct InquiriesState {
    /// What the names of queues for answers begin with.
    answers: String,
    known: Mutex<VecDeque<String>>,
    sender: mpsc::Sender<Inquiry>,
}

impl Inquiries {
    /// What is asked of this process comes out of the receiver.
    #[must_use]
    pub fn new(names: &Names) -> (Self, mpsc::Receiver<Inquiry>) {
        let (sender, receiver) = mpsc::channel(QUESTIONS_MAX);
        let answers = names.answers("");
        (Self(Arc::new(InquiriesState { answers, known: Mutex::default(), sender })), receiver)
    }

    /// A question was read, perhaps not for the first time.
    pub(crate) fn observe(&self, PublishedInquiry { id, reply_to, text }: &PublishedInquiry) {
        // Answers hold record keys, and go to no other queue. A name has 255 bytes at most.
        let is_queue = reply_to.starts_with(&self.0.answers) && u8::try_from(reply_to.len()).is_ok();
        if !is_queue || id.len() + text.len() > QUESTION_BYTES_MAX {
            return;
        }
        let mut known = self.0.known.lock().unwrap_or_else(PoisonError::into_inner);
        if known.contains(id) {
            return;
        }
        if known.len() == KNOWN_MAX {
            known.pop_front();
        }
        known.push_back(id.clone());
        drop(known);
        // Full: see QUESTIONS_MAX. Closed: the process ends.
        let _ = self.0.sender.try_send(Inquiry { reply_to: reply_to.clone(), text: text.clone() });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn question(id: usize) -> PublishedInquiry {
        PublishedInquiry {
            id: id.to_string(),
            reply_to: "updates.answers.q".to_owned(),
            text: "status".to_owned(),
        }
    }

    #[test]
    fn a_question_is_taken_once_however_often_it_is_read() {
        let (questions, mut receiver) = Inquiries::new(&Names::new("updates"));
        for _ in 0..3 {
            questions.observe(&question(1));
        }
        assert_eq!(receiver.try_recv().expect("a question").text, "status");
        assert!(receiver.try_recv().is_err());
    }

    #[test]
    fn answers_go_to_a_queue_for_answers_alone() {
        let (questions, mut receiver) = Inquiries::new(&Names::new("updates"));
        for (id, reply_to) in ["", "elsewhere", "updates.l1.p000"].into_iter().enumerate() {
            questions.observe(&PublishedInquiry { reply_to: reply_to.to_owned(), ..question(id) });
        }
        let long = format!("updates.answers.{}", "x".repeat(240));
        questions.observe(&PublishedInquiry { reply_to: long, ..question(9) });
        assert!(receiver.try_recv().is_err());
    }

    #[test]
    fn what_is_too_much_or_too_long_is_passed_over() {
        let (questions, mut receiver) = Inquiries::new(&Names::new("updates"));
        questions.observe(&PublishedInquiry { text: "x".repeat(QUESTION_BYTES_MAX), ..question(0) });
        assert!(receiver.try_recv().is_err());
        for id in 0..2 * QUESTIONS_MAX {
            questions.observe(&question(id));
        }
        let taken = std::iter::from_fn(|| receiver.try_recv().ok()).count();
        assert_eq!(taken, QUESTIONS_MAX);
    }
}

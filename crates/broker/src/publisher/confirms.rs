//! Tells which publish a confirm or a return belongs to.
//!
//! lapin 4.12 attaches a returned message to whichever confirm comes next on the channel
//! (`Acknowledgements::complete_pending`), so with many unconfirmed at once `Ack(Some(returned))` can stand at an
//! update that arrived, and `Ack(None)` at the one that did not. RabbitMQ sends the return of a message before its
//! confirm, and at most one update per record is unconfirmed: so the returned record key names the update, once
//! every confirm that was given out earlier has been looked at. That is what this file waits for.

use std::collections::HashSet;
use std::future::Future;
use std::pin::Pin;

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;

use lanekeeper_core::publish::outbox::{PublishId, Refusal};
use lanekeeper_core::update::RecordKey;

/// The answer to one publish, as the client library gives it.
#[derive(Debug)]
pub(super) struct RawAnswer<E> {
    pub(super) record_key: RecordKey,
    pub(super) in_flight: PublishId,
    /// Positive, negative, or the connection or channel is gone.
    pub(super) confirm: Result<bool, E>,
    /// Record key of the returned message that came with it: of this publish or of another one.
    pub(super) returned: Option<String>,
}

/// What became of one publish.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum BrokerAnswer<E> {
    Confirmed,
    Refused(Refusal),
    Lost(E),
}

/// The answer to one publish.
#[derive(Debug)]
pub(super) struct AnsweredPublish<E> {
    pub(super) record_key: RecordKey,
    pub(super) in_flight: PublishId,
    pub(super) answer: BrokerAnswer<E>,
}

enum ConfirmStep<E> {
    RawAnswer(RawAnswer<E>),
    Barrier,
}

/// The publishes of one channel that have not been answered.
pub(super) struct Confirms<E> {
    steps: FuturesUnordered<Pin<Box<dyn Future<Output = ConfirmStep<E>> + Send>>>,
    /// In the air: neither in `before`, `after` nor `unclear`.
    flying: usize,
    /// Seen before the barrier was set; decided when it is passed. A barrier stands exactly while this holds some.
    before: Vec<RawAnswer<E>>,
    /// Seen since.
    after: Vec<RawAnswer<E>>,
    /// Positive, but they brought another record's return: their own may still be to come.
    unclear: Vec<RawAnswer<E>>,
    /// Record keys returned, not yet matched.
    returned: HashSet<String>,
}

impl<E: Send + 'static> Confirms<E> {
    pub(super) fn new() -> Self {
        Self {
            steps: FuturesUnordered::new(),
            flying: 0,
            before: Vec::new(),
            after: Vec::new(),
            unclear: Vec::new(),
            returned: HashSet::new(),
        }
    }

    /// Adds a publish. Polled for the first time by [`Confirms::answered`], in the order added.
    pub(super) fn push(&mut self, in_flight: impl Future<Output = RawAnswer<E>> + Send + 'static) {
        self.flying += 1;
        self.steps.push(Box::pin(async move { ConfirmStep::RawAnswer(in_flight.await) }));
    }

    /// Every publish added is answered.
    pub(super) fn is_empty(&self) -> bool {
        self.flying + self.before.len() + self.after.len() + self.unclear.len() == 0
    }

    /// Some answers are only clear once everything in the air has landed: publish nothing further until then.
    pub(super) fn must_settle(&self) -> bool {
        !self.unclear.is_empty()
    }

    /// The next answers; never returns while there are none. Dropping the future loses nothing.
    pub(super) async fn answered(&mut self) -> Vec<AnsweredPublish<E>> {
        loop {
            match self.steps.next().await {
                None => std::future::pending().await,
                Some(ConfirmStep::RawAnswer(raw)) => {
                    self.flying -= 1;
                    self.returned.extend(raw.returned.clone());
                    if self.before.is_empty() {
                        self.before.push(raw);
                        self.set_barrier();
                    } else {
                        self.after.push(raw);
                    }
                }
                Some(ConfirmStep::Barrier) => {
                    let due = std::mem::replace(&mut self.before, std::mem::take(&mut self.after));
                    if !self.before.is_empty() {
                        self.set_barrier();
                    }
                    let answers = self.decide(due);
                    if !answers.is_empty() {
                        return answers;
                    }
                }
            }
        }
    }

    /// A future that is ready at once. `FuturesUnordered` polls what was woken first in, first out, and a confirm
    /// wakes its future before the next one is given out: so when the barrier comes up, every confirm that was
    /// given out before the ones seen so far has been seen too.
    fn set_barrier(&mut self) {
        self.steps.push(Box::pin(async { ConfirmStep::Barrier }));
    }

    fn decide(&mut self, due: Vec<RawAnswer<E>>) -> Vec<AnsweredPublish<E>> {
        let mut answers = Vec::with_capacity(due.len());
        let earlier = std::mem::take(&mut self.unclear);
        for raw in earlier.into_iter().chain(due) {
            let own = self.returned.remove(raw.record_key.as_str());
            let answer = match raw.confirm {
                Err(fault) => BrokerAnswer::Lost(fault),
                Ok(false) => BrokerAnswer::Refused(Refusal::Nacked),
                Ok(true) if own => BrokerAnswer::Refused(Refusal::Unroutable),
                // As many confirms as returns remain, so with none in the air no return is left either.
                Ok(true) if raw.returned.is_some() && self.outstanding() => {
                    self.unclear.push(raw);
                    continue;
                }
                Ok(true) => BrokerAnswer::Confirmed,
            };
            answers.push(AnsweredPublish { record_key: raw.record_key, in_flight: raw.in_flight, answer });
        }
        answers
    }

    /// Some confirm has not been seen, or not been before the last barrier.
    fn outstanding(&self) -> bool {
        self.flying + self.before.len() > 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::FutureExt;
    use proptest::prelude::*;
    use tokio::sync::oneshot;

    type Confirm = (bool, Option<String>);

    /// Publishes `key-0` to `key-n`, then gives out confirms as lapin does: the returns queue up, and each confirm
    /// takes the oldest one. `polls` says after which confirms the publisher looks.
    fn answers(count: usize, unroutable: &[bool], order: &[usize], polls: &[bool]) -> Vec<bool> {
        let mut confirms = Confirms::<()>::new();
        let mut senders: Vec<Option<oneshot::Sender<Confirm>>> = Vec::new();
        for index in 0..count {
            let (sender, receiver) = oneshot::channel::<Confirm>();
            senders.push(Some(sender));
            confirms.push(async move {
                let (confirm, returned) = receiver.await.unwrap();
                let record_key = RecordKey::new(format!("key-{index}")).unwrap();
                RawAnswer { record_key, in_flight: PublishId(index as u64), confirm: Ok(confirm), returned }
            });
        }
        let mut arrived = vec![None; count];
        let mut look = |confirms: &mut Confirms<()>| {
            while let Some(answers) = confirms.answered().now_or_never() {
                for answered in answers {
                    let index = usize::try_from(answered.in_flight.0).unwrap();
                    assert!(arrived[index].is_none(), "answered once");
                    arrived[index] = Some(answered.answer == BrokerAnswer::Confirmed);
                }
            }
        };
        // The worst order for us: all returns first, so that each confirm brings another one's.
        let mut waiting: std::collections::VecDeque<String> =
            (0..count).filter(|index| unroutable[*index]).map(|index| format!("key-{index}")).collect();
        for (index, poll) in order.iter().zip(polls) {
            senders[*index].take().unwrap().send((true, waiting.pop_front())).unwrap();
            if *poll {
                look(&mut confirms);
            }
        }
        look(&mut confirms);
        assert!(confirms.is_empty());
        arrived.into_iter().map(|answer| answer.expect("answered")).collect()
    }

    #[test]
    fn a_return_that_comes_with_another_updates_confirm_is_matched_by_its_record() {
        assert_eq!(answers(2, &[false, true], &[0, 1], &[true, true]), [true, false]);
        assert_eq!(answers(2, &[false, true], &[0, 1], &[false, false]), [true, false]);
        assert_eq!(answers(3, &[false, true, true], &[0, 2, 1], &[true, true, true]), [true, false, false]);
    }

    proptest! {
        #[test]
        fn exactly_the_returned_updates_are_refused(
            unroutable in prop::collection::vec(any::<bool>(), 8),
            order in Just((0..8).collect::<Vec<usize>>()).prop_shuffle(),
            polls in prop::collection::vec(any::<bool>(), 8),
        ) {
            let expected: Vec<bool> = unroutable.iter().map(|unroutable| !unroutable).collect();
            prop_assert_eq!(answers(8, &unroutable, &order, &polls), expected);
        }
    }
}
